"""Chains of FrEIA's all-in-one block, in the forms that it had over the years.

``"0.2"`` is the package; ``"tag_v0.2"``, the git tag, computes the same under other names;
``"2023-06"`` stores orders of channels as indices; ``"2023-08"`` also bounds log-scales by
``alpha * tanh(s / alpha)``. Built on FrEIA 0.2; nothing here imports JAX.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import FrEIA.framework
import FrEIA.modules
import torch
from torch import nn

VERSIONS = ("0.2", "tag_v0.2", "2023-06", "2023-08")
_TAG = {r"\.w_perm$": ".w", r"\.w_perm_inv$": ".w_inv", r"\.subnet\.": ".s."}


class Block(FrEIA.modules.AllInOneBlock):
    """FrEIA 0.2's block, changed to what later versions compute and store."""

    w_perm: nn.Parameter

    def __init__(self, *args: Any, version: str = "0.2", **kwargs: Any):
        """See FrEIA; ``version`` is one of `VERSIONS`."""
        super().__init__(*args, **kwargs)
        self._newer_clamp = version == "2023-08"
        if version.startswith("2023") and not kwargs["permute_soft"]:
            order = self.w_perm.reshape(self.w_perm.shape[:2]).argmax(1)
            self.w_perm = nn.Parameter(order, requires_grad=False)
            self.w_perm_inv = nn.Parameter(order.argsort(), requires_grad=False)

    def _permute(self, x: torch.Tensor, rev: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
        if self.w_perm.ndim > 1 or rev:
            return super()._permute(x, rev)
        scale = self.global_scale_activation(self.global_scale)
        return (x * scale + self.global_offset)[:, self.w_perm], scale.log().sum()

    def _affine(
        self, x: torch.Tensor, a: torch.Tensor, rev: bool = False
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not self._newer_clamp or rev:
            return super()._affine(x, a, rev)
        raw, shift = (0.1 * a).split(x.shape[1], 1)
        log_scale = self.clamp * torch.tanh(raw / self.clamp)
        return x * log_scale.exp() + shift, log_scale.sum(self.sum_dims)


def mlp(wide: int, out: int) -> nn.Module:
    """The sub-network of CFLOW-AD."""
    return nn.Sequential(nn.Linear(wide, 2 * wide), nn.ReLU(), nn.Linear(2 * wide, out))


def chain(
    shape: tuple[int, ...],
    condition: int,
    blocks: int,
    clamp: float,
    permutation: str,
    subnet: Callable[[int, int], nn.Module] = mlp,
    version: str = "0.2",
) -> nn.Module:
    """A chain on rows (C,) or maps; FrEIA 0.2 never compares a map's declared size with its own.

    Args:
      shape: (C,), or (C, 1, 1) for maps.
      condition: channels of the condition; 0 for none.
      blocks: length.
      clamp: bound on the log-scales.
      permutation: ``"soft"`` or ``"hard"``.
      subnet: makes a sub-network for so many inputs and outputs.
      version: one of `VERSIONS`.
    """
    made = FrEIA.framework.SequenceINN(*shape)
    with_condition = {"cond": 0, "cond_shape": (condition, *shape[1:])} if condition else {}
    for _ in range(blocks):
        made.append(
            Block,
            **with_condition,
            subnet_constructor=subnet,
            affine_clamping=clamp,
            global_affine_type="SOFTPLUS",
            permute_soft=permutation == "soft",
            version=version,
        )
    return made


def named(state: Mapping[str, Any], version: str) -> dict[str, Any]:
    """A state dict under the names of a version."""
    if version != "tag_v0.2":
        return dict(state)
    return {_renamed(key, _TAG): value for key, value in state.items()}


def today(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict under the names of the package, whatever it has now."""
    back = {r"\.w$": ".w_perm", r"\.w_inv$": ".w_perm_inv", r"\.s\.": ".subnet."}
    return {_renamed(key, back): value for key, value in state.items()}


def _renamed(key: str, names: Mapping[str, str]) -> str:
    for pattern, name in names.items():
        key = re.sub(pattern, name, key)
    return key
