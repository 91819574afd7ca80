"""Images that are large: the same scores from files and arrays, and few pixels at a time."""

import json
import weakref

import numpy as np
import pytest
import tifffile
from PIL import Image

import flowad_jax
from flowad_jax.data import images, transforms
from flowad_jax.data.images import read_image
from flowad_jax.serving import command, reading, work
from flowad_jax.serving.command import Job
from flowad_jax.serving.detector import Prediction
from tests.serving.test_predict import Bright, picture, predict, use


@pytest.fixture(scope="module", name="detector")
def _detector(run):
    return flowad_jax.load(run[0] / "run")


@pytest.fixture(name="workdir")
def _workdir(run, detector, monkeypatch):
    """The run, whose detector is loaded once."""
    monkeypatch.setattr(command.detectors, "load", lambda *_: detector)
    return str(run[0] / "run")


def texture(size, seed=0, colour=False):
    shape = (*size, 3) if colour else size
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def outputs(folder):
    """Lines without times, and the bytes of all pictures."""
    lines = [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]
    pictures = {
        path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*.[pt]*[gf]"))
    }
    return [{**line, "seconds": None} for line in lines], pictures


@pytest.mark.parametrize("size", [(700, 40), (40, 700), (200, 190)])
@pytest.mark.parametrize("colour", [False, True])
@pytest.mark.parametrize("tile", [False, True])
def test_files_and_arrays_have_equal_scores(detector, tmp_path, monkeypatch, size, colour, tile):
    for module in (images, transforms):
        monkeypatch.setattr(module, "AT_ONCE", 10_000)
    monkeypatch.setattr("flowad_jax.data._image_file.BAND", 3000)
    Image.fromarray(texture(size, colour=colour)).save(tmp_path / "a.png")
    by_path, by_pixels = (
        detector.predict([form], tile=tile)[0]
        for form in (tmp_path / "a.png", read_image(tmp_path / "a.png"))
    )
    assert by_path.score == by_pixels.score
    np.testing.assert_array_equal(by_path.map, by_pixels.map)
    assert by_path.regions == by_pixels.regions


@pytest.mark.parametrize("tile", [False, True])
def test_what_is_kept_changes_no_output(workdir, tmp_path, monkeypatch, tile):
    for index in range(8):
        path = tmp_path / "in" / f"{index}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(texture((60 + index, 90), index, colour=index % 2 == 0)).save(path)
    found = []
    for kept in (reading.KEPT, 60_000, 0):
        monkeypatch.setattr(reading, "KEPT", kept)
        out = tmp_path / f"out{kept}"
        job = Job(workdir, [str(tmp_path / "in")], str(out), tile=tile)
        assert command.run(job) == 0
        found.append(outputs(out))
    assert len(found[0][1]) == 24
    assert found[0] == found[1] == found[2]


def test_an_image_that_changes_before_it_is_drawn_gets_no_wrong_picture(
    workdir, tmp_path, monkeypatch, capsys
):
    (tmp_path / "in").mkdir()
    for name in "ab":
        Image.fromarray(texture((50, 60))).save(tmp_path / "in" / f"{name}.png")
    monkeypatch.setattr(reading, "KEPT", 0)
    read = work.read_image

    def change(path, white):
        if path.name == "a.png":
            Image.fromarray(texture((40, 60))).save(path)
        return read(path, white)

    monkeypatch.setattr(work, "read_image", change)
    job = Job(workdir, [str(tmp_path / "in")], str(tmp_path / "out"))
    assert command.run(job) == command.FAULTY
    assert "a.png': it changed meanwhile" in capsys.readouterr().err
    lines, _ = outputs(tmp_path / "out")
    assert ["error" in line for line in lines] == [True, False]


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
    monkeypatch.setattr(reading, "KEPT", 0)
    assert predict(tmp_path) == 0
    assert batches == [[((20, 30), None)] * 4] * 2 + [[((20, 30), None)]]
    assert max(most) == 2, "the next one is made before this one goes"


def test_a_line_scan_above_the_limit_is_judged_in_tiles(workdir, detector, tmp_path, monkeypatch):
    pixels = texture((900, 60), colour=True)
    (tmp_path / "in").mkdir()
    tifffile.imwrite(tmp_path / "in" / "scan.tif", pixels, rowsperstrip=16, photometric="rgb")
    expected = detector.predict([pixels], tile=True)[0]
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10_000)  # Pillow refuses from twice that on
    job = Job(workdir, [str(tmp_path / "in")], str(tmp_path / "out"))
    assert command.run(job) == command.FAULTY
    assert "more than 20000 pixels" in outputs(tmp_path / "out")[0][0]["error"]
    tiled = Job(job.workdir, job.inputs, job.output, tile=True, map_format="npy")
    assert command.run(tiled) == 0
    (line,), _ = outputs(tmp_path / "out")
    assert line["score"] == expected.score
    np.testing.assert_array_equal(np.load(tmp_path / "out" / line["map"]), expected.map)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    with Image.open(tmp_path / "out" / line["overlay"]) as overlay:
        assert overlay.size == (60, 900)
