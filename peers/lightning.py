"""FastFlow, U-Flow and PatchFlow in PyTorch, with the names that anomalib's checkpoints have.

They see feature maps (B, C, h, w), fine to coarse. Built on FrEIA 0.2; nothing here imports JAX.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from peers import freia

Maps = Sequence[torch.Tensor]


class Net(nn.Sequential):
    """Convolution, ReLU, convolution."""

    def __init__(self, wide: int, out: int, size: int, ratio: float):
        """See `flowad_jax.flows.subnets.PlainConvNet`."""
        hidden, same = int(ratio * wide), size // 2
        first = nn.Conv2d(wide, hidden, size, padding=same)
        super().__init__(first, nn.ReLU(), nn.Conv2d(hidden, out, size, padding=same))


class Norm(nn.Module):
    """A LayerNorm over channels and positions, whose size a checkpoint tells."""

    def __init__(self, size: Sequence[int]):
        """Starts without an effect beyond the norm."""
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(*size)), nn.Parameter(torch.zeros(*size))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Normalises maps (B, C, h, w)."""
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias)


class FastFlow(nn.Module):
    """A chain for every map."""

    def __init__(self, sizes: Sequence[Sequence[int]], options: Mapping[str, Any]):
        """Takes (C, h, w) of all maps and the options of our method."""
        super().__init__()
        only = options["conv3x3_only"]
        kernels = [3 if only or not index % 2 else 1 for index in range(options["blocks"])]
        self.fast_flow_blocks = nn.ModuleList(_chain(size[0], kernels, options) for size in sizes)
        if options["layer_norm"]:
            self.norms = nn.ModuleList(map(Norm, sizes))

    def forward(self, maps: Maps) -> list[torch.Tensor]:
        """Returns all latents."""
        norms = getattr(self, "norms", [lambda x: x] * len(maps))
        return [
            flow(norm(x))[0]
            for flow, norm, x in zip(self.fast_flow_blocks, norms, maps, strict=True)
        ]


class UFlow(nn.Module):
    """Chains from coarse to fine, each fed by the one before."""

    def __init__(self, sizes: Sequence[Sequence[int]], options: Mapping[str, Any]):
        """As `FastFlow`."""
        super().__init__()
        kernels = [1 if step % 2 else 3 for step in range(options["steps"])]
        chains, lifted = [], 0
        for size in reversed(sizes):
            total = size[0] + lifted
            chains.append(_chain(total, kernels, options))
            lifted = total // 8
        self.chains = nn.ModuleList(chains)
        norms = map(Norm, sizes) if options["layer_norm"] else ()
        self.norms = nn.ModuleList(norms)

    def forward(self, maps: Maps) -> list[torch.Tensor]:
        """Returns all latents, fine to coarse."""
        if self.norms:
            maps = [norm(x) for norm, x in zip(self.norms, maps, strict=True)]
        latents: list[torch.Tensor] = []
        for chain, x in zip(self.chains, reversed(maps), strict=True):
            if latents:
                z = latents.pop()
                count = z.shape[1] // 8 * 4
                latents.append(z[:, count:])
                x = torch.cat([x, functional.pixel_shuffle(z[:, :count], 2)], 1)
            latents.append(chain(x)[0])
        return latents[::-1]


class PatchFlow(nn.Module):
    """One chain behind a convolution of all maps."""

    def __init__(self, channels: int, options: Mapping[str, Any]):
        """Takes the channels of all maps together and the options of our method."""
        super().__init__()
        self.feature_adaptor = nn.Conv2d(channels, options["channels"], 1)
        hidden, self._pool = options["hidden"], options["pool"]

        def net(wide: int, out: int) -> nn.Module:
            convolutions = (
                nn.Conv2d(a, b, 3, padding=1) for a, b in ((wide, hidden), (hidden, out))
            )
            return nn.Sequential(*convolutions, nn.BatchNorm2d(out), nn.LeakyReLU(0.2))

        shape = options["channels"], 1, 1
        self.flow = freia.chain(shape, 0, options["blocks"], options["clamp"], "hard", net)

    def forward(self, maps: Maps) -> list[torch.Tensor]:
        """Returns the latent."""
        border = self._pool // 2
        means = [functional.avg_pool2d(x, self._pool, 1, border) for x in maps]
        size = maps[0].shape[2:]
        joined = [functional.interpolate(x, size=size, mode="bilinear") for x in means]
        return [self.flow(self.feature_adaptor(torch.cat(joined, 1)))[0]]


class Detector:
    """What a checkpoint holds, ready to score; see `peers.detectors.Detector`."""

    def __init__(self, dialect: str, content: Mapping[str, Any], options: Mapping[str, Any]):
        """Builds the flows and fills them; raises RuntimeError where names or shapes differ."""
        state = {
            key.removeprefix("model."): torch.from_numpy(np.array(value))
            for key, value in content["state_dict"].items()
            if key.startswith("model.")
        }
        self.model = _BUILDERS[dialect](state, options).eval()

    def log_probs(self, maps: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Likelihood maps (B, h, w) of feature maps (B, h, w, C)."""
        given = [torch.from_numpy(np.array(x).transpose(0, 3, 1, 2).copy()) for x in maps]
        with torch.no_grad():
            return [(-0.5 * (z**2).mean(1)).numpy() for z in self.model(given)]


def _chain(channels: int, kernels: Sequence[int], options: Mapping[str, Any]) -> nn.Module:
    """A chain whose nets have these kernels."""
    left = iter(kernels)

    def net(wide: int, out: int) -> nn.Module:
        return Net(wide, out, next(left), options["ratio"])

    permutation = options.get("permutation", "hard")
    return freia.chain((channels, 1, 1), 0, len(kernels), options["clamp"], permutation, net)


def _fastflow(state: Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> nn.Module:
    own = {k: v for k, v in state.items() if k.startswith(("fast_flow_blocks.", "norms."))}
    last = "module_list.0.global_scale"
    channels = _numbered(own, "fast_flow_blocks.{}." + last, lambda x: x.shape[1])
    sizes = _numbered(own, "norms.{}.weight", lambda x: tuple(x.shape))
    made = FastFlow(sizes or [(count,) for count in channels], options)
    made.load_state_dict(own)
    return made


def _uflow(state: Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> nn.Module:
    before, steps = "feature_extractor.feature_normalizations.", options["steps"]
    sizes = _numbered(state, before + "{}.weight", lambda x: tuple(x.shape))
    made = UFlow(sizes, options)
    own = {f"norms.{k.removeprefix(before)}": v for k, v in state.items() if k.startswith(before)}
    for key, value in state.items():
        if key.startswith("flow.module_list.") and not key.endswith("downsample_kernel"):
            _, _, number, name = key.split(".", 3)
            stage, index = divmod(int(number), steps + 3)
            own[f"chains.{stage}.module_list.{index}.{name}"] = value
    made.load_state_dict(own)
    return made


def _patchflow(state: Mapping[str, torch.Tensor], options: Mapping[str, Any]) -> nn.Module:
    made = PatchFlow(state["feature_adaptor.weight"].shape[1], options)
    made.load_state_dict(
        {k: v for k, v in state.items() if k.startswith(("feature_adaptor.", "flow."))}
    )
    return made


def _numbered(state: Mapping[str, torch.Tensor], name: str, read: Any) -> list[Any]:
    found: list[Any] = []
    while (key := name.format(len(found))) in state:
        found.append(read(state[key]))
    return found


_BUILDERS = {"fastflow": _fastflow, "uflow": _uflow, "patchflow": _patchflow}
KINDS = tuple(_BUILDERS)
