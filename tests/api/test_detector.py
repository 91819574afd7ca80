"""flowad_jax.Detector: decisions, metrics, a folder to keep."""

import json

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

import flowad_jax
from flowad_jax.data.images import read_image
from flowad_jax.data.pixels import to_pixels
from flowad_jax.errors import UserError
from tests.api.conftest import U8
from tests.conftest import write_image


def test_an_image_may_be_a_file_a_pil_image_or_an_array(detector, files):
    pixels = read_image(files[3])
    grey = pixels[..., 0]
    kinds = [
        *(files[3], str(files[3]), Image.open(files[3]), Image.fromarray(pixels), pixels, grey),
        *(grey[..., None], np.dstack([pixels, grey * 0]), pixels / 255, pixels / np.float32(255)),
        *(grey.astype(np.uint16) * 257, jnp.asarray(pixels), jnp.asarray(grey / 255)),
        Image.fromarray(grey.astype(np.uint16) * 257),
    ]
    found = detector.predict(kinds)
    alone = detector.predict(files[3]).score
    np.testing.assert_allclose([prediction.score for prediction in found], alone, rtol=1e-5)
    assert [prediction.path for prediction in found] == [str(files[3])] * 2 + [None] * 12


def test_a_photograph_from_pillow_is_turned_as_its_file_is(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3)).astype(np.uint8)
    tags = Image.Exif()
    tags[274] = 6
    Image.fromarray(pixels).save(tmp_path / "turned.png", exif=tags)
    opened = Image.open(tmp_path / "turned.png")
    np.testing.assert_array_equal(to_pixels(opened), read_image(tmp_path / "turned.png"))
    assert to_pixels(opened.convert("RGB")).shape == (20, 30, 3)  # what was derived stays


def test_one_gives_one_a_list_a_list_and_an_iterator_an_iterator(detector, files):
    assert isinstance(detector.predict(files[0]), flowad_jax.Prediction)
    for many in (files[:3], tuple(files[:3]), np.stack([*map(read_image, files[:3])])):
        scores = [prediction.score for prediction in detector.predict(many)]
        assert scores == [prediction.score for prediction in detector.predict(files[:3])]
    assert len(detector.predict(files[0].parent)) == 3
    assert detector.predict([]) == []
    read = []
    images = (read.append(index) or files[index % 6] for index in range(50))
    found = detector.predict(images)
    assert read == []
    next(found)
    assert len(read) == detector.batch_size < 50
    assert len([*found]) == 49
    read.clear()
    next(detector.predict((read.append(file) or file for file in files), batch_size=1))
    assert len(read) == 1


WRONG = {
    "no image": (None, "images are of type NoneType: give the path"),
    "a dict": ({"image": U8}, "images are of type dict: give"),
    "bytes": (b"png", "images are of type bytes: give"),
    "a missing file": ("nowhere.png", "there is no file 'nowhere.png'"),
    "a missing file among others": ([U8, "nowhere.png"], "image 1: there is no file 'nowhere.png'"),
    "a mask": (U8 > 0, "the image is bool of shape (8, 6, 3): give"),
    "integers": (U8.astype(int), "the image is int64 of shape (8, 6, 3): give"),
    "floats to 255": (
        U8 + np.float32(200),
        "and holds values from 200 to 200: scale it to 0 to 1, or train with white=255",
    ),
    "below zero": (U8 - 0.5, "and holds values from -0.5 to -0.5: scale it to 0 to 1"),
    "NaN": ([U8, np.full((8, 6), np.nan)], "image 1 is float64 of shape (8, 6) and holds NaN"),
    "objects": (np.array([U8, None], dtype=object), "the image is object of shape (2,)"),
    "five axes": (U8[None, None], "the image is uint8 of shape (1, 1, 8, 6, 3): give"),
    "channels first": (U8.transpose(2, 0, 1), "channels come last, as image.transpose(1, 2, 0)"),
    "no pixels": (U8[:0], "uint8 of shape (0, 6, 3): it has no pixels"),
    "a list in a list": ([[U8]], "image 0 is of type list: give"),
    "a number": (3, "images are of type int: give"),
}


@pytest.mark.parametrize(("given", "line"), WRONG.values(), ids=WRONG)
def test_what_is_no_image_is_named_with_what_is_taken(detector, given, line):
    with pytest.raises(UserError) as fault:
        detector.predict(given)
    assert line in str(fault.value)
    assert "\n" not in str(fault.value)


