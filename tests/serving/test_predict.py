"""Predictions as files: with a detector that calls bright pixels anomalous."""

import csv
import json
import os
import signal
from types import SimpleNamespace

import numpy as np
import pytest
from ml_collections import config_dict
from PIL import Image

from flowad_jax.errors import UserError
from flowad_jax.serving import command, outputs, pictures, places, reading, regions
from flowad_jax.serving.detector import Prediction

CARD = {"false_alarm_rate": 0.1, "promised": 0.1, "images": 9, "image": 0.5, "pixel": 0.5}


class Bright:
    """Maps are brightness from 0 to 1; keeps the sizes of the batches that it was given."""

    name, image_size, batch_size, filter = "bright", 32, 2, "lanczos"

    def __init__(self, thresholds=CARD):
        self.thresholds, self.batches, self.tiled = thresholds, [], []

    def judge(self, images):
        self.batches.append(len(images))
        if any(image.size == (13, 13) for image in images):
            raise UserError("13 brings bad luck")
        for image in images:
            yield self._judge(image.pixels)

    def judge_tiled(self, windows):
        self.tiled.append(windows.size)
        return self._judge(windows.read())

    def _judge(self, image):
        values = (image.mean(-1) / 255).astype(np.float32)
        score = float(values.max())
        if not self.thresholds:
            return Prediction(score, None, None, values, ())
        found = regions.find(values, 0.5)
        return Prediction(score, 0.1 if score > 0.5 else 1.0, score > 0.5, values, found)


@pytest.fixture
def detector(monkeypatch):
    return use(monkeypatch, Bright())


def use(monkeypatch, detector, **options):
    config = config_dict.ConfigDict({"data": {"options": options}})
    monkeypatch.setattr(command.detectors, "load", lambda *_: detector)
    monkeypatch.setattr(command.workdir, "load_config", lambda *_: config)
    return detector


def picture(path, spot=False, size=(20, 30), mode="L"):
    """A dark image (H, W), with a bright spot of 4 x 3 pixels at column 5, row 2."""
    pixels = np.full(size, 40, np.uint8)
    if spot:
        pixels[2:5, 5:9] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)
    return path


def predict(tmp_path, *inputs, **settings):
    inputs = [str(item) for item in inputs or (tmp_path / "in",)]
    return command.run(command.Job("run", inputs, str(tmp_path / "out"), **settings))


