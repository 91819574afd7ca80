"""Things made ahead of time, by threads or by processes; always the same ones in the same order.

Threads are the usual choice: decoding, resizing and blending release the interpreter lock, nothing
is copied, and all share one memory of decoded images. Processes, which grain runs, are for
machines with many cores, where what does not release the lock keeps threads waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from flowad_jax.errors import UserError

_ENDLESS = 2**40  # batches; no run is as long

T = TypeVar("T")
Made = TypeVar("Made")
Arrays = tuple[np.ndarray, ...]


def prefetch(items: Iterable[T], count: int) -> Iterator[T]:
    """Yields items, having asked for ``count`` more each time."""
    waiting: deque[T] = deque()
    for item in items:
        waiting.append(item)
        if len(waiting) > count:
            yield waiting.popleft()
    yield from waiting


def map_in_threads(
    make: Callable[[T], Made], items: Iterable[T], threads: int, ahead: int | None = None
) -> Generator[Made, None, None]:
    """Yields ``make(item)`` for every item, in order, with at most ``ahead`` made in advance.

    None stands for ``threads + 1``. Closing the generator stops the threads. With 0 threads the
    caller's own does the work.
    """
    if not threads:
        yield from map(make, items)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    try:
        count = threads + 1 if ahead is None else ahead
        for future in prefetch((pool.submit(make, item) for item in items), count):
            yield future.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Processes:
    """Arrays made by worker processes for position after position, without an end."""

    def __init__(self, make: Callable[[int], Arrays], first: int, workers: int) -> None:
        """Starts at position ``first``; every process gets a copy of ``make``, by pickle."""
        import grain  # a second and more that runs with threads need not pay
        from absl import flags

        if not flags.FLAGS.is_parsed():  # grain has flags of its own
            flags.FLAGS.mark_as_parsed()
        self.position = first
        positions = grain.MapDataset.range(first, _ENDLESS).map(_ErrorAsText(make))
        options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
        in_process = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
        self._items: Any = iter(positions.to_iter_dataset(in_process).mp_prefetch(options))

    def __next__(self) -> Arrays:
        """Waits for the arrays of the next position, or raises the `UserError` of ``make``."""
        arrays, error = next(self._items)
        if error:
            raise UserError(error)
        self.position += 1
        # Copied out of the memory that is shared with the process, which can then be used again.
        return tuple(np.array(array) for array in arrays)

    def close(self) -> None:
        """Ends the processes."""
        self._items.close()
        del self._items  # grain complains about iterators that live until the interpreter ends


class _ErrorAsText:
    """Returns a `UserError` as its message: exceptions do not pass between processes whole."""

    def __init__(self, make: Callable[[int], Arrays]) -> None:
        self._make = make

    def __call__(self, position: int) -> tuple[Arrays, str]:
        try:
            return self._make(int(position)), ""
        except UserError as error:
            return (), str(error)
