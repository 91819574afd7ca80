"""CFLOW-AD: one conditional flow per scale, shared by all positions of its feature map.

Gudovskiy, Ishizaka, Kozuka: "CFLOW-AD: Real-Time Unsupervised Anomaly Detection with Localization
via Conditional Normalizing Flows", WACV 2022. Read from top to bottom: decoders, likelihood maps,
fibre batches and loss, scores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Int

from flowad_jax.flows import Clamp, Flow, cflow_decoder, position_code
from flowad_jax.flows.coupling import CLAMPS
from flowad_jax.flows.permutation import KINDS as PERMUTATIONS
from flowad_jax.lookup import check_choice
from flowad_jax.methods import common
from flowad_jax.methods.common import group, require
from flowad_jax.ops import arrays
from flowad_jax.types import Aux, Batch, Calibration, Method, Phase, Scores, Tree

OBJECTIVES = {
    # Keeps the loss positive and stops rewarding likelihoods above 1 per dimension.
    "log_sigmoid": lambda log_prob: jax.nn.softplus(-log_prob),
    "nll": lambda log_prob: -log_prob,
}
TINY = {"condition": 8, "blocks": 1, "fibre_size": 8}  # options that tests use


def build(
    condition: int = 128,
    blocks: int = 8,
    clamp: float = 1.9,
    clamp_kind: str = "tanh",
    permutation: str = "soft",
    fibre_size: int = 256,
    fibre_steps: int | None = None,
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
      fibre_steps: None as published. A number n cuts the rows of every scale into n gradient steps
        per image batch instead, whatever ``fibre_size`` says: large maps get large fibres. This is
        no longer the published recipe. A step of Adam moves the same bytes for 256 rows as for
        8192, and 256 rows leave an accelerator idle, so fewer and larger steps are faster; but
        they are fewer, which wants more epochs or a higher learning rate.
      objective: ``"log_sigmoid"`` as released, ``"nll"`` as written in the paper.

    Raises:
      UserError: an option has a value that does not exist.

    Example:
      >>> method = build(blocks=1)
      >>> batch = Batch(maps=(jnp.ones((2, 4, 4, 6)), jnp.ones((2, 2, 2, 10))))
      >>> variables = jax.eval_shape(method.init, jax.random.key(0), batch)
      >>> [values.shape for values in jax.eval_shape(method.log_probs, variables, batch)]
      [(2, 4, 4), (2, 2, 2)]
    """
    check_choice("method.objective", objective, OBJECTIVES)
    require(fibre_size >= 1, "fibre_size", fibre_size, "must be at least 1")
    fibre_steps = fibre_steps or 0
    require(fibre_steps >= 0, "fibre_steps", fibre_steps, "must be 1 or more, or None")
    decoders = make_decoders(condition, blocks, clamp, clamp_kind, permutation)
    return Method(
        init=decoders.init,
        phases=_FibreBatches(decoders, fibre_size, fibre_steps, objective).phases,
        log_probs=decoders.log_probs,
        calibrate=calibrate,
        aggregate=aggregate,
        published="transductive",
    )


def make_decoders(
    condition: int, blocks: int, clamp: float, clamp_kind: str, permutation: str
) -> Decoders:
    """Checks the options of the decoders, see `build`, and collects them.

    Raises:
      UserError: an option has a value that does not exist.
    """
    check_choice("method.clamp_kind", clamp_kind, CLAMPS)
    check_choice("method.permutation", permutation, PERMUTATIONS)
    require(blocks >= 1, "blocks", blocks, "must be at least 1")
    if condition:
        position_code(condition, 1, 1)  # names a size that it cannot have
    return Decoders(condition, blocks, Clamp(clamp, clamp_kind), permutation)


@dataclass(frozen=True)
class Decoders:
    """The flows of all scales and what they say about feature maps; the fields are options."""

    condition: int
    blocks: int
    clamp: Clamp
    permutation: str

    def flow(self, channels: int) -> Flow:
        """The decoder of a scale with so many channels."""
        return cflow_decoder(channels, self.blocks, self.clamp, self.permutation)

    def code(self, height: int, width: int) -> Float[Array, "hw P"] | None:
        """Condition of every position, or None for the unconditional decoder."""
        if not self.condition:
            return None
        return jnp.asarray(position_code(self.condition, height, width)).reshape(height * width, -1)

    def init(self, rng: jax.Array, batch: Batch) -> dict[str, Tree]:
        """Draws parameters and permutations; of the maps only the shapes matter."""

        def init_one(key: jax.Array, feature_map: jax.Array) -> Mapping[str, Tree]:
            _, height, width, channels = feature_map.shape
            code = self.code(height, width)
            cond = None if code is None else code[:1]
            return self.flow(channels).init(key, jnp.zeros((1, channels)), cond)

        return common.init_flows(init_one, rng, batch.maps)

    def latent(
        self,
        variables: Mapping[str, Tree],
        scale: int,
        rows: Float[Array, "N C"],
        cond: Float[Array, "N P"] | None,
        permute_last: bool = False,
    ) -> tuple[Float[Array, "N C"], Float[Array, " N"]]:
        """Latent rows and log-determinants of rows of one scale.

        The latents lack the flow's last permutation, which their norm does not feel, unless
        ``permute_last`` asks for it.
        """
        own = common.of_scale(variables, scale)
        out: Any = self.flow(rows.shape[-1]).apply(own, rows, cond, permute_last=permute_last)
        return out

    def log_prob_map(
        self,
        variables: Mapping[str, Tree],
        scale: int,
        feature_map: Float[Array, "B h w C"],
        density: Callable[..., jax.Array] = arrays.gaussian_log_prob_per_dim,
        given: Sequence[Float[Array, "B h w"]] = (),
    ) -> Float[Array, "B h w"]:
        """Log-likelihood map of one scale, one image at a time to bound memory.

        The density, ``(latent (N, C), log_det (N,), *given (N,)) -> (N,)``, may only use the norm
        of the latent, see `latent`; ``given`` are maps that it needs beside the latent.
        """
        _, height, width, channels = feature_map.shape
        code = self.code(height, width)

        def one_image(image: tuple[jax.Array, ...]) -> jax.Array:
            rows, *others = image
            return density(*self.latent(variables, scale, rows, code), *others)

        rows = feature_map.reshape(-1, height * width, channels)
        others = (x.reshape(-1, height * width) for x in given)
        return jax.lax.map(one_image, (rows, *others)).reshape(-1, height, width)

    def log_probs(
        self, variables: Mapping[str, Tree], batch: Batch
    ) -> tuple[Float[Array, "B h w"], ...]:
        """Log-likelihood maps of all scales under a standard normal."""
        return tuple(self.log_prob_map(variables, *item) for item in enumerate(batch.maps))


