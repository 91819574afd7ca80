"""Batches made ahead of time, by threads or by processes; always the same ones in the same order.

Threads are the usual choice: decoding, resizing and blending release the interpreter lock, nothing
is copied, and all share one memory of decoded images. Processes, which grain runs, are for
machines with many cores, where what does not release the lock keeps threads waiting.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

import numpy as np

from flowad_jax.errors import UserError

_ENDLESS = 2**40  # batches; no run is as long

T = TypeVar("T")
Made = TypeVar("Made")
Arrays = tuple[np.ndarray, ...]


def threaded(
    make: Callable[[T], Made], plan: Iterator[T], threads: int
) -> Generator[Made, None, None]:
    """Yields ``make(item)`` for every item of a plan, in order.

    At most ``threads + 1`` are prepared ahead. Closing the generator stops the threads.

    Args:
      make: called from several threads at once.
      plan: what to make.
      threads: 0 works in the caller's thread.
    """
    if not threads:
        yield from map(make, plan)
        return
    pool = ThreadPoolExecutor(threads, thread_name_prefix="loader")
    try:
        waiting: deque[Future[Made]] = deque()
        for item in plan:
            waiting.append(pool.submit(make, item))
            if len(waiting) > threads + 1:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


class Processes:
    """Arrays made by worker processes for position after position, without an end.

    Attributes:
      position: of the arrays that come next.
    """

    def __init__(self, make: Callable[[int], Arrays], first: int, workers: int) -> None:
        """Starts the processes, each with a copy of ``make``, which therefore must be picklable.

        Args:
          make: returns the arrays of a position; may raise a `UserError`.
          first: the first position.
          workers: how many processes; each makes every ``workers``-th position.
        """
        self.position = first
        self._items = _grain_iterator(_Reported(make), first, workers)

    def __next__(self) -> Arrays:
        """Waits for the arrays of the next position.

        Raises:
          UserError: the one that ``make`` raised.
        """
        arrays, fault = next(self._items)
        if fault:
            raise UserError(fault)
        self.position += 1
        # Copied out of the memory that is shared with the process, which can then be used again.
        return tuple(np.array(array) for array in arrays)

    def close(self) -> None:
        """Ends the processes."""
        self._items.close()
        del self._items  # grain complains about iterators that live until the interpreter ends


class _Reported:
    """Hands a `UserError` back as its message: exceptions do not pass between processes whole."""

    def __init__(self, make: Callable[[int], Arrays]) -> None:
        self._make = make

    def __call__(self, position: int) -> tuple[Sequence[np.ndarray], str]:
        try:
            return self._make(int(position)), ""
        except UserError as error:
            return (), str(error)


def _grain_iterator(make: Callable[[int], Any], first: int, workers: int) -> Any:
    import grain  # a second and more that runs with threads need not pay
    from absl import flags

    if not flags.FLAGS.is_parsed():  # grain has flags of its own
        flags.FLAGS.mark_as_parsed()
    positions = grain.MapDataset.range(first, _ENDLESS).map(make)
    options = grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2)
    in_process = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
    return iter(positions.to_iter_dataset(in_process).mp_prefetch(options))
