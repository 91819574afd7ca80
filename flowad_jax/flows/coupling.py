"""The all-in-one coupling block of FrEIA, which all four systems are built from.

With ``x = (x1, x2)`` split along the channels, a condition ``c`` and a sub-network giving ``a``::

    (s, t) = split(0.1 * a(x1, c)),   s <- clamp(s)
    u = (x1, x2 * exp(s) + t),   v = u * g + o,   y = v permuted
    log|det| = sum(s) + n_positions * sum(log g),   g = 0.1 * softplus(gamma; beta 0.5)

(Ardizzone et al., FrEIA 0.2; CFLOW-AD section 3.2.) The leading axis is the batch, all others are
the event, channels last: one block serves rows (N, C) and maps (B, H, W, C).
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowad_jax import ops
from flowad_jax.flows import permutation as permutations

# FrEIA up to 0.2 clamps with alpha * tanh(s), from August 2023 on with alpha * tanh(s / alpha).
CLAMPS: dict[str, Callable[[jax.Array, float], jax.Array]] = {
    "tanh": lambda s, alpha: alpha * jnp.tanh(s),
    "tanh_ratio": lambda s, alpha: alpha * jnp.tanh(s / alpha),
}
# softplus(gamma; beta 0.5) = 10, so that g starts at exactly 1.
GLOBAL_SCALE_INIT = 2.0 * math.log(math.exp(5.0) - 1.0)

Subnet = Callable[[jax.Array, jax.Array | None], jax.Array]


class BlockState(NamedTuple):
    """Tensors of one block besides its sub-network.

    Attributes:
      global_scale: (C,) gamma, before the softplus.
      global_offset: (C,) o.
      permutation: (C, C) rotation or (C,) indices.
    """

    global_scale: jax.Array
    global_offset: jax.Array
    permutation: jax.Array


class Clamp(NamedTuple):
    """Bound on the log-scale: its size ``alpha`` and which convention of `CLAMPS`."""

    alpha: float = 1.9
    kind: str = "tanh"

    def __call__(self, s: jax.Array) -> jax.Array:
        """Returns the bounded log-scale."""
        return CLAMPS[self.kind](s, self.alpha)


def split(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Splits channels into the passive half (the larger one if C is odd) and the active half."""
    passive = x.shape[-1] - x.shape[-1] // 2
    return x[..., :passive], x[..., passive:]


def forward(
    state: BlockState,
    subnet: Subnet,
    clamp: Clamp,
    x: jax.Array,
    cond: jax.Array | None,
    mix: bool = True,
) -> tuple[jax.Array, jax.Array]:
    """Maps data towards the latent: ``x -> (y, log_det)`` with log_det of shape (batch,).

    Without ``mix`` the permutation that closes the block is left out: ``x -> (v, log_det)``.
    """
    x1, x2 = split(x)
    log_scale, shift = _predict(subnet, clamp, x1, cond)
    u = jnp.concatenate([x1, x2 * jnp.exp(log_scale) + shift], axis=-1)
    v = u * _global_scale(state) + state.global_offset
    y = permutations.apply(state.permutation, v) if mix else v
    return y, _log_det(state, log_scale)


def inverse(
    state: BlockState, subnet: Subnet, clamp: Clamp, y: jax.Array, cond: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    """Undoes `forward`: ``y -> (x, log_det of the inverse map)``."""
    v = permutations.invert(state.permutation, y)
    x1, u2 = split((v - state.global_offset) / _global_scale(state))
    log_scale, shift = _predict(subnet, clamp, x1, cond)
    x2 = (u2 - shift) * jnp.exp(-log_scale)
    return jnp.concatenate([x1, x2], axis=-1), -_log_det(state, log_scale)


def _predict(
    subnet: Subnet, clamp: Clamp, x1: jax.Array, cond: jax.Array | None
) -> tuple[jax.Array, jax.Array]:
    # FrEIA damps the output so that a fresh block is close to the identity.
    log_scale, shift = jnp.split(0.1 * subnet(x1, cond), 2, axis=-1)
    return clamp(log_scale), shift


def _global_scale(state: BlockState) -> jax.Array:
    return 0.1 * ops.softplus(state.global_scale, beta=0.5)


def _log_det(state: BlockState, log_scale: jax.Array) -> jax.Array:
    positions = math.prod(log_scale.shape[1:-1])
    per_row = jnp.sum(log_scale, axis=tuple(range(1, log_scale.ndim)))
    return per_row + positions * jnp.sum(jnp.log(_global_scale(state)))


class CouplingBlock(nn.Module):
    """One coupling block with its tensors.

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
        self.state = BlockState(
            self.param("global_scale", constant, (self.channels,)),
            self.param("global_offset", nn.initializers.zeros, (self.channels,)),
            self.variable("constants", "permutation", self._sample).value,
        )

    def _sample(self) -> jax.Array:
        return permutations.sample(self.make_rng("params"), self.channels, self.permutation)

    def __call__(
        self, x: jax.Array, cond: jax.Array | None = None, mix: bool = True
    ) -> tuple[jax.Array, jax.Array]:
        """Maps ``x -> (z, log_det)``, without ``mix`` up to the permutation."""
        return forward(self.state, self.net, self.clamp, x, cond, mix)

    @property
    def mixing(self) -> jax.Array:
        """The permutation that closes the block."""
        return self.state.permutation

    def inverse(self, z: jax.Array, cond: jax.Array | None = None) -> tuple[jax.Array, jax.Array]:
        """Maps ``z -> (x, log_det)``, the log-determinant being that of the inverse."""
        return inverse(self.state, self.net, self.clamp, z, cond)
