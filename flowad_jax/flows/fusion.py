"""MSFlow's fusion flow: one coupling over the maps of all scales at once."""

from collections.abc import Iterable, Sequence

import flax.linen as nn
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from flowad_jax.flows import permutation
from flowad_jax.flows.subnets import SameConv, layer_norm
from flowad_jax.ops import arrays

Maps = tuple[Float[Array, "B h w C"], ...]  # of every scale, the smallest last

_LIMIT = 1e6  # latents beyond it are cut, so that one wild image does not end a training run


class FusionFlow(nn.Module):
    """One coupling over a tuple of maps (B, h_l, w_l, C_l), the smallest last.

    Every map is reordered along its channels and halved into ``x1`` and ``x2``; networks that see
    all scales predict how to scale and shift the halves::

        y1 = x1 * exp(k(s2)) + t2,   (s2, t2) = F2(x2)
        y2 = x2 * exp(k(s1)) + t1,   (s1, t1) = F1(y1)
        log|det| = sum over scales, positions and channels of k(s1) + k(s2)

    with ``k(s) = 0.636 alpha arctan(s / alpha)`` (Zhou et al., "MSFlow", TNNLS 2024, fusion flow;
    the bound is another one than in the coupling blocks). The reference's inverse returns the
    log-det with the wrong sign and works for even channel counts only; this one is an inverse for
    all.

    Attributes:
      channels: C_l of every scale, at least 2 each, odd or even.
      clamp: alpha, the bound on the log-scale.
      compute: dtype of the convolutions, see `SameConv`.
    """

    channels: tuple[int, ...]
    clamp: float = 1.9
    compute: jnp.dtype | None = None

    def setup(self) -> None:
        """Creates the two networks and the fixed channel orders."""
        if min(self.channels) < 2:
            raise ValueError(f"a fusion flow needs at least 2 channels, got {self.channels}")
        self.net1 = CrossScaleNet(tuple(c - c // 2 for c in self.channels), self.compute)
        self.net2 = CrossScaleNet(tuple(c // 2 for c in self.channels), self.compute)
        self.orders = [
            self.variable("buffers", f"permutation{scale}", self._sample, count).value
            for scale, count in enumerate(self.channels)
        ]

    def _sample(self, channels: int) -> Array:
        return permutation.sample(self.make_rng("params"), channels, "hard")

    def __call__(
        self, maps: Sequence[Array], before: Sequence[Int[Array, " C"]] | None = None
    ) -> tuple[Maps, Float[Array, " B"]]:
        """Maps ``maps -> (latents, log_det)``.

        Args:
          maps: one per scale.
          before: channel orders that the maps still have to be brought into; done along with the
            flow's own.
        """
        orders = self.orders
        if before is not None:
            orders = [first[own] for first, own in zip(before, orders, strict=True)]
        x1, x2 = _halves(permutation.apply(*pair) for pair in zip(orders, maps, strict=True))
        y1, log_det2 = self._affine(self.net2, x2, x1)
        y2, log_det1 = self._affine(self.net1, y1, x2)
        latents = tuple(jnp.clip(z, -_LIMIT, _LIMIT) for z in _joined(y1, y2))
        return latents, log_det1 + log_det2

    def inverse(self, latents: Sequence[Array]) -> tuple[Maps, Float[Array, " B"]]:
        """Maps ``latents -> (maps, log_det)``, the log-determinant of the inverse."""
        y1, y2 = _halves(latents)
        x2, log_det1 = self._affine(self.net1, y1, y2, inverse=True)
        x1, log_det2 = self._affine(self.net2, x2, y1, inverse=True)
        pairs = zip(self.orders, _joined(x1, x2), strict=True)
        return tuple(permutation.invert(*pair) for pair in pairs), log_det1 + log_det2

    def _affine(
        self, net: nn.Module, seen: Maps, changed: Maps, inverse: bool = False
    ) -> tuple[Maps, Array]:
        """Scales and shifts (or undoes it) one half of every map by what the other halves say."""
        out, log_det = [], jnp.zeros(())
        for x, (s, shift) in zip(changed, net(seen), strict=True):
            log_scale = self.clamp * 0.636 * jnp.arctan(s / self.clamp)
            x = (x - shift) * jnp.exp(-log_scale) if inverse else x * jnp.exp(log_scale) + shift
            log_det = log_det + jnp.sum(log_scale, axis=(1, 2, 3))
            out.append(x)
        return tuple(out), -log_det if inverse else log_det


def _halves(maps: Iterable[Array]) -> tuple[Maps, Maps]:
    pairs = [(x[..., : x.shape[-1] // 2], x[..., x.shape[-1] // 2 :]) for x in maps]
    return tuple(first for first, _ in pairs), tuple(second for _, second in pairs)


def _joined(first: Maps, second: Maps) -> Maps:
    return tuple(jnp.concatenate(pair, axis=-1) for pair in zip(first, second, strict=True))


class CrossScaleNet(nn.Module):
    """Predicts (s, t) per scale from halves of all scales, exchanged at the smallest size.

    Attributes:
      features: channels to predict for every scale.
      compute: dtype of the convolutions, see `SameConv`.
    """

    features: tuple[int, ...]
    compute: jnp.dtype | None = None

    @nn.compact
    def __call__(self, maps: Maps) -> list[tuple[Array, Array]]:
        """Returns (s, t), each (B, h_l, w_l, features_l), for every scale."""
        # The scales see each other through a bottleneck; each gets a message, which is not < 0.
        small = [arrays.adaptive_average_pool(x, maps[-1].shape[1:3]) for x in maps]
        widths = [x.shape[-1] for x in maps]
        x = SameConv(max(1, sum(widths) // 4), self.compute, name="squeeze")(*small)
        x = nn.relu(layer_norm(name="norm")(x))
        x = nn.relu(SameConv(sum(widths), self.compute, name="expand")(x))
        messages = jnp.split(x, [sum(widths[:scale]) for scale in range(1, len(widths))], axis=-1)
        predicted = []
        for scale, (x, message) in enumerate(zip(maps, messages, strict=True)):
            x, width = x + arrays.upsample(message, x.shape[1:3]), self.features[scale]
            s = SameConv(width, self.compute, name=f"s{scale}")(x)
            predicted.append((s, SameConv(width, self.compute, name=f"t{scale}")(x)))
        return predicted
