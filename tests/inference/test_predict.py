"""Predictions as files: with a detector that calls bright pixels anomalous."""

import csv
import dataclasses
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from flowad_jax.errors import UserError
from flowad_jax.inference import job, pictures, predictor
from flowad_jax.inference.prediction import Prediction
from tests.inference.stub import (
    CARD,
    Bright,
    lines,
    picture,
    predict,
    snapshot,
    summary,
    use,
)


def table(folder):
    with (folder / "out" / "predictions.csv").open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def kinds(folder):
    verdicts = ("anomalous", "normal", "undecided", "unreadable")
    return {verdict: count for verdict in verdicts if (count := summary(folder)[verdict])}


def test_every_image_gets_its_line_and_pictures(tmp_path, detector, capsys):
    picture(tmp_path / "in" / "good.png")
    bad = picture(tmp_path / "in" / "line 2" / "bad.png", spot=True)
    assert predict(tmp_path) == 0
    good, found = lines(tmp_path)
    assert (good["anomalous"], good["p_value"], good["regions"]) == (False, 1.0, [])
    assert (found["path"], found["width"], found["height"]) == (str(bad), 30, 20)
    assert found["score"] == pytest.approx(250 / 255)
    (region,) = found["regions"]
    assert region.pop("peak") == pytest.approx(250 / 255)
    assert region == {"left": 5, "top": 2, "right": 9, "bottom": 5, "area": 12}
    with Image.open(tmp_path / "out" / found["map"]) as stored:
        assert stored.mode == "F"
        np.testing.assert_array_equal(np.asarray(stored)[3, 4:6], np.float32([40, 250]) / 255)
    with Image.open(tmp_path / "out" / found["heatmap"]) as stored:
        assert (stored.size, stored.mode) == ((30, 20), "RGB")
    with Image.open(tmp_path / "out" / found["overlay"]) as stored:
        assert stored.width > 200, "room for the verdict"
        assert stored.height == 20 + 24
        assert len(stored.crop((0, 20, 100, 44)).getcolors()) > 2, "the verdict"
    rows = table(tmp_path)
    assert [(row["anomalous"], row["regions"]) for row in rows] == [("False", "0"), ("True", "1")]
    about = summary(tmp_path)
    assert kinds(tmp_path) == {"anomalous": 1, "normal": 1}
    assert (about["images"], about["calibration"], about["finished"]) == (2, CARD, True)
    assert about["colour_scale"]["high"] == 1.0  # two pixel thresholds, whatever the images
    assert "2 images: 1 anomalous, 1 normal" in capsys.readouterr().out
    pair = (Image.open(tmp_path / "out" / line["heatmap"]) for line in (good, found))
    assert len({stored.getpixel((20, 15)) for stored in pair}) == 1


def test_memory_is_bounded_by_the_batch(tmp_path, detector, monkeypatch):
    for index in range(7):
        picture(tmp_path / "in" / f"{index}.png")
    loaded, most = [], []
    read, write = predictor.image_files.read_image, job.Output.add
    monkeypatch.setattr(
        predictor.image_files, "read_image", lambda *a: loaded.append(1) or read(*a)
    )

    def add(output, batch):
        most.append(len(loaded))
        write(output, batch)
        del loaded[: len(batch)]

    monkeypatch.setattr(job.Output, "add", add)
    assert predict(tmp_path) == 0
    assert detector.batches == [2, 2, 2, 1]
    assert max(most) <= 2 * detector.batch_size
    assert predict(tmp_path, tile=True) == 0
    assert detector.tiled == [(20, 30)] * 7
    assert len(detector.batches) == 4


@pytest.mark.parametrize("tile", [False, True])
def test_broken_images_are_reported_and_the_rest_continues(tmp_path, detector, capsys, tile):
    for name in "abd":
        picture(tmp_path / "in" / f"{name}.png", spot=name == "d")
    (tmp_path / "in" / "c.png").write_text("no image")
    cut = tmp_path / "in" / "b.png"
    cut.write_bytes(cut.read_bytes()[:45])
    assert predict(tmp_path, fail_on_anomaly=True, tile=tile) == 1
    assert ["error" in line for line in lines(tmp_path)] == [False, True, True, False]
    shown = capsys.readouterr().err.splitlines()
    assert len(shown) == 2
    assert all(text.startswith("error: cannot ") for text in shown)
    assert kinds(tmp_path) == {"anomalous": 1, "normal": 1, "unreadable": 2}


