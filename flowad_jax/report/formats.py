"""Numbers and values as people read them, in every report."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

MISSING = "–"


def percent(fraction: float | None) -> str:
    """A fraction of 1 in percent without its sign, or a dash where it is undefined."""
    return MISSING if fraction is None or math.isnan(fraction) else f"{100 * fraction:.2f}"


def with_interval(fraction: float | None, ends: Sequence[float] | None) -> str:
    """A fraction of 1 in percent, and in brackets its interval where there is one."""
    within = f" ({100 * ends[0]:.1f} to {100 * ends[1]:.1f})" if ends else ""
    return percent(fraction) + within


def rate(fraction: float) -> str:
    """A fraction of 1 in percent as people write it; the sign stays on the line."""
    return f"{100 * fraction:.{3 if fraction >= 0.1 else 2}g}\u00a0%"


def share(count: int, total: int) -> str:
    """A part of a whole, in numbers and in percent."""
    return f"{count} of {total} ({rate(count / total)})" if total else MISSING


def plural(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def shown(value: Any) -> str:
    """A value of a config or a result in words."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(shown, value)) or MISSING
    return str(value)


def flatten(entries: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted names."""
    found: dict[str, Any] = {}
    for key, value in entries.items():
        if isinstance(value, Mapping) and value:
            found |= flatten(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def is_finite(value: float | None) -> TypeGuard[float]:
    """Whether there is a number at all, and a finite one."""
    return value is not None and math.isfinite(value)
