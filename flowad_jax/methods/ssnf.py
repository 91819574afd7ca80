"""SSNF: one flow per scale, which also learns from synthetic anomalies what is not normal.

Chiu, Lai: "Self-Supervised Normalizing Flows for Image Anomaly Detection and Localization", CVPRW
2023 (VAND). Read from top to bottom: options, flows, likelihood maps, training on pairs, scores.
The published system has one scale, that of CaiT-M48; with several, their likelihoods add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int
from scipy.special import expit

from flowad_jax.flows import Clamp, Flow, ssnf_flow
from flowad_jax.flows.coupling import CLAMPS
from flowad_jax.lookup import check_choice
from flowad_jax.methods import common
from flowad_jax.methods.common import COMPUTE, require
from flowad_jax.ops import arrays
from flowad_jax.types import Aux, Batch, Calibration, Method, Phase, Scores, Tree

POSITIVE_WEIGHTS = ("switch", "constant")
# How normal a position is, from its latent (..., C). Densities saturate: beyond three standard
# deviations a channel counts as far out, however far it is.
SCORES = {
    "density": lambda z: jnp.mean(jnp.exp(-0.5 * (z**2 + arrays.LOG_2PI)), axis=-1),
    "nll": lambda z: -0.5 * jnp.mean(z**2, axis=-1),
}
# Attention weights (B, heads, h * w, h * w) of one block that scoring computes at once: 512 MiB.
ATTENTION_WEIGHTS = 2**27
# Options that tests use.
TINY = {"blocks": 1, "hidden": 4, "heads": 2, "cap_dimensions": 1, "negative_cap": 1e9}


def build(
    blocks: int = 10,
    hidden: int = 128,
    heads: int = 4,
    clamp: float = 2.0,
    clamp_kind: str = "tanh",
    drop: float = 0.2,
    layout: str | Sequence[str] = "conv+attn",
    negative_weight: float = 0.5,
    negative_cap: float = 1e5,
    cap_dimensions: int = 602_112,
    positive_weight: str = "switch",
    score: str = "density",
    top: float | None = None,
    sigmoid: bool = False,
    compute: str = "float32",
) -> Method:
    """Assembles SSNF; the defaults are the released settings.

    Args:
      blocks: coupling blocks per flow.
      hidden: channels inside the residual nets.
      heads: heads of the attention, a divisor of ``hidden``.
      clamp: bound alpha of the log-scales.
      clamp_kind: of the coupling blocks: ``"tanh"`` (FrEIA 0.2) or ``"tanh_ratio"`` (FrEIA since
        August 2023).
      drop: probability of dropping channels and attention weights in training.
      layout: parts of the residual nets, one name for all blocks or a name for each: ``"conv"``,
        ``"attn"``, ``"conv+attn"`` or ``"attn+conv"``.
      negative_weight: w, weight of the synthetic images in the loss; 0 learns from normal ones
        alone.
      negative_cap: negative log-likelihood in nats from which on a synthetic image does not train.
      cap_dimensions: latent dimensions that this cap is meant for (published: 768 x 28 x 28); it is
        scaled to those at hand, so with 1 it is in nats per dimension.
      positive_weight: weight of the normal images: ``"switch"``, 1 - w while synthetic ones train
        beside them and else 1 (released), or ``"constant"``, always 1 - w.
      score: how normal a position is: ``"density"``, the mean normal density of its channels
        (released), or ``"nll"``, minus half their mean square, which does not saturate.
      top: share of the pixels, the most anomalous ones, whose mean is the score of an image; None
        for the maximum (released).
      sigmoid: ends the published form's maps with a sigmoid, as the released stand-alone evaluation
        does; the released training does not.
      compute: ``"bfloat16"`` multiplies in half precision, in training and in scoring alike;
        log-determinants and likelihoods stay in float32.

    Raises:
      UserError: an option has a value that does not exist.
    """
    check_choice("method.clamp_kind", clamp_kind, CLAMPS)
    check_choice("method.compute", compute, COMPUTE)
    check_choice("method.positive_weight", positive_weight, POSITIVE_WEIGHTS)
    check_choice("method.score", score, SCORES)
    holds = 0 <= negative_weight < 1
    require(holds, "negative_weight", negative_weight, "from 0 up to, but not, 1")
    demand = "must be a finite number of nats"
    require(math.isfinite(negative_cap), "negative_cap", negative_cap, demand)
    require(cap_dimensions >= 1, "cap_dimensions", cap_dimensions, "must be at least 1")
    top = top or 0.0
    require(0 <= top <= 1, "top", top, "a share of the pixels lies between 0 and 1")
    flow = partial(
        ssnf_flow,
        blocks=blocks,
        hidden=hidden,
        heads=heads,
        clamp=Clamp(clamp, clamp_kind),
        drop=drop,
        layout=layout,
        compute=COMPUTE[compute],
    )
    flow(channels=2)  # names options that do not fit
    objective = Contrast(negative_weight, negative_cap / cap_dimensions, positive_weight)
    flows = _Flows(flow, heads, score, objective)
    scoring = _Scoring(top, sigmoid)
    return Method(
        init=flows.init,
        phases=flows.phases,
        log_probs=flows.log_probs,
        calibrate=scoring.calibrate,
        aggregate=scoring.aggregate,
        published="per_image",
        batch_kind="pairs",
    )


@dataclass(frozen=True)
class _Flows:
    """The flows of all scales, what they say about feature maps, and how they are trained."""

    flow: Callable[[int], Flow]  # of so many channels
    heads: int
    score: str
    objective: Contrast

    def init(self, rng: jax.Array, batch: Batch) -> dict[str, Tree]:
        """Draws parameters and channel orders; of the maps only the shapes matter."""
        return common.init_flows(
            lambda key, x: self.flow(x.shape[-1]).init(key, x[:1]), rng, batch.maps
        )

    def latent(
        self,
        variables: Mapping[str, Tree],
        scale: int,
        feature_map: Float[Array, "B h w C"],
        dropout: jax.Array | None = None,
    ) -> tuple[Float[Array, "B h w C"], Float[Array, " B"]]:
        """Latent and log-determinants; with a key ``dropout`` as in training.

        Its channels have not been through the flow's last order: all that follows sums over them.
        """
        own = common.of_scale(variables, scale)
        rngs = None if dropout is None else {"dropout": dropout}
        flow = self.flow(feature_map.shape[-1])
        out: Any = flow.apply(own, feature_map, rngs=rngs, permute_last=False)
        return out

    def log_probs(
        self, variables: Mapping[str, Tree], batch: Batch
    ) -> tuple[Float[Array, "B h w"], ...]:
        """How normal positions of all scales are, without dropout and log-determinant."""
        return tuple(self._normality(variables, *item) for item in enumerate(batch.maps))

    def _normality(
        self, variables: Mapping[str, Tree], scale: int, feature_map: Float[Array, "B h w C"]
    ) -> Float[Array, "B h w"]:
        images, height, width, _ = feature_map.shape
        # Of an unknown number, in an exported detector, all are taken at once.
        known = isinstance(images, int)
        if not known or images * self.heads * (height * width) ** 2 <= ATTENTION_WEIGHTS:
            return SCORES[self.score](self.latent(variables, scale, feature_map)[0])

        def one_image(image: Float[Array, "h w C"]) -> Float[Array, "h w"]:
            return SCORES[self.score](self.latent(variables, scale, image[None])[0])[0]

        return jax.lax.map(one_image, feature_map)

    def nll(
        self, variables: Mapping[str, Tree], maps: tuple[jax.Array, ...], dropout: jax.Array
    ) -> Float[Array, " B"]:
        """Negative log-likelihood in nats of each image over all scales, with dropout."""
        total = jnp.zeros(maps[0].shape[0])
        for scale, feature_map in enumerate(maps):
            key = jax.random.fold_in(dropout, scale)
            z, log_det = self.latent(variables, scale, feature_map, key)
            constant = 0.5 * arrays.LOG_2PI * math.prod(z.shape[1:])
            total = total + 0.5 * jnp.sum(z**2, axis=(1, 2, 3)) + constant - log_det
        return total

    def phases(self, buffers: Tree, batch: Batch, rng: jax.Array) -> tuple[Phase, ...]:
        """One gradient step on all flows at once; none without a normal image."""
        dimensions = sum(math.prod(x.shape[1:]) for x in batch.maps)

        def loss_fn(params: Tree, updated: Tree, minibatch: Tree) -> tuple[jax.Array, Aux]:
            variables = {"params": params, "buffers": buffers}
            nll = self.nll(variables, minibatch["maps"], minibatch["dropout"])
            rows = (minibatch["label"], minibatch["weight"])
            loss, metrics = self.objective(nll, *rows, dimensions)
            return loss, Aux(updated, metrics)

        minibatch = {"maps": batch.maps, "dropout": rng}
        minibatch |= {"label": batch.label, "weight": batch.weight}
        active = jnp.any((batch.weight > 0) & (batch.label == 0))
        return (common.single_step(tuple(buffers), loss_fn, minibatch, active, dimensions),)


@dataclass(frozen=True)
class Contrast:
    """Likelihood up for normal images, down for those synthetic ones that still look normal.

    The fields are options; ``cap`` is in nats per dimension.
    """

    negative_weight: float
    cap: float
    positive_weight: str = "switch"

    def __call__(
        self,
        nll: Float[Array, " N"],
        label: Int[Array, " N"],
        weight: Float[Array, " N"],
        dimensions: int,
    ) -> tuple[Float[Array, ""], dict[str, jax.Array]]:
        """Computes the loss of a batch in nats, and its metrics (Chiu and Lai, as released).

        A synthetic image (label 1) trains while it is likelier than the cap and than the least
        likely normal image of the batch: what is out already need not be driven further. Metrics
        are ``nll`` of the normal and ``nll_synthetic`` of all synthetic images per dimension, and
        ``kept``, the share of the latter that trains; 0 where there is no such image.
        """
        # Plain reductions over the global array: on several devices the filter sees the whole
        # batch, not the part of one device.
        normal, synthetic = (weight > 0) & (label == 0), (weight > 0) & (label == 1)
        seen = jax.lax.stop_gradient(nll)
        least_likely = jnp.max(jnp.where(normal, seen, -jnp.inf))
        kept = synthetic & (seen < self.cap * dimensions) & (seen < least_likely)
        positive = _mean(nll, normal)
        share = jnp.asarray(1.0 - self.negative_weight)
        if self.positive_weight == "switch":
            share = jnp.where(jnp.any(kept), share, 1.0)
        loss = share * positive - self.negative_weight * _mean(nll, kept)
        return loss, {
            "nll": positive / dimensions,
            "nll_synthetic": _mean(nll, synthetic) / dimensions,
            "kept": _mean(kept, synthetic),
        }


def _mean(values: jax.Array, rows: Bool[Array, " N"]) -> Float[Array, ""]:
    """Mean over some rows, 0 if there are none; not even their NaN passes from other rows."""
    return jnp.sum(jnp.where(rows, values, 0.0)) / jnp.maximum(jnp.sum(rows), 1)


@dataclass(frozen=True)
class _Scoring:
    """From maps of normality to anomaly maps: the mean over scales, negated.

    Every score depends on its image alone, and both forms rank alike: the calibrated one is the
    published one shifted so that 0 is as normal as any position of the normal images was.
    """

    top: float
    sigmoid: bool

    def calibrate(
        self, log_probs: Sequence[Float[np.ndarray, "N h w"]], image_size: tuple[int, int]
    ) -> Calibration:
        """Fits on normal images the largest value of every scale, and their mean."""
        del image_size
        highest = common.scale_max(log_probs)
        return Calibration(highest, highest.mean())

    def aggregate(
        self,
        log_probs: Sequence[Float[np.ndarray, "N h w"]],
        image_size: tuple[int, int],
        calibration: Calibration | None = None,
    ) -> Scores:
        """Turns maps of normality into float64 anomaly maps and image scores.

        Without calibration it is the published form, with its sigmoid if asked for, which ranks
        the same but squeezes densities into 0.40 to 0.50.
        """
        pixel = arrays.namespace(log_probs[0]).stack(
            [
                -sum(arrays.resize_half_pixel(x, image_size)[0] for x in maps) / len(maps)
                for maps in common.by_image(log_probs)
            ]
        )
        if calibration is not None:
            pixel = pixel + calibration.map_max
        elif self.sigmoid:
            expit(pixel, out=pixel)
        return Scores(arrays.mean_of_top(pixel, self.top), pixel)