@pytest.mark.parametrize("at_once", [True, False])
def test_an_image_that_the_detector_refuses_costs_no_other_of_its_batch(
    tmp_path, monkeypatch, capsys, at_once
):
    class Refusing(Bright):
        batch_size = 4

        def judge(self, images):
            if at_once and any(image.size == (9, 9) for image in images):
                raise UserError("too small")
            for image in images:
                if image.size == (9, 9):
                    raise UserError("too small")
                yield from super().judge([image])

    use(monkeypatch, Refusing())
    for name, size in (("a", 20), ("b", 9), ("c", 20), ("d", 20), ("e", 20), ("f", 9)):
        picture(tmp_path / "in" / f"{name}.png", spot=name in "ac", size=(size, size))
    assert predict(tmp_path) == job.FAULTY
    assert kinds(tmp_path) == {"anomalous": 2, "normal": 2, "unreadable": 2}
    assert [line.get("anomalous") for line in lines(tmp_path)] == [True, None, True, 0, 0, None]
    errors = [f"error: cannot judge '{tmp_path}/in/{name}.png': too small" for name in "bf"]
    assert capsys.readouterr().err.splitlines() == errors


class Cautious(Bright):
    """Decides on images of less than 25 columns, and says of others why it cannot."""

    def decide(self, image):
        found = super().decide(image)
        return (
            found
            if image.shape[1] < 25
            else dataclasses.replace(found, anomalous=None, reason="too wide")
        )


GOOD, BAD, WIDE = (20, False), (20, True), (30, True)


@pytest.mark.parametrize(
    ("images", "asked", "code", "found"),
    [
        ([BAD], True, 3, {"anomalous": 1}),
        ([BAD], False, 0, {"anomalous": 1}),
        ([GOOD], True, 0, {"normal": 1}),
        ([WIDE], True, 4, {"undecided": 1}),
        ([WIDE], False, 0, {"undecided": 1}),
        ([(30, False), GOOD], True, 4, {"undecided": 1, "normal": 1}),
        ([WIDE, BAD], True, 3, {"undecided": 1, "anomalous": 1}),
    ],
)
def test_exit_code_if_asked_and_undecided_is_never_normal(
    tmp_path, monkeypatch, capsys, images, asked, code, found
):
    use(monkeypatch, Cautious())
    for index, (width, spot) in enumerate(images):
        picture(tmp_path / "in" / f"{index}.png", spot, size=(20, width))
    assert predict(tmp_path, fail_on_anomaly=asked) == code
    assert kinds(tmp_path) == found
    assert (f"{found.get('normal', 0)} normal" in capsys.readouterr().out) == ("normal" in found)
    for line, row in zip(lines(tmp_path), table(tmp_path), strict=True):
        wide = line["width"] == 30
        assert (line["anomalous"] is None) == (line.get("reason") == "too wide") == wide
        assert not wide or (row["anomalous"], row["reason"]) == ("", "too wide")


def test_without_thresholds_there_is_no_decision(tmp_path, monkeypatch):
    use(monkeypatch, Bright(thresholds={}))
    picture(tmp_path / "in" / "a.png", spot=True)
    assert predict(tmp_path, fail_on_anomaly=True) == job.UNDECIDED
    assert predict(tmp_path) == 0
    (line,) = lines(tmp_path)
    assert (line["p_value"], line["anomalous"]) == (None, None)
    assert kinds(tmp_path) == {"undecided": 1}
    assert summary(tmp_path)["colour_scale"]["high"] == pytest.approx(250 / 255)


@pytest.mark.parametrize("tile", [False, True])
def test_white_level_of_the_run_is_used_and_advised_once(tmp_path, monkeypatch, caplog, tile):
    (tmp_path / "in").mkdir()
    for index in range(3):
        Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(tmp_path / "in" / f"{index}.png")
    for white, count in ((65535, 1), (4095, 0)):
        use(monkeypatch, Bright(white=white))
        caplog.clear()
        assert predict(tmp_path, tile=tile) == 0
        found = [one.getMessage() for one in caplog.records if "options.white" in one.getMessage()]
        assert len(found) == count
        assert all("no value above 4000" in line for line in found)
        assert lines(tmp_path)[0]["score"] == pytest.approx(round(4000 / white * 255) / 255)