def lines(tmp_path):
    text = (tmp_path / "out" / "predictions.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def summary(tmp_path):
    return json.loads((tmp_path / "out" / "summary.json").read_text())


def snapshot(folder):
    return {p: p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_every_image_gets_its_line_and_pictures(tmp_path, detector, capsys):
    picture(tmp_path / "in" / "good.png")
    bad = picture(tmp_path / "in" / "line 2" / "bad.png", spot=True)
    assert predict(tmp_path) == 0
    good, found = lines(tmp_path)
    assert (good["anomalous"], good["p_value"], good["regions"]) == (False, 1.0, [])
    assert (found["path"], found["width"], found["height"]) == (str(bad), 30, 20)
    assert found["score"] == pytest.approx(250 / 255)
    (region,) = found["regions"]
    peak = region.pop("peak")
    assert region == {"left": 5, "top": 2, "right": 9, "bottom": 5, "area": 12}
    assert peak == pytest.approx(250 / 255)
    with Image.open(tmp_path / "out" / found["map"]) as stored:
        assert stored.mode == "F"
        np.testing.assert_array_equal(np.asarray(stored)[3, 4:6], np.float32([40, 250]) / 255)
    for kind in ("heatmap", "overlay"):
        with Image.open(tmp_path / "out" / found[kind]) as stored:
            assert (stored.size, stored.mode) == ((30, 20), "RGB")
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(row["anomalous"], row["regions"]) for row in rows] == [("False", "0"), ("True", "1")]
    told = summary(tmp_path)
    assert [told[k] for k in ("images", "anomalous", "normal", "unreadable")] == [2, 1, 1, 0]
    assert told["calibration"] == CARD
    assert told["finished"]
    assert "2 images: 1 anomalous, 1 normal" in capsys.readouterr().out


def test_memory_is_bounded_by_the_batch(tmp_path, detector, monkeypatch):
    for index in range(7):
        picture(tmp_path / "in" / f"{index}.png")
    loaded, most = [], []
    read, write = reading.read_image, command.Output.add
    monkeypatch.setattr(reading, "read_image", lambda *a: loaded.append(1) or read(*a))

    def add(output, batch):
        most.append(len(loaded))
        write(output, batch)
        del loaded[: len(batch)]

    monkeypatch.setattr(command.Output, "add", add)
    assert predict(tmp_path) == 0
    assert detector.batches == [2, 2, 2, 1]
    assert max(most) <= 2 * detector.batch_size
    assert predict(tmp_path, tile=True) == 0
    assert detector.tiled == [(20, 30)] * 7
    assert len(detector.batches) == 4


def test_broken_images_are_reported_and_the_rest_continues(tmp_path, detector, capsys):
    for name in "abd":
        picture(tmp_path / "in" / f"{name}.png", spot=name == "d")
    (tmp_path / "in" / "c.png").write_text("no image")
    cut = tmp_path / "in" / "b.png"
    cut.write_bytes(cut.read_bytes()[:45])
    picture(tmp_path / "in" / "e.png", size=(13, 13))
    assert predict(tmp_path, fail_on_anomaly=True) == 1
    found = lines(tmp_path)
    assert ["error" in line for line in found] == [False, True, True, False, True]
    assert "13 brings bad luck" in found[4]["error"]
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 3
    assert all(text.startswith("error: cannot ") for text in told)
    assert summary(tmp_path)["unreadable"] == 3


@pytest.mark.parametrize(("spot", "asked", "code"), [(1, 1, 3), (1, 0, 0), (0, 1, 0)])
def test_exit_code_tells_of_anomalies_if_asked(tmp_path, detector, spot, asked, code):
    picture(tmp_path / "in" / "a.png", spot=bool(spot))
    assert predict(tmp_path, fail_on_anomaly=bool(asked)) == code


class Cautious(Bright):
    """Decides on images of less than 25 columns, and says of others why it cannot."""

    def _judge(self, image):
        found = super()._judge(image)
        return found if image.shape[1] < 25 else found._replace(anomalous=None, reason="too wide")


@pytest.mark.parametrize(
    ("images", "code", "kinds"),
    [
        ({"wide": (30, True)}, 4, {"undecided": 1}),
        ({"wide": (30, False), "good": (20, False)}, 4, {"undecided": 1, "normal": 1}),
        ({"wide": (30, True), "bad": (20, True)}, 3, {"undecided": 1, "anomalous": 1}),
        ({"good": (20, False)}, 0, {"normal": 1}),
    ],
)
def test_undecided_is_never_normal(tmp_path, monkeypatch, capsys, images, code, kinds):
    use(monkeypatch, Cautious())
    for name, (width, spot) in images.items():
        picture(tmp_path / "in" / f"{name}.png", spot, size=(20, width))
    assert predict(tmp_path, fail_on_anomaly=True) == code
    told, names = summary(tmp_path), ("anomalous", "normal", "undecided")
    assert {name: told[name] for name in names if told[name]} == kinds
    assert (f"{kinds.get('normal', 0)} normal" in capsys.readouterr().out) == ("normal" in kinds)
    for line in lines(tmp_path):
        wide = line["width"] == 30
        assert (line["anomalous"] is None, line.get("reason")) == (
            wide,
            "too wide" if wide else None,
        )
    with (tmp_path / "out" / "predictions.csv").open(newline="") as file:
        rows = {row["width"]: row for row in csv.DictReader(file)}
    if "30" in rows:
        assert (rows["30"]["anomalous"], rows["30"]["reason"]) == ("", "too wide")


def odd_files(folder):
    """Dark images of 20 x 30 with a bright spot, in every kind of file; the sizes by name."""
    grey = np.full((20, 30), 10, np.uint8)
    grey[2:5, 5:9] = 240
    rgb = Image.fromarray(grey).convert("RGB")
    folder.mkdir()
    Image.fromarray(grey.astype(np.uint16) * 257).save(folder / "deep.png")
    rgb.quantize(4).save(folder / "palette.gif")
    rgb.convert("CMYK").save(folder / "cmyk.tif")
    clear = rgb.convert("RGBA")
    clear.putalpha(0)
    clear.save(folder / "alpha.webp", lossless=True, exact=True)
    turned = Image.Exif()
    turned[0x0112] = 6  # to be shown turned by 90 degrees
    rgb.save(folder / "turned.jpg", exif=turned, quality=95)
    Image.fromarray(grey > 100).save(folder / "binary.bmp")
    Image.fromarray(grey.astype(np.float32) / 255).save(folder / "float.tiff")
    rgb.crop((5, 2, 6, 3)).save(folder / "pixel.png")
    rgb.save(folder / "Größe 螺丝, v1.2 [a].png")
    rgb.save(folder / "螺丝.png")
    rgb.save(folder / os.fsdecode(b"not \xff unicode.png"))


def test_odd_files(tmp_path, detector):
    odd_files(tmp_path / "in")
    assert predict(tmp_path) == 0
    found = {os.path.basename(line["path"]): line for line in lines(tmp_path)}
    sizes = {name: (line["width"], line["height"]) for name, line in found.items()}
    assert sizes.pop("turned.jpg") == (20, 30)
    assert sizes.pop("pixel.png") == (1, 1)
    assert set(sizes.values()) == {(30, 20)}
    assert len(sizes) == 9
    for name, line in found.items():
        assert line["anomalous"], name
        area = 1 if name == "pixel.png" else 12
        assert name == "turned.jpg" or [r["area"] for r in line["regions"]] == [area], name
        for kind in outputs.FOLDERS:
            assert line[kind].isascii()
            assert (tmp_path / "out" / line[kind]).is_file()
    assert found["螺丝.png"]["overlay"] == "overlays/image.png"
    assert found["Größe 螺丝, v1.2 [a].png"]["overlay"] == "overlays/Groe-v1-2-a.png"
    (tmp_path / "out" / "predictions.csv").read_text("utf-8")


def test_white_level_of_the_run_is_used(tmp_path, monkeypatch):
    use(monkeypatch, Bright(), white=4095)
    (tmp_path / "in").mkdir()
    Image.fromarray(np.full((5, 5), 4095, np.uint16)).save(tmp_path / "in" / "12bit.png")
    predict(tmp_path)
    assert lines(tmp_path)[0]["score"] == 1


def test_equal_names_do_not_meet(tmp_path, detector):
    for index, name in enumerate(("a/x.png", "b/x.png", "b/X.bmp", "b/x-2.png", "b/x.jpg")):
        picture(tmp_path / "in" / name, size=(5, 5 + index))
    predict(tmp_path)
    found = lines(tmp_path)
    assert len({line["heatmap"].lower() for line in found}) == 5
    for line in found:
        with Image.open(tmp_path / "out" / line["heatmap"]) as stored:
            assert stored.size == (line["width"], line["height"])


@pytest.mark.parametrize("name", ["..", "...", "a/b", "-", "~", "con\n", "x" * 300])
def test_safe_names(name):
    assert 0 < len(places.safe_name(name)) <= 80
    assert places.safe_name(name).replace("-", "").replace("_", "").isalnum()


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


def test_inputs_may_be_files_folders_and_patterns(tmp_path, detector):
    for name in ("a,b.png", "c/1.png", "c/2.png", "c/.hidden.png", "d/3.jpg", "d/e/4.png", "f.dat"):
        path = tmp_path / name
        picture(path.with_suffix(".png")).rename(path)
    (tmp_path / "c" / "notes.txt").write_text("no image, and nobody says so")
    wanted = [f"{tmp_path}/a,b.png", f"{tmp_path}/c,{tmp_path}/d/**/*", f"{tmp_path}/c/1.png"]
    assert predict(tmp_path, *wanted, f"{tmp_path}/f.dat") == 0
    names = [os.path.relpath(line["path"], tmp_path) for line in lines(tmp_path)]
    assert names == ["a,b.png", "c/1.png", "c/2.png", "d/3.jpg", "d/e/4.png", "f.dat"]


@pytest.mark.parametrize("missing", ["nothing.png", "empty", "*.png"])
def test_no_image_changes_nothing(tmp_path, detector, missing):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="matches no image"):
        predict(tmp_path, tmp_path / missing)
    assert not (tmp_path / "out").exists()


