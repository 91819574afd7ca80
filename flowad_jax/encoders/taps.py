"""The feature maps of an encoder that a config asks for, and what is done to them."""

import functools
from collections.abc import Callable, Container, Iterable
from typing import Any

import jax
from flax import linen as nn

from flowad_jax.errors import UserError
from flowad_jax.lookup import nearest
from flowad_jax.ops.arrays import resize_bilinear
from flowad_jax.types import EncoderSpec

Apply = Callable[..., tuple[jax.Array, ...]]  # (variables, image) -> maps, as of `Encoder`

_WINDOWS: dict[str, Any] = {"window_shape": (3, 3), "strides": (2, 2), "padding": ((1, 1), (1, 1))}
POOLS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "avg": functools.partial(nn.avg_pool, **_WINDOWS, count_include_pad=True),
    "max": functools.partial(nn.max_pool, **_WINDOWS),
}


def choose_taps(
    spec: EncoderSpec, taps: tuple[int, ...] | None, strides: tuple[int, ...]
) -> tuple[int, ...]:
    """Returns the indices of the feature maps that a config asks for.

    Args:
      spec: what the encoder offers.
      taps: the indices themselves, or None.
      strides: where ``taps`` is None, the deepest map of each of these.

    Raises:
      UserError: a number is none of the encoder's, or they do not increase.
    """
    if taps is not None:
        chosen, count = _as_tuple(taps), len(spec.channels)
        if not _increasing(chosen, range(count)):
            raise UserError(
                f"taps {chosen} of encoder '{spec.name}': use increasing whole numbers from 0 to "
                f"{count - 1} (channels {', '.join(map(str, spec.channels))})"
            )
        return chosen
    deepest = {stride: tap for tap, stride in enumerate(spec.strides)}
    chosen = _as_tuple(strides)
    if _increasing(chosen, deepest):
        return tuple(deepest[stride] for stride in chosen)
    start = f"encoder.strides {chosen}: encoder '{spec.name}' has feature maps of"
    if len(deepest) == 1:
        raise UserError(
            f"{start} stride {spec.strides[0]} only: set encoder.taps={spread(len(chosen), spec)}"
        )
    raise UserError(
        f"{start} strides {', '.join(map(str, deepest))}: give increasing ones of these, or the "
        "indices of feature maps in encoder.taps"
    )


def spread(count: int, spec: EncoderSpec) -> tuple[int, ...]:
    """Returns up to ``count`` taps, spread evenly over the depth of an encoder."""
    depth = len(spec.channels)
    return tuple(sorted({(2 * i + 1) * depth // (2 * count) for i in range(count)}))


def _as_tuple(numbers: Any) -> tuple[Any, ...]:
    return tuple(numbers) if isinstance(numbers, Iterable) else (numbers,)


def _increasing(numbers: tuple[Any, ...], allowed: Container[int]) -> bool:
    known = all(type(number) is int and number in allowed for number in numbers)
    return bool(numbers) and known and list(numbers) == sorted(set(numbers))


def pooled(apply: Apply, pool: str | None) -> Apply:
    """Returns ``apply`` with pooled outputs: (B, h, w, C) become (B, ceil(h/2), ceil(w/2), C).

    MSFlow (Zhou et al., IEEE TNNLS 2024) averages its feature maps before the flows see them: half
    the positions per side, a quarter of the work. Conventions are PyTorch's: windows of 3x3 at
    stride 2 with a border of one; an average always divides by nine, as if the border were zeros,
    and a maximum never takes the border.

    Raises:
      UserError: ``pool`` is neither None nor one of `POOLS`.
    """
    if pool is None:
        return apply
    if pool not in POOLS:
        raise UserError(f"encoder.pool='{pool}' is unknown: {nearest(str(pool), POOLS)}")
    window = POOLS[pool]
    return lambda variables, image: tuple(window(tap) for tap in apply(variables, image))


def normalised(apply: Apply) -> Apply:
    """Returns ``apply`` with outputs of mean 0 and variance 1 over the channels of each position.

    Transformers end with a LayerNorm; the maps of a convolutional network have any scale, which
    flows without normalising layers of their own, such as SSNF's, do not survive. Yu et al.
    (FastFlow, 2021) normalise residual networks in the same place.
    """
    return lambda variables, image: tuple(
        jax.nn.standardize(tap, axis=-1, epsilon=1e-6) for tap in apply(variables, image)
    )


def at_sizes(apply: Apply, count: int, multiple: int = 1) -> Apply:
    """Returns ``apply`` on an image pyramid, whose maps follow each other, largest image first.

    PatchFlow sees an image, its half and its quarter. Resizing is bilinear without smoothing, as
    PyTorch's.

    Args:
      apply: on one image size.
      count: sizes; each side is half of the one before, rounded down.
      multiple: sides are then rounded down to one.

    Raises:
      UserError: there is no size, or so many that nothing is left of an image.
    """
    if type(count) is not int or count < 1:
        raise UserError(f"encoder.pyramid={count!r}: a whole number from 1")

    def applied(variables: Any, image: jax.Array) -> tuple[jax.Array, ...]:
        maps: tuple[jax.Array, ...] = ()
        for level in range(count):
            size = tuple((side // 2**level) // multiple * multiple for side in image.shape[1:3])
            if 0 in size:
                sides = " x ".join(map(str, image.shape[1:3]))
                raise UserError(f"encoder.pyramid={count}: too many for images of {sides} px")
            # The image itself is not cut to a multiple: that it is one was checked.
            maps += apply(variables, resize_bilinear(image, size) if level else image)
        return maps

    return applied if count > 1 else apply
