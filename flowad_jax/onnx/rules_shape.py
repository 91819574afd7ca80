"""Rules for primitives that reshape, join, part and extend arrays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from flowad_jax.errors import UserError
from flowad_jax.onnx.layout import Graph, Value, ints, moved, reshape
from flowad_jax.onnx.rules_select import sliced, starts, taken

Params = Mapping[str, Any]


def _reshape(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    return reshape(graph, values[0], out[0].shape)


def _broadcast(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    """Gives new axes the length 1: whoever needs all elements repeats them."""
    value, axes, shape = values[0], params["broadcast_dimensions"], out[0].shape
    if value.const is not None:
        sides = dict(zip(axes, value.const.shape or (1,) * len(axes), strict=True))
        const = value.const.reshape([sides.get(axis, 1) for axis in range(len(shape))])
        return Value(shape, value.dtype, const=const)
    perm = [axes[axis] for axis in value.perm]
    have = dict(zip(perm, graph.dims[value.name], strict=True))
    for axis in sorted(set(range(len(shape))) - set(axes)):
        perm.insert(perm.index(axis - 1) + 1 if axis else 0, axis)
    name = graph.reshaped(value.name, tuple(have.get(axis, 1) for axis in perm))
    return Value(shape, value.dtype, name, tuple(perm))


def _transpose(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    value, order = values[0], params["permutation"]
    if value.const is not None:
        return Value(out[0].shape, value.dtype, const=value.const.transpose(order))
    perm = tuple(order.index(axis) for axis in value.perm)
    return Value(out[0].shape, value.dtype, value.name, perm)


def stacked(graph: Graph, values: Sequence[Value], axis: int = 0) -> Value:
    """Joins values along a new axis."""
    shape = values[0].shape
    long = (*shape[:axis], 1, *shape[axis:])
    return concatenated(graph, [reshape(graph, value, long) for value in values], axis)


def concatenated(graph: Graph, values: Sequence[Value], axis: int) -> Value:
    """Joins values along an axis, in the order of axes of the first tensor."""
    parts = [value for value in values if value.shape[axis] > 0]
    perm = next((v.perm for v in parts if v.const is None), tuple(range(len(parts[0].shape))))
    shape = list(parts[0].shape)
    shape[axis] = sum(value.shape[axis] for value in parts)
    names = [graph.tensor(value, perm) for value in parts]
    dims = tuple(shape[i] for i in perm)
    (name,) = graph.node("Concat", names, dims, axis=perm.index(axis))
    return Value(tuple(shape), parts[0].dtype, name, perm)


def _concatenate(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    return concatenated(graph, values, params["dimension"])


def _stack(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    return stacked(graph, values, params["axis"])


def _unstack(graph: Graph, values: list[Value], params: Params, out: Any) -> list[Value]:
    return [taken(graph, values[0], params["axis"], index) for index in range(len(out))]


def _tile(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    value = graph.full(values[0])
    times = graph.constant(ints(params["reps"][axis] for axis in value.perm))
    return moved(graph, "Tile", value, [times], out[0].shape)


def _split(graph: Graph, values: list[Value], params: Params, out: Any) -> list[Value]:
    value, lengths = graph.full(values[0]), params["sizes"]
    axis = value.perm.index(params["axis"])
    dims = [tuple(x.shape[i] for i in value.perm) for x in out]
    sizes = graph.constant(ints(lengths))
    names = graph.node("Split", [value.name, sizes], *dims, axis=axis)
    return [Value(x.shape, value.dtype, n, value.perm) for x, n in zip(out, names, strict=True)]


def _pad(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    value, filling = values
    config = params["padding_config"]
    if any(inner for _, _, inner in config):
        raise UserError("ONNX: JAX's primitive 'pad' between elements has no rule")
    start = [max(0, -low) for low, _, _ in config]
    stop = [n - max(0, -high) for n, (_, high, _) in zip(value.shape, config, strict=True)]
    value = graph.full(sliced(graph, value, start, stop, [1] * len(start)))
    if value.shape == out[0].shape:
        return value
    pads = [[max(0, config[axis][side]) for axis in value.perm] for side in (0, 1)]
    inputs = [graph.constant(ints(pads[0] + pads[1])), graph.operand(filling, ())]
    return moved(graph, "Pad", value, inputs, out[0].shape)


def _dynamic_update_slice(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    value, part, *where = values
    start = starts("dynamic_update_slice", value, where, part.shape)
    shorter = [i for i in range(len(start)) if part.shape[i] != value.shape[i]]
    if not shorter:
        return part
    if len(shorter) > 1:
        raise UserError("ONNX: JAX's primitive 'dynamic_update_slice' along several axes")
    (axis,), whole = shorter, [*value.shape]
    zeros, ones, head, tail = [0] * len(whole), [1] * len(whole), [*whole], [0] * len(whole)
    head[axis], tail[axis] = start[axis], start[axis] + part.shape[axis]
    before, after = sliced(graph, value, zeros, head, ones), sliced(graph, value, tail, whole, ones)
    return concatenated(graph, [before, part, after], axis)


RULES: dict[str, Any] = {
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "concatenate": _concatenate,
    "stack": _stack,
    "unstack": _unstack,
    "tile": _tile,
    "split": _split,
    "pad": _pad,
    "dynamic_update_slice": _dynamic_update_slice,
}
