"""Rules for convolutions, matrix products and windows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.onnx.layout import Graph, Shape, Value

Params = Mapping[str, Any]


def _conv(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    x, kernel = values
    numbers = params["dimension_numbers"]
    if any(size != 1 for size in params["lhs_dilation"]) or params["batch_group_count"] != 1:
        raise UserError("ONNX: JAX's primitive 'conv_general_dilated' has no rule for transposes")
    pads = params["padding"]
    if min(map(min, pads), default=0) < 0:
        raise UserError("ONNX: JAX's primitive 'conv_general_dilated' with negative padding")
    perm = numbers.out_spec
    dims = tuple(out[0].shape[axis] for axis in perm)
    weights = graph.tensor(kernel, numbers.rhs_spec)
    (name,) = graph.node(
        "Conv",
        [graph.tensor(x, numbers.lhs_spec), weights],
        dims,
        pads=[*(low for low, _ in pads), *(high for _, high in pads)],
        strides=[*params["window_strides"]],
        dilations=[*params["rhs_dilation"]],
        group=params["feature_group_count"],
        kernel_shape=[*graph.dims[weights][2:]],
    )
    return Value(out[0].shape, np.dtype(out[0].dtype), name, perm)


def _dot(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    (left, right), (contract, batch) = values, params["dimension_numbers"]
    shape, dtype = out[0].shape, np.dtype(out[0].dtype)
    for x, matrix, axes, first in (
        (left, right, contract, False),
        (right, left, (contract[1], contract[0]), True),
    ):
        linear = matrix.const is not None and len(matrix.shape) == 2 and not batch[0]
        if linear and x.const is None and len(axes[0]) == 1:
            weights = np.broadcast_to(matrix.const, matrix.shape)  # type: ignore[arg-type]
            weights = weights if axes[1][0] == 0 else weights.T
            return _along(graph, x, axes[0][0], weights, first, shape, dtype)
    return _product(graph, left, right, contract, batch, shape, dtype)


def _along(
    graph: Graph, x: Value, axis: int, matrix: np.ndarray, first: bool, shape: Shape, dtype: Any
) -> Value:
    """Multiplies an axis with a constant matrix (K, D), whose D comes first or last in JAX."""
    x = graph.full(x)
    rank, where = len(x.shape), x.perm.index(axis)
    kept = [i for i in range(rank) if i != axis]
    new = 0 if first else rank - 1
    place = {old: i + first for i, old in enumerate(kept)} | {axis: new}
    if rank == 4 and where == 1:
        return _pointwise(graph, x, matrix, place, shape, dtype)
    if where < rank - 2 or rank < 4:  # neither rows nor columns of the innermost matrices
        order = (*(i for i in x.perm if i != axis), axis)
        name = graph.tensor(x, order)
        x, where = Value(x.shape, x.dtype, name, order), rank - 1
    perm = tuple(place[i] for i in x.perm)
    dims = tuple(shape[i] for i in perm)
    operands = [x.name, graph.constant(matrix)]
    if where == rank - 2:
        operands = [graph.constant(matrix.T), x.name]
    (name,) = graph.node("MatMul", operands, dims)
    return Value(shape, dtype, name, perm)


def _pointwise(
    graph: Graph, x: Value, matrix: np.ndarray, place: Mapping[int, int], shape: Shape, dtype: Any
) -> Value:
    """The same for the second of four axes in memory, where channels lie: a 1x1 convolution."""
    perm = tuple(place[i] for i in x.perm)
    dims = tuple(shape[i] for i in perm)
    weights = graph.constant(matrix.T[:, :, None, None])
    attrs = {"pads": [0] * 4, "strides": [1, 1], "dilations": [1, 1], "group": 1}
    (name,) = graph.node("Conv", [x.name, weights], dims, kernel_shape=[1, 1], **attrs)
    return Value(shape, dtype, name, perm)


def _product(
    graph: Graph, left: Value, right: Value, contract: Any, batch: Any, shape: Shape, dtype: Any
) -> Value:
    """Multiplies two arrays, each brought into the form (batch axes, rows, columns)."""

    def free(x: Value, side: int) -> list[int]:
        return [i for i in range(len(x.shape)) if i not in (*contract[side], *batch[side])]

    def size(x: Value, axes: Any) -> int:
        return math.prod(x.shape[i] for i in axes)

    rows, columns = free(left, 0), free(right, 1)
    shared = tuple(left.shape[i] for i in batch[0])
    inner = size(left, contract[0])
    a = graph.tensor(left, (*batch[0], *rows, *contract[0]))
    b = graph.tensor(right, (*batch[1], *contract[1], *columns))
    a = graph.reshaped(a, (*shared, size(left, rows), inner))
    b = graph.reshaped(b, (*shared, inner, size(right, columns)))
    dims = (*shared, size(left, rows), size(right, columns))
    (name,) = graph.node("MatMul", [a, b], dims)
    return Value(shape, dtype, graph.reshaped(name, shape), tuple(range(len(shape))))


def _window(kind: str) -> Any:
    def rule(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
        window, pads = params["window_dimensions"], params["padding"]
        strides = params["window_strides"]
        dilated = {*params["base_dilation"], *params["window_dilation"]} != {1}
        axes = [i for i, n in enumerate(window) if n != 1 or strides[i] != 1 or any(pads[i])]
        fits = all(0 <= low < n > high >= 0 for n, (low, high) in zip(window, pads, strict=True))
        if dilated or len(window) != 4 or len(axes) > 2 or not fits:
            raise UserError(f"ONNX: JAX's primitive '{kind}' has a rule for windows on maps only")
        (x,), shape = values, out[0].shape
        x = graph.full(x)
        axes = [*axes, *(i for i in (2, 1, 3, 0) if i not in axes)][:2]
        perm = (*(i for i in x.perm if i not in axes), *(i for i in x.perm if i in axes))
        last = perm[2:]
        attrs: dict[str, Any] = {
            "kernel_shape": [window[i] for i in last],
            "strides": [strides[i] for i in last],
            "pads": [pads[i][side] for side in (0, 1) for i in last],
        }
        if kind == "reduce_window_sum":
            attrs["count_include_pad"] = 1
        op = {"reduce_window_sum": "AveragePool", "reduce_window_max": "MaxPool"}[kind]
        dims = tuple(shape[i] for i in perm)
        (name,) = graph.node(op, [graph.tensor(x, perm)], dims, **attrs)
        if kind == "reduce_window_sum":
            count = graph.constant(np.asarray(math.prod(window), out[0].dtype))
            (name,) = graph.node("Mul", [name, count], dims)
        return Value(shape, x.dtype, name, perm)

    return rule


RULES: dict[str, Any] = {
    "conv_general_dilated": _conv,
    "dot_general": _dot,
    "reduce_window_sum": _window("reduce_window_sum"),
    "reduce_window_max": _window("reduce_window_max"),
}
