"""Rewriting rules that put one operator in the place of several."""

from __future__ import annotations

import math

import numpy as np

from flowad_jax.onnx.layout import Node, is_dynamic
from flowad_jax.onnx.net import Net, Rule

UNARY = ("Sqrt", "Reciprocal", "Exp", "Log", "Cast", "Relu", "Sigmoid", "Tanh", "Abs")
BINARY = ("Add", "Mul", "Sub", "Div", "Max", "Min", "Pow")


def clip(net: Net, node: Node) -> bool:
    """Writes limits as Clip, or as Relu."""
    if node.op == "Max":
        scalars = [name for name in node.inputs if _number(net, name) is not None]
        if len(scalars) != 1 or net.graph.constants[scalars[0]].dtype.kind != "f":
            return False
        (x,) = (name for name in node.inputs if name not in scalars)
        if _number(net, scalars[0]) == -np.inf:
            net.replace(node, x)
        elif _number(net, scalars[0]) == 0:
            net.rewire(node, "Relu", [x])
        else:
            net.rewire(node, "Clip", [x, scalars[0]])
        return True
    if node.op != "Min":
        return False
    scalars = [name for name in node.inputs if _number(net, name) is not None]
    if len(scalars) != 1:
        return False
    (x,) = (name for name in node.inputs if name not in scalars)
    low = net.alone(x)
    if low is None or low.op not in ("Relu", "Clip") or len(low.inputs) > 2:
        return False
    least = low.inputs[1] if low.op == "Clip" else net.graph.constant(np.float32(0))
    net.rewire(node, "Clip", [low.inputs[0], least, scalars[0]])
    return True


def _number(net: Net, name: str) -> float | None:
    array = net.const(name)
    return float(array.reshape(())) if array is not None and array.size == 1 else None


def reshape_twice(net: Net, node: Node) -> bool:
    """Joins two reshapes, and drops what changes nothing."""
    if node.op != "Reshape":
        return False
    before = net.maker.get(node.inputs[0])
    if before is not None and before.op == "Reshape":
        net.rewire(node, "Reshape", [before.inputs[0], node.inputs[1]])
        return True
    if net.graph.dims[node.inputs[0]] == net.graph.dims[node.outputs[0]]:
        net.replace(node, node.inputs[0])
        return True
    return False


def keep_axes(net: Net, node: Node) -> bool:
    """Lets a reduction keep its axes where a reshape brings them back behind some scalars."""
    if node.op != "Reshape":
        return False
    chain, below = [], net.alone(node.inputs[0])
    while below is not None and (below.op == "Reshape" or _is_scalar_step(net, below)):
        chain.append(below)
        below = net.alone(below.inputs[0])
    if below is None or not below.op.startswith("Reduce") or below.attrs["keepdims"]:
        return False
    axes = net.const(below.inputs[1])
    dims = tuple(
        1 if axes is not None and axis in axes else size
        for axis, size in enumerate(net.graph.dims[below.inputs[0]])
    )
    if dims != net.graph.dims[node.outputs[0]]:
        return False
    below.attrs["keepdims"] = 1
    for step in (below, *chain):
        net.graph.dims[step.outputs[0]] = dims
    for step in (step for step in chain if step.op == "Reshape"):
        net.replace(step, step.inputs[0])
    net.replace(node, node.inputs[0])
    return True


def _is_scalar_step(net: Net, node: Node) -> bool:
    if node.op in UNARY:
        return True
    return node.op in BINARY and _number(net, node.inputs[1]) is not None


def mean(net: Net, node: Node) -> bool:
    """Writes a sum that is divided by the number of its terms as a mean."""
    if node.op != "Mul" or (share := _number(net, node.inputs[1])) is None:
        return False
    total = net.alone(node.inputs[0])
    if total is None or total.op != "ReduceSum":
        return False
    axes = net.const(total.inputs[1])
    sizes = [net.graph.dims[total.inputs[0]][axis] for axis in axes] if axes is not None else [0]
    if any(map(is_dynamic, sizes)) or not math.isclose(share * math.prod(sizes), 1, rel_tol=1e-6):
        return False
    net.rewire(node, "ReduceMean", total.inputs, keepdims=total.attrs["keepdims"])
    return True


def softmax(net: Net, node: Node) -> bool:
    """Recognizes exponentials that are divided by their sum, of differences from the maximum."""
    if node.op != "Div":
        return False
    exp, total = (net.maker.get(name) for name in node.inputs)
    if exp is None or total is None or exp.op != "Exp" or total.op != "ReduceSum":
        return False
    if total.inputs[0] != exp.outputs[0] or not total.attrs["keepdims"]:
        return False
    axes, below = net.const(total.inputs[1]), net.alone(exp.inputs[0])
    if axes is None or axes.size != 1 or below is None or below.op != "Sub":
        return False
    most = net.maker.get(below.inputs[1])
    if most is None or most.op != "ReduceMax" or most.inputs[0] != below.inputs[0]:
        return False
    if not most.attrs["keepdims"] or not np.array_equal(axes, net.const(most.inputs[1])):  # type: ignore[arg-type]
        return False
    net.rewire(node, "Softmax", [below.inputs[0]], axis=int(axes[0]))
    return True


def pad_conv(net: Net, node: Node) -> bool:
    """Lets a convolution add the zeros that were added before it."""
    before = net.alone(node.inputs[0]) if node.op == "Conv" else None
    if before is None or before.op != "Pad" or _number(net, before.inputs[2]) != 0:
        return False
    pads = net.const(before.inputs[1])
    if pads is None or before.attrs.get("mode", b"constant") not in (b"constant", "constant"):
        return False
    sides = pads.reshape(2, -1)
    if sides[:, :2].any():
        return False
    total = [int(x) for x in sides[:, 2:].ravel() + np.array(node.attrs["pads"])]
    net.rewire(node, "Conv", [before.inputs[0], *node.inputs[1:]], **(node.attrs | {"pads": total}))
    return True


def gather_twice(net: Net, node: Node) -> bool:
    """Joins two orders along the same axis."""
    before = net.alone(node.inputs[0]) if node.op == "Gather" else None
    if before is None or before.op != "Gather" or before.attrs != node.attrs:
        return False
    first, second = net.const(before.inputs[1]), net.const(node.inputs[1])
    if first is None or second is None or first.ndim != 1 or second.ndim != 1:
        return False
    both = net.graph.constant(first[second])
    net.rewire(node, "Gather", [before.inputs[0], both], **node.attrs)
    return True


RULES: list[Rule] = [
    clip,
    reshape_twice,
    keep_axes,
    mean,
    softmax,
    pad_conv,
    gather_twice,
]
