"""The state of a detector that was trained with PyTorch, as the converter leaves it in a workdir.

It takes the place of checkpoints: parameters and constants without an optimizer, in one file, and
beside it what was fitted to normal images.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from flowad_jax import files
from flowad_jax.errors import UserError
from flowad_jax.types import TrainState
from flowad_jax.weights import layout, store

DETECTOR = "detector.safetensors"
META = "converted.json"


def is_converted(path: Path) -> bool:
    """Whether a workdir holds a converted detector."""
    return (path / DETECTOR).is_file()


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
    return load_state(path, shapes), load_meta(path)


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
    """Writes what checkpoints have as meta: the encoder's checksum, and what was fitted."""
    files.write_text(path / META, json.dumps({"epoch_seconds": [], **meta}, indent=2) + "\n")


def load_meta(path: Path) -> dict[str, Any]:
    """Reads it.

    Raises:
      UserError: it is missing or damaged.
    """
    try:
        return json.loads((path / META).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{path / META} is missing or damaged ({error}): convert again") from error
