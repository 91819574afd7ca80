"""Floating-point operations of a program, counted from its jaxpr."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np


def operations(jaxpr: Any) -> int:
    """Floating-point operations of the matrix products and convolutions of a jaxpr.

    A loop counts as often as it runs; one of unknown length counts once. Of branches the dearest
    counts, but of forms of the same thing for several platforms the cheapest one that is made of
    products.
    """
    jaxpr = getattr(jaxpr, "jaxpr", jaxpr)
    platforms = {e.outvars[0] for e in jaxpr.eqns if e.primitive.name == "platform_index"}
    return sum(_of_equation(equation, platforms) for equation in jaxpr.eqns)


def _of_equation(equation: Any, platforms: set[Any]) -> int:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        return _of_product(equation)
    if name == "conv_general_dilated":
        return _of_convolution(equation)
    if name == "cond":
        found = [operations(branch) for branch in params["branches"]]
        first = equation.invars[0]
        if not hasattr(first, "val") and first in platforms:  # literals have no hash
            return min((count for count in found if count), default=0)
        return max(found)
    inside = sum(operations(part) for part in _parts(params))
    return inside * (params["length"] if name == "scan" else 1)


def _parts(params: dict[str, Any]) -> Iterator[Any]:
    """The programs within an equation; the derivative rules of custom ones are functions."""
    for value in params.values():
        for part in value if isinstance(value, list | tuple) else (value,):
            if hasattr(part, "eqns") or hasattr(getattr(part, "jaxpr", None), "eqns"):
                yield part


def _of_product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    shape = equation.invars[0].aval.shape
    return 2 * equation.outvars[0].aval.size * math.prod(shape[axis] for axis in contracted)


def _of_convolution(equation: Any) -> int:
    """Products with padding, and with the zeros of a dilated image, are not counted."""
    params, out = equation.params, equation.outvars[0].aval
    image, kernel = (v.aval for v in equation.invars)
    axes = params["dimension_numbers"]
    inputs = kernel.shape[axes.rhs_spec[1]]  # of one group
    count = 2 * inputs * out.shape[axes.out_spec[0]] * out.shape[axes.out_spec[1]]
    spatial = zip(
        (image.shape[axis] for axis in axes.lhs_spec[2:]),
        (kernel.shape[axis] for axis in axes.rhs_spec[2:]),
        (out.shape[axis] for axis in axes.out_spec[2:]),
        params["window_strides"],
        params["padding"],
        params["lhs_dilation"],
        params["rhs_dilation"],
        strict=True,
    )
    return count * math.prod(_meetings(*axis) for axis in spatial)


def _meetings(
    size: int, taps: int, places: int, stride: int, pad: tuple[int, int], spread: int, gap: int
) -> int:
    """How often along an axis a tap of the kernel meets a pixel that is there."""
    seen = np.arange(places)[:, None] * stride + np.arange(taps) * gap - pad[0]
    there = (seen >= 0) & (seen <= (size - 1) * spread) & (seen % spread == 0)
    return int(there.sum())
