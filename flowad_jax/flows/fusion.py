"""MSFlow's fusion flow: one coupling over the maps of all scales at once.

Every map is reordered along its channels and halved into ``x1`` and ``x2``; networks that see all
scales predict how to scale and shift the halves::

    y1 = x1 * exp(k(s2)) + t2,   (s2, t2) = F2(x2)
    y2 = x2 * exp(k(s1)) + t1,   (s1, t1) = F1(y1)
    log|det| = sum over scales, positions and channels of k(s1) + k(s2)

with ``k(s) = 0.636 alpha arctan(s / alpha)`` (Zhou et al., "MSFlow", TNNLS 2024, fusion flow; the
bound is another one than in the coupling blocks). The reference's inverse returns the log-det with
the wrong sign and works for even channel counts only; this one is an inverse for all.
"""

from collections.abc import Sequence

import flax.linen as nn
import jax
import jax.numpy as jnp

from flowad_jax import ops
from flowad_jax.flows import permutation as permutations
from flowad_jax.flows.subnets import Conv3x3, layer_norm

Maps = tuple[jax.Array, ...]

_LIMIT = 1e6  # latents beyond it are cut, so that one wild image does not end a training run


class FusionFlow(nn.Module):
    """One coupling over a tuple of maps (B, h_l, w_l, C_l), the smallest last.

    Attributes:
      channels: C_l of every scale, at least 2 each, odd or even.
      clamp: alpha, the bound on the log-scale.
      compute: dtype of the convolutions, see `Conv3x3`.
    """

    channels: tuple[int, ...]
    clamp: float = 1.9
    compute: jnp.dtype | None = None

    def setup(self) -> None:
        """Creates the two networks and the fixed channel orders."""
        if min(self.channels) < 2:
            raise ValueError(f"a fusion flow needs at least 2 channels, got {self.channels}")
        first = tuple(c // 2 for c in self.channels)
        second = tuple(c - c // 2 for c in self.channels)
        self.net1 = CrossScaleNet(second, self.compute)
        self.net2 = CrossScaleNet(first, self.compute)
        self.permutations = [
            self.variable("constants", f"permutation{scale}", self._sample, count).value
            for scale, count in enumerate(self.channels)
        ]

    def _sample(self, channels: int) -> jax.Array:
        return permutations.sample(self.make_rng("params"), channels, "hard")

    def __call__(
        self, maps: Sequence[jax.Array], before: Sequence[jax.Array] | None = None
    ) -> tuple[Maps, jax.Array]:
        """Maps ``maps -> (latents, log_det (B,))``.

        Args:
          maps: one per scale.
          before: channel orders that the maps still have to be brought into; done along with the
            flow's own.
        """
        orders = self.permutations
        if before is not None:
            orders = [permutations.compose(*pair) for pair in zip(before, orders, strict=True)]
        pairs = [
            _halves(permutations.apply(order, x)) for order, x in zip(orders, maps, strict=True)
        ]
        x1, x2 = zip(*pairs, strict=True)
        y1, log_det2 = self._affine(self.net2, x2, x1)
        y2, log_det1 = self._affine(self.net1, y1, x2)
        latents = (jnp.concatenate(pair, axis=-1) for pair in zip(y1, y2, strict=True))
        return tuple(jnp.clip(z, -_LIMIT, _LIMIT) for z in latents), log_det1 + log_det2

    def inverse(self, latents: Sequence[jax.Array]) -> tuple[Maps, jax.Array]:
        """Maps ``latents -> (maps, log_det (B,))``, the log-determinant of the inverse."""
        y1, y2 = zip(*(_halves(z) for z in latents), strict=True)
        x2, log_det1 = self._affine(self.net1, y1, y2, inverse=True)
        x1, log_det2 = self._affine(self.net2, x2, y1, inverse=True)
        joined = (jnp.concatenate(pair, axis=-1) for pair in zip(x1, x2, strict=True))
        maps = (
            permutations.invert(order, x)
            for order, x in zip(self.permutations, joined, strict=True)
        )
        return tuple(maps), log_det1 + log_det2

    def _affine(
        self, net: nn.Module, seen: Maps, changed: Maps, inverse: bool = False
    ) -> tuple[Maps, jax.Array]:
        """Scales and shifts (or undoes it) one half of every map by what the other halves say."""
        out, log_det = [], jnp.zeros(())
        for x, (s, shift) in zip(changed, net(seen), strict=True):
            log_scale = self.clamp * 0.636 * jnp.arctan(s / self.clamp)
            x = (x - shift) * jnp.exp(-log_scale) if inverse else x * jnp.exp(log_scale) + shift
            log_det = log_det + jnp.sum(log_scale, axis=(1, 2, 3))
            out.append(x)
        return tuple(out), -log_det if inverse else log_det


def _halves(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    middle = x.shape[-1] // 2
    return x[..., :middle], x[..., middle:]


class CrossScaleNet(nn.Module):
    """Predicts (s, t) per scale from halves of all scales, exchanged at the smallest size.

    Attributes:
      features: channels to predict for every scale.
      compute: dtype of the convolutions, see `Conv3x3`.
    """

    features: tuple[int, ...]
    compute: jnp.dtype | None = None

    @nn.compact
    def __call__(self, maps: Maps) -> list[tuple[jax.Array, jax.Array]]:
        """Returns (s, t), each (B, h_l, w_l, features_l), for every scale."""
        shared = self._exchange(maps)
        predicted = []
        for scale, (x, message) in enumerate(zip(maps, shared, strict=True)):
            x = x + ops.upsample(message, x.shape[1:3])
            features = self.features[scale]
            predicted.append(
                (
                    Conv3x3(features, self.compute, name=f"s{scale}")(x),
                    Conv3x3(features, self.compute, name=f"t{scale}")(x),
                )
            )
        return predicted

    def _exchange(self, maps: Maps) -> list[jax.Array]:
        """Lets the scales see each other through a bottleneck; one message per scale, not < 0."""
        smallest = maps[-1].shape[1:3]
        small = [ops.adaptive_average_pool(x, smallest) for x in maps]
        widths = [x.shape[-1] for x in maps]
        x = Conv3x3(max(1, sum(widths) // 4), self.compute, name="squeeze")(*small)
        x = nn.relu(layer_norm(name="norm")(x))
        x = nn.relu(Conv3x3(sum(widths), self.compute, name="expand")(x))
        borders = [sum(widths[:scale]) for scale in range(1, len(widths))]
        return jnp.split(x, borders, axis=-1)
