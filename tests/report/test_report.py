"""The report: complete within one file, true to the numbers, and closed to hostile names."""

import base64
import io
import re
from html.parser import HTMLParser
from typing import NamedTuple

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from flowad_jax.errors import UserError
from flowad_jax.evaluation import metrics
from flowad_jax.evaluation.decisions import Decisions
from flowad_jax.report import gallery, html_page, tables
from flowad_jax.report.scored_images import ScoredImages
from flowad_jax.types import Scores

EVIL = "<script>alert(1)</script>"
KINDS = ["good"] * 6 + ["scratch"] * 5 + [f"a & b {EVIL}"] * 3
SIZE = (16, 24)
VOID = {"meta", "img", "input", "br"}


class Record(NamedTuple):
    image: np.ndarray
    mask: np.ndarray
    label: int
    kind: str
    path: str


class Source:
    """Like a data source, and notes which records were decoded."""

    def __init__(self, kinds=tuple(KINDS), shape=(40, 300)):
        self.kinds, self.shape, self.decoded = list(kinds), shape, []
        self.labels = np.array([int(kind != "good") for kind in kinds])
        self.paths = [f"test/{i}_\"{EVIL}'.png" for i in range(len(kinds))]

    def __len__(self):
        return len(self.kinds)

    def __getitem__(self, index):
        self.decoded.append(index)
        mask = np.zeros(self.shape, bool)
        mask[10:20, 5 : 30 if self.labels[index] else 5] = True
        image = np.random.default_rng(index).integers(0, 256, (*self.shape, 3), np.uint8)
        return Record(image, mask, int(self.labels[index]), self.kinds[index], self.paths[index])


def scores_of(test):
    """Image i has the score i: all good ones lie below all anomalous ones."""
    maps = np.random.default_rng(0).random((len(test), *SIZE), np.float32)
    return Scores(np.arange(len(test), dtype=np.float64), maps)


def masks_of(test):
    masks = np.zeros((len(test), *SIZE), bool)
    masks[test.labels == 1, 4:8, 2:9] = True
    return masks


def results_of(test, scores, masks):
    values = metrics.evaluate(test.labels, scores.image, masks, scores.pixel)
    return {
        "method": "cflow",
        "data": {"name": "folder", "category": EVIL, "image_size": [16, 24], "train": {"good": 9}},
        "encoder": {"name": "resnet.resnet18", "weights": "w.safetensors", "sha256": "ab12"},
        "seed": 7,
        "scoring": "calibrated",
        "columns": {"last": values, "validation": values | {"epoch": 3}, "oracle": values},
        "undefined": metrics.undefined(test.labels, masks),
        "timing": {"seconds_per_epoch": 1.25},
        "versions": {"jax": "0.12"},
        "thresholds": {
            "false_alarm_rate": 0.1,
            "promised": 0.1,
            "images": 19,
            "image": 4.5,
            "pixel": 0.9,
            "interval": [0.01, 0.2],
            "calibration": "split",
            "decided_by": "promise",
            "meaning": "threshold for at most 10 % false alarms: a promise",
            "test": {"false_alarms": 1, "good": 6, "detected": 8, "anomalous": 8},
        },
    }


class Page(HTMLParser):
    """Elements with their attributes, and the text outside style and script."""

    def __init__(self, source):
        super().__init__()
        self.source, self.open, self.elements, self.words = source, [], [], []
        self.feed(source)
        self.close()
        assert self.open == [], "every element is closed"
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in ("style", "script"):
            self.words.append(data)

    def all(self, tag, **attributes):
        found = [attrs for name, attrs in self.elements if name == tag]
        return [one for one in found if all(one.get(k) == v for k, v in attributes.items())]


def page(folder, kinds=tuple(KINDS), masked=True, change=None, **options):
    """Writes a report and reads it back; ``change`` edits the results first."""
    test = Source(kinds)
    scores, masks = scores_of(test), masks_of(test) if masked else None
    results = results_of(test, scores, masks)
    if change:
        change(results)
    config = ConfigDict({"data": {"root": EVIL, "sizes": (8, 16)}, "seed": 7})
    path = html_page.write(folder / "report.html", results, config, test, scores, masks, **options)
    return Page(path.read_text("utf-8")), test


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    p_values = np.linspace(1, 0.05, len(KINDS))
    folder = tmp_path_factory.mktemp("report")
    return page(folder, p_values=p_values, threshold=4.5)[0]


def test_nothing_comes_from_outside_the_file(full):
    addresses = [
        value
        for _, attributes in full.elements
        for name, value in attributes.items()
        if name in ("src", "href", "xlink:href", "action", "data", "srcset", "poster")
    ]
    assert addresses
    assert all(value.startswith(("data:image/", "#")) for value in addresses)
    assert not re.search(r"https?://|@import|url\((?!#)", full.source)
    policy = full.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'; img-src data:")


def test_names_of_strangers_stay_text(full):
    assert len(full.all("script")) == 1
    assert EVIL not in full.source
    for shown in (f"a & b {EVIL}", f"data.root={EVIL}", "data.sizes=8,16"):
        assert shown in full.text
    assert EVIL in full.all("article")[0]["data-kind"] + full.all("img", loading="lazy")[0]["alt"]


