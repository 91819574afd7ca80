"""Rules for primitives that move elements or reduce along axes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.onnx.layout import Graph, Shape, Value, reshape

Params = Mapping[str, Any]
REDUCTIONS = {
    **{"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"},
    **{"reduce_prod": "ReduceProd"},
}


def _ints(numbers: Any) -> np.ndarray:
    return np.array([*numbers], np.int64)


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


def _moved(
    graph: Graph, op: str, value: Value, inputs: Sequence[str], shape: Shape, **attrs: Any
) -> Value:
    """Adds a node that keeps the axes of a complete value and the order in which they lie."""
    dims = tuple(shape[axis] for axis in value.perm)
    (name,) = graph.node(op, [value.name, *inputs], dims, **attrs)
    return Value(shape, value.dtype, name, value.perm)


def sliced(
    graph: Graph, value: Value, start: Sequence[int], stop: Sequence[int], step: Sequence[int]
) -> Value:
    """Takes a regular part; steps may be negative, with a stop of -1 for the very first."""
    shape = tuple(max(0, -(-(b - a) // s)) for a, b, s in zip(start, stop, step, strict=True))
    if shape == value.shape and min(step, default=1) > 0:
        return value
    value = graph.full(value)
    last = np.iinfo(np.int64).min
    cut = [
        (a, b if b >= 0 else last, value.perm.index(axis), s)
        for axis, (a, b, s) in enumerate(zip(start, stop, step, strict=True))
        if s < 0 or (a, b, s) != (0, value.shape[axis], 1)
    ]
    inputs = [graph.constant(_ints(column)) for column in zip(*cut, strict=True)]
    return _moved(graph, "Slice", value, inputs, shape)


def _slice(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    start = params["start_indices"]
    steps = params["strides"] or (1,) * len(start)
    return sliced(graph, values[0], start, params["limit_indices"], steps)


def taken(graph: Graph, value: Value, axis: int, index: int) -> Value:
    """Takes one element along an axis, which is gone then."""
    shape = value.shape
    rest = (*shape[:axis], *shape[axis + 1 :])
    if value.const is not None:
        const = np.broadcast_to(value.const, (*value.const.shape[:axis], *shape[axis:]))
        return Value(rest, value.dtype, const=np.take(const, index, axis))
    start, stop = [0] * len(shape), [*shape]
    start[axis], stop[axis] = index, index + 1
    return reshape(graph, sliced(graph, value, start, stop, [1] * len(shape)), rest)


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
    times = graph.constant(_ints(params["reps"][axis] for axis in value.perm))
    return _moved(graph, "Tile", value, [times], out[0].shape)


def _sort(graph: Graph, values: list[Value], params: Params, out: Any) -> list[Value]:
    if len(values) > 1:
        raise UserError("ONNX: JAX's primitive 'sort' has a rule for one array only")
    axis = params["dimension"]
    value = graph.full(values[0])
    inputs = [value.name, graph.constant(_ints([value.shape[axis]]))]
    dims = graph.dims[value.name]
    place = value.perm.index(axis)
    name, _ = graph.node("TopK", inputs, dims, dims, axis=place, largest=0)
    return [Value(value.shape, value.dtype, name, value.perm)]


def _split(graph: Graph, values: list[Value], params: Params, out: Any) -> list[Value]:
    value, lengths = graph.full(values[0]), params["sizes"]
    axis = value.perm.index(params["axis"])
    dims = [tuple(x.shape[i] for i in value.perm) for x in out]
    sizes = graph.constant(_ints(lengths))
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
    inputs = [graph.constant(_ints(pads[0] + pads[1])), graph.operand(filling, ())]
    return _moved(graph, "Pad", value, inputs, out[0].shape)


def _rev(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    shape, turned = values[0].shape, params["dimensions"]
    axes = range(len(shape))
    start = [shape[axis] - 1 if axis in turned else 0 for axis in axes]
    stop = [-1 if axis in turned else shape[axis] for axis in axes]
    return sliced(graph, values[0], start, stop, [-1 if axis in turned else 1 for axis in axes])


def _gather(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    """Takes constant positions: a slice along any axis, separate ones where they form a grid."""
    (value, index), numbers = values, params["dimension_numbers"]
    if index.const is None or numbers.operand_batching_dims:
        raise UserError("ONNX: JAX's primitive 'gather' has a rule for constant positions only")
    where = np.broadcast_to(index.const, index.shape)
    columns = {axis: where[..., i] for i, axis in enumerate(numbers.start_index_map)}
    grid = _grid(columns, numbers.collapsed_slice_dims)
    start, stop = [0] * len(value.shape), [*value.shape]
    for axis in (axis for axis in columns if axis not in grid):
        length = params["slice_sizes"][axis]
        start[axis] = min(max(int(columns[axis].flat[0]), 0), value.shape[axis] - length)
        stop[axis] = start[axis] + length
    value = graph.full(sliced(graph, value, start, stop, [1] * len(start)))
    for axis, positions in grid.items():
        value = _picked(graph, value, axis, positions)
    alone = [axis for axis in numbers.collapsed_slice_dims if axis not in grid]
    kept = [i for i in range(len(value.shape)) if i not in (*alone, *grid)]
    places = [i for i in range(len(out[0].shape)) if i not in numbers.offset_dims]
    if places and places != [*range(places[0], places[0] + len(places))]:
        raise UserError("ONNX: JAX's primitive 'gather' with positions along separate axes")
    first = places[0] if places else 0
    order = [*alone, *kept[:first], *grid, *kept[first:]]
    shape = tuple(value.shape[i] for i in order)
    perm = tuple(order.index(i) for i in value.perm)
    return reshape(graph, Value(shape, value.dtype, value.name, perm), out[0].shape)


def _grid(columns: Mapping[int, np.ndarray], collapsed: Shape) -> dict[int, np.ndarray]:
    """Returns the axes along which positions differ, in the order of the result, with positions."""
    index = next(iter(columns.values())).shape
    many = [axis for axis, x in columns.items() if x.size and np.any(x != x.flat[0])]
    if not many and index and max(index) > 1:
        many = [axis for axis in columns if axis in collapsed][:1]
    if len(many) == 1:
        grid = {many[0]: columns[many[0]].ravel()}
    else:
        ways = {
            axis: [
                d for d, n in enumerate(index) if n > 1 and np.any(np.diff(columns[axis], axis=d))
            ]
            for axis in many
        }
        many = sorted(many, key=lambda axis: ways[axis])
        grid = {axis: np.moveaxis(columns[axis], ways[axis][0], 0) for axis in many}
        grid = {axis: x.reshape(len(x), -1)[:, 0] for axis, x in grid.items()}
        used = [way for axis in many for way in ways[axis]]
        if used != [d for d, n in enumerate(index) if n > 1]:
            raise UserError("ONNX: JAX's primitive 'gather' has a rule for grids of positions only")
    if not {*grid} <= {*collapsed}:
        raise UserError("ONNX: JAX's primitive 'gather' with several slices has no rule")
    return grid


def _picked(graph: Graph, value: Value, axis: int, where: np.ndarray) -> Value:
    """Takes positions along an axis."""
    where = np.clip(where, 0, value.shape[axis] - 1).astype(np.int64)
    step = int(where[1] - where[0]) if len(where) > 1 else 1
    if step > 0 and np.array_equal(where, where[0] + step * np.arange(len(where))):
        start, stop, steps = [0] * len(value.shape), [*value.shape], [1] * len(value.shape)
        start[axis], stop[axis], steps[axis] = int(where[0]), int(where[-1]) + 1, step
        return sliced(graph, value, start, stop, steps)
    shape = (*value.shape[:axis], where.size, *value.shape[axis + 1 :])
    value = graph.full(value)
    inputs, place = [graph.constant(where)], value.perm.index(axis)
    return _moved(graph, "Gather", value, inputs, shape, axis=place)


def _dynamic_slice(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    value, *where = values
    start, sizes = _starts("dynamic_slice", value, where, out[0].shape), out[0].shape
    stop = [a + n for a, n in zip(start, sizes, strict=True)]
    return sliced(graph, value, start, stop, [1] * len(start))


def _dynamic_update_slice(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    value, part, *where = values
    start = _starts("dynamic_update_slice", value, where, part.shape)
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


def _starts(name: str, value: Value, where: Sequence[Value], part: Shape) -> list[int]:
    if any(index.const is None for index in where):
        raise UserError(f"ONNX: JAX's primitive '{name}' has a rule for constant positions only")
    starts = (int(np.asarray(index.const)) for index in where)
    return [
        min(max(start, 0), size - length)
        for start, size, length in zip(starts, value.shape, part, strict=True)
    ]


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
    (name,) = graph.node(op, [value.name, graph.constant(_ints(where))], dims, keepdims=0)
    return Value(shape, value.dtype, name, perm)


def _top_k(graph: Graph, values: list[Value], params: Params, out: Any) -> list[Value]:
    value, count = graph.full(values[0]), params.get("k") or params["operand"]
    axis = params.get("axis", len(value.shape) - 1) % len(value.shape)
    dims = tuple(out[0].shape[i] for i in value.perm)
    found, index = graph.node(
        "TopK",
        [value.name, graph.constant(_ints([count]))],
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
    return _moved(graph, "CumSum", value, [axis], out[0].shape, reverse=int(params["reverse"]))


RULES: dict[str, Any] = {
    **dict.fromkeys(("reshape", "squeeze", "expand_dims"), _reshape),
    "broadcast_in_dim": _broadcast,
    "transpose": _transpose,
    "slice": _slice,
    "concatenate": _concatenate,
    "stack": _stack,
    "unstack": _unstack,
    "tile": _tile,
    "sort": _sort,
    "split": _split,
    "pad": _pad,
    "rev": _rev,
    "gather": _gather,
    "dynamic_slice": _dynamic_slice,
    "dynamic_update_slice": _dynamic_update_slice,
    **{name: _reduction(op) for name, op in REDUCTIONS.items()},
    "top_k": _top_k,
    "argmax": _arg("ArgMax"),
    "argmin": _arg("ArgMin"),
    "cumsum": _cumsum,
}
