"""Names of files and folders that attack terminals, tables, pages or spreadsheets end no run."""

import csv
import json
import os
import shutil

import numpy as np
import pytest
from PIL import Image

from flowad_jax.errors import UserError
from flowad_jax.report import pictures
from flowad_jax.sweep import comparison
from flowad_jax.training.loop import train
from flowad_jax.training.rescore import evaluate_workdir
from tests.conftest import tiny_recipe

NOT_UTF8 = os.fsdecode(b"caf\xe9-\xff")
NAMES = (
    NOT_UTF8,
    os.fsdecode(b"\xc3\x28"),
    "line\nbreak",
    "return\rhere",
    "tab\there",
    "bell\a\x1b[2Jclear",
    "\x1b]0;title\x07",
    "gpj.\u202eexe",
    "zero\u200bwidth",
    "para\u2029graph",
    "a|b",
    "`code`",
    "**bold**",
    "[click](javascript:alert(1))",
    "![track](x.png)",
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)<",
    "&lt;&amp;",
    "http:evil",
    "www.evil.example",
    "someone@evil.example",
    "=HYPERLINK(1)",
    "+1+1",
    "-1-1",
    "@SUM(1)",
    "$x_1^2$",
    "\\frac{1}{2}",
    "%s%n{0}",
    "CON",
    "name.",
    "~root",
    "--flag",
    "' OR 1=1",
    "日本語",
    "x" * 200,
)
KINDS = NAMES[:20:2]  # each kind takes a picture, and half a second


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory):
    """A run whose kinds of defects and image files have these names."""
    root = tmp_path_factory.mktemp("names")
    rng = np.random.default_rng(0)
    for folder in ("train/good", "test/good", *(f"test/{name}" for name in KINDS)):
        (root / "part" / folder).mkdir(parents=True)
    for number in range(6):
        _save(root / "part/train/good" / f"{number}.png", rng)
    for name in KINDS:
        _save(root / "part/test" / name / f"{name}.png", rng)
    for name in NAMES:
        _save(root / "part/test/good" / f"{name}.png", rng)
    config = tiny_recipe(root)
    config.train.epochs = 1
    config.eval.report_images = 2 * len(NAMES)
    workdir = root / "runs"
    train(config, workdir)
    return workdir


def _save(path, rng):
    Image.fromarray(rng.integers(0, 255, (16, 16, 3)).astype(np.uint8)).save(path)


@pytest.mark.whole
def test_training_ends_with_results_pictures_and_a_page(run):
    found = json.loads((run / "results.json").read_text(encoding="utf-8"))
    assert set(found["data"]["test"]["kinds"]) == {*KINDS, "good"}
    assert len(found["pictures"]) == 3 + len(KINDS)
    assert all((run / picture).is_file() for picture in found["pictures"])
    page = (run / "report.html").read_text(encoding="utf-8")
    assert page.count("<script>") == 1
    assert page.count("<article") == len(KINDS) + len(NAMES)


@pytest.mark.whole
def test_nothing_that_people_read_holds_control_characters(run):
    for name in ("results.md", "report.html"):
        text = (run / name).read_text(encoding="utf-8")
        assert not [letter for letter in text if letter in "\x1b\a\u202e\u200b\u2029\r"], name


@pytest.mark.whole
def test_markdown_shows_names_and_no_markup_of_theirs(run):
    lines = (run / "results.md").read_text(encoding="utf-8").splitlines()
    kinds = [line for line in lines if line.startswith("| test.kinds.")]
    assert len(kinds) == len(KINDS) + 1
    for line in kinds:
        assert line.replace("\\|", "").count("|") == 3, line
        for markup in ("<", "](", "://", "www.", "@", "**"):
            assert markup not in line.replace("\\]", "").replace("\\*", ""), line


def test_a_table_of_runs_is_as_careful(tmp_path):
    runs = [
        {"folder": name, "category": name, "encoder": name, "seed": 0}
        | {"status": "failed", "fault": f"{name}\n# {name}", "columns": {}}
        for name in NAMES
    ]
    found = comparison.write(tmp_path, runs, method="<b>", data="[x](http://evil.example)")
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert len(found["runs"]) == len(NAMES)
    assert text.splitlines()[0] == "# &lt;b> on \\[x\\](http&#58;//evil.example): 35 runs"
    assert sum(line.startswith("#") for line in text.splitlines()) == 2
    assert "<script>" not in text
    with (tmp_path / "results.csv").open(encoding="utf-8", newline="") as file:
        cells = [row["category"] for row in csv.DictReader(file)]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t"))]


@pytest.mark.parametrize("broken", ["save_roc", "save_histogram", "save_panels"])
@pytest.mark.whole
def test_no_picture_costs_a_result(run, tmp_path, monkeypatch, caplog, broken):
    copy = shutil.copytree(run, tmp_path / "run")
    (copy / "results.json").unlink()

    def fail(*args, **kwargs):
        assert (copy / "results.json").is_file(), "results come first"
        raise RuntimeError("cannot\ndraw")

    for name in ("save_roc", "save_histogram"):
        monkeypatch.setattr(pictures, name, lambda path, *rest: path.name)
    monkeypatch.setattr(pictures, "save_panels", lambda *rest, **options: ["one", "two"])
    monkeypatch.setattr(pictures, broken, fail)
    monkeypatch.setattr("flowad_jax.report.html_page.write", fail)
    found = evaluate_workdir(copy)
    stored = json.loads((copy / "results.json").read_text(encoding="utf-8"))
    assert stored["columns"]["last"]["image_auroc"] == found["columns"]["last"]["image_auroc"]
    assert len(stored["pictures"]) == {"save_panels": 2}.get(broken, 3)
    lines = [line for line in caplog.messages if line.endswith("could not be written: cannot draw")]
    assert len(lines) == 2


def test_a_workdir_that_cannot_hold_checkpoints_is_refused_before_training(tmp_path, tiny_config):
    with pytest.raises(UserError, match=r"not UTF-8"):
        train(tiny_config, tmp_path / NOT_UTF8)
    assert not (tmp_path / NOT_UTF8 / "config.json").exists()
