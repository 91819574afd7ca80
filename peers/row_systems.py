"""CFLOW-AD and SANFlow in PyTorch: a chain per scale on the rows (N, C) of its feature map."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from peers import cflow, freia, sanflow
from peers.msflow import position_code
from peers.steps import Called, Maps, Rows, Wrap


class CFlow:
    """Every full chunk of shuffled rows is a gradient step; see `peers.systems.System`."""

    def __init__(
        self, channels: Sequence[int], method: Mapping[str, Any], version: str, wrap: Wrap
    ):
        """Draws fresh chains."""
        self.module: nn.Module = chains(channels, method, version)
        self._codes, self._fibre = _Codes(method["condition"]), method["fibre_size"]
        self._loss = [wrap(Called(flow, _fibre_loss)) for flow in self.module.children()]
        self._log_prob = [wrap(Called(flow, cflow.log_prob)) for flow in self.module.children()]

    def losses(self, maps: Maps, rows: Rows) -> Iterator[torch.Tensor]:
        """Scale after scale."""
        del rows
        for loss, feature_map in zip(self._loss, maps, strict=True):
            fibres, code = as_rows(feature_map), self._codes.rows(feature_map)
            order = torch.randperm(len(fibres), device=fibres.device)
            chunks = [x[order].split(self._fibre) for x in (fibres, code)]
            for chunk, own in zip(*chunks, strict=True):
                if len(chunk) == self._fibre:
                    yield loss(chunk, own)

    def log_probs(self, maps: Maps, image: torch.Tensor) -> list[torch.Tensor]:
        """Per dimension; all rows of a scale at once."""
        return [
            log_prob(as_rows(x), self._codes.rows(x)).reshape(len(image), *x.shape[2:])
            for log_prob, x in zip(self._log_prob, maps, strict=True)
        ]


class SANFlow:
    """All rows of all scales and the variance net make one step; see `peers.systems.System`."""

    def __init__(
        self, channels: Sequence[int], method: Mapping[str, Any], version: str, wrap: Wrap
    ):
        """Draws fresh chains and a fresh net."""
        flows, net = chains(channels, method, version), sanflow.VarianceNet()
        self.module: nn.Module = nn.ModuleList([*flows, net])
        self.flows, self.net = flows, net
        known = sanflow.Objective._fields
        self._objective = sanflow.Objective(**{key: method[key] for key in known})
        self._codes, self._share = _Codes(method["condition"]), method["mask_share"]
        self._net = wrap(net)
        self._loss = [wrap(Called(flow, self._scale_loss)) for flow in flows]
        self._log_prob = [wrap(Called(flow, self._scale_log_prob)) for flow in flows]

    def losses(self, maps: Maps, rows: Rows) -> Iterator[torch.Tensor]:
        """One: the sum over the scales."""
        logs = self._net(rows.image)
        terms = []
        for loss, feature_map in zip(self._loss, maps, strict=True):
            share = _pooled(rows.mask[:, None].float(), feature_map)
            anomalous = (share > self._share - 1e-6).flatten()
            terms.append(loss(feature_map, self._codes.rows(feature_map), logs, anomalous))
        yield torch.stack(terms).sum()

    def _scale_loss(
        self,
        flow: nn.Module,
        feature_map: torch.Tensor,
        code: torch.Tensor,
        logs: torch.Tensor,
        anomalous: torch.Tensor,
    ) -> torch.Tensor:
        z, log_det = flow(as_rows(feature_map), [code])
        return sanflow.loss(self._objective, z, log_det, _cells(logs, feature_map), anomalous)

    def log_probs(self, maps: Maps, image: torch.Tensor) -> list[torch.Tensor]:
        """Per dimension, as if all rows were normal."""
        logs = self._net(image)
        return [
            log_prob(x, self._codes.rows(x), logs).reshape(len(image), *x.shape[2:])
            for log_prob, x in zip(self._log_prob, maps, strict=True)
        ]

    def _scale_log_prob(
        self, flow: nn.Module, feature_map: torch.Tensor, code: torch.Tensor, logs: torch.Tensor
    ) -> torch.Tensor:
        z, log_det = flow(as_rows(feature_map), [code])
        floor = self._objective.variance_floor
        return sanflow.log_prob(z, log_det, _cells(logs, feature_map), floor)


def chains(channels: Sequence[int], method: Mapping[str, Any], version: str) -> nn.ModuleList:
    """CFLOW-AD's decoders; rotations are drawn here, because FrEIA takes minutes for wide ones."""
    soft = method["permutation"] == "soft"
    options = method["condition"], method["blocks"], method["clamp"], "hard"
    made = nn.ModuleList(
        freia.chain((count,), *options, version="0.2" if soft else version) for count in channels
    )
    for block in made.modules():
        if soft and isinstance(block, freia.Block):
            nn.init.orthogonal_(block.w_perm)
            block.w_perm_inv.data.copy_(block.w_perm.T)
    return made


def as_rows(feature_map: torch.Tensor) -> torch.Tensor:
    """Maps (B, C, h, w) as rows (B * h * w, C)."""
    return feature_map.permute(0, 2, 3, 1).reshape(-1, feature_map.shape[1])


def _fibre_loss(flow: nn.Module, rows: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    return -functional.logsigmoid(cflow.log_prob(flow, rows, cond)).mean()


def _cells(logs: torch.Tensor, feature_map: torch.Tensor) -> torch.Tensor:
    """Means (B * h * w, 2) over the pixels of every position."""
    return as_rows(_pooled(logs, feature_map))


def _pooled(x: torch.Tensor, feature_map: torch.Tensor) -> torch.Tensor:
    return functional.adaptive_avg_pool2d(x, (feature_map.shape[2], feature_map.shape[3]))


class _Codes:
    """Position codes as rows, kept on the device."""

    def __init__(self, size: int):
        self._size = size
        self._known: dict[tuple[int, ...], torch.Tensor] = {}

    def rows(self, feature_map: torch.Tensor) -> torch.Tensor:
        """Code (B * h * w, P) of every row of a map (B, C, h, w)."""
        images, _, height, width = feature_map.shape
        key = images, height, width
        if key not in self._known:
            code = position_code(self._size, height, width)[0].flatten(1).T
            self._known[key] = code.repeat(images, 1).to(feature_map)
        return self._known[key]
