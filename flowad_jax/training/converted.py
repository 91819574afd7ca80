"""The state of a detector that was trained with PyTorch, as the converter leaves it in a workdir.

It takes the place of checkpoints: parameters and constants without an optimizer, in one file, and
beside it what was fitted to normal images.
"""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flowad_jax import files, schema
from flowad_jax.errors import UserError
from flowad_jax.evaluation import fitted
from flowad_jax.training import checksums, splits
from flowad_jax.types import TrainState
from flowad_jax.weights import layout, store

DETECTOR = "detector.safetensors"
META = "converted.json"

_AGAIN = "convert again"
_META = schema.table(
    {"encoder_sha256": schema.TEXT, "fitted": fitted.SCHEMA},
    {
        "detector_sha256": schema.TEXT,
        "config": schema.table({}),
        "images": splits.SCHEMA,
        "epoch_seconds": schema.array(schema.number()),
        "dialect": schema.TEXT,
        "source": schema.TEXT,
    },
)
log = logging.getLogger("flowad_jax")


def is_converted(path: Path) -> bool:
    """Whether a workdir holds a converted detector, or what is left of one."""
    return any((path / name).exists() for name in (DETECTOR, META))


def save(path: Path, variables: dict[str, Any], card: dict[str, Any]) -> None:
    """Writes the detector's tensors, one by one.

    Args:
      path: the workdir.
      variables: ``params`` and ``constants``.
      card: where they come from.
    """
    store.save(path / DETECTOR, variables, card)


def load(path: Path, shapes: dict[str, Any]) -> tuple[TrainState, dict[str, Any]]:
    """Reads a converted detector.

    Args:
      path: the workdir.
      shapes: the method's variables as `jax.ShapeDtypeStruct`.

    Returns:
      A state that cannot be trained on, for want of an optimizer's, and what `save_meta` was
      given.

    Raises:
      UserError: a file is missing, damaged, or does not fit the config.
    """
    file, meta = path / DETECTOR, load_meta(path)
    digest = meta.get("detector_sha256")
    if digest is None:
        log.warning("%s cannot be checked for damage: version 0.1 wrote no checksum", file)
    elif damage := checksums.first_damage(path, {DETECTOR: digest}):
        raise UserError(f"{path}: {damage}; {_AGAIN}")
    return load_state(path, shapes), meta


def load_state(path: Path, shapes: dict[str, Any]) -> TrainState:
    """Reads the state alone; see `load`."""
    file = path / DETECTOR
    variables, _ = store.load(file)
    layout.require_shapes(
        variables, shapes, str(file), advice="config.json is of another detector; convert again"
    )
    return state(variables)


def state(variables: dict[str, Any]) -> TrainState:
    """The same for variables at hand."""
    on_device = jax.device_put(variables)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=on_device["params"],
        opt_state={},
        constants=on_device.get("constants", {}),
        rng=jax.random.key(0),
    )


def save_meta(path: Path, meta: dict[str, Any]) -> None:
    """Writes what belongs to the detector, which was saved before.

    Args:
      path: the workdir.
      meta: as checkpoints have it: the encoder's checksum, what was fitted, the config.
    """
    digest = {"detector_sha256": checksums.of_file(path / DETECTOR)}
    sealed = checksums.seal({"epoch_seconds": [], **meta, **digest})
    files.write_text(path / META, sealed)


def load_meta(path: Path) -> dict[str, Any]:
    """Reads it.

    Raises:
      UserError: it is missing or damaged.
    """
    file = path / META
    meta, sealed = checksums.read_sealed(file, _META, _AGAIN)
    if sealed and "detector_sha256" not in meta:
        raise UserError(f"{file} has no checksum of the detector: {_AGAIN}")
    return meta
