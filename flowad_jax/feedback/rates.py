"""Measured error rates, from what operators said."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import NamedTuple

from flowad_jax.evaluation.conformal import binomial_interval
from flowad_jax.feedback.store import DEFECT, GOOD, Row


class Rate(NamedTuple):
    """A share of confirmed images, with its exact interval (Clopper and Pearson, 95 %)."""

    wrong: int
    total: int
    low: float
    high: float

    def __str__(self) -> str:
        """Such as ``"3 of 40: 7.5 % (1.6 to 20.4)"``."""
        if not self.total:
            return "none confirmed"
        share, low, high = (100 * x for x in (self.wrong / self.total, self.low, self.high))
        return f"{self.wrong} of {self.total}: {share:.3g} % ({low:.3g} to {high:.3g})"


class Period(NamedTuple):
    """What was judged in a time.

    Attributes:
      name: a day, or ``"all"``.
      judged: images.
      confirmed: of these, with a verdict.
      false_alarms: good images that were called anomalous.
      misses: defects that were called normal.
    """

    name: str
    judged: int
    confirmed: int
    false_alarms: Rate
    misses: Rate


def measure(rows: Sequence[Row]) -> list[Period]:
    """Returns what was judged on every day (UTC), and in all, the last one."""
    days: dict[str, list[Row]] = {}
    for row in rows:
        day = datetime.fromtimestamp(row.judgement.time, UTC).date().isoformat()
        days.setdefault(day, []).append(row)
    return [_period(*day) for day in sorted(days.items())] + [_period("all", rows)]


def _period(name: str, rows: Sequence[Row]) -> Period:
    confirmed = sum(row.verdict is not None for row in rows)
    false_alarms = _rate(rows, GOOD, lambda anomalous: anomalous is True)
    misses = _rate(rows, DEFECT, lambda anomalous: anomalous is False)
    return Period(name, len(rows), confirmed, false_alarms, misses)


def _rate(rows: Sequence[Row], verdict: str, wrong: Callable[[bool | None], bool]) -> Rate:
    decided = [row.judgement.anomalous for row in rows if row.verdict == verdict]
    known = [x for x in decided if x is not None]
    count, total = sum(map(wrong, known)), len(known)
    return Rate(count, total, *(binomial_interval(count, total) if total else (0.0, 1.0)))


def shown(periods: Sequence[Period]) -> str:
    """The table that a person reads, and how far it can be trusted."""
    from flowad_jax.weights.layout import aligned

    heads = ("day", "judged", "confirmed", "false alarms of good", "defects missed")
    lines = [(*map(str, period),) for period in periods]
    whole = periods[-1]
    note = "all judged images are confirmed"
    if whole.confirmed < whole.judged:
        note = (
            f"{whole.judged - whole.confirmed} of {whole.judged} images have no verdict: the rates "
            "are of those that people chose to confirm"
        )
    return "\n".join([*aligned([heads, *lines]), note])
