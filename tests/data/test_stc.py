"""ShanghaiTech Campus: what is listed, and the labels and masks of its test videos."""

import io

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import sources
from flowad_jax.errors import UserError
from tests.data import layouts

LABELS, MASKS = "testing/test_frame_mask/{}.npy", "testing/test_pixel_mask/{}.npy"
HEIGHT, WIDTH = layouts.DEFECT.shape


@pytest.fixture
def root(tmp_path):
    layouts.write_stc(tmp_path)
    return tmp_path / "shanghaitech"


def build(root, split="test", category="01", **options):
    return sources.build("stc", root, category, split, **options)


def names(source):
    return ["/".join(path.split("/")[-2:]) for path in source.paths]


def test_training_frames_come_video_after_video(root):
    layouts.write_video(root / "training/videos/02_001.avi")
    train = build(root, "train")
    assert names(train) == [f"01_00{v}/{i:08d}.jpg" for v in (1, 2) for i in range(2)]
    levels = [record.image.mean() for record in train]
    np.testing.assert_allclose(levels, [0, layouts.BRIGHTER] * 2, atol=3)
    assert names(build(root, "train", "02"))[0] == "02_001/00000000.jpg"


def test_every_nth_frame_keeps_its_label_and_mask(root):
    masks = np.load(root / MASKS.format("01_0014"))
    masks[2, 0, 0] = 7
    np.save(root / MASKS.format("01_0014"), masks)
    test = build(root, every=2)
    assert names(test) == ["01_0014/000.jpg", "01_0014/002.jpg", "01_0015/000.jpg"]
    assert test.labels.tolist() == [0, 1, 1]
    assert test[1].mask.sum() == layouts.DEFECT.sum() + 1
    train = build(root, "train", every=2)
    assert names(train) == ["01_001/00000000.jpg", "01_002/00000000.jpg"]
    assert len(build(root, "train")) == 4  # all were decoded


def test_frames_are_in_the_order_of_their_numbers(root):
    frames = root / "testing/frames/01_0014"
    (frames / "000.jpg").rename(frames / "1000.jpg")
    assert names(build(root))[1:3] == ["01_0014/002.jpg", "01_0014/1000.jpg"]


def test_masks_may_be_done_without(root):
    labels = build(root).labels.tolist()
    (root / MASKS.format("01_0014")).unlink()
    for rule in ("require", "auto"):
        with pytest.raises(UserError, match=r"01_0014\.npy' is missing: .*data\.options\.masks"):
            build(root, masks=rule)
    none = build(root, masks="none")
    assert (none.has_masks, none.labels.tolist()) == (False, labels)
    np.save(root / LABELS.format("01_0014"), np.zeros(3, np.int64))
    assert build(root).has_masks  # a normal video needs none
    (root / MASKS.format("01_0015")).unlink()
    assert not build(root, masks="auto").has_masks


def test_categories_are_cameras_with_ground_truth(root):
    videos = root / "training" / "videos"
    for camera in ("13", "02"):
        (videos / f"{camera}_001.avi").write_bytes(b"")
    (root / "testing" / "frames" / "12_0142").mkdir()
    assert sources.categories("stc", root) == ["01", "02", "12"]


def array(values):
    file = io.BytesIO()
    np.save(file, np.asarray(values))
    return file.getvalue()


WHOLE = array(np.zeros((3, HEIGHT, WIDTH), np.uint8))
ZIPPED = io.BytesIO()
np.savez(ZIPPED, labels=np.zeros(3))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (LABELS, array([0, 1]), r"array of shape \(2,\), but '.*01_0014' holds 3 frames"),
        (LABELS, array(np.zeros((3, 1))), r"array of shape \(3, 1\)"),
        (LABELS, array([0, 2, 1]), "labels other than 0 and 1"),
        (LABELS, array([0, np.nan, 1]), "labels other than 0 and 1"),
        (LABELS, array(["0"] * 3), r"no array of numbers but <U1"),
        (LABELS, array(3), "no array of numbers"),
        (LABELS, array([None] * 3), r"cannot read .*objects"),
        (LABELS, b"", "cannot read "),
        (LABELS, b"\x93NUMPY\x01\x00v\x00{'descr': nonsense", "cannot read "),
        (LABELS, ZIPPED.getvalue(), "cannot read "),
        (MASKS, array(np.zeros((2, 48, 64))), r"shape \(2, 48, 64\), .* of shape \(3, 48, 64\)"),
        (MASKS, array(np.zeros((3, 64, 48))), r"shape \(3, 64, 48\), .*data\.options\.masks"),
        (MASKS, array(np.zeros((3, 64))), r"shape \(3, 64\)"),
        (MASKS, WHOLE[:-1], "cannot read "),
        (MASKS, WHOLE[:50], "cannot read "),
        ("testing/frames/{}/000.jpg", b"\xff\xd8", r"cannot read '.*000\.jpg'"),
    ],
)
def test_a_damaged_file_is_named(root, file, content, message):
    path = root / file.format("01_0014")
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        build(root)
    assert path.name in str(caught.value)


def test_files_that_change_later_are_named(root):
    test = build(root)
    masks = root / MASKS.format("01_0014")
    masks.write_bytes(array(np.zeros((2, 48, 64))))
    with pytest.raises(UserError, match=r"01_0014\.npy' holds masks of shape \(2, 48, 64\)"):
        test[2]
    masks.unlink()
    with pytest.raises(UserError, match=r"cannot read '.*01_0014\.npy'"):
        test[2]
    Image.new("RGB", (8, 8)).save(test.paths[3])
    with pytest.raises(UserError, match=r"frames as '.*000\.jpg' are of shape \(1, 8, 8\)"):
        test[3]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        (LABELS.format("01_0015"), r"01_0015\.npy' is missing: only it tells"),
        ("testing/frames/01_0015/000.jpg", "01_0015' holds no frames"),
        ("testing/frames/01_0015", r"01_0015\.npy' has no frames beside it"),
    ],
)
def test_missing_files_are_answered_with_the_layout(root, gone, message):
    (root / gone).rename(root / "elsewhere")
    with pytest.raises(UserError, match=message + r".*\(expected {root}/training/videos/"):
        build(root)


@pytest.mark.parametrize(
    ("where", "options", "message"),
    [
        ("", {"category": "1"}, "no category '1': choices are 01 to 12"),
        ("", {"category": "13"}, "no category '13': camera 13 has no ground truth"),
        (
            "",
            {"category": "03"},
            r"no videos '.*videos/03_\*\.avi', nor their frames in '.*frames'",
        ),
        ("", {"category": "02", "split": "test"}, r"no test videos '.*testing/frames/02_\*'"),
        ("", {"every": 0}, r"data\.options\.every=0: must be 1 or more"),
        ("", {"quality": 101}, r"data\.options\.quality=101: must be 100 or less"),
        ("training", {}, "training' has neither training nor testing: it holds "),
    ],
)
def test_wrong_place(root, where, options, message):
    with pytest.raises(UserError, match=message):
        build(root / where, **{"split": "train", **options})
