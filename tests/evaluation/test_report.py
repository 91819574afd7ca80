"""The report: complete within one file, true to the numbers, and closed to hostile names."""

import base64
import io
import re
from configparser import ConfigParser
from html.parser import HTMLParser
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from ml_collections import ConfigDict
from PIL import Image

from flowad_jax.errors import UserError
from flowad_jax.evaluation import metrics, report, report_gallery, report_html, report_tables
from flowad_jax.evaluation.report_findings import Findings
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
    path = report.write(folder / "report.html", results, config, test, scores, masks, **options)
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
    assert EVIL in full.all("article")[0]["data-kind"] + full.all("img")[0]["alt"]


def test_header_columns_card_and_details_show_the_results(full):
    for words in (
        "Method CFLOW-AD", "Image size 16 × 24", "Seed 7", "Scores calibrated",
        "last epoch", "epoch chosen on held-out good images", "best epoch on test: not comparable",
        "at most 10\N{NO-BREAK SPACE}% of new normal images", "19 held-out normal images",
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
    images = full.all("img")
    assert len(images) == 8 * 4 + 6 * 3  # good images have no mask to show
    for image in images:
        data = base64.b64decode(image["src"].split(",")[1])
        with Image.open(io.BytesIO(data)) as opened:
            assert opened.size == (192, 26)
        assert image["alt"]
        assert image["loading"] == "lazy"
    assert all(chart["aria-label"] for chart in full.all("svg"))
    assert len(full.all("svg")) == 4


def test_without_masks_pixel_metrics_say_why(tmp_path):
    shown, _ = page(tmp_path, masked=False, threshold=4.5)
    assert "Not defined, because the test set has no masks: pixel AUROC" in shown.text
    assert len(shown.all("svg")) == 2
    assert shown.text.count("no mask") == 8 + 1
    assert "kind images image AUROC at the threshold" in shown.text


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


@pytest.mark.parametrize("image", [None, 4.5])
def test_too_few_held_out_images_are_named_with_the_number_needed(tmp_path, image):
    def change(results):
        results["thresholds"] |= {"images": 4, "false_alarm_rate": 0.01, "image": image}

    shown, _ = page(tmp_path, ["good", "scratch"], change=change, threshold=image)
    assert "4 held-out normal images cannot promise 1 %: " in shown.text
    assert ("no threshold" in shown.text) == (image is None)
    assert "Hold out 99 or more" in shown.text


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
    findings = Findings(test, scores_of(test), None, None, None)
    assert report_gallery.choose(findings, 0) == []
    assert len(report_gallery.choose(findings, 62)) == 62


def test_a_score_has_to_exceed_the_threshold():
    test = Source()
    findings = Findings(test, scores_of(test), None, None, 5.0)
    assert [findings.decision(index)[0] for index in (4, 5, 6)] == ["passed", "passed", "detected"]


def test_region_metrics_of_a_kind_come_from_the_overlap_map():
    test = Source()
    masks = masks_of(test)
    scores = scores_of(test)._replace(overlap=masks.astype(np.float32))
    shown = Page(report_tables.kinds(Findings(test, scores, masks, None, None)))
    pixel, region = re.search(r"scratch 5 100\.00 (\S+) (\S+)", shown.text).groups()
    assert region == "100.00"
    assert 30 < float(pixel) < 70


def test_a_refused_page_leaves_the_old_one(tmp_path):
    class Broken(Source):
        def __getitem__(self, index):
            raise UserError(f"cannot read '{self.paths[index]}'")

    path, test = tmp_path / "report.html", Broken()
    path.write_text("old")
    scores = scores_of(test)
    with pytest.raises(UserError, match="cannot read"):
        report.write(path, results_of(test, scores, None), {}, test, scores, None)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_everything_is_text_until_it_is_said_to_be_html():
    bold = report_html.tag("b", "<i>", title='"&', hidden=True, id=None)
    assert bold == '<b title="&quot;&amp;" hidden>&lt;i&gt;</b>'
    assert report_html.tag("p", bold, 1, None) == f"<p>{bold}1</p>"


def test_files_of_the_page_are_installed():
    setup = ConfigParser()
    setup.read(Path(__file__).parents[2] / "setup.cfg")
    patterns = setup["options.package_data"]["flowad_jax.evaluation"].split()
    folder = Path(report.__file__).parent
    installed = {path for pattern in patterns for path in folder.glob(pattern)}
    assert set((folder / "_report").iterdir()) <= installed
