"""Frozen encoders in PyTorch with the taps, pooling and normalisation of a recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from peers import encoders

POOLS: dict[str | None, Any] = {
    None: lambda x: x,
    "avg": lambda x: functional.avg_pool2d(x, 3, 2, 1),
    "max": lambda x: functional.max_pool2d(x, 3, 2, 1),
}


class Frozen(nn.Module):
    """Stages one after the other; some of their outputs are the feature maps."""

    def __init__(
        self, stages: Sequence[nn.Module], taps: Sequence[int], pool: str | None, layer_norm: bool
    ):
        """Keeps the stages up to the last tap; for the options see section ``encoder``."""
        super().__init__()
        self.stages = nn.ModuleList(stages[: max(taps) + 1])
        self._taps, self._pool, self._layer_norm = tuple(taps), POOLS[pool], layer_norm
        self.eval().requires_grad_(False)

    def forward(self, image: torch.Tensor) -> list[torch.Tensor]:
        """Images (B, 3, H, W) to maps (B, C, h, w), shallow first."""
        maps = []
        for index, stage in enumerate(self.stages):
            image = stage(image)
            if index in self._taps:
                maps.append(self._pool(image))
        return [_normalised(x) for x in maps] if self._layer_norm else maps


def build(section: Mapping[str, Any], taps: Sequence[int], side: int) -> Frozen:
    """The encoder of a recipe with random weights.

    Args:
      section: the recipe's ``encoder``.
      taps: indices of the feature maps.
      side: of the images.

    Raises:
      ImportError: the library that has the network is not installed.
      LookupError: no network is known here for that name.
    """
    family, variant = section["name"].split(".")
    if family == "resnet":
        stages = _resnet(variant, "zeros" if section["padding"] == "zeros" else "reflect")
    elif family == "efficientnet_lite":
        stages = _efficientnet_lite(variant, side)
    elif family == "cait" and len(taps) == 1 and section["final_norm"] is not False:
        stages, taps = [_cait(variant, taps[0], side)], (0,)
    else:
        raise LookupError(f"no peer for encoder '{section['name']}' with taps {tuple(taps)}")
    return Frozen(stages, taps, section["pool"], section["layer_norm"])


def _resnet(variant: str, padding: Any) -> list[nn.Module]:
    model = encoders.resnet(variant, padding)
    encoders.fill(model, encoders.random_state(model))
    stem = model.conv1, model.bn1, model.relu, model.maxpool
    return [nn.Sequential(*stem, model.layer1), model.layer2, model.layer3, model.layer4]


def _efficientnet_lite(variant: str, side: int) -> list[nn.Module]:
    model = encoders.efficientnet_lite(variant, (side, side))
    encoders.fill(model, encoders.random_state(model))
    groups = [[model._conv_stem, model._bn0, model._swish]]
    for index, block in enumerate(model._blocks):
        widens = block._block_args.input_filters != block._block_args.output_filters
        groups += [[]] if index and widens else []
        groups[-1].append(block)
    return [nn.Sequential(*group) for group in groups]


def _cait(variant: str, tap: int, side: int) -> nn.Module:
    model = encoders.build(f"timm.{variant}", img_size=side)
    return _Tokens(model.patch_embed, model.pos_embed, model.blocks[: tap + 1], model.norm)


class _Tokens(nn.Module):
    """Blocks of a transformer on the patches of an image, and its last normalisation."""

    def __init__(self, patches: nn.Module, code: nn.Parameter, blocks: nn.Module, norm: nn.Module):
        super().__init__()
        self.patches, self.code, self.blocks, self.norm = patches, code, blocks, norm

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        tokens = self.norm(self.blocks(self.patches(image) + self.code))
        images, count, channels = tokens.shape
        side = round(count**0.5)
        return tokens.transpose(1, 2).reshape(images, channels, side, side)


def _normalised(x: torch.Tensor) -> torch.Tensor:
    """Every position over its channels."""
    rows = functional.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2], eps=1e-6)
    return rows.permute(0, 3, 1, 2)
