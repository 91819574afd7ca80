"""Images that are large: the same scores from files and arrays, and few pixels at a time."""

import weakref

import numpy as np
import pytest
import tifffile
from PIL import Image

from flowad_jax.data import images, transforms
from flowad_jax.data.images import read_image
from flowad_jax.inference import job
from flowad_jax.inference.prediction import Prediction
from tests.inference.stub import Bright, lines, picture, predict, use


@pytest.fixture(name="loaded")
def _loaded(trained, monkeypatch):
    """The detector of the run, whatever the workdir."""
    return use(monkeypatch, trained)


def texture(size, seed=0, colour=False):
    shape = (*size, 3) if colour else size
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


@pytest.mark.parametrize(("size", "colour"), [((700, 40), 0), ((40, 700), 1), ((200, 190), 1)])
@pytest.mark.parametrize("tile", [False, True])
def test_files_and_arrays_have_equal_scores(trained, tmp_path, monkeypatch, size, colour, tile):
    for module in (images, transforms):
        monkeypatch.setattr(module, "AT_ONCE", 10_000)
    monkeypatch.setattr("flowad_jax.data.decoded_image.BAND", 3000)
    Image.fromarray(texture(size, colour=colour)).save(tmp_path / "a.png")
    by_path, by_pixels = (
        trained.predict([form], tile=tile)[0]
        for form in (tmp_path / "a.png", read_image(tmp_path / "a.png"))
    )
    assert by_path.score == by_pixels.score
    np.testing.assert_array_equal(by_path.map, by_pixels.map)
    assert by_path.regions == by_pixels.regions


@pytest.mark.parametrize("tile", [False, True])
def test_what_is_kept_changes_no_output(loaded, tmp_path, monkeypatch, tile):
    (tmp_path / "in").mkdir()
    for index in range(8):
        pixels = texture((60 + index, 90), index, colour=index % 2 == 0)
        Image.fromarray(pixels).save(tmp_path / "in" / f"{index}.png")
    found = []
    for kept in (job.KEPT, 60_000, 0):
        monkeypatch.setattr(job, "KEPT", kept)
        assert predict(tmp_path, tile=tile) == 0
        files = sorted((tmp_path / "out").rglob("*.[pt]*[gf]"))
        drawn = {path.stem.split("-")[0] + path.suffix: path.read_bytes() for path in files}
        rows = [{k: line[k] for k in ("path", "score", "regions")} for line in lines(tmp_path)]
        found.append((rows, drawn, len(files)))
    assert found[0][2] == 24
    assert found[0] == found[1] == found[2]


def test_an_image_that_changes_before_it_is_drawn_gets_no_wrong_picture(
    loaded, tmp_path, monkeypatch, capsys
):
    for name in "ab":
        picture(tmp_path / "in" / f"{name}.png")
    monkeypatch.setattr(job, "KEPT", 0)
    read = job.read_image

    def change(path, white):
        if path.name == "a.png":
            picture(path, size=(40, 60))
        return read(path, white)

    monkeypatch.setattr(job, "read_image", change)
    assert predict(tmp_path) == job.FAULTY
    assert "a.png': it changed meanwhile" in capsys.readouterr().err
    assert ["error" in line for line in lines(tmp_path)] == [True, False]


def test_full_size_pixels_are_held_one_at_a_time(tmp_path, monkeypatch):
    for index in range(9):
        picture(tmp_path / "in" / f"{index}.png")
    alive, most, batches = [], [], []

    class Large(Bright):
        """Has maps that are counted as long as they live."""

        batch_size = 4

        def judge(self, images):
            batches.append([(image.size, image.pixels) for image in images])
            for image in images:
                values = np.zeros(image.size, np.float32)
                alive.append(weakref.ref(values))
                most.append(sum(ref() is not None for ref in alive))
                yield Prediction(1.0, 1.0, False, values, ())

    use(monkeypatch, Large())
    monkeypatch.setattr(job, "KEPT", 0)
    assert predict(tmp_path) == 0
    assert batches == [[((20, 30), None)] * 4] * 2 + [[((20, 30), None)]]
    assert max(most) == 2, "the next one is made before this one goes"


@pytest.mark.parametrize("name", ["scan.tif", "scan.png", "scan.bmp"])
def test_a_line_scan_above_the_limit_is_judged_in_tiles(loaded, tmp_path, monkeypatch, name):
    pixels, path = texture((900, 60), colour=True), tmp_path / "in" / name
    path.parent.mkdir()
    if name.endswith("tif"):
        tifffile.imwrite(path, pixels, rowsperstrip=16, photometric="rgb")
    else:
        Image.fromarray(pixels).save(path)
    expected = loaded.predict([pixels], tile=True)[0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # Pillow refuses from twice that on
    assert predict(tmp_path) == job.FAULTY
    assert "more than 20000 pixels" in lines(tmp_path)[0]["error"]
    assert predict(tmp_path, tile=True, map_format="npy") == 0
    (line,) = lines(tmp_path)
    assert line["score"] == expected.score
    np.testing.assert_array_equal(np.load(tmp_path / "out" / line["map"]), expected.map)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with Image.open(tmp_path / "out" / line["overlay"]) as overlay:
        assert overlay.height == 900 + 24, "a line of text below"
        assert 60 < overlay.width < 400