def test_empty_input(tmp_path, detector):
    with pytest.raises(UserError, match="--input is empty"):
        predict(tmp_path, ",")


def test_output_inside_the_input_is_no_input(tmp_path, detector):
    picture(tmp_path / "a.png")
    for _ in range(2):
        assert predict(tmp_path, tmp_path) == 0
        assert [line["path"] for line in lines(tmp_path)] == [str(tmp_path / "a.png")]


def test_a_folder_of_somebody_else_is_refused(tmp_path, detector):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "out" / "holiday.png")
    before = snapshot(tmp_path)
    with pytest.raises(UserError, match=r"holiday\.png"):
        predict(tmp_path)
    assert snapshot(tmp_path) == before


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


def test_one_colour_scale_for_all(tmp_path, detector):
    picture(tmp_path / "in" / "a.png")
    picture(tmp_path / "in" / "b.png", spot=True)
    predict(tmp_path)
    assert summary(tmp_path)["colour_scale"]["high"] == 1.0  # two pixel thresholds
    colours = []
    for line in lines(tmp_path):
        with Image.open(tmp_path / "out" / line["heatmap"]) as stored:
            colours.append(stored.getpixel((20, 15)))
    assert colours[0] == colours[1]


def test_without_thresholds_there_is_no_decision(tmp_path, monkeypatch):
    use(monkeypatch, Bright(thresholds={}))
    picture(tmp_path / "in" / "a.png", spot=True)
    assert predict(tmp_path, fail_on_anomaly=True) == command.UNDECIDED
    assert predict(tmp_path) == 0
    (line,) = lines(tmp_path)
    assert (line["p_value"], line["anomalous"]) == (None, None)
    told = summary(tmp_path)
    assert told["undecided"] == 1
    assert told["colour_scale"]["high"] == pytest.approx(250 / 255)


