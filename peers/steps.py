"""What the systems of the benchmark share: an image batch, a wrapped module, gradient steps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import nn

Maps = Sequence[torch.Tensor]
Wrap = Callable[[nn.Module], Callable[..., Any]]


class Rows(NamedTuple):
    """An image batch on the device.

    Attributes:
      image: (B, 3, H, W).
      mask: (B, H, W) bool.
      label: (B,) 0 for normal, 1 for anomalous.
    """

    image: torch.Tensor
    mask: torch.Tensor
    label: torch.Tensor


class Called(nn.Module):
    """``function(module, ...)`` as a module, which ``torch.compile`` takes whole."""

    def __init__(self, module: nn.Module, function: Callable[..., Any]):
        """Shares the module's parameters."""
        super().__init__()
        self.module, self._function = module, function

    def forward(self, *inputs: Any) -> Any:
        """Calls the function."""
        return self._function(self.module, *inputs)


class Steps:
    """One Adam over all parameters, with the settings of a recipe's section ``train``."""

    def __init__(self, module: nn.Module, train: Mapping[str, Any], idle: bool):
        """Fuses the update into one kernel, which PyTorch has for CPU and for CUDA.

        Args:
          module: everything that trains.
          train: the recipe's section.
          idle: whether there are steps in which some parameters have no gradient.
        """
        self._parameters = [p for p in module.parameters() if p.requires_grad]
        decoupled = train["weight_decay"] and train["decay"] == "decoupled"
        kind = torch.optim.AdamW if decoupled else torch.optim.Adam
        self._adam = kind(
            self._parameters,
            lr=train["learning_rate"],
            eps=train["adam_eps"],
            weight_decay=train["weight_decay"],
            fused=True,
        )
        self._clip = train["clip_norm"]
        # Before PyTorch 2.0 gradients that nobody computed were zeros, and momentum went on.
        self._forget = not idle or train["adam_idle"] == "skip"

    def take(self, losses: Iterable[torch.Tensor]) -> torch.Tensor:
        """Takes the gradient step of every loss; returns their mean, without waiting for it."""
        seen = []
        for loss in losses:
            self._adam.zero_grad(set_to_none=self._forget)
            loss.backward()
            if self._clip:
                nn.utils.clip_grad_norm_(self._parameters, self._clip)
            self._adam.step()
            seen.append(loss.detach().clone())  # a compiled graph may use its output's place again
        return torch.stack(seen).mean()
