"""MSFlow: convolutional flows per scale and a fusion flow across the scales.

Zhou, Xu, Song, Shen, Shen: "MSFlow: Multi-Scale Normalizing Flows for Unsupervised Anomaly
Detection", IEEE TNNLS 2024. Read from top to bottom: network, loss, likelihood maps, scores. The
pooling behind the encoder's taps is the encoder's (`encoder.pool`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from flowad_jax.errors import UserError
from flowad_jax.flows import Clamp, MultiScaleFlow, position_code
from flowad_jax.flows.coupling import CLAMPS
from flowad_jax.lookup import check_choice
from flowad_jax.methods import common
from flowad_jax.methods.common import COMPUTE, require
from flowad_jax.ops import arrays
from flowad_jax.types import Batch, Calibration, Method, Phase, Scores, Tree

IN_NATS = 1  # `Calibration.form`; 0 are the scores of version 0.1, which reach 1 and tie
TINY = {"condition": 8, "blocks": (1, 1)}  # options that tests use


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
    counts = tuple(blocks)
    require(min(counts, default=0) >= 1, "blocks", counts, "every scale needs at least 1 block")
    require(0 < top <= 1, "top", top, "a share of the pixels lies above 0 and up to 1")
    position_code(condition, 1, 1)
    flow = _Network(condition, counts, Clamp(clamp, clamp_kind), COMPUTE[compute])
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

    def flow(self, maps: Sequence[Float[Array, "B h w C"]]) -> MultiScaleFlow:
        if len(maps) != len(self.blocks):
            raise UserError(
                f"method.blocks={self.blocks} is for {len(self.blocks)} scales, but the encoder "
                f"gives {len(maps)}: set one number per feature map"
            )
        channels = tuple(x.shape[-1] for x in maps)
        return MultiScaleFlow(channels, self.blocks, self.condition, self.clamp, self.compute)

    def init(self, rng: jax.Array, batch: Batch) -> dict[str, Tree]:
        """Draws parameters and channel orders; of the maps only the shapes matter."""
        return dict(self.flow(batch.maps).init(rng, batch.maps))

    def phases(self, buffers: Tree, batch: Batch, rng: jax.Array) -> tuple[Phase, ...]:
        """One gradient step on all flows at once."""
        del rng
        apply: Any = self.flow(batch.maps).apply
        return (common.nll_step(apply, buffers, batch),)

    def log_probs(
        self, variables: Mapping[str, Tree], batch: Batch
    ) -> tuple[Float[Array, "B h w"], ...]:
        """Minus half the mean square of the latents of all scales, without the log-determinant."""
        out: Any = self.flow(batch.maps).apply(variables, batch.maps)
        latents, _ = out
        return tuple(-0.5 * jnp.mean(z**2, axis=-1) for z in latents)


@dataclass(frozen=True)
class _Scoring:
    """From likelihood maps to anomaly maps: scales added for pixels, multiplied for images.

    ``sum_l exp(L_l - m_l)`` is the added map, ``exp(sum_l L_l)`` the multiplied one, every ``L_l``
    resized to the image with coinciding corners; a map of anomaly is the distance to the largest
    value. The paper takes ``m_l`` and the largest values from the image itself, which thereby
    becomes its own measure; the calibrated form takes them from normal images.

    Multiplied, the distance is ``a = 1 - exp(-b)``, of which the score of an image is the mean over
    the most anomalous pixels. Measured against itself, an image has pixels with a large exponential
    everywhere; measured against normal images, an anomaly has none, and its score is 1 as a float
    from b = 37 on. The calibrated score therefore is ``-log(1 - mean(a)) = -log(mean(exp(-b)))``,
    in nats, which ranks alike and is computed without either exponential being 0. What an older
    version calibrated keeps the score that its thresholds are of.
    """

    top: float

    def calibrate(
        self, log_probs: Sequence[Float[np.ndarray, "N h w"]], image_size: tuple[int, int]
    ) -> Calibration:
        """Fits the constants on normal images."""
        highest = common.scale_max(log_probs)
        both = (_likelihoods(maps, image_size, highest) for maps in common.by_image(log_probs))
        map_max = np.max([(x.max(), y.max()) for x, y in both], axis=0)
        return Calibration(highest, map_max, form=IN_NATS)

    def aggregate(
        self,
        log_probs: Sequence[Float[np.ndarray, "N h w"]],
        image_size: tuple[int, int],
        calibration: Calibration | None = None,
    ) -> Scores:
        """Turns likelihood maps into scores, image by image; without calibration as in the paper.

        Returns:
          Scores in float64: `pixel` from the added maps, `overlap` (for AUPRO) from the multiplied
          ones, `image` from the largest `top` share of the latter.
        """
        pixel, overlap, image = [], [], []
        xp = arrays.namespace(log_probs[0])
        in_nats = calibration is not None and calibration.form == IN_NATS
        for maps in common.by_image(log_probs):
            highest = [x.max() for x in maps] if calibration is None else calibration.scale_max
            added, multiplied = _likelihoods(maps, image_size, highest)
            limits = (added.max(), multiplied.max()) if calibration is None else calibration.map_max
            pixel.append(limits[0] - added)
            distance = limits[1] - multiplied
            overlap.append(distance if in_nats else 1.0 - xp.exp(-distance))
            top = arrays.top_values(overlap[-1], self.top)
            image.append(_soft_mean(top) if in_nats else top.mean())
        return Scores(xp.stack(image), xp.stack(pixel), xp.stack(overlap))


def _soft_mean(distances: Float[np.ndarray, " k"]) -> Any:
    """Computes ``-log(mean(exp(-distances)))``, in which the nearest have the largest say."""
    xp, nearest = arrays.namespace(distances), distances.min()
    return nearest - xp.log(xp.mean(xp.exp(nearest - distances)))


def _likelihoods(
    maps: Sequence[Float[np.ndarray, "1 h w"]],
    image_size: tuple[int, int],
    highest: Sequence[float] | np.ndarray,
) -> tuple[Float[np.ndarray, "H W"], Float[np.ndarray, "H W"]]:
    """The added map of an image, and the logarithm of the multiplied one."""
    multiplied = sum(arrays.resize_align_corners(values, image_size)[0] for values in maps)
    return common.summed_likelihood(maps, highest, image_size), multiplied
