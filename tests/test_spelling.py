"""Configs of earlier versions are read as those of today."""

import pytest

from flowad_jax.detector import config_schema
from flowad_jax.errors import UserError
from flowad_jax.recipes.base import base
from flowad_jax.settings import spelling

OLD = {
    "data": {"root": "", "category": "", "few_shot": 0},
    "encoder": {"pool": "none"},
    "synthesis": {"name": "", "lenders": ""},
    "method": {"fibre_steps": 0},
    "train": {"clip_norm": 0.0, "stack": ()},
    "sweep": {"seeds": (), "encoders": ()},
    "cache": {"memory_mb": 0, "folder": ""},
}


def test_old_spellings_of_unset_are_read_as_none():
    config, untouched = base("cflow"), base("cflow").to_dict()
    config.update(OLD)
    config_schema.check(config)
    assert config.to_dict() == untouched
    written = {key: value | OLD.get(key, {}) for key, value in untouched.items() if key in OLD}
    assert spelling.read_stored(untouched | written) == untouched


NEW = {
    "data": ("fit", "fold", "synthetic_test", "jitter"),
    "encoder": ("pyramid",),
    "train": ("init_from", "whiten", "feature_noise", "ema_decay", "ensemble", "loggers"),
}


def test_keys_of_version_0_1_are_read_from_stored_configs():
    stored = base("sanflow").to_dict()
    stored["data"] |= {"train_filter": "bilinear", "share_sharpening": False}
    stored["train"]["plan_memory"], stored["eval"]["top"] = False, 0.05
    del stored["synthesis"]["legacy"]
    for section, keys in NEW.items():  # which it did not know
        for key in keys:
            del stored[section][key]
    again = spelling.read_stored(stored)
    assert again["synthesis"]["legacy"] is True
    assert "train_filter" in stored["data"]  # which is not changed
    expected = base("sanflow")
    expected.synthesis.legacy = True
    assert again == expected.to_dict()
    stored["eval"]["image_score"] = "top"
    assert spelling.read_stored(stored)["eval"]["image_score"] == "0.05"
    stored["data"]["train_filter"] = ""
    assert spelling.read_stored(stored)["synthesis"]["legacy"] is False
    assert spelling.read_stored({"synthesis": {"legacy_shift": True}}) == {
        "synthesis": {"legacy": True}
    }
    for key, value in (("train_filter", "nearest"), ("share_sharpening", True)):
        with pytest.raises(UserError, match=f"^data.{key}={value!r}: this version has no such"):
            spelling.read_stored({"data": {"filter": "lanczos", key: value}})


@pytest.mark.parametrize("shape", [None, 3, "x", [1], {"name": {"a": 1}}])
def test_sections_of_a_wrong_shape_are_left_to_the_schema(shape):
    stored = dict.fromkeys(("data", "synthesis", "train", "eval", "method"), shape)
    assert spelling.read_stored(stored) == stored
