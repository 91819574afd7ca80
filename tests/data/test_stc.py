"""ShanghaiTech Campus as it is downloaded: what is listed, and the masks of its test videos."""

import io
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image

from configs import datasets
from flowad_jax.data import sources, stc
from flowad_jax.errors import UserError
from tests.data.layouts_more import BRIGHTER, STREET, write_stc

LABELS, MASKS = "testing/test_frame_mask/{}.npy", "testing/test_pixel_mask/{}.npy"
CAR = np.zeros(STREET[::-1], bool)
CAR[20:30, 40:44] = True


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Nothing may change it but the decoding of its videos."""
    root = tmp_path_factory.mktemp("stc") / "shanghaitech"
    write_stc(root)
    return root


@pytest.fixture
def root(tmp_path):
    path = tmp_path / "shanghaitech"
    write_stc(path)
    return path


def names(source):
    return ["/".join(path.split("/")[-2:]) for path in source.paths]


def test_training_frames_come_video_after_video(written):
    train = stc.build(written, "01", "train")
    assert names(train) == [f"01_00{v}/{i:08d}.jpg" for v in (1, 2) for i in range(6)]
    assert set(train.kinds) == {"good"}
    assert not train.has_masks
    levels = [train[i].image.mean() for i in range(12)]
    np.testing.assert_allclose(levels, [*BRIGHTER * np.arange(6.0)] * 2, atol=3)
    assert names(stc.build(written, "02", "train"))[0] == "02_001/00000000.jpg"


def test_labels_and_masks_of_test_frames(written):
    test = stc.build(written, "01", "test")
    assert names(test)[4:6] == ["01_0014/004.jpg", "01_0015/000.jpg"]
    assert test.labels.tolist() == [0, 0, 1, 1, 1, 0, 0, 1, 1]
    assert test.labels.dtype == np.int32
    assert test.kinds == ["anomaly" if label else "good" for label in test.labels]
    assert test.has_masks
    np.testing.assert_array_equal(test[8].mask, CAR)
    assert not test[1].mask.any()  # although the masks mark it
    assert test[8].path.endswith("01_0015/003.jpg")
    assert abs(test[8].image[0, 0, 0] - 3 * BRIGHTER) < 4
    counts = {"images": 9, "good": 4, "anomalous": 5, "masks": True}
    assert test.describe() == {**counts, "kinds": {"anomaly": 5, "good": 4}}


def test_every_nth_frame_keeps_its_label_and_mask(root):
    masks = np.load(root / MASKS.format("01_0014"))
    masks[4, 0, 0] = 7
    np.save(root / MASKS.format("01_0014"), masks)
    test = stc.build(root, "01", "test", every=4)
    assert names(test) == ["01_0014/000.jpg", "01_0014/004.jpg", "01_0015/000.jpg"]
    assert test.labels.tolist() == [0, 1, 0]
    assert test[1].mask.sum() == CAR.sum() + 1
    train = stc.build(root, "01", "train", every=4)
    assert names(train)[:3] == ["01_001/00000000.jpg", "01_001/00000004.jpg", "01_002/00000000.jpg"]
    assert len(stc.build(root, "01", "train")) == 12  # all were decoded


def test_frames_are_in_the_order_of_their_numbers(root):
    for folder in ("01_0014", "01_0015"):
        frame = root / "testing/frames" / folder / "000.jpg"
        frame.rename(frame.with_name("1000.jpg"))
    assert names(stc.build(root, "01", "test"))[3:5] == ["01_0014/004.jpg", "01_0014/1000.jpg"]


def test_a_source_may_be_copied_and_shared(written):
    test = stc.build(written, "01", "test")
    again = pickle.loads(pickle.dumps(test))
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(test, pool.map(again.__getitem__, range(len(again))), strict=False):
            np.testing.assert_array_equal(one.image, other.image)
            np.testing.assert_array_equal(one.mask, other.mask)


def test_masks_may_be_done_without(root):
    auto = stc.build(root, "01", "test", masks="auto")
    assert auto.has_masks
    (root / MASKS.format("01_0014")).unlink()
    for rule in ("require", "auto"):
        with pytest.raises(UserError, match=r"01_0014\.npy' is missing: .*data\.options\.masks"):
            stc.build(root, "01", "test", masks=rule)
    none = stc.build(root, "01", "test", masks="none")
    assert not none.has_masks
    assert none.labels.tolist() == auto.labels.tolist()
    assert not none[8].mask.any()
    (root / MASKS.format("01_0015")).unlink()
    assert not stc.build(root, "01", "test", masks="auto").has_masks
    with pytest.raises(UserError, match=r"data\.options\.masks='some' is unknown"):
        stc.build(root, "01", "train", masks="some")


def test_a_normal_video_needs_no_masks(root):
    (root / MASKS.format("01_0014")).unlink()
    np.save(root / LABELS.format("01_0014"), np.zeros(5, np.int64))
    test = stc.build(root, "01", "test")
    assert test.has_masks
    assert test.labels.sum() == 2


def test_categories_are_cameras_with_ground_truth(root):
    videos = root / "training" / "videos"
    (videos / "13_001.avi").write_bytes((videos / "02_001.avi").read_bytes())
    (root / "testing" / "frames" / "12_0142").mkdir()
    assert stc.categories(root) == stc.categories(root.parent) == ["01", "02", "12"]
    assert stc.build(root.parent, "01", "test").paths == stc.build(root, "01", "test").paths


def array(values):
    file = io.BytesIO()
    np.save(file, np.asarray(values))
    return file.getvalue()


WHOLE = array(np.zeros((5, *STREET[::-1]), np.uint8))
ZIPPED = io.BytesIO()
np.savez(ZIPPED, labels=np.zeros(5))


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        (LABELS, array([0, 1]), r"array of shape \(2,\), but '.*01_0014' holds 5 frames"),
        (LABELS, array(np.zeros((5, 1))), r"array of shape \(5, 1\)"),
        (LABELS, array([0, 0, 0, 2, 1]), "labels other than 0 and 1"),
        (LABELS, array([0, 0, 0, np.nan, 1]), "labels other than 0 and 1"),
        (LABELS, array(["0"] * 5), "no array of numbers but <U1"),
        (LABELS, array(3), "no array of numbers"),
        (LABELS, array([None] * 5), r"cannot read .*objects"),
        (LABELS, b"", "cannot read "),
        (LABELS, b"\x93NUMPY\x01\x00v\x00{'descr': nonsense", "cannot read "),
        (LABELS, ZIPPED.getvalue(), "cannot read "),
        (MASKS, array(np.zeros((4, 64, 96))), r"shape \(4, 64, 96\), .* of shape \(5, 64, 96\)"),
        (MASKS, array(np.zeros((5, 96, 64))), r"shape \(5, 96, 64\), .*data\.options\.masks"),
        (MASKS, array(np.zeros((5, 64))), r"shape \(5, 64\)"),
        (MASKS, WHOLE[:-1], "cannot read "),
        (MASKS, WHOLE[:50], "cannot read "),
        ("testing/frames/{}/000.jpg", b"\xff\xd8", r"cannot read '.*000\.jpg'"),
    ],
)
def test_a_damaged_file_is_named(root, file, content, message):
    path = root / file.format("01_0014")
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        stc.build(root, "01", "test")
    assert path.name in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_change_later_are_named(root):
    test = stc.build(root, "01", "test")
    masks = root / MASKS.format("01_0014")
    masks.write_bytes(array(np.zeros((3, 64, 96))))
    with pytest.raises(UserError, match=r"01_0014\.npy' holds masks of shape \(3, 64, 96\)"):
        test[4]
    masks.unlink()
    with pytest.raises(UserError, match=r"cannot read '.*01_0014\.npy'"):
        test[4]
    Image.new("RGB", (8, 8)).save(test.paths[8])
    with pytest.raises(UserError, match=r"frames as '.*003\.jpg' are of shape \(4, 8, 8\)"):
        test[8]


def no_frames(root):
    for file in (root / "testing/frames/01_0015").iterdir():
        file.unlink()


def no_folder(root):
    (root / "testing/frames/01_0015").rename(root / "01_0015")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda root: (root / LABELS.format("01_0015")).unlink(),
            r"01_0015\.npy' is missing",
        ),
        (no_frames, "01_0015' holds no frames"),
        (no_folder, r"01_0015\.npy' has no frames beside it"),
    ],
)
def test_missing_files_are_answered_with_the_layout(root, damage, message):
    damage(root)
    with pytest.raises(UserError, match=message + r".*\(expected {root}/training/videos/"):
        sources.build("stc", root, "01", "test")


@pytest.mark.parametrize(
    ("where", "category", "options", "message"),
    [
        ("", "1", {}, "no category '1': choices are 01 to 12"),
        ("", "", {}, "no category '': choices are 01 to 12"),
        ("", "../01", {}, r"no category '\.\./01'"),
        ("", "13", {}, "no category '13': camera 13 has no ground truth"),
        ("", "03", {}, r"no videos '.*training/videos/03_\*\.avi', nor their frames in '.*frames'"),
        ("", "02", {"split": "test"}, r"no test videos '.*testing/frames/02_\*'"),
        ("", "01", {"split": "val"}, "split='val' is unknown"),
        ("", "01", {"every": 0}, r"data\.options\.every=0 takes no frame"),
        ("", "01", {"quality": 101}, r"data\.options\.quality=101 is unknown to JPEG"),
        ("training", "01", {}, "training' has neither training nor testing: it holds "),
        ("nowhere", "01", {}, "has no 'nowhere'"),
    ],
)
def test_wrong_place(written, where, category, options, message):
    arguments = {"split": "train", **options}
    with pytest.raises(UserError, match=message) as caught:
        stc.build(written / where, category, **arguments)
    assert "\n" not in str(caught.value)


def test_the_recipe_shows_the_options():
    assert datasets.options("stc").to_dict() == stc.build.__kwdefaults__
