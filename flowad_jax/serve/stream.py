"""What a detector has judged: numbers of images, the drift statistic, pictures that are kept."""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence
from typing import Any, NamedTuple

from flowad_jax.errors import UserError
from flowad_jax.feedback.store import DEFECT, FeedbackStore, Judgement, Row
from flowad_jax.flowad_runtime.drift import Drift

POINTS, SHOWN = 5000, 500  # of the drift chart: kept, and sent at most
PICTURES, PICTURE_BYTES = 100, 64 * 2**20  # kept in memory
RECENT = 1000  # rows that are kept without a store


class Point(NamedTuple):
    """The drift statistic after an image, and the averages beside it."""

    id: int
    time: float
    value: float | None
    low_share: float | None
    brightness: float | None
    sharpness: float | None


class Stream:
    """Takes judgements in their order; safe to use from several threads."""

    def __init__(self, store: FeedbackStore | None, alpha: float):
        """Takes where judgements are kept, if they are, and the drift's probability of error."""
        self.store, self._alpha = store, alpha
        self._lock = threading.RLock()
        self._rows: deque[Row] = deque(maxlen=RECENT)
        self._next, self._version = 1, ""
        self._normal: Sequence[Any] = []
        self._pictures: OrderedDict[tuple[int, str], bytes] = OrderedDict()
        self._held = 0
        self.since = time.time()

    def start(self, version: str, normal: Sequence[Any]) -> None:
        """Begins with a detector, or goes on with what is stored of it."""
        with self._lock:
            self._version, self._normal = version, normal
            self._rebuild()

    def reset(self) -> None:
        """Starts the drift statistic anew."""
        with self._lock:
            if self.store:
                self.store.add_reset(self._version)
            self._rows.clear()
            self._rebuild()

    def _rebuild(self) -> None:
        """Computes the statistic from the stored judgements; confirmed defects are left out."""
        self.drift = Drift(self._normal, self._alpha)
        self.points: deque[Point] = deque(maxlen=POINTS)
        rows = self.store.since_reset(self._version) if self.store else list(self._rows)
        self.since = rows[0].judgement.time if rows else time.time()
        counted = [row for row in rows if row.verdict != DEFECT]
        for place, row in enumerate(counted):
            self._follow(row.id, row.judgement, is_shown=len(counted) - place <= POINTS)

    def _follow(self, number: int, one: Judgement, is_shown: bool = True) -> bool:
        looks = one.brightness, one.sharpness
        is_alarm = self.drift.add(one.scores, one.p_value, *looks, name=one.name)
        if is_shown:
            averages = self.drift.averages()
            self.points.append(Point(number, one.time, self.drift.value, **averages))
        return is_alarm

    def add(self, judgements: Sequence[Judgement]) -> tuple[list[int], bool]:
        """Keeps judgements; returns their numbers, and whether one raised the drift alarm."""
        with self._lock:
            if self.store:
                numbers = self.store.add(judgements)
            else:
                numbers = list(range(self._next, self._next + len(judgements)))
                self._next += len(judgements)
                rows = zip(numbers, judgements, strict=True)
                self._rows.extend(Row(number, one, None, None) for number, one in rows)
            # One that an earlier detector judged while this one came is no matter of this stream.
            pairs = zip(numbers, judgements, strict=True)
            alarms = [self._follow(*pair) for pair in pairs if pair[1].detector == self._version]
            return numbers, any(alarms)

    def add_verdict(self, number: int, verdict: str) -> Row:
        """Keeps what an operator says; a defect no longer counts for the drift statistic.

        Raises:
          UserError: there is no such image, or nothing is kept.
        """
        if not self.store:
            raise UserError("verdicts are not kept: start the service with --feedback")
        with self._lock:
            before = self.store.row(number).verdict
            row = self.store.add_verdict(number, verdict)
            if DEFECT in (before, verdict) and before != verdict:
                self._rebuild()
            return row

    def rows(self, after: int, limit: int) -> list[Row]:
        """The newest judgements behind a number, in order."""
        with self._lock:
            if self.store:
                return self.store.rows(after, limit, newest=True)
            return [row for row in self._rows if row.id > after][-limit:]

    def record(self) -> dict[str, Any]:
        """The drift statistic as JSON values."""
        with self._lock:
            return {**self.drift.record(), "since": self.since}

    def chart(self) -> list[Point]:
        """Points of the drift chart, thinned out evenly; the last one is there."""
        with self._lock:
            points = list(self.points)
        step = -(-len(points) // SHOWN) or 1
        return points[::-1][::step][::-1]

    def keep_picture(self, number: int, kind: str, content: bytes) -> None:
        """Keeps a picture in memory, for a while."""
        with self._lock:
            self._pictures[number, kind] = content
            self._held += len(content)
            while len(self._pictures) > PICTURES or self._held > PICTURE_BYTES:
                self._held -= len(self._pictures.popitem(last=False)[1])

    def picture(self, number: int, kind: str) -> bytes | None:
        """A picture that is still kept."""
        with self._lock:
            return self._pictures.get((number, kind))

    def kinds(self, number: int) -> list[str]:
        """Kinds of pictures that are kept of an image."""
        with self._lock:
            return [kind for kind in ("overlay", "heatmap") if (number, kind) in self._pictures]
