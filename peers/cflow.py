"""The peer of the CFLOW-AD benchmark: the same recipe with PyTorch and FrEIA 0.2.

Written from the published description: one Adam over all decoders, fibres of N shuffled rows, the
log-sigmoid of the log-likelihood per dimension. Nothing here imports JAX.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from peers.freia import chain
from peers.msflow import position_code

LOG_2PI = math.log(2 * math.pi)


class Decoders:
    """One FrEIA chain per scale and the optimizer over all of them."""

    def __init__(self, channels: tuple[int, ...], method: dict, adam_idle: str, seed: int):
        """Draws fresh decoders for feature maps with ``channels``."""
        torch.manual_seed(seed)
        np.random.seed(seed)
        self._fibre = method["fibre_size"]
        self._condition = method["condition"]
        # PyTorch before 2.0 wrote zeros where there is no gradient, since then there is none.
        self._forget = adam_idle == "skip"
        self._chains = [
            chain(
                (width,),
                method["condition"],
                method["blocks"],
                method["clamp"],
                method["permutation"],
            )
            for width in channels
        ]
        parameters = [p for flow in self._chains for p in flow.parameters()]
        self._adam = torch.optim.Adam(parameters)

    def train_batch(self, maps: list[np.ndarray], learning_rate: float) -> float:
        """Trains on all fibres of an image batch (maps (B, h, w, C)); returns the mean loss."""
        for section in self._adam.param_groups:
            section["lr"] = learning_rate
        total, steps = 0.0, 0
        for flow, feature_map in zip(self._chains, maps, strict=True):
            rows, cond = self._rows(feature_map)
            for chunk in torch.randperm(len(rows)).split(self._fibre):
                if len(chunk) < self._fibre:
                    break
                loss = -torch.nn.functional.logsigmoid(log_prob(flow, rows[chunk], cond[chunk]))
                self._adam.zero_grad(set_to_none=self._forget)
                loss = loss.mean()
                loss.backward()
                self._adam.step()
                total, steps = total + loss.item(), steps + 1
        return total / steps

    def log_probs(self, maps: list[np.ndarray]) -> tuple[np.ndarray, ...]:
        """Likelihood maps (B, h, w) per dimension of all scales."""
        out = []
        with torch.no_grad():
            for flow, feature_map in zip(self._chains, maps, strict=True):
                rows, cond = self._rows(feature_map)
                values = [
                    log_prob(flow, r, c)
                    for r, c in zip(rows.split(self._fibre), cond.split(self._fibre), strict=True)
                ]
                out.append(torch.cat(values).numpy().reshape(feature_map.shape[:3]))
        return tuple(out)

    def _rows(self, feature_map: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
        images, height, width, channels = feature_map.shape
        code = position_code(self._condition, height, width)[0].flatten(1).T
        rows = torch.from_numpy(feature_map).reshape(-1, channels)
        return rows, code.repeat(images, 1)


def log_prob(flow: torch.nn.Module, rows: torch.Tensor, cond: torch.Tensor) -> torch.Tensor:
    """Log-likelihood per dimension (N,) of rows (N, C) with conditions (N, P)."""
    z, log_det = flow(rows, [cond])
    channels = rows.shape[1]
    return (-0.5 * (channels * LOG_2PI + (z**2).sum(1)) + log_det) / channels
