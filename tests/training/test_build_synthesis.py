"""A run says which of NSA's constants hold for its category."""

import logging

import pytest

from flowad_jax import lookup
from flowad_jax.recipes.base import base
from flowad_jax.training import build_synthesis

OBJECT = (
    "texture False, background ((200, 60),), factors (0.7, 1.3), min_object 0.7, "
    "min_overlap 0.25, max_patches 3, logistic (0.0833, 24)"
)
OWN = {"background": ((20, 20), (200, 60)), "logistic": (1.0, 3.0)}
OTHER = {"dataset": "mvtec", "category": "wood"}


@pytest.mark.parametrize(
    ("data", "own", "options", "said"),
    [
        ("mvtec", "bottle", {}, [f"mvtec/bottle: {OBJECT}"]),
        ("dagm", "Class1", {}, ["dagm/Class1: those of most textures"]),
        ("mvtec", "wood", OWN, ["mvtec/wood: background ((20, 20), (200, 60)), logistic (1, 3)"]),
        ("folder", "part", OTHER, ["mvtec/wood: logistic (0.167, 15)"]),
        *((data, "part", {}, []) for data in ("folder", "visa", "magnetic_tile")),
    ],
)
def test_constants_that_are_not_the_usual_ones_are_named(caplog, data, own, options, said):
    """Options of the recipe win; sets without published constants say nothing."""
    config = base("ssnf", data)
    config.data.category = own
    config.synthesis.update(options)
    with caplog.at_level(logging.INFO, "flowad_jax"):
        build_synthesis.find(config, lookup.find("flowad_jax.methods", "ssnf")())
    assert caplog.messages == [f"nsa: constants of {line}" for line in said]


@pytest.mark.parametrize("negative", [True, False])
def test_what_an_unchanged_pair_counts_for_is_passed_on(negative):
    config = base("ssnf", "folder")
    config.synthesis.unchanged_as_negative = negative
    method = lookup.find("flowad_jax.methods", "ssnf")()
    assert build_synthesis.find(config, method).unchanged_as_negative is negative
