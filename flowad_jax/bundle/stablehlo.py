"""A detector as a StableHLO program: what XLA runs without the code that made it.

program = jax.export.deserialize(bytearray(open("model.stablehlo", "rb").read()))
score, anomaly_map = program.call(image)
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jax import export

log = logging.getLogger("flowad_jax")

PLATFORMS = ("cpu", "cuda", "tpu")


def serialize(
    function: Callable[..., Any], inputs: Mapping[str, jax.ShapeDtypeStruct], dynamic: bool
) -> bytes:
    """Returns the program of a function, weights included.

    Args:
      function: takes arrays in the order of ``inputs``.
      inputs: of one image.
      dynamic: whether the program takes any number of images; where JAX cannot trace that, it takes
        one, and a line says so.
    """
    if dynamic:
        try:
            return _serialize(function, shapes(inputs, dynamic=True))
        except Exception as error:  # JAX has several kinds of errors for this
            reason = str(error).partition("\n")[0]
            log.warning("model.stablehlo takes one image at a time: %s", reason)
    return _serialize(function, inputs)


def shapes(
    inputs: Mapping[str, jax.ShapeDtypeStruct], dynamic: bool
) -> dict[str, jax.ShapeDtypeStruct]:
    """Returns inputs of one image for any number of images, or as they are."""
    if not dynamic:
        return dict(inputs)
    (rows,) = export.symbolic_shape("B")
    return {name: jax.ShapeDtypeStruct((rows, *x.shape[1:]), x.dtype) for name, x in inputs.items()}


def _serialize(function: Callable[..., Any], inputs: Mapping[str, jax.ShapeDtypeStruct]) -> bytes:
    with _without_places():
        program = export.export(jax.jit(function), platforms=PLATFORMS)(*inputs.values())
        return bytes(program.serialize())


@contextlib.contextmanager
def _without_places() -> Iterator[None]:
    """While open, programs do not say which lines of which files they are made of.

    The same detector gives the same bytes then, wherever the package lies.
    """
    before = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)
    try:
        yield
    finally:
        jax.config.update("jax_traceback_in_locations_limit", before)


def call(program: bytes, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, ...]:
    """Runs a program on images, one by one if it takes no more.

    Args:
      program: what `serialize` returned.
      inputs: by name, in their order.
    """
    loaded = export.deserialize(bytearray(program))
    count = len(next(iter(inputs.values())))
    size = count if export.is_symbolic_dim(loaded.in_avals[0].shape[0]) else 1
    found = [
        loaded.call(*(x[first : first + size] for x in inputs.values()))
        for first in range(0, count, size)
    ]
    return tuple(np.concatenate(column) for column in zip(*found, strict=True))
