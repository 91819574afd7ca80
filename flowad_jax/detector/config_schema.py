"""What a config may hold: every key with its type and its bounds.

The same schema checks the config of a command before anything is built, and the config.json of a
workdir before anything in it is believed. `flowad_jax.settings` has the keys. The sections
`encoder`, `method`, `synthesis`, `data.options` and `train.schedule` are calls: their keys are
arguments of the function that `name` stands for, whose own types are checked when it is called;
here they are bounded, so that no number takes the memory or the time of a machine.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from flowad_jax import schema
from flowad_jax.annotations import schema_of
from flowad_jax.data import sources
from flowad_jax.errors import UserError
from flowad_jax.schema import array, integer, nullable, number, table
from flowad_jax.settings import sections, spelling

ANOTHER_VERSION = "another version of flowad_jax wrote it; use that version, or train anew"

_WORD: schema.Schema = {
    "type": "string",
    "maxLength": 4096,
    "pattern": r"\A[^\x00-\x1f\x7f]*\Z",
    "description": "text of one line",
}
_SCALAR: schema.Schema = {
    **_WORD,
    **{"minimum": -1e38, "maximum": 1e38},
    "type": ["string", "boolean", "number", "null"],
}
_LIST: schema.Schema = {**_SCALAR, "type": [*_SCALAR["type"], "array"], "maxItems": 256}
_ARGUMENT: schema.Schema = {
    **_LIST,
    "items": {**_LIST, "items": _SCALAR, "description": "words, numbers, or a list of them"},
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


def _section(key: str, **calls: schema.Schema) -> schema.Schema:
    """A section of the keys that `settings` knows and of calls."""
    return table(_own(key) | calls, others=False)


def _own(key: str) -> dict[str, schema.Schema]:
    """The schemas of the keys of a section, whatever it calls."""
    hints = {word: found.hint for word, found in sections.parameters(key).items()}
    return {word: _one_line(schema_of(hint)) for word, hint in hints.items()}


def _one_line(found: schema.Schema) -> schema.Schema:
    """The same schema, in which all text has one line."""
    if "items" in found:
        found = {**found, "items": _one_line(found["items"])}
    return {**_WORD, **found} if "string" in str(found.get("type")) else found


@functools.cache
def _config() -> schema.Schema:
    strides = {"strides": array(integer(1, 2**16), most=64)}
    taps = {"taps": nullable(array(integer(0, 2**16), most=64))}
    return _section(
        "",
        sweep=_section("sweep"),
        data=_section("data", options=_call()),
        encoder=_section("encoder", **strides, **taps),
        synthesis=_call(**_own("synthesis")),
        method=_call(name=_WORD),
        train=_section("train", schedule=_call(name=_WORD)),
        cache=_section("cache"),
        eval=_section("eval"),
    )


# Text that is never looked up as the name of something, and may hold a colon.
_FREE_TEXT = ("data.root", "data.category", "encoder.weights", "cache.folder", "synthesis.lenders")
_FREE_SECTIONS = ("data.options.", "data.category_sizes.")


def plain(config: config_dict.ConfigDict) -> dict[str, Any]:
    """A config as its JSON file has it, with None for every old spelling of it.

    Raises:
      UserError: it holds something that JSON does not know.
    """
    try:
        found = json.loads(config.to_json())
    except (TypeError, ValueError) as error:
        raise UserError(f"the config holds what JSON does not know: {error}") from error
    spelling.read_unset(found)
    return found


def check(config: config_dict.ConfigDict) -> None:
    """Reads old spellings of None, in place.

    Raises:
      UserError: a key of a recipe is wrong; the message names the first.
    """
    spelling.read_unset(config)
    schema.check(plain(config), "", _config())


def read(file: Path, allow_import: Collection[str] = ()) -> config_dict.ConfigDict:
    """Reads a stored config, which is data: nothing that it names elsewhere is imported.

    Args:
      file: the config.json of a workdir.
      allow_import: packages in which names such as ``"package.module:attribute"`` may lie.

    Raises:
      UserError: the file is damaged, does not suit this version, or names what lies elsewhere.
    """
    stored = schema.read(file, {"type": "object"}, "the workdir is damaged")
    try:
        stored = spelling.read_stored(stored)
    except UserError as error:
        raise UserError(f"{file}: {error}") from None
    schema.check(stored, file, _config(), ANOTHER_VERSION)
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
