"""How networks that are scaled in width choose numbers of channels."""

EXPORTS = ()  # nothing in here is the name of an encoder


def round_to_8(channels: float) -> int:
    """The nearest multiple of 8, but never less than nine tenths of what was asked for."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded + 8 if rounded < 0.9 * channels else rounded
