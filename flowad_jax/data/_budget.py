"""A bound on the pixels that are decoded at once, whatever the number of threads."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator


class PixelBudget:
    """Bounds the pixels that all threads decode at once.

    A thread that asks for more than what is left waits, unless nobody holds any: then one image
    may exceed the budget. A thread that holds pixels must not wait for another that asks for some.
    """

    def __init__(self, pixels: int) -> None:
        """Has so many pixels to give."""
        self._pixels, self._held = pixels, 0
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def hold(self, pixels: int) -> Iterator[None]:
        """Waits for so many pixels and gives them back at the end."""
        with self._changed:
            self._changed.wait_for(lambda: not self._held or self._held + pixels <= self._pixels)
            self._held += pixels
        try:
            yield
        finally:
            with self._changed:
                self._held -= pixels
                self._changed.notify_all()


BUDGET = PixelBudget(2**28)
