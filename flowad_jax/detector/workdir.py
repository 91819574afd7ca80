"""The folder of a run: it belongs to one config, and nothing in it is ever half-written."""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from flowad_jax import files, schema
from flowad_jax.detector import checkpoint, config_schema, converted
from flowad_jax.errors import UserError
from flowad_jax.settings import spelling

CONFIG = "config.json"
LEDGER = "sweep.json"  # instead of the config, where the folder holds several runs
# Sections and keys that change what is reported, or where things are kept, but not what is
# trained: a resumed run may differ in them.
FREE = (
    *("eval", "cache.place", "cache.memory_mb", "cache.folder"),
    *("data.options.decode", "train.loggers"),
)
BOUND = ("eval.calibration", "eval.folds")  # these change what is trained
# Where things lie that are known by their contents: may be edited when they were moved.
MOVABLE = ("data.root", "encoder.weights")


def create_workdir(path: str | Path, config: config_dict.ConfigDict) -> Path:
    """Makes a folder the workdir of this config, unless it is already; returns its absolute path.

    Raises:
      UserError: the folder cannot be written, or belongs to a run of another config.
    """
    path = Path(path).absolute()
    check(path, config)
    with files.writing(path):
        path.mkdir(parents=True, exist_ok=True)
        text = json.dumps(config_schema.plain(config), indent=2) + "\n"
        files.write_text(path / CONFIG, text)
    return path


def check(path: Path, config: config_dict.ConfigDict) -> None:
    """Raises a UserError if a folder cannot be, or is not, the workdir of this config."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        raise UserError(
            f"--workdir: the path {path} is not UTF-8, as those of checkpoints must be: rename it"
        ) from None
    if converted.is_converted(path):
        raise UserError(
            f"{path} holds a converted detector, which cannot be trained on: use another --workdir"
        )
    if (path / LEDGER).exists():
        raise UserError(f"{path} holds several runs: use another --workdir for a single one")
    file, trained, wanted = path / CONFIG, _trained_config(path), config_schema.plain(config)
    found = None
    if file.exists():
        stored = schema.read(file, {"type": "object"}, "the workdir is damaged")
        found = spelling.read_stored(stored)
    if found is None and trained is None and checkpoint.steps(path):
        raise UserError(
            f"{path} holds checkpoints, but the {CONFIG} that they belong to is gone: put it "
            "back, or use another --workdir"
        )
    for stored in (found, trained):
        if stored is not None and (difference := first_difference(wanted, stored)):
            fix = "use another --workdir, or the old config to resume"
            if difference.startswith("train.epochs: "):
                why = "the learning rates of a run depend on its number of epochs"
                fix = f"{why}, so train anew in another --workdir"
            raise UserError(f"{path} holds a run of another config ({difference}): {fix}")


def load_config(path: str | Path, allow_import: Collection[str] = ()) -> config_dict.ConfigDict:
    """Reads the config of a workdir, which may come from a stranger: it is data, never code.

    Names such as ``"mine.flows:build"`` may only lie in the packages of ``allow_import``.

    Raises:
      UserError: there is none, it is damaged, of a version with other keys, or names what lies
        elsewhere.
    """
    file = Path(path).absolute() / CONFIG
    if (file.parent / LEDGER).exists():
        raise UserError(f"{path} holds several runs: choose one of the folders in {path}/{LEDGER}")
    if not file.exists():
        raise UserError(f"{path} is not a workdir: it has no {CONFIG}; train one with flowad train")
    config, trained = config_schema.read(file, allow_import), _trained_config(file.parent)
    stored = config_schema.plain(config)
    if trained and (difference := first_difference(stored, trained, FREE + MOVABLE)):
        raise UserError(
            f"{file} was changed after training ({difference}): put the old value back, or train "
            "anew in another folder"
        )
    # What lies in the workdir goes with it, wherever it is moved.
    if (file.parent / config.encoder.weights).is_file():
        config.encoder.weights = str(file.parent / config.encoder.weights)
    if config.data.name.partition(".")[0] == "stc":
        config.data.options.decode = False  # a stranger does not choose where frames are written
    return config.lock()


def first_difference(
    wanted: dict[str, Any], found: dict[str, Any], free: Collection[str] = FREE
) -> str | None:
    """Says which key of two plain configs differs first, as ``"seed: 1 there, 2 here"``.

    Sections and keys in ``free`` may differ.
    """
    new, old = config_schema.flatten(wanted), config_schema.flatten(found)
    for key in sorted(new.keys() | old.keys()):
        counts = key in BOUND or (key not in free and key.split(".")[0] not in free)
        if counts and new.get(key) != old.get(key):
            return f"{key}: {old.get(key)!r} there, {new.get(key)!r} here"
    return None


def meta_of(path: Path) -> dict[str, Any]:
    """Reads what lies beside the state of a workdir; nothing if there is no state.

    Raises:
      UserError: it is damaged.
    """
    if converted.is_converted(path):
        return converted.load_meta(path)
    step = checkpoint.latest(path)
    return {} if step is None else checkpoint.read_meta(path, step)


def _trained_config(path: Path) -> dict[str, Any] | None:
    """The config that the state of a workdir was trained with, in the spelling of today."""
    stored = meta_of(path).get("config")
    return None if stored is None else spelling.read_stored(stored)
