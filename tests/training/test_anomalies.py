"""A run says which of NSA's constants hold for its category."""

import logging

import pytest

from configs.base import base
from flowad_jax import lookup
from flowad_jax.training import anomalies


def lines(caplog, data, own, **options):
    """What is logged for a category of a data set."""
    config = base("ssnf", data)
    config.data.category = own
    config.synthesis.update(options)
    arguments = config.method.to_dict()
    method = lookup.find("flowad_jax.methods", arguments.pop("name"))(**arguments)
    with caplog.at_level(logging.INFO, "flowad_jax"):
        anomalies.find(config, method)
    return [record.message for record in caplog.records]


def test_an_object_has_constants_of_its_own(caplog):
    assert lines(caplog, "mvtec", "bottle") == [
        "nsa: constants of mvtec/bottle: texture False, background ((200, 60),), "
        "factors (0.7, 1.3), min_object 0.7, min_overlap 0.25, max_patches 3, "
        "logistic (0.0833, 24)"
    ]


def test_most_textures_have_the_usual_ones(caplog):
    usual = "nsa: constants of dagm/Class1: those of most textures"
    assert lines(caplog, "dagm", "Class1") == [usual]


def test_an_option_of_the_recipe_wins(caplog):
    (line,) = lines(caplog, "mvtec", "wood", background=((20, 20), (200, 60)), logistic=(1.0, 3.0))
    assert line.endswith("mvtec/wood: background ((20, 20), (200, 60)), logistic (1, 3)")


def test_constants_of_another_set_are_named_by_it(caplog):
    (line,) = lines(caplog, "folder", "part", dataset="mvtec", category="wood")
    assert line == "nsa: constants of mvtec/wood: logistic (0.167, 15)"


@pytest.mark.parametrize("data", ["folder", "visa", "magnetic_tile"])
def test_sets_without_published_constants_say_nothing(caplog, data):
    assert lines(caplog, data, "part") == []


@pytest.mark.parametrize("negative", [True, False])
def test_what_an_unchanged_pair_counts_for_is_passed_on(negative):
    config = base("ssnf", "folder")
    config.synthesis.unchanged_as_negative = negative
    method = lookup.find("flowad_jax.methods", "ssnf")()
    assert anomalies.find(config, method).unchanged_as_negative is negative
