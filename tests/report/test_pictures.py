"""Pictures: what they choose, that they can be read, and that odd input does not stop them."""

import io
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from flowad_jax.errors import UserError
from flowad_jax.evaluation import metrics
from flowad_jax.report import curves, figures, pictures

SIZE = (24, 32)
KINDS = ["good"] * 6 + ["scratch"] * 6 + ["Scratch"] * 2 + ["$100_x^ / キズ", "con"]
LABELS = np.array([int(kind != "good") for kind in KINDS])


class Record(NamedTuple):
    image: np.ndarray
    mask: np.ndarray
    label: int
    kind: str
    path: str


class LazySource:
    """Like a data source: notes which records it had to decode."""

    def __init__(self, kinds=tuple(KINDS)):
        self.kinds = list(kinds)
        self.labels = np.array([int(kind != "good") for kind in kinds])
        self.decoded = []

    def __len__(self):
        return len(self.kinds)

    def __getitem__(self, index):
        self.decoded.append(index)
        rng = np.random.default_rng(index)
        mask = np.zeros((50, 70), bool)
        mask[10:20, 5 : 30 if self.labels[index] else 5] = True
        image = rng.integers(0, 256, (50, 70, 3), np.uint8)
        label, kind = int(self.labels[index]), self.kinds[index]
        return Record(image, mask, label, kind, f"test\\{kind}/{index}_{{$a}}_.png")


def maps_for(count, size=SIZE):
    return np.random.default_rng(0).random((count, *size), np.float32)


SCORES = np.arange(len(KINDS), dtype=float)


@pytest.mark.parametrize("threshold", [None, 7.5])
def test_panels_show_both_ends_of_every_kind_and_false_alarms(tmp_path, threshold):
    source = LazySource()
    written = pictures.save_panels(
        tmp_path / "images", source, maps_for(len(KINDS)), SCORES, threshold, per_kind=1
    )
    assert len(written) == 5
    assert sorted(tmp_path.rglob("*.png")) == sorted(tmp_path / name for name in written)
    assert len({name.lower() for name in written}) == 5
    assert all(set(name) <= set("abcdefghijklmnopqrstuvwxyzSC0123456789-_./") for name in written)
    assert written[-1].endswith("false-alarms.png")
    # kinds in order of their names; the highest and the lowest score of each, decoded once
    assert source.decoded == [14, 13, 12, 15, 11, 6, 5, 4]


def test_panels_of_few_images(tmp_path):
    source = LazySource(["good", "scratch"])
    written = pictures.save_panels(tmp_path, source, maps_for(2), np.array([1.0, 0.0]))
    assert [Path(name).name for name in written] == [
        "panels_00_scratch.png",
        "panels_01_false-alarms.png",
    ]
    for name in written:
        with Image.open(tmp_path.parent / name) as picture:
            assert picture.width > 4 * figures.CELL * figures.DPI
            assert len(picture.convert("RGB").resize((99, 99)).getcolors(9801)) > 100


@pytest.mark.parametrize("kinds", [["good"] * 3, ["dent"] * 3])
def test_one_class_alone_is_drawn_too(tmp_path, kinds):
    source, maps = LazySource(kinds), maps_for(3)
    assert len(pictures.save_panels(tmp_path, source, maps, maps.max((1, 2)))) == 1
    masks = np.zeros(maps.shape, bool)
    pictures.save_roc(tmp_path / "roc.png", source.labels, maps.max((1, 2)), masks, maps)
    pictures.save_histogram(tmp_path / "histogram.png", source.labels, kinds, np.ones(3))
    assert len(list(tmp_path.glob("*.png"))) == 3


@pytest.mark.parametrize("kind", ["very long kind " * 9, "one_long_word" * 9])
@pytest.mark.parametrize("size", [(24, 24), (20, 90), (90, 20)])
def test_captions_do_not_overlap(size, kind):
    figure, rows = figures.panel("title", 2, size, pictures.Limits(0, 1, 2))
    text = "score 0.00001234\nabove 1234 of 1234 anomalous"
    for row in rows:
        figures.caption(row[0], kind, text, "false alarm", "x" * 99 + ".png")
    figure.savefig(io.BytesIO(), format="png")
    boxes = [text.get_window_extent() for text in figure.texts]
    boxes += [text.get_window_extent() for row in rows for text in row[0].texts]
    boxes += [cell.get_window_extent() for row in rows for cell in row[1:]]
    for number, box in enumerate(boxes):
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
    assert all(box.x0 >= 0 and box.y0 >= 0 for box in boxes)


