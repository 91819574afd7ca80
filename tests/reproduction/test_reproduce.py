"""`flowad reproduce` on the textures with figures that are made up, and the real table's names."""

import json
import sys

import pytest

from flowad_jax.cli import recipes, reproduce
from flowad_jax.errors import UserError
from flowad_jax.reproduction import duration, published

ROWS = [
    {
        "recipe": "gaussian_textures",
        "source": "nobody",
        "selection": "best epoch on the test set",
        "columns": {"brick": {"image_auroc": 90.0}, "mean": {"image_auroc": 80.0}},
    },
    {
        "recipe": "gaussian_textures",
        "source": "somebody",
        "selection": "last epoch",
        "columns": {"brick": {"image_auroc": 91.0, "aupro_0.30": 99.0}},
    },
]
KNOWN = recipes.packaged()


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["flowad reproduce", *map(str, words)])
    reproduce.main()


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(ROWS))
    return path


def test_figures_are_compared_with_the_epoch_that_was_chosen_alike():
    columns = {
        "last": {"image_auroc": 0.9, "aupro_0.30": None},
        "oracle": {"image_auroc": 0.95},
    }
    best, last, other = published.compare(ROWS, "papers/gaussian_textures", "brick", columns)
    assert (best.same_selection, best.published, best.ours) == (
        "oracle",
        90.0,
        {"last": pytest.approx(90.0), "oracle": pytest.approx(95.0)},
    )
    assert best.difference == pytest.approx(5.0)
    assert (last.same_selection, last.difference) == ("last", pytest.approx(-1.0))
    assert other.difference is None
    assert published.compare(ROWS, "gaussian_textures", "grass", columns) == []


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("papers/msflow_mvtec_wide_resnet50_2", "papers/msflow_mvtec_wide_resnet50_2"),
        ("msflow_mvtec_wide_resnet50_2", "papers/msflow_mvtec_wide_resnet50_2"),
        ("msflow_visa", "papers/msflow_visa_wide_resnet50_2_later"),
    ],
)
def test_a_recipe_is_known_by_the_start_of_its_name(name, found):
    assert published.find_recipe(name, published.read(), KNOWN) == found


def test_a_name_without_figures_or_of_several_recipes_is_refused():
    rows = published.read()
    with pytest.raises(UserError, match=r"'cflow_mvtec' may be cflow_mvtec_wide.*: name one"):
        published.find_recipe("cflow_mvtec", rows, KNOWN)
    with pytest.raises(UserError, match=r"no figures are published for a recipe 'msflaw'"):
        published.find_recipe("msflaw", rows, KNOWN)


def test_every_published_row_has_a_recipe():
    assert {f"papers/{row['recipe']}" for row in published.read()} <= set(KNOWN)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(3.2, "3 s"), (130, "2 minutes"), (9000, "2 hours"), (5 * 86400, "5 days")],
)
def test_durations_are_for_people(seconds, text):
    assert duration.text(seconds) == text


def test_a_check_says_what_there_is_and_what_it_takes(monkeypatch, capsys, rows):
    run(monkeypatch, "gaussian", "--published", rows, "--category=brick", "--check")
    said = capsys.readouterr().out
    assert "weights: efficientnet-lite0-" in said
    assert "data: 43 images to train, 56 to test" in said
    assert "epochs of 6 steps" in said
    assert "| image AUROC | nobody | best epoch on the test set | 90.00 | - | - | - | - |" in said
    assert "The Gaussian baseline on the embedded textures" in said


def test_the_mended_recipe_stands_for_its_paper_and_missing_weights_are_named(
    monkeypatch, capsys, tmp_path
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, "msflow_mvtec", "--category=screw", f"--data={tmp_path}", "--check")
    found = capsys.readouterr()
    assert stop.value.code == 1
    assert found.out.startswith("papers/msflow_mvtec_wide_resnet50_2_later: MSFlow on MVTec AD")
    assert "encoder.weights 'wide_resnet50_2.safetensors'" in found.err
    assert "Traceback" not in found.err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["gaussian"], 2, "give --workdir or --check"),
        (["zzz", "--check"], 1, "no figures are published for a recipe 'zzz'"),
        (["gaussian", "--category=grass", "--check"], 1, "nothing is published for"),
    ],
)
def test_faults_are_one_line(monkeypatch, capsys, rows, words, code, message):
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, *words, "--published", rows)
    assert stop.value.code == code
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_a_damaged_file_of_figures_is_named(monkeypatch, capsys, tmp_path):
    path = tmp_path / "rows.json"
    path.write_text('[{"recipe": 3}]')
    with pytest.raises(SystemExit):
        run(monkeypatch, "gaussian", "--check", "--published", path)
    assert "rows.json" in capsys.readouterr().err


def test_without_a_recipe_all_published_ones_are_listed(monkeypatch, capsys):
    run(monkeypatch)
    said = capsys.readouterr().out
    assert "msflow_mvtec_wide_resnet50_2\n    " in said


@pytest.mark.whole
def test_a_run_ends_with_the_comparison(monkeypatch, capsys, rows, tmp_path):
    workdir = tmp_path / "run"
    words = ("gaussian", "--published", rows, "--category=brick", "--workdir", workdir)
    run(monkeypatch, *words, "--seed=3")
    said = capsys.readouterr().out
    found = json.loads((workdir / "reproduction.json").read_text())
    results = json.loads((workdir / "results.json").read_text())
    assert results["seed"] == 3
    last = results["columns"]["last"]["image_auroc"]
    assert [one["source"] for one in found] == ["nobody", "somebody", "somebody"]
    assert found[1]["difference"] == pytest.approx(100 * last - 91.0)
    table = (workdir / "reproduction.md").read_text()
    assert f"{100 * last:.2f}" in table
    assert table.rstrip().splitlines()[-1] in said
