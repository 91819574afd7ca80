"""Videos become frames once, whole or not at all, and never all of them in memory."""

import gc
import io
import json
import logging
import os
import shlex
import shutil
import sys
import types
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest
from PIL import Image

from flowad_jax.data import sources, video_files
from flowad_jax.doctor import __main__ as doctor
from flowad_jax.errors import UserError
from tests.data.layouts import write_stc, write_video


@pytest.fixture
def root(tmp_path):
    write_stc(tmp_path)
    return tmp_path / "shanghaitech"


def train(root, **options):
    return sources.build("stc", root, "01", "train", **options)


def listing(folder):
    return sorted(path.name for path in folder.iterdir())


def test_frames_are_written_once(root):
    source = train(root)
    frames = root / "training" / "frames"
    assert listing(frames) == ["01_001", "01_002"]
    assert listing(frames / "01_001") == ["00000000.jpg", "00000001.jpg", "made.json"]
    assert json.loads((frames / "01_001" / "made.json").read_text()) == {"quality": 95, "frames": 2}
    assert os.stat(frames / "01_001").st_mode & 0o777 == 0o755
    for video in (root / "training" / "videos").iterdir():
        video.write_bytes(b"")  # would be refused
    assert train(root).paths == source.paths


def test_the_frames_may_lie_elsewhere(root, tmp_path):
    source = train(root, frames=str(tmp_path / "a" / "frames"))
    assert source.paths[0] == str(tmp_path / "a/frames/01_001/00000000.jpg")
    assert listing(root / "training") == ["videos"]
    (tmp_path / "file").touch()
    for file in ("file", "file/below"):
        with pytest.raises(UserError, match=r"cannot write frames to '.*file.*data\.options\.fra"):
            train(root, frames=str(tmp_path / file))


def test_the_quality_is_that_of_the_files_and_another_one_is_refused(root, tmp_path):
    poor = train(root, quality=10, frames=str(tmp_path / "poor"))
    with Image.open(poor.paths[1]) as one, Image.open(train(root).paths[1]) as other:
        assert one.quantization[0][0] > other.quantization[0][0]
    with pytest.raises(UserError, match=r"made with quality 10, not 95: remove '.*poor'"):
        train(root, frames=str(tmp_path / "poor"))


def test_frames_that_others_made_are_used_as_they_are(root, monkeypatch, caplog):
    folder = root / "training" / "frames" / "01_002"
    folder.mkdir(parents=True)
    for number in (1, 2):
        Image.new("RGB", (64, 48)).save(folder / f"frame_{number}.jpg")
    (folder.parent / "01_003").mkdir()  # of a video that is gone
    shutil.copy(folder / "frame_1.jpg", folder.parent / "01_003")
    with caplog.at_level(logging.INFO, "flowad_jax"):
        names = [path.split("/")[-2:] for path in train(root, quality=70).paths]
    assert names[2:4] == [["01_002", "frame_1.jpg"], ["01_002", "frame_2.jpg"]]
    assert names[4:] == [["01_003", "frame_1.jpg"]]
    assert "decoding 1 videos into" in caplog.text
    shutil.rmtree(root / "training" / "videos")
    monkeypatch.setitem(sys.modules, "av", None)
    assert len(train(root, quality=70)) == 5


def test_an_empty_folder_is_no_video(root):
    folder = root / "training" / "frames" / "01_002"
    folder.mkdir(parents=True)
    assert len(train(root)) == 4
    (folder.parent / "01_005").mkdir()
    with pytest.raises(UserError, match="01_005' holds no frames: remove it or fill it"):
        train(root)


def test_frames_that_are_gone_are_noticed(root):
    os.unlink(train(root).paths[1])
    with pytest.raises(UserError, match=r"01_001' has 1 frames, not 2 .*: remove '.*01_001'"):
        train(root)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"quality": "x", "frames": 6}', "[" * 9999])
def test_a_damaged_record(root, text):
    train(root)
    (root / "training/frames/01_002/made.json").write_text(text)
    with pytest.raises(UserError, match=r"made\.json.*remove '.*01_002'"):
        train(root)


