"""CFLOW-AD: one conditional flow per scale, shared by all positions of its feature map.

Gudovskiy, Ishizaka, Kozuka: "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization
via Conditional Normalizing Flows", WACV 2022. Read from top to bottom: decoders, loss, fibre
batches, likelihood maps, scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from flowad_jax import ops
from flowad_jax.errors import UserError
from flowad_jax.flows import Clamp, Flow, cflow_decoder, position_code
from flowad_jax.flows.coupling import CLAMPS
from flowad_jax.flows.permutation import KINDS as PERMUTATIONS
from flowad_jax.lookup import check_choice
from flowad_jax.types import Aux, Batch, Calibration, Method, Phase, Scores, Tree

OBJECTIVES = {
    # Keeps the loss positive and stops rewarding likelihoods above 1 per dimension.
    "log_sigmoid": lambda log_prob: jax.nn.softplus(-log_prob),
    "nll": lambda log_prob: -log_prob,
}


def build(
    condition: int = 128,
    blocks: int = 8,
    clamp: float = 1.9,
    clamp_kind: str = "tanh",
    permutation: str = "soft",
    fibre_size: int = 256,
    fibre_steps: int = 0,
    objective: str = "log_sigmoid",
) -> Method:
    """Assembles CFLOW-AD; the defaults are the published settings.

    Args:
      condition: P, size of the position code, a multiple of 4; 0 for the unconditional ablation.
      blocks: coupling blocks per decoder.
      clamp: bound alpha of the log-scale.
      clamp_kind: ``"tanh"`` (FrEIA 0.2) or ``"tanh_ratio"`` (FrEIA since August 2023).
      permutation: ``"soft"`` rotations or ``"hard"`` channel orders.
      fibre_size: N, rows per gradient step.
      fibre_steps: 0 as published. n > 0 cuts the rows of every scale into n gradient steps per
        image batch instead, whatever ``fibre_size`` says: large maps get large fibres. This is
        no longer the published recipe. A step of Adam moves the same bytes for 256 rows as for
        8192, and 256 rows leave an accelerator idle, so fewer and larger steps are faster; but
        they are fewer, which wants more epochs or a higher learning rate.
      objective: ``"log_sigmoid"`` as released, ``"nll"`` as written in the paper.

    Raises:
      UserError: an option has a value that does not exist.
    """
    check_choice("method.objective", objective, OBJECTIVES)
    if fibre_size < 1:
        raise UserError(f"method.fibre_size={fibre_size}: must be at least 1")
    if fibre_steps < 0:
        raise UserError(f"method.fibre_steps={fibre_steps}: must be 0 (as published) or more")
    decoders = make_decoders(condition, blocks, clamp, clamp_kind, permutation)
    fibres = _FibreBatches(decoders, fibre_size, fibre_steps, objective)
    return Method(
        init=decoders.init,
        phases=fibres.phases,
        log_probs=decoders.log_probs,
        calibrate=calibrate,
        aggregate=aggregate,
        published="transductive",
    )


def group(scale: int) -> str:
    """Name of the parameter group of one scale."""
    return f"scale{scale}"


def make_decoders(
    condition: int, blocks: int, clamp: float, clamp_kind: str, permutation: str
) -> Decoders:
    """Checks the options of the decoders, see `build`, and collects them.

    Raises:
      UserError: an option has a value that does not exist.
    """
    check_choice("method.clamp_kind", clamp_kind, CLAMPS)
    check_choice("method.permutation", permutation, PERMUTATIONS)
    if blocks < 1:
        raise UserError(f"method.blocks={blocks}: must be at least 1")
    if condition:
        position_code(condition, 1, 1)
    return Decoders(condition, blocks, Clamp(clamp, clamp_kind), permutation)


@dataclass(frozen=True)
class Decoders:
    """The flows of all scales and what they say about feature maps.

    Attributes:
      condition: P, size of the position code; 0 for none.
      blocks: coupling blocks per decoder.
      clamp: bound on the log-scales.
      permutation: ``"soft"`` or ``"hard"``.
    """

    condition: int
    blocks: int
    clamp: Clamp
    permutation: str

    def flow(self, channels: int) -> Flow:
        """The decoder of a scale with so many channels."""
        return cflow_decoder(channels, self.blocks, self.clamp, self.permutation)

    def code(self, height: int, width: int) -> jax.Array | None:
        """Condition of every position (h*w, P), or None for the unconditional decoder."""
        if not self.condition:
            return None
        return jnp.asarray(position_code(self.condition, height, width)).reshape(height * width, -1)

    def init(self, rng: jax.Array, maps: Sequence[jax.Array]) -> dict[str, Tree]:
        """Draws parameters and permutations; of the maps only the shapes matter."""
        variables: dict[str, Tree] = {"params": {}, "constants": {}}
        for scale, feature_map in enumerate(maps):
            _, height, width, channels = feature_map.shape
            code = self.code(height, width)
            row = jnp.zeros((1, channels))
            made = self.flow(channels).init(
                jax.random.fold_in(rng, scale), row, None if code is None else code[:1]
            )
            for collection, tree in made.items():
                variables[collection][group(scale)] = tree
        return variables

    def latent(
        self,
        variables: Mapping[str, Tree],
        scale: int,
        rows: jax.Array,
        cond: jax.Array | None,
        mix_last: bool = False,
    ) -> tuple[jax.Array, jax.Array]:
        """Latent rows (N, C) and log-determinants (N,) of rows (N, C) of one scale.

        The latents lack the flow's last permutation, which their norm does not feel, unless
        ``mix_last`` asks for it.
        """
        own = {kind: variables[kind][group(scale)] for kind in ("params", "constants")}
        out: Any = self.flow(rows.shape[-1]).apply(own, rows, cond, mix_last=mix_last)
        return out

    def log_prob_map(
        self,
        variables: Mapping[str, Tree],
        scale: int,
        feature_map: jax.Array,
        density: Callable[..., jax.Array] = ops.gaussian_log_prob_per_dim,
        given: Sequence[jax.Array] = (),
    ) -> jax.Array:
        """Log-likelihood map of one scale, one image at a time to bound memory.

        Args:
          variables: ``params`` and ``constants`` of all scales.
          scale: which one.
          feature_map: (B, h, w, C).
          density: ``(latent (N, C), log_det (N,), *given (N,)) -> (N,)``; of the latent it may
            only use the norm, see `latent`.
          given: maps (B, h, w) that the density needs beside the latent.

        Returns:
          (B, h, w).
        """
        _, height, width, channels = feature_map.shape
        code = self.code(height, width)

        def one_image(image):
            rows, *others = image
            return density(*self.latent(variables, scale, rows, code), *others)

        rows = feature_map.reshape(-1, height * width, channels)
        others = (x.reshape(-1, height * width) for x in given)
        return jax.lax.map(one_image, (rows, *others)).reshape(-1, height, width)

    def log_probs(
        self, variables: Mapping[str, Tree], maps: Sequence[jax.Array]
    ) -> tuple[jax.Array, ...]:
        """Log-likelihood maps (B, h, w) of all scales under a standard normal."""
        return tuple(
            self.log_prob_map(variables, scale, feature_map)
            for scale, feature_map in enumerate(maps)
        )


@dataclass(frozen=True)
class _FibreBatches:
    """Training on shuffled fibres: every chunk of rows of a scale is one gradient step."""

    decoders: Decoders
    fibre_size: int
    fibre_steps: int
    objective: str

    def phases(
        self, constants: Tree, maps: Sequence[jax.Array], batch: Batch, rng: jax.Array
    ) -> tuple[Phase, ...]:
        """Makes one phase per scale, in order; each visits all fibres of the image batch once."""
        return tuple(
            self._phase(constants, scale, feature_map, batch.weight, jax.random.fold_in(rng, scale))
            for scale, feature_map in enumerate(maps)
        )

    def _phase(self, constants, scale, feature_map, image_weight, rng) -> Phase:
        _, height, width, _ = feature_map.shape
        code = self.decoders.code(height, width)
        rows = ops.fibres(feature_map)
        weight = jnp.repeat(image_weight, height * width)
        order, active = self._chunks(rng, weight)
        minibatches = {
            "rows": rows[order],
            "position": order % (height * width),
            "weight": weight[order],
        }

        def loss_fn(params: Tree, updated: Tree, minibatch: Tree) -> tuple[jax.Array, Aux]:
            cond = None if code is None else code[minibatch["position"]]
            variables = {"params": params, "constants": constants}
            latent = self.decoders.latent(variables, scale, minibatch["rows"], cond)
            log_prob = ops.gaussian_log_prob_per_dim(*latent)
            loss = OBJECTIVES[self.objective](log_prob)
            loss = jnp.sum(minibatch["weight"] * loss) / jnp.sum(minibatch["weight"])
            return loss, Aux(updated, {})

        return Phase((group(scale),), loss_fn, minibatches, active)

    def _chunks(self, rng: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Shuffles row indices into (steps, N) chunks and says which chunks train.

        Rows of padding images sort last. Rows that do not fill a chunk are dropped, as in the
        reference: these ones, or other ones each time.
        """
        key = jax.random.uniform(rng, weight.shape) + jnp.where(weight > 0, 0.0, 2.0)
        order, real = jnp.argsort(key), jnp.sum(weight > 0)
        if self.fibre_steps:
            return _dealt(order, real, min(self.fibre_steps, len(weight)))
        return _cut(order, real, min(self.fibre_size, len(weight)))


