"""Command lines of the modules that are run with ``python -m``."""

from __future__ import annotations

import argparse
import ast
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from flowad_jax.errors import UserError, one_line

_WORDS = {"true": True, "false": False}


def fail(code: int, message: object) -> NoReturn:
    """Prints one line on standard error and ends the process."""
    print(f"error: {one_line(str(message))}", file=sys.stderr)
    raise SystemExit(code)


class Parser(argparse.ArgumentParser):
    """Shows a module's docstring as its help, and reports wrong usage in one line as scripts do."""

    def __init__(self, prog: str, description: str | None) -> None:
        """Takes how the module is run, e.g. ``flowad doctor``, and its docstring."""
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2."""
        fail(2, f"{message}; see --help")

    def fail(self, message: object) -> NoReturn:
        """Ends the process with status 1: usage was right, but what was asked for failed."""
        fail(1, message)


def settings(words: Sequence[str]) -> dict[str, Any]:
    """Turns the values of a repeated ``--set=OPTION=VALUE`` into options.

    Values are Python literals, ``true`` and ``false``, or plain words.

    Raises:
      UserError: a word has no equals sign.
    """
    options: dict[str, Any] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            raise UserError(f"--set={word}: write --set=OPTION=VALUE")
        try:
            options[name] = ast.literal_eval(value)
        except (ValueError, SyntaxError):
            options[name] = _WORDS.get(value, value)
    return options
