"""Rewriting rules that change the weights of convolutions and matrix products.

New weights are computed in float64 and rounded once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from flowad_jax.onnx.layout import Node
from flowad_jax.onnx.net import Net, Rule


@dataclass(frozen=True)
class Linear:
    """A convolution or a product with a constant matrix.

    Attributes:
      node: the node.
      x: its input.
      weights: (outputs, inputs of a group, ...) in float64.
      bias: of a convolution, or None.
      axis: of the channels, of inputs and outputs alike.
      form: where a matrix stands, ``"left"`` or ``"right"``, or ``"conv"``.
    """

    node: Node
    x: str
    weights: np.ndarray
    bias: np.ndarray | None
    axis: int
    form: str

    @property
    def groups(self) -> int:
        """Number of groups of channels."""
        return int(self.node.attrs.get("group", 1))

    @property
    def is_padded(self) -> bool:
        """Returns whether it sees zeros beside its input."""
        return any(self.node.attrs.get("pads", ()))


def linear(net: Net, node: Node | None) -> Linear | None:
    """Describes a node, if it is linear with constant weights."""
    if node is None or node.op not in ("Conv", "MatMul"):
        return None
    arrays = [net.const(name) for name in node.inputs]
    if node.op == "Conv":
        if arrays[0] is not None or arrays[1] is None:
            return None
        bias = arrays[2].astype(np.float64) if len(arrays) > 2 and arrays[2] is not None else None
        return Linear(node, node.inputs[0], arrays[1].astype(np.float64), bias, 1, "conv")
    left, right = arrays
    rank = net.rank(node.outputs[0])
    if left is None and right is not None and right.ndim == 2:
        wide = right.T.astype(np.float64)
        return Linear(node, node.inputs[0], wide, None, rank - 1, "right")
    if right is None and left is not None and left.ndim == 2:
        return Linear(node, node.inputs[1], left.astype(np.float64), None, rank - 2, "left")
    return None


def update(
    net: Net, old: Linear, weights: np.ndarray, bias: np.ndarray | None = None, x: str = ""
) -> None:
    """Gives a node other weights, and another input, in place; a bias is for convolutions."""
    dtype = net.graph.constants[old.node.inputs[0 if old.form == "left" else 1]].dtype
    matrix = weights.T if old.form == "right" else weights
    inputs = [x or old.x, net.graph.constant(matrix.astype(dtype))]
    if bias is not None:
        inputs.append(net.graph.constant(bias.astype(dtype)))
    inputs = inputs[::-1] if old.form == "left" else inputs
    net.rewire(old.node, old.node.op, inputs, **old.node.attrs)


def per_channel(array: np.ndarray, rank: int, axis: int, channels: int) -> np.ndarray | None:
    """Returns one number for each channel, if a constant that broadcasts has no others."""
    if array.ndim > rank or array.dtype.kind != "f":
        return None
    shape = (1,) * (rank - array.ndim) + array.shape
    if math.prod(shape) != shape[axis] or shape[axis] not in (1, channels):
        return None
    return np.broadcast_to(array.reshape(-1).astype(np.float64), (channels,))


def _spread(values: np.ndarray, weights: np.ndarray, axis: int) -> np.ndarray:
    return values.reshape([-1 if i == axis else 1 for i in range(weights.ndim)])


def fold_after(net: Net, node: Node) -> bool:
    """Scales outputs, or adds to those of a convolution, by other weights."""
    if node.op not in ("Mul", "Add") or (array := net.const(node.inputs[-1])) is None:
        return False
    before = linear(net, net.alone(node.inputs[0]))
    if before is None or (node.op == "Add" and before.form != "conv"):
        return False
    weights, bias = before.weights, before.bias
    change = per_channel(array, net.rank(before.node.outputs[0]), before.axis, len(weights))
    if change is None or net.rank(node.outputs[0]) != net.rank(before.node.outputs[0]):
        return False
    if node.op == "Mul":
        weights = weights * _spread(change, weights, 0)
        bias = None if bias is None else bias * change
    else:
        bias = change if bias is None else bias + change
    update(net, before, weights, bias)
    net.replace(node, before.node.outputs[0])
    return True


def fold_before(net: Net, node: Node) -> bool:
    """Takes the scale of inputs, and without zeros beside them also their offset, into weights."""
    after = linear(net, node)
    before = net.alone(after.x) if after else None
    if after is None or before is None or before.op not in ("Mul", "Add"):
        return False
    weights, groups = after.weights, after.groups
    channels = weights.shape[1] * groups
    array = net.const(before.inputs[-1])
    rank = net.rank(before.outputs[0])
    if array is None or rank != net.rank(before.inputs[0]):
        return False
    change = per_channel(array, rank, after.axis, channels)
    if change is None or (before.op == "Add" and after.is_padded):
        return False
    by_group = weights.reshape(groups, -1, *weights.shape[1:])
    scale = change.reshape(groups, 1, -1, *(1,) * (weights.ndim - 2))
    product = (by_group * scale).reshape(weights.shape)
    if before.op == "Mul":
        update(net, after, product, after.bias, before.inputs[0])
        return True
    offset = product.reshape(len(weights), -1).sum(1)
    _add_after(net, after, offset, before.inputs[0])
    return True


def _add_after(net: Net, after: Linear, offset: np.ndarray, x: str) -> None:
    """Adds to the outputs of a linear node, by its bias or by a node behind it."""
    if after.form == "conv":
        bias = offset if after.bias is None else after.bias + offset
        update(net, after, after.weights, bias, x)
        return
    node, (name,) = after.node, after.node.outputs
    shape = [1] * (net.rank(name) - after.axis)
    shape[0] = len(offset)
    product = net.insert(node, "MatMul", node.inputs, dims=net.graph.dims[name])
    moved = net.maker[product]
    update(
        net, Linear(moved, after.x, after.weights, None, after.axis, after.form), after.weights, x=x
    )
    array = offset.reshape(shape).astype(np.float32)
    net.rewire(node, "Add", [product, net.graph.constant(array)])


def fold_order(net: Net, node: Node) -> bool:
    """Takes an order of channels before or behind a linear node into its weights."""
    if node.op == "Gather":
        before = linear(net, net.alone(node.inputs[0]))
        order = net.const(node.inputs[1])
        fits = before is not None and node.attrs["axis"] == before.axis and before.groups == 1
        if not fits or before is None or order is None or order.ndim != 1:
            return False
        bias = None if before.bias is None else before.bias[order]
        net.graph.dims[before.node.outputs[0]] = net.graph.dims[node.outputs[0]]
        update(net, before, before.weights[order], bias)
        net.replace(node, before.node.outputs[0])
        return True
    after = linear(net, node)
    before_node = net.alone(after.x) if after else None
    if after is None or before_node is None or before_node.op != "Gather" or after.groups != 1:
        return False
    order = net.const(before_node.inputs[1])
    if before_node.attrs["axis"] != after.axis or order is None or order.ndim != 1:
        return False
    channels = net.graph.dims[before_node.inputs[0]][after.axis]
    if channels > 2 * len(order):
        return False
    weights = np.zeros((len(after.weights), channels, *after.weights.shape[2:]))
    for place, channel in enumerate(order):
        weights[:, channel] += after.weights[:, place]
    update(net, after, weights, after.bias, before_node.inputs[0])
    return True


def split_constant(net: Net, node: Node) -> bool:
    """Multiplies a constant part of concatenated channels apart, where the runtime folds it."""
    after = linear(net, node)
    joined = net.alone(after.x) if after else None
    if after is None or joined is None or joined.op != "Concat" or after.groups != 1:
        return False
    axis, kernel = after.axis, after.weights.shape[2:]
    if joined.attrs["axis"] != axis or math.prod(kernel) != 1 or after.is_padded:
        return False
    if set(after.node.attrs.get("strides", ())) - {1} or after.form == "left":
        return False
    known = [_known(net, name) for name in joined.inputs]
    if not any(x is not None for x in known) or all(x is not None for x in known):
        return False
    sizes = [net.graph.dims[name][axis] for name in joined.inputs]
    parts = np.split(after.weights, np.cumsum(sizes)[:-1], axis=1)
    open_parts = [i for i, x in enumerate(known) if x is None]
    (name,) = node.outputs
    names = [joined.inputs[i] for i in open_parts]
    x = names[0]
    if len(names) > 1:
        dims = list(net.graph.dims[joined.outputs[0]])
        dims[axis] = sum(sizes[i] for i in open_parts)
        x = net.insert(node, "Concat", names, dims=tuple(dims), axis=axis)
    product = net.insert(node, node.op, node.inputs, dims=net.graph.dims[name], **node.attrs)
    moved = Linear(net.maker[product], after.x, after.weights, None, axis, after.form)
    update(net, moved, np.concatenate([parts[i] for i in open_parts], 1), after.bias, x)
    total = product
    for array, part in zip(known, parts, strict=True):
        if array is not None:
            apart = _apart(net, node, array, part.reshape(part.shape[:2]), axis)
            total = net.insert(node, "Add", [total, apart], dims=net.graph.dims[name])
    net.replace(node, total)
    return True


def _known(net: Net, name: str) -> np.ndarray | None:
    maker = net.maker.get(name)
    if maker is not None and maker.op == "Expand":
        name = maker.inputs[0]
    array = net.const(name)
    return array if array is not None and array.dtype.kind == "f" else None


def _apart(net: Net, node: Node, array: np.ndarray, part: np.ndarray, axis: int) -> str:
    """Multiplies a constant with weights (outputs, inputs), as nodes; outputs are at ``axis``."""
    rows = np.moveaxis(array, axis, -1)
    inputs = [net.graph.constant(rows), net.graph.constant(part.T.astype(array.dtype))]
    dims = (*rows.shape[:-1], len(part))
    name = net.insert(node, "MatMul", inputs, dims=dims)
    if axis == array.ndim - 1:
        return name
    order = [*range(array.ndim - 1)]
    order.insert(axis, array.ndim - 1)
    return net.insert(node, "Transpose", [name], dims=tuple(dims[i] for i in order), perm=order)


def centre(net: Net, node: Node) -> bool:
    """Subtracts the mean over the channels of a linear node's outputs in its weights."""
    if node.op != "Sub" or net.users.get(node.inputs[0], []).count(node) != 1:
        return False
    name, mean = node.inputs
    users = net.users[name]
    maker = net.maker.get(mean)
    if maker is None or maker.op != "ReduceMean" or maker.inputs[0] != name or len(users) != 2:
        return False
    if len(net.users[mean]) != 1 or name in net.outputs or not maker.attrs["keepdims"]:
        return False
    axes = net.const(maker.inputs[1])
    plus, below = [], net.maker.get(name)
    while below is not None and below.op == "Add" and net.const(below.inputs[1]) is not None:
        plus.append(below)
        below = net.alone(below.inputs[0])
    before = linear(net, below)
    if before is None or axes is None or axes.tolist() != [before.axis] or len(plus) > 1:
        return False
    arrays = [net.const(one.inputs[1]) for one in plus]
    rank = net.rank(name)
    if any(x is None or x.ndim < rank - before.axis for x in arrays):
        return False
    weights = before.weights - before.weights.mean(0)
    bias = None if before.bias is None else before.bias - before.bias.mean()
    update(net, before, weights, bias)
    for one, array in zip(plus, arrays, strict=True):
        assert array is not None
        wide = array.astype(np.float64)
        wide = wide - wide.mean(axis=before.axis - rank, keepdims=True)
        net.rewire(one, "Add", [one.inputs[0], net.graph.constant(wide.astype(array.dtype))])
    net.replace(node, name)
    return True


RULES: list[Rule] = [fold_after, fold_before, fold_order, split_constant, centre]
NEW_WEIGHTS: list[Rule] = [fold_after, fold_before, centre]