def _cut(order: jax.Array, real: jax.Array, size: int) -> tuple[jax.Array, jax.Array]:
    """Chunks of ``size`` rows, the first ``real`` of which are no padding.

    A chunk is whole or not used; only where no whole chunk exists does a partial one train, where
    the reference stops with an error.
    """
    steps = len(order) // size
    whole = (jnp.arange(steps) + 1) * size <= real
    chunks = order[: steps * size].reshape(steps, size)
    return chunks, whole | ((jnp.arange(steps) == 0) & (real > 0))


def _dealt(order: jax.Array, real: jax.Array, steps: int) -> tuple[jax.Array, jax.Array]:
    """Rows dealt out to ``steps`` chunks like cards: an incomplete image batch makes all smaller.

    So its steps are as many and none of them learns from a handful of rows.
    """
    size = len(order) // steps
    chunks = order[: steps * size].reshape(size, steps).T
    return chunks, jnp.arange(steps) < real


def calibrate(log_probs: Sequence[np.ndarray], image_size: tuple[int, int]) -> Calibration:
    """Fits on normal images the constants that the paper takes from the test set.

    Args:
      log_probs: L arrays (N, h, w) of normal images.
      image_size: (H, W) of the maps.
    """
    scale_max = np.array([np.max(values) for values in log_probs], np.float64)
    total = _likelihood_map(log_probs, scale_max, image_size)
    return Calibration(scale_max, np.float64(max(image.max() for image in total)))


