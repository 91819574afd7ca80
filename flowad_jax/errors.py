"""The one exception that means "the user can fix this", and text that is safe to show."""

import unicodedata

MAX_LINE = 4000  # characters; our own messages are far shorter, with a few paths in them


class UserError(Exception):
    """A fault in the input, not in the program.

    The message is one line that names the culprit (file, key or value) and the fix.
    Scripts print it on standard error without a traceback and exit with status 1.
    """

    def __str__(self) -> str:
        """The message by `one_line`: a line break in a file name does not add a line."""
        return one_line(super().__str__())


class LayoutError(UserError):
    """A folder does not look as its data set does: whoever knows the layout adds it."""


def one_line(text: str, most: int = MAX_LINE) -> str:
    """Makes one `printable` line of about ``most`` letters; the middle of a longer one goes."""
    text = printable(text)
    return text if len(text) <= most else f"{text[: most // 2]} [...] {text[-most // 2 :]}"


def printable(text: str) -> str:
    """Escapes what a name may hide: control characters, line breaks, changes of direction.

    Names of files and tensors come from strangers and go to terminals, tables and pages. A byte of
    a file name that is not UTF-8 becomes an escape as well.
    """
    return text if text.isprintable() else "".join(map(_shown, text))


def _shown(letter: str) -> str:
    # Python calls all spaces but one unprintable; only what breaks a line is dangerous.
    if letter.isprintable() or unicodedata.category(letter) == "Zs":
        return letter
    return letter.encode("unicode_escape").decode("ascii")
