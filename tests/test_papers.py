"""The recipes of the papers can be followed, and their figures are those of published.json."""

import importlib
import json
import re
from pathlib import Path

import pytest

from flowad_jax.data import sources
from flowad_jax.encoders import architecture

PAPERS = Path(__file__).parents[1] / "configs" / "papers"
RECIPES = sorted(path.stem for path in PAPERS.glob("*.py") if path.stem[0] != "_")
PUBLISHED = json.loads((PAPERS / "published.json").read_text(encoding="utf-8"))
SELECTIONS = {
    "best epoch on the test set per metric",
    "best epoch on the test set by pixel AUROC",
    "last epoch",
    "not known",
}
METRICS = {"image_auroc", "pixel_auroc", "aupro_0.30"}
TABLES = [entry for entry in PUBLISHED if len(entry["columns"]) > 1]
MAPS = {"wide_resnet": (512, 1024, 2048), "resnet18": (128, 256, 512), "mobilenet": (40, 112, 160)}


def recipe(name):
    return importlib.import_module(f"flowad_jax.recipes.papers.{name}")


def means(name):
    found = [entry["columns"].get("mean", {}) for entry in PUBLISHED if entry["recipe"] == name]
    return {value for mean in found for value in mean.values()}


def label(entry):
    return f"{entry['recipe']}, {entry['source']}, {entry['selection']}"


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_says_what_its_reader_needs(name):
    text = " ".join(recipe(name).__doc__.split())
    for words in ("Published", "Ours: not measured.", "Hardware: ", "Deviations "):
        assert words in text
    assert means(name) or "not at hand" in text
    assert {f"{value:.2f}".rstrip("0") for value in means(name)} <= {
        number.rstrip("0") for number in re.findall(r"\d+\.\d+", text)
    }


@pytest.mark.parametrize("name", RECIPES)
def test_the_commands_of_a_recipe_fit_together(name):
    """Download, conversion and training name the same encoder and the same files."""
    module = recipe(name)
    text, config = " ".join(module.__doc__.replace("\\", " ").split()), module.get_config()
    encoder, weights = config.encoder.name, config.encoder.weights
    assert text.count(f"--arch={encoder} ") == 2
    file = architecture.find(encoder).spec.weights.file
    assert f"--checkpoint={file} --output={weights} " in text
    assert f"--config.encoder.weights={weights}" in text
    if config.data.category:
        assert f"--config.data.category={config.data.category} " in text


@pytest.mark.parametrize("name", RECIPES)
def test_a_name_is_system_data_and_encoder(name):
    config = recipe(name).get_config()
    encoder = config.encoder.name.split(".")[1].replace("cait_m48_448", "cait_m48")
    revision = "_later" if name.endswith("_later") else ""
    assert name == f"{config.method.name}_{config.data.name}_{encoder}{revision}"


@pytest.mark.parametrize("entry", PUBLISHED, ids=label)
def test_an_entry_names_a_recipe_and_an_epoch(entry):
    assert entry["recipe"] in RECIPES
    assert entry["selection"] in SELECTIONS
    for row in entry["columns"].values():
        assert set(row) <= METRICS
        assert all(50 < value <= 100 for value in row.values())


def test_every_entry_is_another():
    assert len({label(entry) for entry in PUBLISHED}) == len(PUBLISHED)


@pytest.mark.parametrize("entry", TABLES, ids=label)
def test_a_table_has_every_category_and_its_mean(entry):
    """Averages were published with the tables, so a wrong digit shows."""
    columns = dict(entry["columns"])
    mean = columns.pop("mean")
    data = recipe(entry["recipe"]).get_config().data.name
    assert set(columns) == set(sources.dataset_card(data).categories)
    for metric, value in mean.items():
        own = sum(row[metric] for row in columns.values()) / len(columns)
        assert own == pytest.approx(value, abs=0.06), metric


def test_sizes_of_categories_are_those_of_the_commands():
    module = recipe("cflow_mvtec_wide_resnet50_2")
    data = module.get_config("pill").data
    assert (data.category, data.image_size) == ("pill", 256)
    assert data.category_sizes.to_dict() == module.SIZES
    assert sorted(module.SIZES.values()) == [128, *[512] * 9]
    assert "pill" not in module.SIZES


@pytest.mark.parametrize("name", [name for name in RECIPES if name.startswith("cflow")])
def test_cflow_takes_the_published_taps(name):
    config = recipe(name).get_config()
    spec = architecture.find(config.encoder.name).spec
    deepest = dict(zip(spec.strides, spec.channels, strict=True))
    (channels,) = [value for part, value in MAPS.items() if part in config.encoder.name]
    assert tuple(deepest[stride] for stride in config.encoder.strides) == channels
