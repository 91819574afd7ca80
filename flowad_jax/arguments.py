"""Command lines of the modules that are run with ``python -m``, from the standard library only."""

from __future__ import annotations

import argparse
import sys
from typing import NoReturn


class Parser(argparse.ArgumentParser):
    """Shows a module's docstring as its help, and reports wrong usage in one line as scripts do.

    Args:
      prog: how the module is run, e.g. ``"python -m flowad_jax.doctor"``.
      description: the docstring.
    """

    def __init__(self, prog: str, description: str | None) -> None:
        super().__init__(
            prog=prog,
            description=description,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2."""
        print(f"error: {message}; see --help", file=sys.stderr)
        raise SystemExit(2)

    def fail(self, message: object) -> NoReturn:
        """Ends the process with status 1: usage was right, but what was asked for failed."""
        print(f"error: {message}", file=sys.stderr)
        raise SystemExit(1)
