"""The folder of a run: it belongs to one config, and nothing in it is ever half-written."""

from __future__ import annotations

import contextlib
import json
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from flowad_jax import files
from flowad_jax.errors import UserError
from flowad_jax.training import converted

CONFIG = "config.json"
LEDGER = "sweep.json"  # instead of the config, where the folder holds several runs
SECTIONS = {
    *("seed", "precision", "sweep", "data", "synthesis"),
    *("encoder", "method", "train", "cache", "eval"),
}
# Sections and keys that change what is reported, or where things are kept, but not what is
# trained: a resumed run may differ in them.
FREE = ("eval", "train.plan_memory", "cache.place", "cache.memory_mb", "cache.folder")


def claim(path: str | Path, config: config_dict.ConfigDict) -> Path:
    """Makes a folder the workdir of this config, or finds that it already is.

    Returns:
      The absolute path.

    Raises:
      UserError: the folder cannot be written, or belongs to a run of another config.
    """
    path = Path(path).absolute()
    check(path, config)
    with files.writing(path):
        path.mkdir(parents=True, exist_ok=True)
        wanted = json.loads(config.to_json())
        files.write_text(path / CONFIG, json.dumps(wanted, indent=2) + "\n")
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
    existing = path / CONFIG
    if not existing.exists():
        return
    difference = _first_difference(json.loads(config.to_json()), _read(existing))
    if difference:
        raise UserError(
            f"{path} holds a run of another config ({difference}): "
            "use another --workdir, or the old config to resume"
        )


def load_config(path: str | Path) -> config_dict.ConfigDict:
    """Reads the config of a workdir.

    Raises:
      UserError: there is none, it is damaged, or of a version with other sections.
    """
    file = Path(path).absolute() / CONFIG
    if (file.parent / LEDGER).exists():
        raise UserError(f"{path} holds several runs: choose one of the folders in {path}/{LEDGER}")
    if not file.exists():
        raise UserError(f"{path} is not a workdir: it has no {CONFIG}; train one with train.py")
    stored = _read(file)
    if missing := sorted(SECTIONS - stored.keys()):
        raise UserError(
            f"{file} has no {', '.join(missing)}: another version of flowad_jax wrote it; evaluate "
            "with that version, or train anew"
        )
    config = config_dict.ConfigDict(stored, convert_dict=True)
    # What lies in the workdir goes with it, wherever it is moved.
    if (file.parent / config.encoder.weights).is_file():
        config.encoder.weights = str(file.parent / config.encoder.weights)
    return config.lock()


@contextlib.contextmanager
def complete(path: str | Path) -> Iterator[None]:
    """Turns the lack of a key in a stored config, wherever it is felt, into one line.

    Raises:
      UserError: the config was written by a version that did not know the key.
    """
    try:
        yield
    except (AttributeError, KeyError) as error:
        *_, (frame, _) = traceback.walk_tb(error.__traceback__)
        if not frame.f_globals.get("__name__", "").startswith("ml_collections"):
            raise
        raise UserError(
            f"{Path(path) / CONFIG} lacks a key ({' '.join(str(error).split())}): another version "
            "of flowad_jax wrote it; use that version, or train anew"
        ) from error


def _read(file: Path) -> dict[str, Any]:
    try:
        return json.loads(file.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{file} cannot be read ({error}): the workdir is damaged") from error


def flatten(section: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Flattens nested dicts to dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, dict):
            flat.update(flatten(value, f"{prefix}{key}."))
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _first_difference(wanted: dict[str, Any], found: dict[str, Any]) -> str | None:
    new, old = flatten(wanted), flatten(found)
    for key in sorted(new.keys() | old.keys()):
        free = key in FREE or key.split(".")[0] in FREE
        if not free and new.get(key) != old.get(key):
            return f"{key}: {old.get(key)!r} there, {new.get(key)!r} here"
    return None
