"""The recipes of the papers are the experiments that were published, value by value.

The facts are those of the authors' programs: read there, in their logs, or measured against them.
"""

import importlib
import inspect
import json
from pathlib import Path

import pytest

from flowad_jax import lookup
from flowad_jax.detector import config_schema, workdir
from flowad_jax.errors import UserError
from flowad_jax.methods import sanflow
from flowad_jax.training import schedules
from tests.published_settings import PUBLISHED

# Options of ours that change nothing where the published form is on.
UNPUBLISHED = {
    "cflow": {"method.name"},
    "sanflow": {"method.name", "method.mask_share"},
    "msflow": {"method.name"},
    "ssnf": {"method.name", "method.compute"},
    "fastflow": {"method.name"},
    "patchflow": {"method.name"},
}


def recipe(name):
    return importlib.import_module(f"flowad_jax.recipes.papers.{name}").get_config()


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_every_published_value(name):
    resolved, published = config_schema.flatten(recipe(name).to_dict()), PUBLISHED[name]
    differs = {key: resolved.get(key) for key in published if resolved.get(key) != published[key]}
    assert differs == {}
    decisive = {key for key in resolved if key.startswith(("method.", "train.schedule."))}
    assert decisive - published.keys() == UNPUBLISHED[name.split("_")[0]]


STORED = json.loads((Path(__file__).parent / "golden" / "configs_0_1.json").read_text("utf-8"))


@pytest.mark.parametrize("name", STORED)
def test_a_run_of_before_goes_on_and_is_read_as_the_recipe_of_today(name, tmp_path):
    """What config.json held when "unset" had many spellings and some keys that are gone."""
    (tmp_path / "config.json").write_text(json.dumps(STORED[name]))
    workdir.check(tmp_path, recipe(name))
    found = config_schema.plain(workdir.load_config(tmp_path))
    assert found == config_schema.plain(recipe(name))
    other = STORED[name] | {"train": STORED[name]["train"] | {"epochs": 3}}
    (tmp_path / "config.json").write_text(json.dumps(other))
    with pytest.raises(UserError, match=r"another config \(train\.epochs: 3 there"):
        workdir.check(tmp_path, recipe(name))


def test_no_recipe_is_left_out():
    papers = Path(__file__).parents[1] / "configs" / "papers"
    assert {path.stem for path in papers.glob("[a-z]*.py")} == set(PUBLISHED)


def test_the_released_sanflow_is_spelled_out():
    """Each option beside `legacy` says what it does, so that a config can be read as it is."""
    method = recipe("sanflow_mvtec_wide_resnet50_2").method.to_dict()
    released = sanflow.RELEASED | sanflow.RELEASED_STEPS
    assert {key: method[key] for key in released} == released


def rates(name, *epochs):
    config = recipe(name)
    arguments = config.train.schedule.to_dict()
    build = lookup.find("flowad_jax.training.schedules", arguments.pop("name"))
    assert inspect.getmodule(build) is schedules
    train = config.train
    schedule = build(train.learning_rate, train.epochs, steps_per_epoch=1, **arguments)
    return [float(schedule(epoch)) for epoch in epochs]


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        # 0.3 + 0.7 k / 12 of 1e-4 in sub-epoch k, a third from 75 and a ninth from 90 on
        (
            "msflow_mvtec_wide_resnet50_2",
            {0: 3e-5, 6: 6.5e-5, 12: 1e-4, 74: 1e-4, 75: 3.3e-5, 89: 3.3e-5, 90: 1.089e-5},
        ),
        # the rates that the authors' log shows
        (
            "msflow_mvtec_wide_resnet50_2_later",
            {0: 1e-5, 1: 1.75e-5, 11: 9.25e-5, 69: 1e-4, 70: 3.3e-5, 89: 3.3e-5, 99: 1.089e-5},
        ),
        ("cflow_mvtec_wide_resnet50_2", {0: 2e-5, 16: 1.96861e-4, 199: 9.877e-7}),
        ("sanflow_mvtec_wide_resnet50_2", {0: 5e-5, 8: 4.87776e-4, 79: 3.575e-6}),
        ("ssnf_mvtec_cait_m48", {0: 2e-4, 50: 1.005e-4, 99: 1.05e-6, 100: 1e-6, 499: 1.05e-6}),
    ],
)
def test_rates_are_the_published_ones(name, expected):
    assert rates(name, *expected) == pytest.approx(list(expected.values()), rel=1e-3)