@dataclass(frozen=True)
class _FibreBatches:
    """Training on shuffled fibres: every chunk of rows of a scale is one gradient step."""

    decoders: Decoders
    fibre_size: int
    fibre_steps: int
    objective: str

    def phases(self, buffers: Tree, batch: Batch, rng: jax.Array) -> tuple[Phase, ...]:
        """Makes one phase per scale, in order; each visits all fibres of the image batch once."""
        keys = (jax.random.fold_in(rng, scale) for scale in range(len(batch.maps)))
        return tuple(
            self._phase(buffers, scale, feature_map, batch.weight, key)
            for (scale, feature_map), key in zip(enumerate(batch.maps), keys, strict=True)
        )

    def _phase(
        self,
        buffers: Tree,
        scale: int,
        feature_map: Float[Array, "B h w C"],
        image_weight: Float[Array, " B"],
        rng: jax.Array,
    ) -> Phase:
        _, height, width, _ = feature_map.shape
        code = self.decoders.code(height, width)
        weight = jnp.repeat(image_weight, height * width)
        order, active = self._chunks(rng, weight)
        minibatches = {
            "rows": arrays.fibres(feature_map)[order],
            "position": order % (height * width),
            "weight": weight[order],
        }

        def loss_fn(params: Tree, updated: Tree, minibatch: Tree) -> tuple[jax.Array, Aux]:
            cond = None if code is None else code[minibatch["position"]]
            variables = {"params": params, "buffers": buffers}
            latent = self.decoders.latent(variables, scale, minibatch["rows"], cond)
            loss = OBJECTIVES[self.objective](arrays.gaussian_log_prob_per_dim(*latent))
            loss = jnp.sum(minibatch["weight"] * loss) / jnp.sum(minibatch["weight"])
            return loss, Aux(updated, {})

        return Phase((group(scale),), loss_fn, minibatches, active)

    def _chunks(
        self, rng: jax.Array, weight: Float[Array, " N"]
    ) -> tuple[Int[Array, "steps n"], Bool[Array, " steps"]]:
        """Shuffles row indices into chunks and says which chunks train.

        Rows of padding images sort last. Rows that do not fill a chunk are dropped, as in the
        reference: these ones, or other ones each time.
        """
        key = jax.random.uniform(rng, weight.shape) + jnp.where(weight > 0, 0.0, 2.0)
        order, real = jnp.argsort(key), jnp.sum(weight > 0)
        if self.fibre_steps:
            # Dealt out like cards: padding makes all chunks smaller, and none of them learns from
            # a handful of rows.
            steps = min(self.fibre_steps, len(order))
            size = len(order) // steps
            return order[: steps * size].reshape(size, steps).T, jnp.arange(steps) < real
        # A chunk is whole or not used; only where no whole chunk exists does a partial one train,
        # where the reference stops with an error.
        size = min(self.fibre_size, len(order))
        steps = len(order) // size
        whole = (jnp.arange(steps) + 1) * size <= real
        chunks = order[: steps * size].reshape(steps, size)
        return chunks, whole | ((jnp.arange(steps) == 0) & (real > 0))


def calibrate(
    log_probs: Sequence[Float[np.ndarray, "N h w"]], image_size: tuple[int, int]
) -> Calibration:
    """Fits on normal images the constants that the paper takes from the test set."""
    highest = common.scale_max(log_probs)
    maps = (common.summed_likelihood(x, highest, image_size) for x in common.by_image(log_probs))
    return Calibration(highest, np.float64(max(image.max() for image in maps)))


def aggregate(
    log_probs: Sequence[Float[np.ndarray, "N h w"]],
    image_size: tuple[int, int],
    calibration: Calibration | None = None,
) -> Scores:
    """Turns likelihood maps into anomaly maps and image scores (section 3.3, "scoring").

    Per scale the maximum is subtracted, the rest exponentiated and resized with coinciding
    corners; the sum over scales is subtracted from its maximum. The score of an image is the
    maximum of its map.

    Args:
      log_probs: L arrays.
      image_size: (H, W) of the maps.
      calibration: maxima from normal images, so that a score depends on its image alone; None
        takes them from the images at hand, the paper's transductive form.

    Returns:
      Scores with float64 maps: in float32 the most anomalous pixels would tie.
    """
    calibration = calibration or calibrate(log_probs, image_size)
    pixel = arrays.namespace(log_probs[0]).stack(
        [
            calibration.map_max - common.summed_likelihood(maps, calibration.scale_max, image_size)
            for maps in common.by_image(log_probs)
        ]
    )
    return Scores(image=pixel.max(axis=(1, 2)), pixel=pixel)
