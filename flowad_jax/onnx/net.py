"""A graph that can be changed: nodes, and who makes and who uses a tensor."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flowad_jax.onnx.layout import Graph, Node


class Net:
    """A graph while it changes: who makes and who uses a tensor."""

    def __init__(self, graph: Graph, outputs: Sequence[str]):
        """Indexes the nodes that the outputs need."""
        self.graph, self.outputs = graph, outputs
        self.maker: dict[str, Node] = {}
        self.users: dict[str, list[Node]] = {}
        needed, kept = {*outputs}, []
        for node in reversed(graph.nodes):
            if needed.intersection(node.outputs):
                kept.append(node)
                needed.update(node.inputs)
        self.nodes = kept[::-1]
        for node in self.nodes:
            self._enter(node)

    def _enter(self, node: Node) -> None:
        for name in node.outputs:
            self.maker[name] = node
        for name in node.inputs:
            self.users.setdefault(name, []).append(node)

    def _drop(self, node: Node, names: Sequence[str]) -> None:
        """Notes that a node uses some tensors no more; what nobody uses goes."""
        for name in names:
            self.users[name].remove(node)
            if not self.users[name] and name in self.maker:
                self.remove(self.maker[name])

    def remove(self, node: Node) -> None:
        """Takes a node away, unless one of its outputs is used, and what only it needed."""
        if any(self.users.get(name) or name in self.outputs for name in node.outputs):
            return
        names, node.op, node.inputs = node.inputs, "", []
        self._drop(node, names)

    def rewire(self, node: Node, op: str, inputs: Sequence[str], **attrs: object) -> None:
        """Makes a node compute its output in another way."""
        old, node.op, node.inputs, node.attrs = node.inputs, op, [*inputs], attrs
        for name in node.inputs:
            self.users.setdefault(name, []).append(node)
        self._drop(node, old)

    def insert(self, before: Node, op: str, inputs: Sequence[str], **attrs: object) -> str:
        """Adds a node in front of another one; returns its output."""
        dims = attrs.pop("dims")
        assert isinstance(dims, tuple)
        node = Node(op, [*inputs], [self.graph.new_name(dims)], attrs)
        self.nodes.insert(self.nodes.index(before), node)
        self._enter(node)
        return node.outputs[0]

    def replace(self, node: Node, name: str) -> None:
        """Lets everybody use the tensor ``name`` instead of a node's output; the node goes."""
        (old,) = node.outputs
        for user in [*self.users.get(old, ())]:
            inputs = [name if given == old else given for given in user.inputs]
            self.rewire(user, user.op, inputs, **user.attrs)
        self.remove(node)

    def const(self, name: str) -> np.ndarray | None:
        """Returns a constant's array, None for another tensor."""
        return self.graph.constants.get(name)

    def alone(self, name: str) -> Node | None:
        """Returns the node that makes a tensor, if exactly one node uses it, once."""
        if len(self.users.get(name, ())) != 1 or name in self.outputs:
            return None
        return self.maker.get(name)

    def rank(self, name: str) -> int:
        """Returns the number of axes of a tensor."""
        return len(self.graph.dims[name])


Rule = Callable[[Net, Node], bool]