def test_header_columns_card_and_details_show_the_results(full):
    for words in (
        "Method CFLOW-AD", "Image size 16 × 24", "Seed 7", "Scores calibrated",
        "last epoch", "epoch chosen on held-out good images", "best epoch on test: not comparable",
        "at most 10\N{NO-BREAK SPACE}% of new normal images", "19 normal images, unseen by",
        "if its score is above 4.5", "1 of 6 (16.7\N{NO-BREAK SPACE}%), 95",
        "scratch 5 100.00", "5 of 5 (100\N{NO-BREAK SPACE}%) detected", "good 9",
        "sha256 ab12", "seconds_per_epoch 1.25", "jax 0.12",
    ):  # fmt: skip
        assert " ".join(words.split()) in full.text


def test_gallery_is_sorted_and_says_what_was_decided(full):
    outcomes = [entry["data-outcome"] for entry in full.all("article")]
    assert outcomes == ["right"] * 8 + ["false"] + ["right"] * 5
    found = [float(number) for number in re.findall(r"score (\d+), p", full.text)]
    assert found == list(range(13, -1, -1))
    assert "score 13, p\N{NO-BREAK SPACE}0.05" in full.source
    assert "Missed (0)" in full.text
    assert "False alarm (1)" in full.text


def test_pictures_are_small_and_have_the_shape_of_the_image(full):
    charts = [one for one in full.all("img") if "chart" in one.get("class", "")]
    images = full.all("img", loading="lazy")
    assert len(images) == 8 * 4 + 6 * 3  # good images have no mask to show
    for image in images:
        data = base64.b64decode(image["src"].split(",")[1])
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.size == (192, 26)
        assert image["alt"]
    assert len(charts) == 5  # with the measured false alarms
    for chart in charts:
        assert b"<svg" in base64.b64decode(chart["src"].removeprefix("data:image/svg+xml;base64,"))
        assert chart["alt"]


def test_without_masks_pixel_metrics_say_why(tmp_path):
    shown, _ = page(tmp_path, masked=False, threshold=4.5)
    assert "Not defined, because the test set has no masks: pixel AUROC" in shown.text
    assert len([one for one in shown.all("img") if "chart" in one.get("class", "")]) == 2
    assert shown.text.count("no mask") == 8 + 1
    assert "kind images image AUROC decided" in shown.text


@pytest.mark.parametrize("threshold", [None, np.inf])
def test_without_held_out_images_nothing_is_decided(tmp_path, threshold):
    def change(results):
        results["thresholds"] = {}
        results["columns"]["validation"] = {}

    shown, _ = page(tmp_path, change=change, threshold=threshold)
    assert "No threshold: no normal images were held out" in shown.text
    assert "epoch chosen on" not in shown.text
    assert not shown.all("fieldset")
    assert all("data-outcome" not in entry for entry in shown.all("article"))


def test_an_estimate_is_named_with_the_number_of_images_for_a_promise(tmp_path):
    card = Decisions([np.arange(4.0)], [np.arange(4.0)], 0.01).card

    def change(results):
        results["thresholds"] |= card

    shown, _ = page(tmp_path, ["good", "scratch"], change=change, threshold=card["image"])
    assert "about 1 % false alarms: an estimate from the tail of 4 held-out images" in shown.text
    assert "To promise 1 % hold out 99 images" in shown.text
    assert "at most 20 % of new normal images" in shown.text


def test_what_is_decided_by_ranks_needs_no_threshold(tmp_path):
    def change(results):
        results["thresholds"] |= {"image": None, "calibration": "cross", "interval": None}

    flagged = np.arange(2) == 1
    shown, _ = page(tmp_path, ["good", "scratch"], change=change, flagged=flagged)
    assert "scratch 1 100.00" in shown.text
    assert "An image is anomalous" not in shown.text


@pytest.mark.parametrize("kind", ["good", "scratch"])
def test_one_class_alone_still_gives_a_page(tmp_path, kind):
    shown, _ = page(tmp_path, [kind] * 3, threshold=1.0)
    other = {"good": "anomalous", "scratch": "good"}[kind]
    assert f"Not defined, because the test set has no {other} image" in shown.text
    assert "nan" not in shown.text.lower()


def test_limit_takes_kinds_alike_and_scores_evenly(tmp_path):
    kinds = ["good"] * 40 + ["a"] * 2 + ["b"] * 20
    shown, test = page(tmp_path, kinds, limit=12)
    assert "12 of 62 test images" in shown.text
    assert "50 left out" in shown.text
    assert sorted(test.decoded) == [0, 10, 19, 29, 39, 40, 41, 42, 47, 51, 56, 61]
    findings = ScoredImages(test, scores_of(test), None, None, None)
    assert gallery.choose(findings, 0) == []
    assert len(gallery.choose(findings, 62)) == 62


def test_a_score_has_to_exceed_the_threshold():
    test = Source()
    findings = ScoredImages(test, scores_of(test), None, None, 5.0)
    assert [findings.decision(index)[0] for index in (4, 5, 6)] == ["passed", "passed", "detected"]


def test_region_metrics_of_a_kind_come_from_the_overlap_map():
    test = Source()
    masks = masks_of(test)
    scores = scores_of(test)._replace(overlap=masks.astype(np.float32))
    rows = tables.kinds(ScoredImages(test, scores, masks, None, None)).rows
    (row,) = [row for row in rows if row[0] == "scratch"]
    assert row[1:3] == [5, "100.00"]
    assert row[4] == "100.00"
    assert 30 < float(row[3]) < 70


def test_a_refused_page_leaves_the_old_one(tmp_path):
    class Broken(Source):
        def __getitem__(self, index):
            raise UserError(f"cannot read '{self.paths[index]}'")

    path, test = tmp_path / "report.html", Broken()
    path.write_text("old")
    scores = scores_of(test)
    with pytest.raises(UserError, match="cannot read"):
        html_page.write(path, results_of(test, scores, None), {}, test, scores, None)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
