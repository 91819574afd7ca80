"""The one exception that means "the user can fix this"."""

from __future__ import annotations

LONGEST = 4000  # letters of a message


class UserError(Exception):
    """One line that names the culprit and the fix."""

    def __str__(self) -> str:
        text = printable(super().__str__())
        return text if len(text) <= LONGEST else f"{text[:LONGEST]} [...]"


def printable(text: str) -> str:
    """Escapes what would break a line or hide in it; names of files come from strangers."""
    return "".join(x if x.isprintable() else ascii(x)[1:-1] for x in text)


def reason(error: Exception) -> str:
    """The first line of what another library raised."""
    words = getattr(error, "strerror", None) or str(error).strip() or type(error).__name__
    return str(words).splitlines()[0]