def test_an_interrupted_run_leaves_nothing_that_counts(root, monkeypatch):
    save = Image.Image.save

    def interrupt(image, path, **options):
        if str(path).endswith("1.jpg"):
            raise KeyboardInterrupt
        save(image, path, **options)

    monkeypatch.setattr(Image.Image, "save", interrupt)
    with pytest.raises(KeyboardInterrupt):
        train(root)
    monkeypatch.undo()
    assert listing(root / "training" / "frames") == []
    (root / "training/frames/.unfinished-01_001-killed").mkdir()
    Image.new("RGB", (64, 48)).save(root / "training/frames/.unfinished-01_001-killed/00000000.jpg")
    assert len(train(root)) == 4


def test_a_full_disk_is_one_line(root, monkeypatch):
    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match=r"cannot write frames to .*: No space left on device: set"):
        train(root)
    assert listing(root / "training" / "frames") == []


def test_whoever_is_slower_discards_its_own(root, monkeypatch):
    decode = video_files._decode
    others = root / "training" / "frames" / "01_001"

    def late(*arguments):
        others.mkdir()
        Image.new("RGB", (64, 48)).save(others / "first.jpg")
        monkeypatch.setattr(video_files, "_decode", decode)
        return decode(*arguments)

    monkeypatch.setattr(video_files, "_decode", late)
    assert [path.split("/")[-1] for path in train(root).paths[:2]] == ["first.jpg", "00000000.jpg"]
    assert listing(root / "training" / "frames") == ["01_001", "01_002"]


def test_several_at_the_same_time(root):
    with ThreadPoolExecutor(4) as pool:
        sources = list(pool.map(lambda _: train(root), range(4)))
    assert len({tuple(source.paths) for source in sources}) == 1
    assert listing(root / "training" / "frames") == ["01_001", "01_002"]
    assert all(source[3].image.shape == (48, 64, 3) for source in sources)


class FakeFrame:
    alive = most = 0

    def __init__(self):
        FakeFrame.alive += 1
        FakeFrame.most = max(FakeFrame.alive, FakeFrame.most)

    def __del__(self):
        FakeFrame.alive -= 1

    def to_image(self):
        return Image.new("RGB", (4, 4))


class FakeContainer(io.StringIO):
    streams = types.SimpleNamespace(video=[types.SimpleNamespace(frames=50)])

    def decode(self, _):
        return (FakeFrame() for _ in range(50))


def test_frames_are_never_all_in_memory(tmp_path, monkeypatch):
    gc.collect()
    monkeypatch.setattr(av, "open", lambda _: FakeContainer())
    assert video_files._decode(Path("a.avi"), tmp_path, 90) == 50
    assert len(video_files.in_order(tmp_path)) == 50
    assert FakeFrame.most <= 2  # the next one is made before the last one is let go


def half(path):
    write_video(path, 60)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def sound(path):
    with av.open(str(path), "w", format="avi") as container:
        stream = container.add_stream("pcm_s16le", rate=8000)
        frame = av.AudioFrame(format="s16", layout="mono", samples=80)
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))


@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (half, r"\d+ of 60 frames can be decoded"),
        (sound, "it has no pictures"),
        (lambda path: path.write_bytes(b""), "Invalid data"),
        (lambda path: path.write_bytes(b"RIFF" * 200), "Invalid data"),
    ],
)
def test_a_damaged_video_is_named_and_leaves_no_frames(root, damage, why):
    damage(root / "training" / "videos" / "01_002.avi")
    with pytest.raises(UserError, match=rf"01_002\.avi' is damaged \({why}.*\): unpack"):
        train(root)
    assert listing(root / "training" / "frames") == ["01_001"]


def test_a_few_frames_that_show_nothing_are_forgiven(root, monkeypatch, caplog):
    monkeypatch.setattr(video_files, "_DECODABLE", 0.1)
    half(root / "training" / "videos" / "01_002.avi")
    assert 6 <= len(train(root)) - 2 < 60
    assert "of 60 frames can be decoded" in caplog.text


def test_without_pyav_the_extra_is_named(root, monkeypatch):
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(UserError, match=r'01_001\.avi.*pip install "flowad_jax\[video\]"'):
        train(root)
    assert len(sources.build("stc", root, "01", "test")) == 4


def test_what_may_not_be_decoded_is_refused_with_the_command(root, tmp_path):
    options = {"decode": False, "quality": 70, "frames": str(tmp_path / "two words")}
    with pytest.raises(UserError, match="lacks the frames of 2 videos such as '01_00") as caught:
        train(root, **options)
    assert not (tmp_path / "two words").exists()
    words = shlex.split(str(caught.value).partition("flowad doctor ")[2])
    with pytest.raises(SystemExit):
        doctor.main(words)
    assert len(train(root, **options)) == 4
