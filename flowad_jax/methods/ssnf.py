"""SSNF: one flow per scale, which also learns from synthetic anomalies what is not normal.

Chiu, Lai: "Self-Supervised Normalizing Flows for Image Anomaly Detection and Localization", CVPRW
2023 (VAND). Read from top to bottom: options, flows, maps, training on pairs, scores. The
published system has one scale, that of CaiT-M48; with several, their likelihoods add up.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from scipy.special import expit

from flowad_jax import ops
from flowad_jax.errors import UserError
from flowad_jax.flows import Clamp, ssnf_flow
from flowad_jax.flows.coupling import CLAMPS
from flowad_jax.lookup import check_choice
from flowad_jax.methods._contrast import POSITIVE_WEIGHTS, Contrast
from flowad_jax.methods.cflow import group
from flowad_jax.types import Aux, Batch, Calibration, Method, Phase, Scores, Tree

COMPUTE = {"float32": None, "bfloat16": jnp.bfloat16}  # None: the dtype of the feature maps
# How normal a position is, from its latent (..., C). Densities saturate: beyond three standard
# deviations a channel counts as far out, however far it is.
SCORES = {
    "density": lambda z: jnp.mean(jnp.exp(-0.5 * (z**2 + ops.LOG_2PI)), axis=-1),
    "nll": lambda z: -0.5 * jnp.mean(z**2, axis=-1),
}
# Attention weights (B, heads, h * w, h * w) of one block that scoring computes at once: 512 MiB.
ATTENTION_WEIGHTS = 2**27


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
    top: float = 0.0,
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
      top: share of the pixels, the most anomalous ones, whose mean is the score of an image; 0 for
        the maximum (released).
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
    if not 0 <= negative_weight < 1:
        raise UserError(f"method.negative_weight={negative_weight}: from 0 up to, but not, 1")
    if not math.isfinite(negative_cap):
        raise UserError(f"method.negative_cap={negative_cap}: must be a finite number of nats")
    if cap_dimensions < 1:
        raise UserError(f"method.cap_dimensions={cap_dimensions}: must be at least 1")
    if not 0 <= top <= 1:
        raise UserError(f"method.top={top}: a share of the pixels lies between 0 and 1")
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
    flows = _Flows(flow, heads, score)
    objective = Contrast(negative_weight, negative_cap / cap_dimensions, positive_weight)
    scoring = _Scoring(top, sigmoid)
    return Method(
        init=flows.init,
        phases=_Pairs(flows, objective).phases,
        log_probs=flows.log_probs,
        calibrate=scoring.calibrate,
        aggregate=scoring.aggregate,
        published="per_image",
        learns_from="pairs",
    )


@dataclass(frozen=True)
class _Flows:
    """The flows of all scales and what they say about feature maps."""

    flow: Callable  # channels -> Flow
    heads: int
    score: str

    def init(self, rng: jax.Array, maps: Sequence[jax.Array]) -> dict[str, Tree]:
        """Draws parameters and channel orders; of the maps only the shapes matter."""
        variables: dict[str, Tree] = {"params": {}, "constants": {}}
        for scale, feature_map in enumerate(maps):
            key = jax.random.fold_in(rng, scale)
            made = self.flow(feature_map.shape[-1]).init(key, feature_map[:1])
            for collection, tree in made.items():
                variables[collection][group(scale)] = tree
        return variables

    def latent(
        self,
        variables: Mapping[str, Tree],
        scale: int,
        feature_map: jax.Array,
        dropout: jax.Array | None = None,
    ) -> tuple[jax.Array, jax.Array]:
        """Latent (B, h, w, C) and log-determinants (B,); with a key ``dropout`` as in training.

        Its channels have not been through the flow's last order: all that follows sums over them.
        """
        own = {collection: trees[group(scale)] for collection, trees in variables.items()}
        rngs = None if dropout is None else {"dropout": dropout}
        return self.flow(feature_map.shape[-1]).apply(own, feature_map, rngs=rngs, mix_last=False)

    def nll(
        self, variables: Mapping[str, Tree], maps: Sequence[jax.Array], dropout: jax.Array
    ) -> jax.Array:
        """Negative log-likelihood (B,) in nats of each image over all scales, with dropout."""
        total = jnp.zeros(maps[0].shape[0])
        for scale, feature_map in enumerate(maps):
            key = jax.random.fold_in(dropout, scale)
            z, log_det = self.latent(variables, scale, feature_map, key)
            constant = 0.5 * ops.LOG_2PI * math.prod(z.shape[1:])
            total = total + 0.5 * jnp.sum(z**2, axis=(1, 2, 3)) + constant - log_det
        return total

    def log_probs(
        self, variables: Mapping[str, Tree], maps: Sequence[jax.Array]
    ) -> tuple[jax.Array, ...]:
        """L maps (B, h, w) of how normal positions are, without dropout and log-determinant."""
        return tuple(self._normality(variables, *item) for item in enumerate(maps))

    def _normality(
        self, variables: Mapping[str, Tree], scale: int, feature_map: jax.Array
    ) -> jax.Array:
        images, height, width, _ = feature_map.shape
        if images * self.heads * (height * width) ** 2 <= ATTENTION_WEIGHTS:
            return SCORES[self.score](self.latent(variables, scale, feature_map)[0])

        def one_image(image: jax.Array) -> jax.Array:
            return SCORES[self.score](self.latent(variables, scale, image[None])[0])[0]

        return jax.lax.map(one_image, feature_map)


@dataclass(frozen=True)
class _Pairs:
    """Training on normal images and what synthesis made of them, in one pass."""

    flows: _Flows
    objective: Contrast

    def phases(
        self, constants: Tree, maps: Sequence[jax.Array], batch: Batch, rng: jax.Array
    ) -> tuple[Phase, ...]:
        """One gradient step on all flows at once; none without a normal image."""
        dimensions = sum(math.prod(x.shape[1:]) for x in maps)

        def loss_fn(params: Tree, updated: Tree, minibatch: Tree) -> tuple[jax.Array, Aux]:
            variables = {"params": params, "constants": constants}
            nll = self.flows.nll(variables, minibatch["maps"], minibatch["dropout"])
            rows = (minibatch["label"], minibatch["weight"])
            loss, metrics = self.objective(nll, *rows, dimensions)
            return loss, Aux(updated, metrics)

        minibatch = {"maps": tuple(maps), "dropout": rng}
        minibatch |= {"label": batch.label, "weight": batch.weight}
        return (
            Phase(
                trains=tuple(constants),
                loss_fn=loss_fn,
                minibatches=jax.tree.map(lambda leaf: leaf[None], minibatch),
                active=jnp.any((batch.weight > 0) & (batch.label == 0))[None],
                dimensions=dimensions,
            ),
        )


@dataclass(frozen=True)
class _Scoring:
    """From maps of normality to anomaly maps: the mean over scales, negated.

    Every score depends on its image alone, and both forms rank alike: the calibrated one is the
    published one shifted so that 0 is as normal as any position of the normal images was.
    """

    top: float
    sigmoid: bool

    def calibrate(
        self, log_probs: Sequence[np.ndarray], image_size: tuple[int, int]
    ) -> Calibration:
        """Fits on normal images the largest value of every scale, and their mean."""
        del image_size
        scale_max = np.array([np.max(values) for values in log_probs], np.float64)
        return Calibration(scale_max, scale_max.mean())

    def aggregate(
        self,
        log_probs: Sequence[np.ndarray],
        image_size: tuple[int, int],
        calibration: Calibration | None = None,
    ) -> Scores:
        """Turns maps of normality into anomaly maps and image scores.

        Args:
          log_probs: L arrays (N, h, w).
          image_size: (H, W) of the anomaly maps.
          calibration: from normal images; None for the published form, with its sigmoid if asked
            for, which ranks the same but squeezes densities into 0.40 to 0.50.

        Returns:
          Scores in float64.
        """
        pixel = np.stack([_anomaly(maps, image_size) for maps in zip(*log_probs, strict=True)])
        if calibration is not None:
            pixel += calibration.map_max
        elif self.sigmoid:
            expit(pixel, out=pixel)
        return Scores(ops.mean_of_top(pixel, self.top), pixel)


def _anomaly(maps: Sequence[np.ndarray], image_size: tuple[int, int]) -> np.ndarray:
    """Anomaly map (H, W) of one image: minus the mean over its L maps (h, w)."""
    wide = (np.asarray(values, np.float64)[None] for values in maps)
    return -np.mean([ops.resize_half_pixel(values, image_size)[0] for values in wide], axis=0)
