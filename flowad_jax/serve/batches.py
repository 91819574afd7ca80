"""Micro-batches: images of several requests are judged together, in the order of their arrival."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import Any, NamedTuple


class Busy(Exception):
    """The queue is full, or the service is about to end."""


class Job(NamedTuple):
    """An image that waits, and where its result goes."""

    image: Any
    result: Future[Any]


class Batches:
    """A thread that judges what is submitted, and a bound on how much may wait."""

    def __init__(
        self,
        judge: Callable[[Sequence[Any]], Sequence[Any]],
        most: Callable[[], int],
        places: int,
        wait: float,
        name: str,
    ):
        """Starts the thread.

        Args:
          judge: returns a result, or an exception, for each of some images.
          most: how many it takes at once, at present.
          places: images that may be on their way; see `admit`.
          wait: seconds for which a batch that is not full waits for more.
          name: of the thread.
        """
        self._judge, self._most, self._wait = judge, most, wait
        self._free, self._places = places, places
        self._lock = threading.Lock()
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._is_closed = False
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images that are on their way."""
        return self._places - self._free

    def admit(self, count: int) -> None:
        """Takes places for some images, which `leave` gives back; `Busy` if they are not free."""
        with self._lock:
            if self._is_closed or count > self._free:
                raise Busy
            self._free -= count

    def leave(self, count: int) -> None:
        """Gives places back."""
        with self._lock:
            self._free += count

    def submit(self, image: Any) -> Future[Any]:
        """Has an image judged."""
        job = Job(image, Future())
        self._jobs.put(job)
        return job.result

    def close(self) -> None:
        """Ends the thread when all that was submitted is judged."""
        with self._lock:
            self._is_closed = True
        self._jobs.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (first := self._jobs.get()) is not None:
            batch, end = [first], False
            until = time.monotonic() + self._wait
            while len(batch) < self._most() and not end:
                try:
                    job = self._jobs.get(timeout=max(0.0, until - time.monotonic()))
                except queue.Empty:
                    break
                if job is None:
                    end = True
                else:
                    batch.append(job)
            self._settle(batch)
            if end:
                return

    def _settle(self, batch: Sequence[Job]) -> None:
        try:
            found = self._judge([job.image for job in batch])
        except BaseException as error:  # the thread goes on for the others
            found = [error] * len(batch)
        for job, one in zip(batch, found, strict=True):
            if isinstance(one, BaseException):
                job.result.set_exception(one)
            else:
                job.result.set_result(one)
