"""The tables of all methods on real images: what is bold, and that the page is what was kept."""

import csv
import sys

import pytest

from benchmarks.real_images import sets, table
from flowad_jax.methods import gaussian
from tests.test_configs import METHODS


def runs(*values, **others):
    return [
        {
            "metrics": {"image_auroc": value, "image_ap": None},
            "false_alarms": {"false_alarms": 2 + seed, "good": 50},
            "epochs": 3,
            "train_seconds": 12.0,
            "images_per_second": 40.0,
            "megabytes": 1.25,
            "image_size": 256,
            "images": {"train": 40, "holdout": 10, "test": 90},
            **others,
        }
        for seed, value in enumerate(values)
    ]


@pytest.mark.parametrize(
    ("one", "two", "winner"),
    [
        ((0.91, 0.90, 0.92), (0.80, 0.81, 0.79), "one"),
        ((0.91, 0.70, 0.95), (0.80, 0.81, 0.79), None),
        ((0.80,), (0.99,), None),  # nobody knows the noise of a single seed
        ((0.80, 0.81), (0.99,), None),
    ],
)
def test_only_a_difference_larger_than_the_noise_is_bold(one, two, winner):
    found = {"one": runs(*one), "two": runs(*two)}
    assert table.best(found, "image_auroc") == winner
    assert table.table(found).count("**") == (2 if winner else 0)


def test_a_table_has_means_deviations_and_the_interval_of_false_alarms():
    shown = table.table({"one": runs(0.90, 0.92), "two": runs(0.5)})
    assert "image AP" not in shown  # nobody has it
    assert "| one | 91.0 ± 1.4 | 5.0 % (0 to 14) | 3 | 12.0 | 1.2 |" in shown
    assert "| two | 50.0 | 4.0 % (0 to 14) |" in shown


def test_sets_are_apart_and_say_how_many_images_and_seeds_they_had():
    found = {
        "titles": {"a": "First", "b": "Second"},
        "runs": {"b/one/0": runs(0.5, image_size=[160, 384])[0], "a/one/0": runs(0.5)[0]},
    }
    text = table.text(found)
    assert text.index("### First") < text.index("### Second")
    assert "40 good images to train, 10 held out, 90 to test; 160 x 384 px; 1 seeds." in text


def test_the_page_is_what_its_command_writes():
    page = table.PAGE.read_text(encoding="utf-8")
    wanted = "run: python -m benchmarks.real_images.table --write"
    assert table.filled(page, table.text(table.read())) == page, wanted


def test_every_method_is_compared_and_every_recipe_is_there():
    assert {method for method, _ in sets.METHODS.values()} == set(METHODS)
    assert gaussian.COVARIANCES == ("shared", "position")
    for method in METHODS:
        for recipe in ("textures", "magnetic_tile", "csv"):
            name = sets.recipe(method, sets.ImageSet("", recipe, {}))
            assert (table.ROOT.parents[1] / "configs" / f"{name}.py").is_file(), name


def test_cells_nobody_was_sure_about_are_left_out(tmp_path, monkeypatch):
    """Of the solar cells; every fifth good one is tested."""
    package = tmp_path / "elpv_dataset"
    (package / "data" / "images").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    lines = [f"images/cell{i:04}.png 0.0 mono" for i in range(6)]
    lines += ["images/cell0006.png 1.0 mono", "images/cell0007.png 0.33 mono"]
    lines += ["images/cell0008.png 1.0 poly"]
    (package / "data" / "labels.csv").write_text("\n".join(lines))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "elpv_dataset", raising=False)
    found = sets.solar_cells(tmp_path / "work", "mono")
    with found.open() as file:
        rows = [(row["image"], row["split"], row["label"]) for row in csv.DictReader(file)]
    assert [row[1] for row in rows] == ["test", *["train"] * 4, "test", "test"]
    assert rows[-1] == ("images/cell0006.png", "test", "defective")
    assert len(rows) == 7
    assert (found.parent / "images").is_dir()