def aggregate(
    log_probs: Sequence[np.ndarray],
    image_size: tuple[int, int],
    calibration: Calibration | None = None,
) -> Scores:
    """Turns likelihood maps into anomaly maps and image scores (section 3.3, "scoring").

    Per scale the maximum is subtracted, the rest exponentiated and resized with coinciding
    corners; the sum over scales is subtracted from its maximum. The score of an image is the
    maximum of its map.

    Args:
      log_probs: L arrays (N, h, w).
      image_size: (H, W) of the maps.
      calibration: maxima from normal images, so that a score depends on its image alone; None
        takes them from the images at hand, the paper's transductive form.

    Returns:
      Scores with float64 maps: in float32 the most anomalous pixels would tie.
    """
    if calibration is None:
        calibration = calibrate(log_probs, image_size)
    pixel = np.stack(list(_likelihood_map(log_probs, calibration.scale_max, image_size)))
    np.subtract(calibration.map_max, pixel, out=pixel)
    return Scores(image=pixel.max(axis=(1, 2)), pixel=pixel)


def _likelihood_map(log_probs, scale_max, image_size):
    """Yields the summed likelihood map (H, W) of every image, in float64."""
    for scales in zip(*log_probs, strict=True):
        yield sum(
            ops.resize_align_corners(
                np.exp(np.asarray(values, np.float64) - highest)[None], image_size
            )[0]
            for values, highest in zip(scales, scale_max, strict=True)
        )
