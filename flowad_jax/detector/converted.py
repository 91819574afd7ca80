"""The state of a detector that was trained with PyTorch, as the converter leaves it in a workdir.

It takes the place of checkpoints: parameters and buffers without an optimizer, in one file, and
beside it what was fitted to normal images.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flowad_jax import files, schema
from flowad_jax.detector import calibration, checksums, splits
from flowad_jax.errors import UserError
from flowad_jax.types import TrainState
from flowad_jax.weights import layout, store

DETECTOR = "detector.safetensors"
META = "converted.json"

_AGAIN = "convert again"
_META = schema.table(
    {"encoder_sha256": schema.TEXT, "fitted": calibration.SCHEMA},
    {
        "detector_sha256": schema.TEXT,
        "config": schema.table({}),
        "images": splits.SCHEMA,
        "findings": schema.array(schema.TEXT),
        "epoch_seconds": schema.array(schema.number()),
        "dialect": schema.TEXT,
        "source": schema.TEXT,
    },
)
log = logging.getLogger("flowad_jax")


def is_converted(path: Path) -> bool:
    """Says whether a workdir holds a converted detector, or what is left of one."""
    return any((path / name).exists() for name in (DETECTOR, META))


def save(path: Path, variables: dict[str, Any], card: dict[str, Any]) -> None:
    """Writes ``params`` and ``buffers`` into a workdir; ``card`` says where they come from."""
    stored = {"params": variables["params"], "constants": variables.get("buffers", {})}
    store.save(path / DETECTOR, stored, card)


def load(path: Path, shapes: dict[str, Any]) -> tuple[TrainState, dict[str, Any]]:
    """Reads a converted detector: a state without an optimizer's, and what `save_meta` was given.

    ``shapes`` are the method's variables as `jax.ShapeDtypeStruct`.

    Raises:
      UserError: a file is missing, damaged, or does not fit the config.
    """
    meta = load_meta(path)
    if "detector_sha256" not in meta:
        file = path / DETECTOR
        log.warning("%s cannot be checked for damage: version 0.1 wrote no checksum", file)
    elif damage := checksums.first_damage(path, {DETECTOR: meta["detector_sha256"]}):
        raise UserError(f"{path}: {damage}; {_AGAIN}")
    return load_state(path, shapes), meta


def load_state(path: Path, shapes: dict[str, Any]) -> TrainState:
    """Reads the state alone; see `load`."""
    variables, _ = store.load(path / DETECTOR)
    advice = "config.json is of another detector; convert again"
    stored = {"params": shapes["params"], "constants": shapes.get("buffers", {})}
    layout.require_shapes(variables, stored, str(path / DETECTOR), advice=advice)
    return state({"params": variables["params"], "buffers": variables.get("constants", {})})


def state(variables: dict[str, Any]) -> TrainState:
    """Puts variables on the device, as a state without an optimizer's."""
    on_device = jax.device_put(variables)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=on_device["params"],
        opt_state={},
        buffers=on_device.get("buffers", {}),
        rng=jax.random.key(0),
    )


def save_meta(path: Path, meta: dict[str, Any]) -> None:
    """Writes what belongs to the detector, which was saved before, as checkpoints have it."""
    digest = {"detector_sha256": checksums.of_file(path / DETECTOR)}
    files.write_text(path / META, checksums.seal({"epoch_seconds": [], **meta, **digest}))


def load_meta(path: Path) -> dict[str, Any]:
    """Reads what `save_meta` wrote; raises a UserError if it is missing or damaged."""
    file = path / META
    meta, sealed = checksums.read_sealed(file, _META, _AGAIN)
    if sealed and "detector_sha256" not in meta:
        raise UserError(f"{file} has no checksum of the detector: {_AGAIN}")
    return meta
