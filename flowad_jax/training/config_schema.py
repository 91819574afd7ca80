"""What a config may hold: every key of `configs/base.py` with its type and its bounds.

The same schema checks the config of a command before anything is built, and the config.json of a
workdir before anything in it is believed. A new key of a recipe needs its line here. The sections
`method`, `synthesis`, `data.options` and `train.schedule` are calls: their keys are arguments of
the function that `name` stands for, whose own types `lookup.check_arguments` knows; here they are
bounded, so that no number takes the memory or the time of a machine.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from flowad_jax import schema
from flowad_jax.data import sources
from flowad_jax.errors import UserError
from flowad_jax.schema import BOOLEAN, array, integer, nullable, number, table

ANOTHER_VERSION = "another version of flowad_jax wrote it; use that version, or train anew"

_WORD: schema.Schema = {
    "type": "string",
    "maxLength": 4096,
    "pattern": r"\A[^\x00-\x1f\x7f]*\Z",
    "description": "text of one line",
}
_SIDE = {**integer(1, 8192), "description": "a whole number of pixels from 1 to 8192"}
_COUNT, _SIZE, _MANY = integer(0, 2**31), integer(1, 2**16), integer(1, 2**31)
_NUMBERS = {"minimum": -1e38, "maximum": 1e38}
_ARGUMENT: schema.Schema = {
    **_WORD,
    **_NUMBERS,
    "type": ["string", "boolean", "number", "null", "array"],
    "maxItems": 256,
    "items": {
        **_WORD,
        **_NUMBERS,
        "type": ["string", "boolean", "number", "null", "array"],
        "maxItems": 256,
        "items": {**_WORD, **_NUMBERS, "type": ["string", "boolean", "number", "null"]},
        "description": "words, numbers, or a list of them",
    },
    "description": "a word, a number, or a list of them",
}
# Arguments that decide how much is computed; what else is wrong with them, their function says.
_LARGEST = {
    **{"blocks": 256, "condition": 4096, "hidden": 4096, "heads": 256, "fibre_size": 2**24},
    **{"sub_epochs": 2**20, "warmup_meta_epochs": 2**20, "t_max": 2**20, "cap_dimensions": 2**40},
    **{"train_images": 10**5, "good_images": 10**5, "images_per_kind": 10**5, "tile": 8192},
    **{"draws": 10**6, "retries": 10**4, "max_patches": 10**4, "every": 10**6, "test_every": 10**6},
}
_BOUNDED: dict[str, schema.Schema] = {
    key: {
        "type": ["number", "array", "null"],
        "maximum": largest,
        "maxItems": 256,
        "items": number(high=largest),
        "description": f"a number of at most {largest}",
    }
    for key, largest in _LARGEST.items()
} | {"sub_epochs": integer(1, 2**20)}


def _call(**required: schema.Schema) -> schema.Schema:
    """A section that names a function, with the arguments of that function."""
    return table(required, _BOUNDED, others=_ARGUMENT)


def _section(**keys: schema.Schema) -> schema.Schema:
    return table(keys, others=False)


CONFIG = _section(
    seed=integer(0, 2**63 - 1),
    precision=_WORD,
    sweep=_section(seeds=array(integer(0, 2**63 - 1)), encoders=array(_WORD)),
    data=_section(
        name=_WORD,
        root=_WORD,
        category=_WORD,
        image_size=_SIDE,
        category_sizes=table({}, others=_SIDE),
        options=_call(),
        norm=_WORD,
        filter=_WORD,
        train_filter=_WORD,
        holdout=number(0, 1),
        holdout_from=_WORD,
        few_shot=_COUNT,
        repeat=integer(high=2**31),
        rotation_degrees=number(0, 360),
        sharpen=number(),
        share_sharpening=BOOLEAN,
        drop_last=BOOLEAN,
        workers=integer(0, 1024),
        processes=integer(0, 1024),
        cache_mb=_COUNT,
    ),
    encoder=_section(
        name=_WORD,
        weights=_WORD,
        strides=array(integer(1, 2**16), most=64),
        taps=nullable(array(integer(0, 2**16), most=64)),
        padding=nullable(_WORD),
        final_norm=nullable(BOOLEAN),
        tap_at=nullable(_WORD),
        layer_norm=BOOLEAN,
        compute=_WORD,
        pool=_WORD,
    ),
    synthesis=_call(name=_WORD, mask_threshold=number(), lenders=_WORD),
    method=_call(name=_WORD),
    train=_section(
        epochs=integer(1, 10**6),
        batch_size=_SIZE,
        learning_rate=number(above=0),
        clip_norm=number(0),
        adam_eps=number(0),
        weight_decay=number(0),
        decay=_WORD,
        adam_idle=_WORD,
        schedule=_call(name=_WORD),
        eval_every=_MANY,
        checkpoint_every=_MANY,
        stack=array({**_WORD, "type": ["integer", "string"], "description": "a name or a number"}),
        plan_memory=BOOLEAN,
    ),
    cache=_section(place=_WORD, dtype=_WORD, memory_mb=_COUNT, folder=_WORD),
    eval=_section(
        batch_size=_SIZE,
        scoring=_WORD,
        calibration_images=_MANY,
        image_score=_WORD,
        top=number(0, 1),
        mask_size=_WORD,
        false_alarm_rate=number(),
        report_images=_COUNT,
        pictures_per_kind=_COUNT,
    ),
)
# Text that is never looked up as the name of something, and may hold a colon.
_FREE_TEXT = ("data.root", "data.category", "encoder.weights", "cache.folder", "synthesis.lenders")
_FREE_SECTIONS = ("data.options.", "data.category_sizes.")


def plain(config: config_dict.ConfigDict) -> dict[str, Any]:
    """A config as its JSON file has it.

    Raises:
      UserError: it holds something that JSON does not know.
    """
    try:
        return json.loads(config.to_json())
    except (TypeError, ValueError) as error:
        raise UserError(f"the config holds what JSON does not know: {error}") from error


def check(config: config_dict.ConfigDict) -> None:
    """Raises a UserError that names the first key of a recipe that is wrong."""
    schema.check(plain(config), "", CONFIG)


def read(file: Path, allow_import: Collection[str] = ()) -> config_dict.ConfigDict:
    """Reads a stored config, which is data: nothing that it names elsewhere is imported.

    Args:
      file: the config.json of a workdir.
      allow_import: packages in which names such as ``"package.module:attribute"`` may lie.

    Raises:
      UserError: the file is damaged, does not suit this version, or names what lies elsewhere.
    """
    stored = schema.read(file, {"type": "object"}, "the workdir is damaged")
    schema.check(stored, file, CONFIG, ANOTHER_VERSION)
    for key, name in _names(stored):
        module, colon, attribute = name.partition(":")
        inside = any(module == own or module.startswith(f"{own}.") for own in allow_import)
        if colon and not inside:
            raise UserError(
                f"{file}: {key}='{name}' would import {module} and use its '{attribute}', and a "
                "workdir from others must not run code; if you trust that package, add "
                f"--allow_import={module.partition('.')[0]}"
            )
    try:
        return config_dict.ConfigDict(stored, convert_dict=True)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        # Names of keys that it has no room for, such as those of its own methods.
        raise UserError(f"{file} cannot be used ({error}): {ANOTHER_VERSION}") from error


def _names(stored: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Every text that could be the name of something, with its key."""
    for key, value in flatten(stored).items():
        if key in _FREE_TEXT or key.startswith(_FREE_SECTIONS):
            continue
        for text in value if isinstance(value, list) else [value]:
            if isinstance(text, str):
                yield key, sources.plain(text) if key == "data.name" else text


def flatten(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dicts to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat
