"""Arrays on their way into an ONNX graph: nodes, constants, and the order of axes in memory.

JAX maps are channels last (B, H, W, C), ONNX convolutions want channels first. A `Value` has the
shape that JAX sees and says in which order its tensor has these axes, so that a reordering costs
nothing until a node needs another order. The batch of unknown size is the prime `BATCH` in shapes.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from flowad_jax.errors import UserError

BATCH = 1_000_003  # stands for the unknown batch size in shapes; no real size is a multiple of it
Shape = tuple[int, ...]


@dataclass(frozen=True)
class Value:
    """An array as JAX sees it: either a tensor of the graph or a constant.

    Attributes:
      shape: the shape in JAX, with `BATCH` for an unknown batch.
      dtype: the dtype in JAX; tensors of bfloat16 values are float32.
      name: of the tensor, whose axis i is axis ``perm[i]`` of the shape. Its size is that of the
        shape, or 1 where it is still to be repeated along the axis.
      perm: see ``name``.
      const: the constant in the order of the shape, or 1 long where it is repeated.
    """

    shape: Shape
    dtype: np.dtype[Any]
    name: str = ""
    perm: Shape = ()
    const: np.ndarray | None = None


@dataclass(eq=False)
class Node:
    """An ONNX node; nodes are the same only if they are one."""

    op: str
    inputs: list[str]
    outputs: list[str]
    attrs: dict[str, Any] = field(default_factory=dict)


class Graph:
    """Collects nodes and constants.

    Attributes:
      nodes: in an order in which they can run.
      constants: by name; equal ones are kept once.
      dims: shape of every tensor as it lies in memory, with `BATCH` for an unknown batch.
      batch_of: an input whose leading axis is the batch.
    """

    def __init__(self) -> None:
        """Starts an empty graph."""
        self.nodes: list[Node] = []
        self.constants: dict[str, np.ndarray] = {}
        self.dims: dict[str, Shape] = {}
        self.batch_of = ""
        self._known: dict[Any, str] = {}
        self._made: dict[Any, list[str]] = {}
        self._count = 0

    def new_name(self, dims: Shape) -> str:
        """Returns the name of a new tensor of this shape."""
        self._count += 1
        self.dims[name := f"t{self._count}"] = dims
        return name

    def constant(self, array: Any) -> str:
        """Returns the name of a constant tensor."""
        array = np.ascontiguousarray(stored(array)).reshape(np.shape(array))
        key = array.dtype.str, array.shape, hashlib.sha256(array.tobytes()).digest()
        if key not in self._known:
            self._known[key] = name = f"c{len(self.constants)}"
            self.constants[name], self.dims[name] = array, array.shape
        return self._known[key]

    def node(self, op: str, inputs: Sequence[str], *dims: Shape, **attrs: Any) -> list[str]:
        """Adds a node, unless there is this very node; returns its outputs of shapes ``dims``."""
        key = op, *inputs, *sorted((name, str(value)) for name, value in attrs.items())
        if key not in self._made:
            self._made[key] = [self.new_name(shape) for shape in dims]
            self.nodes.append(Node(op, [*inputs], self._made[key], attrs))
        return self._made[key]

    def once(self, op: str, inputs: Sequence[str], dims: Shape, **attrs: Any) -> str:
        """Adds a node with one output; returns it."""
        return self.node(op, inputs, dims, **attrs)[0]

    def operand(self, value: Value, perm: Shape) -> str:
        """Returns a tensor for an operation that broadcasts, with axes in the order ``perm``."""
        if value.const is not None:
            if value.const.size == 1:
                return self.constant(value.const.reshape(()))
            return self.constant(value.const.transpose(perm))
        if value.perm == perm or not value.shape:
            return value.name
        order = tuple(value.perm.index(axis) for axis in perm)
        dims = tuple(self.dims[value.name][axis] for axis in order)
        long = [axis for axis in order if self.dims[value.name][axis] != 1]
        if long == sorted(long):
            return self.reshaped(value.name, dims)
        return self.once("Transpose", [value.name], dims, perm=order)

    def full(self, value: Value) -> Value:
        """Returns the value as a tensor that is repeated along all its axes."""
        if value.const is not None:
            known = [1 if is_dynamic(size) else size for size in value.shape]
            name = self.constant(np.broadcast_to(value.const, known))
            value = Value(value.shape, value.dtype, name, tuple(range(len(known))))
        dims = tuple(value.shape[axis] for axis in value.perm)
        if self.dims[value.name] == dims:
            return value
        name = self.once("Expand", [value.name, self.sizes(dims)], dims)
        return Value(value.shape, value.dtype, name, value.perm)

    def tensor(self, value: Value, perm: Shape | None = None) -> str:
        """Returns a complete tensor with axes in the order ``perm``, that of JAX by default."""
        perm = perm or tuple(range(len(value.shape)))
        if value.const is not None and not any(map(is_dynamic, value.shape)):
            return self.constant(np.broadcast_to(value.const, value.shape).transpose(perm))
        return self.operand(self.full(value), perm)

    def sizes(self, dims: Shape) -> str:
        """Returns a tensor of these sizes, of which the batch may be unknown."""
        if not any(map(is_dynamic, dims)):
            return self.constant(np.array(dims, np.int64))
        if any(is_dynamic(size) and size != BATCH for size in dims):
            raise UserError("ONNX: a multiple of the unknown batch size is used as a shape")
        batch = self.once("Shape", [self.batch_of], (1,), start=0, end=1)
        parts = [batch if size == BATCH else self.constant(np.array([size])) for size in dims]
        return self.once("Concat", parts, (len(dims),), axis=0)

    def reshaped(self, name: str, dims: Shape) -> str:
        """Returns a tensor with the same elements in another shape."""
        if self.dims[name] == dims:
            return name
        if sum(map(is_dynamic, dims)) > 1:
            raise UserError("ONNX: two axes depend on the unknown batch size")
        sizes = self.constant(np.array([-1 if is_dynamic(size) else size for size in dims]))
        return self.once("Reshape", [name, sizes], dims)


def is_dynamic(size: int) -> bool:
    """Returns whether a size is a multiple of the unknown batch size."""
    return size >= BATCH and size % BATCH == 0


def stored(array: Any) -> np.ndarray:
    """Returns an array in a dtype in which the graph holds it: float32 for bfloat16."""
    array = np.asarray(array)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def runs(source: Shape, target: Shape) -> list[tuple[list[int], list[int]]]:
    """Returns which axes become which in a reshape, without those of size 1, in small groups."""
    before = [axis for axis, size in enumerate(source) if size != 1]
    after = [axis for axis, size in enumerate(target) if size != 1]
    groups: list[tuple[list[int], list[int]]] = []
    while before or after:
        left, right = [before.pop(0)], [after.pop(0)]
        while (a := math.prod(source[i] for i in left)) != (
            b := math.prod(target[i] for i in right)
        ):
            if a < b:
                left.append(before.pop(0))
            else:
                right.append(after.pop(0))
        groups.append((left, right))
    return groups


def reshape(graph: Graph, value: Value, shape: Shape) -> Value:
    """Reshapes without touching memory, where axes that are joined lie side by side."""
    if value.const is not None and (value.const.size == 1 or value.const.shape == value.shape):
        rank = len(shape) * (1,)
        const = value.const.reshape(rank if value.const.size == 1 else shape)
        return Value(shape, value.dtype, const=const)
    value = graph.full(value)
    groups = runs(value.shape, shape)
    order = [axis for axis in value.perm if value.shape[axis] != 1]
    ranked = sorted(groups, key=lambda group: order.index(group[0][0]))
    if [axis for left, _ in ranked for axis in left] == order:
        perm = [axis for _, right in ranked for axis in right]
        for axis in (i for i, size in enumerate(shape) if size == 1):
            perm.insert(perm.index(axis - 1) + 1 if axis else 0, axis)
        name = value.name
    else:
        name, perm = graph.tensor(value), [*range(len(shape))]
    name = graph.reshaped(name, tuple(shape[axis] for axis in perm))
    value = Value(shape, value.dtype, name, tuple(perm))
    if len(shape) > 3 or all(len(left) == 1 for left, _ in groups):
        return value
    # Rows of a map: products of rows are faster with their channels side by side.
    rows = tuple(range(len(shape)))
    return Value(shape, value.dtype, graph.operand(value, rows), rows)


def moved(
    graph: Graph, op: str, value: Value, inputs: Sequence[str], shape: Shape, **attrs: Any
) -> Value:
    """Adds a node that keeps the axes of a complete value and the order in which they lie."""
    dims = tuple(shape[axis] for axis in value.perm)
    (name,) = graph.node(op, [value.name, *inputs], dims, **attrs)
    return Value(shape, value.dtype, name, value.perm)


def ints(numbers: Iterable[int]) -> np.ndarray:
    """Returns numbers in the dtype in which ONNX takes sizes and positions."""
    return np.array([*numbers], np.int64)
