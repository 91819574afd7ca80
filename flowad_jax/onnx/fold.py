"""Simplifies a graph: the driver, and the rules that bring it into one form first.

A rule looks at one node and what makes its inputs. It returns True if it changed something; rules
are applied until none does. All of them keep values up to rounding.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from flowad_jax.onnx import fold_linear, fold_patterns
from flowad_jax.onnx.layout import Graph, Node
from flowad_jax.onnx.net import Net


def simplify(graph: Graph, outputs: Sequence[str], keep_weights: bool = False) -> None:
    """Rewrites a graph until nothing changes, and drops nodes without use.

    Without rules that compute other weights if ``keep_weights``.
    """
    net = Net(graph, outputs)
    rules = [canonical, merge_constants, *fold_linear.RULES, *fold_patterns.RULES]
    if keep_weights:
        rules = [rule for rule in rules if rule not in fold_linear.NEW_WEIGHTS]
    changed = True
    while changed:
        changed = False
        for node in [*net.nodes]:
            changed |= any(node.op and rule(net, node) for rule in rules)
        net.nodes = [node for node in net.nodes if node.op]
    graph.nodes = net.nodes


def canonical(net: Net, node: Node) -> bool:
    """Writes constants second, a subtraction as an addition, a division as a multiplication."""
    if node.op not in ("Add", "Mul", "Sub", "Div"):
        return False
    array = net.const(node.inputs[-1])
    if node.op in ("Add", "Mul"):
        if net.const(node.inputs[0]) is None or array is not None:
            return False
        net.rewire(node, node.op, node.inputs[::-1])
        return True
    if array is None or array.dtype.kind != "f":
        return False
    wide = array.astype(np.float64)
    if node.op == "Div" and not np.all(wide):
        return False
    op, other = ("Add", -wide) if node.op == "Sub" else ("Mul", 1 / wide)
    net.rewire(node, op, [node.inputs[0], net.graph.constant(other.astype(array.dtype))])
    return True


def merge_constants(net: Net, node: Node) -> bool:
    """Joins two additions or two multiplications, and multiplies before it adds."""
    if node.op not in ("Add", "Mul") or (outer := net.const(node.inputs[-1])) is None:
        return False
    inner = net.alone(node.inputs[0])
    if inner is None or inner.op not in ("Add", "Mul"):
        return False
    first = net.const(inner.inputs[-1])
    if first is None or first.dtype.kind != "f" or outer.dtype != first.dtype:
        return False
    a, b = first.astype(np.float64), outer.astype(np.float64)
    if np.broadcast_shapes(a.shape, b.shape) not in (a.shape, b.shape):
        return False
    x = inner.inputs[0]
    if node.op == inner.op:
        joined = a + b if node.op == "Add" else a * b
        net.rewire(node, node.op, [x, net.graph.constant(joined.astype(first.dtype))])
        return True
    if node.op == "Add":
        return False
    dims = net.graph.dims[node.outputs[0]]
    scaled = net.insert(node, "Mul", [x, node.inputs[-1]], dims=dims)
    net.rewire(node, "Add", [scaled, net.graph.constant((a * b).astype(first.dtype))])
    return True
