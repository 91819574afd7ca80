"""Rules for primitives that take parts of arrays: slices, reversed axes, positions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.onnx.layout import Graph, Shape, Value, ints, moved, reshape

Params = Mapping[str, Any]


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
    inputs = [graph.constant(ints(column)) for column in zip(*cut, strict=True)]
    return moved(graph, "Slice", value, inputs, shape)


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
    return moved(graph, "Gather", value, inputs, shape, axis=place)


def _dynamic_slice(graph: Graph, values: list[Value], params: Params, out: Any) -> Value:
    value, *where = values
    start, sizes = starts("dynamic_slice", value, where, out[0].shape), out[0].shape
    stop = [a + n for a, n in zip(start, sizes, strict=True)]
    return sliced(graph, value, start, stop, [1] * len(start))


def starts(name: str, value: Value, where: Sequence[Value], part: Shape) -> list[int]:
    """Returns where a part lies, which has to be known."""
    if any(index.const is None for index in where):
        raise UserError(f"ONNX: JAX's primitive '{name}' has a rule for constant positions only")
    given = (int(np.asarray(index.const)) for index in where)
    return [
        min(max(start, 0), size - length)
        for start, size, length in zip(given, value.shape, part, strict=True)
    ]


RULES: dict[str, Any] = {
    "slice": _slice,
    "rev": _rev,
    "gather": _gather,
    "dynamic_slice": _dynamic_slice,
}