def test_what_to_save(tmp_path, detector):
    picture(tmp_path / "in" / "a.png")
    predict(tmp_path, save=("map",), map_format="npy")
    (line,) = lines(tmp_path)
    stored = np.load(tmp_path / "out" / line["map"])
    assert (stored.dtype, stored.shape) == (np.float32, (20, 30))
    assert "heatmap" not in line
    predict(tmp_path, save=())
    assert {p.name for p in (tmp_path / "out").rglob("*") if p.is_file()} == {
        "predictions.jsonl", "predictions.csv", "summary.json", ".lock",
    }  # fmt: skip


def test_a_folder_of_somebody_else_is_refused(tmp_path, detector):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "out" / "holiday.png")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=r"holiday\.png"):
        predict(tmp_path)
    assert snapshot(tmp_path) == before
    with pytest.raises(UserError, match="cannot read"):
        job.run(job.PredictArgs("run", [str(tmp_path / "in")], str(tmp_path / "in" / "a.png")))


def test_an_earlier_output_is_replaced_and_foreign_files_stay(tmp_path, detector):
    picture(tmp_path / "in" / "old.png")
    predict(tmp_path)
    (tmp_path / "in" / "old.png").unlink()
    picture(tmp_path / "in" / "new.png")
    mine = picture(tmp_path / "out" / "heatmaps" / "new.png", size=(3, 3))
    kept = mine.read_bytes()
    with (tmp_path / "out" / "predictions.jsonl").open("a") as file:
        file.write('{"path": "x", "map": "../in/new.png", "heatmap": "heatmaps/.."}\n{"path": "cu')
    predict(tmp_path)
    (line,) = lines(tmp_path)
    assert line["heatmap"] == "heatmaps/new-2.png"
    assert mine.read_bytes() == kept
    assert (tmp_path / "in" / "new.png").exists()
    assert not list((tmp_path / "out").rglob("old*"))


@pytest.mark.parametrize(
    ("score", "p_value", "anomalous", "said"),
    [
        (12.3456, 0.025, True, "anomalous, score 12.35, p 0.025"),
        (0.5, None, None, "undecided, score 0.5, no p-value"),
        (np.nan, None, None, "undecided, no score, no p-value"),
    ],
)
def test_what_a_line_says(score, p_value, anomalous, said):
    found = Prediction(score, p_value, anomalous, np.zeros((2, 2), np.float32), ())
    assert found.describe() == said
    by = dataclasses.replace(found, decided_by="estimate").describe()
    assert by == said.replace(",", " (estimate),", 1)


def test_a_signal_ends_the_run_after_its_batch(tmp_path, monkeypatch, capsys):
    for index in range(6):
        picture(tmp_path / "in" / f"{index}.png")

    class Stopped(Bright):
        def decide(self, image):
            if len(self.batches) == 2:
                signal.raise_signal(signal.SIGTERM)
            self.batches.append(0)
            return super().decide(image)

    use(monkeypatch, Stopped())
    assert predict(tmp_path) == 128 + signal.SIGTERM
    assert len(lines(tmp_path)) == 2
    assert not summary(tmp_path)["finished"]
    assert "2 of 6 images: 2 normal; see" in capsys.readouterr().out
    use(monkeypatch, Bright())
    assert predict(tmp_path, save=("map",)) == 0
    before = snapshot(tmp_path / "out")
    use(monkeypatch, Stopped())
    assert predict(tmp_path, save=("map",)) == 128 + signal.SIGTERM
    assert "2 of 6 images: 2 normal; not kept, the earlier output stays" in capsys.readouterr().out
    assert snapshot(tmp_path / "out") == before


def test_a_full_disk_is_one_line(tmp_path, detector, monkeypatch):
    picture(tmp_path / "in" / "a.png")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "heatmap", lambda *a: SimpleNamespace(save=full))
    with pytest.raises(UserError, match="No space left"):
        predict(tmp_path)
    assert lines(tmp_path) == []
    assert not summary(tmp_path)["finished"]
