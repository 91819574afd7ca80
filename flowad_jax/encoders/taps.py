"""Which feature maps of an encoder a config asks for: by their strides, or one by one."""

from collections.abc import Container, Iterable, Sequence
from typing import Any

from flowad_jax.errors import UserError
from flowad_jax.types import EncoderSpec

EXPORTS = ()  # nothing in here is the name of an encoder


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
    if taps is None:
        return _taps_of_strides(strides, spec)
    chosen, count = _as_tuple(taps), len(spec.channels)
    if not _increasing(chosen, range(count)):
        raise UserError(
            f"taps {chosen} of encoder '{spec.name}': use increasing whole numbers from 0 to "
            f"{count - 1} (channels {', '.join(map(str, spec.channels))})"
        )
    return chosen


def _taps_of_strides(strides: Any, spec: EncoderSpec) -> tuple[int, ...]:
    deepest = {stride: tap for tap, stride in enumerate(spec.strides)}
    chosen = _as_tuple(strides)
    if not _increasing(chosen, deepest):
        if len(deepest) == 1:
            raise UserError(
                f"encoder.strides {chosen}: encoder '{spec.name}' has feature maps of stride "
                f"{spec.strides[0]} only: set encoder.taps={spread(len(chosen), spec)}"
            )
        raise UserError(
            f"encoder.strides {chosen}: encoder '{spec.name}' has feature maps of strides "
            f"{', '.join(map(str, deepest))}: give increasing ones of these, or the indices of "
            "feature maps in encoder.taps"
        )
    return tuple(deepest[stride] for stride in chosen)


def spread(count: int, spec: EncoderSpec) -> tuple[int, ...]:
    """Numbers of up to ``count`` feature maps, spread evenly over the depth of an encoder."""
    depth = len(spec.channels)
    return tuple(sorted({(2 * i + 1) * depth // (2 * count) for i in range(count)}))


def check_tap_at(tap_at: str, places: Sequence[str]) -> None:
    """Raises a `UserError` where a block has no such place for a tap."""
    if tap_at not in places:
        raise UserError(f"encoder.tap_at='{tap_at}': blocks can be tapped at {', '.join(places)}")


def _as_tuple(numbers: Any) -> tuple:
    return tuple(numbers) if isinstance(numbers, Iterable) else (numbers,)


def _increasing(numbers: tuple, allowed: Container[int]) -> bool:
    known = all(type(number) is int and number in allowed for number in numbers)
    return bool(numbers) and known and list(numbers) == sorted(set(numbers))
