"""The all-in-one coupling block of FrEIA, which all detectors are built from."""

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float

from flowad_jax.flows import permutation
from flowad_jax.ops import arrays

# FrEIA up to 0.2 clamps with alpha * tanh(s), from August 2023 on with alpha * tanh(s / alpha).
CLAMPS: dict[str, Callable[[Array, float], Array]] = {
    "tanh": lambda s, alpha: alpha * jnp.tanh(s),
    "tanh_ratio": lambda s, alpha: alpha * jnp.tanh(s / alpha),
    # No position grows or shrinks as a whole: what is left of the Jacobian is constant.
    "volume_preserving": lambda s, alpha: _centred(alpha * jnp.tanh(s)),
}
# softplus(gamma; beta 0.5) = 10, so that g starts at exactly 1.
GLOBAL_SCALE_INIT = 2.0 * math.log(math.exp(5.0) - 1.0)


def _centred(s: Array) -> Array:
    return s - jnp.mean(s, axis=-1, keepdims=True)


class Clamp(NamedTuple):
    """Bound on the log-scale: its size ``alpha`` and which convention of `CLAMPS`."""

    alpha: float = 1.9
    kind: str = "tanh"

    def __call__(self, s: Array) -> Array:
        """Returns the bounded log-scale."""
        return CLAMPS[self.kind](s, self.alpha)


def split(x: Float[Array, "... C"]) -> tuple[Array, Array]:
    """Splits channels into the passive half (the larger one if C is odd) and the active half."""
    passive = x.shape[-1] - x.shape[-1] // 2
    return x[..., :passive], x[..., passive:]


class CouplingBlock(nn.Module):
    """One coupling block with its tensors.

    With ``x = (x1, x2)`` split along the channels, a condition ``c`` and a sub-network ``a``::

        (s, t) = split(0.1 * a(x1, c)),   s <- clamp(s)
        u = (x1, x2 * exp(s) + t),   v = u * g + o,   y = v permuted
        log|det| = sum(s) + n_positions * sum(log g),   g = 0.1 * softplus(gamma; beta 0.5)

    (Ardizzone et al., FrEIA 0.2; CFLOW-AD section 3.2.) The leading axis is the batch, all others
    are the event, channels last: one block serves rows (N, C) and maps (B, H, W, C).

    Attributes:
      channels: C of the data, odd or even, at least 2.
      subnet: makes the sub-network, given its number of output channels.
      clamp: bound on the log-scale.
      permutation: ``"soft"`` or ``"hard"``; sampled at initialisation, never trained.
    """

    channels: int
    subnet: Callable[[int], nn.Module]
    clamp: Clamp = Clamp()
    permutation: str = "soft"

    def setup(self) -> None:
        """Creates the sub-network, the global affine map and the fixed permutation."""
        if self.channels < 2:
            raise ValueError(f"a coupling block needs at least 2 channels, got {self.channels}")
        self.net = self.subnet(2 * (self.channels // 2))
        constant = nn.initializers.constant(GLOBAL_SCALE_INIT)
        gamma = self.param("global_scale", constant, (self.channels,))
        self.scale = 0.1 * arrays.softplus(gamma, beta=0.5)
        self.offset = self.param("global_offset", nn.initializers.zeros, (self.channels,))
        self.mixing = self.variable("buffers", "permutation", self._sample).value

    def _sample(self) -> Array:
        return permutation.sample(self.make_rng("params"), self.channels, self.permutation)

    def __call__(
        self,
        x: Float[Array, "batch *event C"],
        cond: Float[Array, "... P"] | None = None,
        permute: bool = True,
    ) -> tuple[Float[Array, "batch *event C"], Float[Array, " batch"]]:
        """Maps data towards the latent, ``x -> (y, log_det)``; without ``permute`` to ``v``."""
        x1, x2 = split(x)
        log_scale, shift = self._predict(x1, cond)
        u = jnp.concatenate([x1, x2 * jnp.exp(log_scale) + shift], axis=-1)
        v = u * self.scale + self.offset
        return permutation.apply(self.mixing, v) if permute else v, self._log_det(log_scale)

    def inverse(
        self, y: Float[Array, "batch *event C"], cond: Float[Array, "... P"] | None = None
    ) -> tuple[Float[Array, "batch *event C"], Float[Array, " batch"]]:
        """Maps back, ``y -> (x, log_det)``, the log-determinant being that of the inverse."""
        v = permutation.invert(self.mixing, y)
        x1, u2 = split((v - self.offset) / self.scale)
        log_scale, shift = self._predict(x1, cond)
        x2 = (u2 - shift) * jnp.exp(-log_scale)
        return jnp.concatenate([x1, x2], axis=-1), -self._log_det(log_scale)

    def _predict(self, x1: Array, cond: Array | None) -> tuple[Array, Array]:
        # FrEIA damps the output so that a fresh block is close to the identity.
        log_scale, shift = jnp.split(0.1 * self.net(x1, cond), 2, axis=-1)
        return self.clamp(log_scale), shift

    def _log_det(self, log_scale: Array) -> Array:
        positions = math.prod(log_scale.shape[1:-1])
        per_row = jnp.sum(log_scale, axis=tuple(range(1, log_scale.ndim)))
        return per_row + positions * jnp.sum(jnp.log(self.scale))