def test_colour_limits_come_from_good_images():
    maps = maps_for(4)
    maps[2:] += 100
    low, usual, high, pixels = pictures.colour_limits(maps, np.array([0, 0, 1, 1]))
    assert pixels == "good pixels"
    assert 0 <= low < usual < 1
    assert high - usual == pytest.approx(usual - low)
    only_bad = pictures.colour_limits(maps, np.ones(4))
    assert only_bad.usual > 100
    assert only_bad.pixels == "all pixels"
    constant = pictures.colour_limits(np.zeros((2, 4, 4), np.float32), np.zeros(2))
    assert constant.low < constant.usual < constant.high


def test_overlay_leaves_usual_pixels_alone_and_shows_the_others():
    image = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    np.testing.assert_allclose(figures.blend(image, np.full((8, 8), 0.25)), image / 255)
    hot = figures.blend(image, np.ones((8, 8)))
    assert np.all(hot[..., 0] > hot[..., 2] + 0.2)  # yellow, whatever is below


def test_a_defect_thinner_than_a_map_pixel_stays_visible():
    mask = np.zeros((400, 400), bool)
    mask[200, 201] = True
    image = np.zeros((400, 400, 3), np.uint8)
    limits = pictures.Limits(0, 1, 2)
    _, rows = figures.panel("title", 1, (40, 40), limits)
    figures.row(rows[0][1:], image, mask, np.zeros((40, 40), np.float32), limits)
    assert np.argwhere(rows[0][2].images[0].get_array()[..., 0]).tolist() == [[20, 20]]


def test_roc_with_and_without_masks(tmp_path):
    maps = maps_for(6)
    labels, masks = np.array([0, 0, 0, 1, 1, 1]), maps > 0.7
    masks[:3] = False
    scores = np.array([1.0, 2, 3, 2, 3, 4])
    path = tmp_path / "images" / "roc.png"
    assert pictures.save_roc(path, labels, scores, masks, maps) == "images/roc.png"
    with Image.open(path) as picture:
        three = picture.width
    pictures.save_roc(path, labels, scores, None, maps)
    with Image.open(path) as picture:
        assert picture.width < three / 2


def test_curves_show_the_exact_metrics_of_the_overlap_map():
    maps = maps_for(2)
    masks = maps > 0.7
    values, curve = metrics.pixel_analysis(masks, maps + maps_for(2)[::-1])
    axes = Figure().subplots()
    curves.pro(axes, values, curve, None)
    shown = " ".join(text.get_text() for text in axes.get_legend().get_texts())
    assert f"{100 * values['aupro_0.30']:.2f} %, up to 30 %" in shown
    assert f"{100 * values['aupro_0.05']:.2f} %, up to 5 %" in shown


@pytest.mark.parametrize(
    ("scores", "scale"), [(SCORES, "linear"), (np.exp(SCORES), "log"), (-np.exp(SCORES), "linear")]
)
def test_histogram_counts_every_image_once(tmp_path, scores, scale):
    groups = [("good", False, scores[:6]), ("scratch", True, scores[6:])]
    above, below = curves.distribution(groups, threshold=7.5).axes
    assert above.get_xscale() == scale
    assert sum(len(dots.get_offsets()) for dots in below.collections) == len(scores)
    name = pictures.save_histogram(tmp_path / "histogram.png", LABELS, KINDS, scores, 7.5)
    assert (tmp_path.parent / name).exists()


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "images").write_text("")
    with pytest.raises(UserError, match="images"):
        pictures.save_histogram(tmp_path / "images" / "h.png", LABELS, KINDS, SCORES)


def test_no_window_system_is_touched(tmp_path):
    code = f"""
import sys, numpy as np
from flowad_jax.report import pictures
assert "matplotlib" not in sys.modules
pictures.save_histogram({str(tmp_path / "h.png")!r}, [0, 1], ["good", "dent"], np.arange(2))
assert "matplotlib.pyplot" not in sys.modules
"""
    environment = os.environ | {"MPLBACKEND": "tkagg"}
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
