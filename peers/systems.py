"""The four systems in PyTorch as they train: the losses of an image batch, and likelihood maps.

A system takes an image batch apart into gradient steps: `System.losses` yields the loss of one and
goes on when `peers.steps.Steps` has taken it. Nothing waits for the device in between. Maps are
channels first, shallow first; nothing here imports JAX.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import nn

from peers import map_systems, row_systems
from peers.steps import Maps, Rows, Wrap

KINDS: dict[str, Any] = {
    "cflow": row_systems.CFlow,
    "sanflow": row_systems.SANFlow,
    "msflow": map_systems.MSFlow,
    "ssnf": map_systems.SSNF,
}
# Options for whose other values nothing is written here.
NEEDED: dict[str, dict[str, Any]] = {
    "cflow": {"objective": "log_sigmoid", "clamp_kind": "tanh"},
    "msflow": {"compute": "float32", "clamp_kind": "tanh"},
    "sanflow": {
        "clamp_kind": "tanh",
        "stop_alpha": True,
        "cross_entropy": "per_dimension",
        "mask_pool": "area",
        "variance_pool": "average",
        "per_scale": False,
        "joint_step": True,
        "legacy": False,
    },
    "ssnf": {
        "clamp_kind": "tanh",
        "layout": "conv+attn",
        "positive_weight": "switch",
        "score": "density",
        "compute": "float32",
    },
}


class System(Protocol):
    """What `build` returns.

    Attributes:
      module: everything that trains.
    """

    module: nn.Module

    def losses(self, maps: Maps, rows: Rows) -> Iterator[torch.Tensor]:
        """Yields the loss of every gradient step."""

    def log_probs(self, maps: Maps, image: torch.Tensor) -> list[torch.Tensor]:
        """Likelihood maps (B, h, w); call it without gradients."""


def build(
    channels: Sequence[int],
    method: Mapping[str, Any],
    *,
    version: str = "0.2",
    wrap: Wrap = lambda module: module,
) -> System:
    """A system with fresh flows.

    Args:
      channels: of the feature maps.
      method: section ``method`` of a recipe.
      version: of FrEIA's blocks, see `peers.freia`.
      wrap: is applied to every module that computes a loss or a likelihood; ``torch.compile``,
        for example.

    Raises:
      LookupError: an option has a value for which nothing is written here.
    """
    name = method["name"]
    if name not in KINDS:
        raise LookupError(f"the PyTorch side has no method '{name}'")
    for key, value in NEEDED[name].items():
        if method[key] != value:
            raise LookupError(f"the PyTorch side has no method.{key}={method[key]!r}")
    made: System = KINDS[name](tuple(channels), method, version, wrap)
    return made
