"""Simplifies a graph."""

from __future__ import annotations

from collections.abc import Sequence

from flowad_jax.onnx.layout import Graph


def simplify(graph: Graph, outputs: Sequence[str]) -> None:
    """Drops nodes without use."""
    needed = {*outputs}
    kept = []
    for node in reversed(graph.nodes):
        if needed.intersection(node.outputs):
            kept.append(node)
            needed.update(node.inputs)
    graph.nodes = kept[::-1]
