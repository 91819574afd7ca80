"""Rules for primitives that reduce, sort or accumulate along axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.onnx.layout import Graph, Value, ints, moved

Params = Mapping[str, Any]
REDUCTIONS = {
    **{"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"},
    **{"reduce_prod": "ReduceProd"},
}


def _reduction(op: str) -> Callable[..., Value]:
    def rule(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
        return reduced(graph, op, graph.full(values[0]), params["axes"])

    return rule


def reduced(graph: Graph, op: str, value: Value, axes: Sequence[int]) -> Value:
    """Reduces along axes, which are gone then."""
    if not axes:
        return value
    where = sorted(value.perm.index(axis) for axis in axes)
    kept = [axis for axis in range(len(value.shape)) if axis not in axes]
    perm = tuple(kept.index(axis) for axis in value.perm if axis not in axes)
    shape = tuple(value.shape[axis] for axis in kept)
    dims = tuple(shape[axis] for axis in perm)
    (name,) = graph.node(op, [value.name, graph.constant(ints(where))], dims, keepdims=0)
    return Value(shape, value.dtype, name, perm)


def _top_k(graph: Graph, values: list[Value], params: Params, out: Any) -> list[Value]:
    value, count = graph.full(values[0]), params.get("k") or params["operand"]
    axis = params.get("axis", len(value.shape) - 1) % len(value.shape)
    dims = tuple(out[0].shape[i] for i in value.perm)
    found, index = graph.node(
        "TopK",
        [value.name, graph.constant(ints([count]))],
        dims,
        dims,
        axis=value.perm.index(axis),
    )
    (index,) = graph.node("Cast", [index], dims, to=6)  # int32
    return [
        Value(x.shape, np.dtype(x.dtype), name, value.perm)
        for x, name in zip(out, (found, index), strict=True)
    ]


def _arg(op: str) -> Callable[..., Value]:
    def rule(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
        (axis,), value = params["axes"], graph.full(values[0])
        shape = out[0].shape
        perm = tuple(i - (i > axis) for i in value.perm if i != axis)
        dims = tuple(shape[i] for i in perm)
        where = value.perm.index(axis)
        (name,) = graph.node(op, [value.name], dims, axis=where, keepdims=0)
        (name,) = graph.node("Cast", [name], dims, to=6)
        return Value(shape, np.dtype(out[0].dtype), name, perm)

    return rule


def _cumsum(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    value = graph.full(values[0])
    axis = graph.constant(np.array(value.perm.index(params["axis"]), np.int64))
    return moved(graph, "CumSum", value, [axis], out[0].shape, reverse=int(params["reverse"]))


def _sort(graph: Graph, values: list[Value], params: Params, out: Any) -> list[Value]:
    if len(values) > 1:
        raise UserError("ONNX: JAX's primitive 'sort' has a rule for one array only")
    axis = params["dimension"]
    value = graph.full(values[0])
    inputs = [value.name, graph.constant(ints([value.shape[axis]]))]
    dims = graph.dims[value.name]
    place = value.perm.index(axis)
    name, _ = graph.node("TopK", inputs, dims, dims, axis=place, largest=0)
    return [Value(value.shape, value.dtype, name, value.perm)]


RULES: dict[str, Any] = {
    **{name: _reduction(op) for name, op in REDUCTIONS.items()},
    "top_k": _top_k,
    "sort": _sort,
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "cumsum": _cumsum,
}