def test_overlay_outlines_what_exceeds_the_threshold():
    values = np.zeros((40, 50), np.float32)
    values[10:20, 30:45] = 1
    image = np.full((40, 50, 3), 90, np.uint8)
    drawn = np.asarray(pictures.overlay(image, values, 1.0, 0.5))
    line = (drawn == (0x3F, 0xE0, 0xFF)).all(-1)
    frame = values > 0
    frame[11:19, 31:44] = False
    np.testing.assert_array_equal(line, frame)
    assert (drawn[values == 0] == 90).all()  # usual places keep the picture


def test_large_images_are_coloured_in_strips(monkeypatch):
    values = np.random.default_rng(0).random((33, 21), np.float32)
    whole = np.asarray(pictures.heatmap(values, 1.0))
    monkeypatch.setattr(pictures, "STRIP", 100)
    np.testing.assert_array_equal(np.asarray(pictures.heatmap(values, 1.0)), whole)


def test_a_signal_ends_the_run_after_its_batch(tmp_path, detector, monkeypatch, capsys):
    for index in range(6):
        picture(tmp_path / "in" / f"{index}.png")
    judge, pending = Bright._judge, [signal.SIGTERM]

    def stop(self, image):
        if len(self.batches) == 2 and pending:
            signal.raise_signal(pending.pop())
        return judge(self, image)

    monkeypatch.setattr(Bright, "_judge", stop)
    assert predict(tmp_path) == 128 + signal.SIGTERM
    assert len(lines(tmp_path)) == 4
    assert not summary(tmp_path)["finished"]
    assert "4 of 6 images" in capsys.readouterr().out


def test_a_full_disk_is_one_line(tmp_path, detector, monkeypatch):
    picture(tmp_path / "in" / "a.png")

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pictures, "heatmap", lambda *a: SimpleNamespace(save=full))
    with pytest.raises(UserError, match="No space left"):
        predict(tmp_path)
    assert lines(tmp_path) == []
    assert not summary(tmp_path)["finished"]


@pytest.mark.parametrize("tile", [False, True])
def test_dark_images_of_sixteen_bits_are_told_once(tmp_path, monkeypatch, caplog, tile):
    folder = tmp_path / "in"
    folder.mkdir()
    for index in range(3):
        Image.fromarray(np.full((9, 9), 4000, np.uint16)).save(folder / f"{index}.png")
    for options, told in ({}, 1), ({"white": 4095}, 0):
        use(monkeypatch, Bright(), **options)
        caplog.clear()
        job = command.Job("run", [str(folder)], str(tmp_path / str(told)), tile=tile)
        assert command.run(job) == 0
        found = [one.getMessage() for one in caplog.records if "options.white" in one.getMessage()]
        assert len(found) == told
        assert all("no value above 4000" in line for line in found)