def test_metrics_are_those_of_the_report(detector, files, tiny_run):
    column = tiny_run[1]["columns"]["last"]
    labels = ["good"] * 3 + ["spot"] * 3
    masks = [None] * 3 + [np.zeros((40, 36), np.uint8) for _ in range(3)]
    for mask in masks[3:]:
        mask[10:20, 8:20] = 255
    found = detector.evaluate(files, labels, masks)
    assert found["image_auroc"] == pytest.approx(column["image_auroc"])
    assert 0 <= found["pixel_auroc"] <= 1
    flags = [prediction.anomalous for prediction in detector.predict(files)]
    assert found["false_alarm_rate"] == np.mean(flags[:3])
    assert found["detection_rate"] == np.mean(flags[3:])
    for same in ([0, False, 0, 1, True, 1], np.array([0, 0, 0, 1, 1, 1])):
        assert detector.evaluate(files, same, masks) == found
    assert [*detector.evaluate(files[:2], [0, 0])] == ["false_alarm_rate"]


@pytest.mark.parametrize(
    ("labels", "masks", "line"),
    [
        ([0], None, "2 images but 1 labels: give one of each"),
        ([0, 2], None, "label 1 is 2: give 0 or 'good'"),
        ([0, 1], [None], "2 images but 1 masks"),
        ([0, 1], [None, None], "mask 1 is None, but image 1 is anomalous"),
        ([0, 1], [None, np.zeros((3, 3), bool)], "mask 1 is bool of shape (3, 3): give a mask of"),
        ([0, 1], [None, np.zeros((40, 36))], "mask 1 is float64 of shape (40, 36): give a mask"),
    ],
)
def test_labels_and_masks_have_to_fit(detector, files, labels, masks, line):
    with pytest.raises(UserError) as fault:
        detector.evaluate(files[:2], labels, masks)
    assert line in str(fault.value)


def test_a_saved_detector_is_the_same_without_its_images(detector, files, tmp_path, caplog):
    strict = flowad_jax.load(detector.workdir, false_alarm_rate=0.5)
    strict.save(tmp_path / "saved")
    names = {path.name for path in (tmp_path / "saved").iterdir()}
    # Another test may have judged images of the shared run in tiles.
    assert names - {"tiled_calibration.json"} == {"config.json", "checkpoints"}
    loaded = flowad_jax.load(tmp_path / "saved")
    assert loaded.thresholds == strict.thresholds
    assert loaded.predict(files[4]).score == detector.predict(files[4]).score
    with pytest.raises(UserError, match="is not empty: save the detector into a new folder"):
        strict.save(tmp_path / "saved")
    flowad_jax.load(tmp_path / "saved", threshold=3.5).save(tmp_path / "given")
    assert "does not hold threshold=3.5: give it to load again" in caplog.text
    (tmp_path / "saved" / "config.json").unlink()
    with pytest.raises(UserError, match="is gone, which held the detector"):
        loaded.save(tmp_path / "again")


def test_the_file_of_weights_goes_with_the_detector(detector, tmp_path):
    file = tmp_path / "mine.safetensors"
    file.write_bytes(b"weights")
    with detector._predictor.model.config.encoder.unlocked() as encoder:
        before, encoder.weights = encoder.weights, str(file)
        detector.save(tmp_path / "saved")
        encoder.weights = before
    saved = json.loads((tmp_path / "saved" / "config.json").read_text())
    assert saved["encoder"]["weights"] == "mine.safetensors"
    assert (tmp_path / "saved" / "mine.safetensors").read_bytes() == b"weights"


def test_a_prediction_shows_itself(detector, files, tmp_path):
    copy = tmp_path / "<b>.png"
    copy.write_bytes(files[3].read_bytes())
    by_file, by_pixels = detector.predict(copy), detector.predict(read_image(copy))
    assert by_file.overlay().tobytes() == by_pixels.overlay().tobytes()
    assert repr(by_pixels).startswith("Prediction(")
    assert "\n" not in repr(by_file)
    assert by_file._repr_png_().startswith(b"\x89PNG")
    assert "&lt;b&gt;.png" in by_file._repr_html_()
    assert "data:image/png;base64," in by_file._repr_html_()
    assert by_file != by_pixels  # arrays inside do not matter
    write_image(copy, 1, size=(20, 20))
    with pytest.raises(UserError, match="is not the image any more"):
        by_file.overlay()
    copy.unlink()
    assert by_file._repr_png_() is None
    assert "<img" not in by_file._repr_html_()
