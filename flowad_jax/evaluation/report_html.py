"""HTML from Python values; whatever is not marked as HTML is text and gets escaped.

File names, kinds of defects and configs come from strangers. Escaping is what happens by default,
so that forgetting about it cannot open a hole.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from flowad_jax.errors import printable

MISSING = "–"
VOID = ("br", "img", "input", "meta")


class Html(str):
    """Text that is HTML already."""

    __slots__ = ()


def tag(name: str, /, *children: Any, **attributes: Any) -> Html:
    """One element.

    Args:
      name: of the element.
      *children: HTML, or anything else to be shown as text; None is left out.
      **attributes: a trailing underscore is dropped, others become hyphens. True gives a bare
        attribute; None and False none.
    """
    written = "".join(_attribute(key, value) for key, value in attributes.items())
    opening = f"<{name}{written}>"
    return Html(opening if name in VOID else f"{opening}{join(children)}</{name}>")


def join(children: Iterable[Any]) -> Html:
    """Children one after the other, escaped unless they are HTML."""
    return Html("".join(_escaped(child) for child in children if child is not None))


def table(head: Sequence[Any], rows: Iterable[Sequence[Any]]) -> Html:
    """A table whose first column names the rows; it scrolls sideways where it is too wide."""
    top = tag("tr", *(tag("th", cell, scope="col") for cell in head))
    body = (
        tag("tr", tag("th", first, scope="row"), *(tag("td", cell) for cell in rest))
        for first, *rest in rows
    )
    whole = tag("table", tag("thead", top), tag("tbody", *body))
    return tag("div", whole, class_="scroll", tabindex="0")


def pairs(entries: Mapping[str, Any]) -> Html:
    """A list of names and values; tables inside tables get dotted names."""
    items = (
        tag("div", tag("dt", key), tag("dd", text(value))) for key, value in flat(entries).items()
    )
    return tag("dl", *items, class_="pairs")


def flat(entries: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested tables as one, with dotted names."""
    found: dict[str, Any] = {}
    for key, value in entries.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{key}.")
        else:
            found[f"{prefix}{key}"] = value
    return found


def text(value: Any) -> Any:
    """A value as people read it; HTML stays as it is."""
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return MISSING
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, (list, tuple)):
        return ", ".join(str(text(item)) for item in value) or MISSING
    return value


def percent(fraction: float | None) -> str:
    """A fraction of 1 in percent without its sign, or a dash where it is undefined."""
    if fraction is None or math.isnan(fraction):
        return MISSING
    return f"{100 * fraction:.2f}"


def rate(fraction: float) -> str:
    """A fraction of 1 in percent as people write it; the sign stays on the line."""
    return f"{100 * fraction:.{3 if fraction >= 0.1 else 2}g}\u00a0%"


def share(count: int, total: int) -> str:
    """A part of a whole, in numbers and in percent."""
    return f"{count} of {total} ({rate(count / total)})" if total else MISSING


def plural(count: int, noun: str) -> str:
    """A number with its noun."""
    return f"{count} {noun}{'' if count == 1 else 's'}"


def _attribute(key: str, value: Any) -> str:
    if value is None or value is False:
        return ""
    name = key.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{_safe(str(value))}"'


def _escaped(child: Any) -> str:
    return child if isinstance(child, Html) else _safe(str(child))


def _safe(words: str) -> str:
    """Text for a page; what is not printable, but for line breaks, is shown as an escape."""
    return html.escape("\n".join(map(printable, words.split("\n"))))
