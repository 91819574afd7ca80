"""MSFlow: convolutional flows per scale and a fusion flow across the scales.

Zhou, Xu, Song, Shen, Shen: "MSFlow: Multi-Scale Normalizing Flows for Unsupervised Anomaly
Detection", IEEE TNNLS 2024. Read from top to bottom: network, loss, likelihood maps, scores. The
pooling behind the encoder's taps is the encoder's (`encoder.pool`).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowad_jax import ops
from flowad_jax.errors import UserError
from flowad_jax.flows import Clamp, MultiScaleFlow, position_code
from flowad_jax.flows.coupling import CLAMPS
from flowad_jax.lookup import check_choice
from flowad_jax.types import Aux, Batch, Calibration, Method, Phase, Scores, Tree

COMPUTE = {"float32": None, "bfloat16": jnp.bfloat16}  # None: the dtype of the feature maps


def build(
    condition: int = 64,
    blocks: tuple[int, ...] = (2, 5, 8),
    clamp: float = 1.9,
    clamp_kind: str = "tanh",
    top: float = 0.03,
    compute: str = "float32",
) -> Method:
    """Assembles MSFlow; the defaults are the published settings.

    Args:
      condition: P, size of the position code, a multiple of 4.
      blocks: coupling blocks of every scale, shallow first.
      clamp: bound alpha of the log-scales.
      clamp_kind: of the coupling blocks: ``"tanh"`` (FrEIA 0.2) or ``"tanh_ratio"`` (FrEIA since
        August 2023).
      top: share of the pixels, the most anomalous ones, whose mean is the score of an image.
      compute: ``"bfloat16"`` convolves in half precision, in training and in scoring alike; sums,
        exponentials, normalisation and log-determinants stay in float32.

    Raises:
      UserError: an option has a value that does not exist.
    """
    check_choice("method.clamp_kind", clamp_kind, CLAMPS)
    check_choice("method.compute", compute, COMPUTE)
    if not blocks or min(blocks) < 1:
        raise UserError(f"method.blocks={tuple(blocks)}: every scale needs at least 1 block")
    if not 0 < top <= 1:
        raise UserError(f"method.top={top}: a share of the pixels lies above 0 and up to 1")
    position_code(condition, 1, 1)
    flow = _Network(condition, tuple(blocks), Clamp(clamp, clamp_kind), COMPUTE[compute])
    scoring = _Scoring(top)
    return Method(
        init=flow.init,
        phases=flow.phases,
        log_probs=flow.log_probs,
        calibrate=scoring.calibrate,
        aggregate=scoring.aggregate,
        published="per_image",
    )


@dataclass(frozen=True)
class _Network:
    """The flow over all scales, its loss and what it says about feature maps."""

    condition: int
    blocks: tuple[int, ...]
    clamp: Clamp
    compute: jnp.dtype | None

    def flow(self, maps: Sequence[jax.Array]) -> MultiScaleFlow:
        if len(maps) != len(self.blocks):
            raise UserError(
                f"method.blocks={self.blocks} is for {len(self.blocks)} scales, but the encoder "
                f"gives {len(maps)}: set one number per feature map"
            )
        channels = tuple(x.shape[-1] for x in maps)
        return MultiScaleFlow(channels, self.blocks, self.condition, self.clamp, self.compute)

    def init(self, rng: jax.Array, maps: Sequence[jax.Array]) -> dict[str, Tree]:
        """Draws parameters and channel orders; of the maps only the shapes matter."""
        return dict(self.flow(maps).init(rng, maps))

    def phases(
        self, constants: Tree, maps: Sequence[jax.Array], batch: Batch, rng: jax.Array
    ) -> tuple[Phase, ...]:
        """One gradient step on all flows at once."""
        del rng
        flow = self.flow(maps)

        def loss_fn(params: Tree, updated: Tree, minibatch: Tree) -> tuple[jax.Array, Aux]:
            out: Any = flow.apply({"params": params, "constants": constants}, minibatch["maps"])
            latents, log_det = out
            squares = sum(jnp.sum(z**2, axis=(1, 2, 3)) for z in latents)
            # As in the reference: summed over the dimensions, without the constant of the normal.
            nll = 0.5 * squares - log_det
            loss = jnp.sum(minibatch["weight"] * nll) / jnp.sum(minibatch["weight"])
            return loss, Aux(updated, {})

        minibatch = {"maps": tuple(maps), "weight": batch.weight}
        return (
            Phase(
                trains=tuple(constants),
                loss_fn=loss_fn,
                minibatches=jax.tree.map(lambda leaf: leaf[None], minibatch),
                active=jnp.ones(1, bool),
                dimensions=sum(math.prod(x.shape[1:]) for x in maps),
            ),
        )

    def log_probs(
        self, variables: Mapping[str, Tree], maps: Sequence[jax.Array]
    ) -> tuple[jax.Array, ...]:
        """L maps (B, h, w): minus half the mean square of the latent, without the log-det."""
        out: Any = self.flow(maps).apply(variables, maps)
        latents, _ = out
        return tuple(-0.5 * jnp.mean(z**2, axis=-1) for z in latents)


@dataclass(frozen=True)
class _Scoring:
    """From likelihood maps to anomaly maps: scales added for pixels, multiplied for images.

    ``sum_l exp(L_l - m_l)`` is the added map, ``exp(sum_l L_l)`` the multiplied one, every ``L_l``
    resized to the image with coinciding corners; a map of anomaly is the distance to the largest
    value. The paper takes ``m_l`` and the largest values from the image itself, which thereby
    becomes its own measure; the calibrated form takes them from normal images.
    """

    top: float

    def calibrate(
        self, log_probs: Sequence[np.ndarray], image_size: tuple[int, int]
    ) -> Calibration:
        """Fits the constants on normal images; log_probs are L arrays (N, h, w)."""
        scale_max = np.array([np.max(values) for values in log_probs], np.float64)
        highest = [
            (added.max(), multiplied.max())
            for added, multiplied in _likelihoods(log_probs, image_size, scale_max)
        ]
        return Calibration(scale_max, np.max(highest, axis=0))

    def aggregate(
        self,
        log_probs: Sequence[np.ndarray],
        image_size: tuple[int, int],
        calibration: Calibration | None = None,
    ) -> Scores:
        """Turns likelihood maps into scores, image by image.

        Args:
          log_probs: L arrays (N, h, w).
          image_size: (H, W) of the anomaly maps.
          calibration: from normal images; None for the paper's form.

        Returns:
          Scores in float64: `pixel` from the added maps, `overlap` (for AUPRO) from the multiplied
          ones, `image` the mean of the largest `top` share of the latter.
        """
        scale_max = None if calibration is None else calibration.scale_max
        pixel, overlap = [], []
        for added, multiplied in _likelihoods(log_probs, image_size, scale_max):
            limits = (added.max(), multiplied.max()) if calibration is None else calibration.map_max
            pixel.append(limits[0] - added)
            overlap.append(1.0 - np.exp(multiplied - limits[1]))
        return Scores(ops.mean_of_top(overlap, self.top), np.stack(pixel), np.stack(overlap))


def _likelihoods(
    log_probs: Sequence[np.ndarray],
    image_size: tuple[int, int],
    scale_max: np.ndarray | None,
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields for every image the added map and the logarithm of the multiplied one, (H, W)."""
    for scales in zip(*log_probs, strict=True):
        maps = [np.asarray(values, np.float64)[None] for values in scales]
        highest = [values.max() for values in maps] if scale_max is None else scale_max
        added = sum(
            ops.resize_align_corners(np.exp(values - largest), image_size)[0]
            for values, largest in zip(maps, highest, strict=True)
        )
        yield added, sum(ops.resize_align_corners(values, image_size)[0] for values in maps)
