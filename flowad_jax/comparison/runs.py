"""Runs that judged the same test images: every difference with its interval and p-value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from flowad_jax.errors import UserError
from flowad_jax.evaluation import intervals, outcome, weighted
from flowad_jax.evaluation.intervals import Difference
from flowad_jax.evaluation.outcome import Outcome
from flowad_jax.report import results
from flowad_jax.report.formats import percent
from flowad_jax.report.results import METRICS, markdown_table, text


class Run(NamedTuple):
    """A finished run.

    Attributes:
      name: its folder.
      metrics: of the column that it is reported by, fractions of 1.
      intervals: of these metrics.
      outcome: what it made of its test images.
    """

    name: str
    metrics: dict[str, float | None]
    intervals: dict[str, list[float]]
    outcome: Outcome


class Decided(NamedTuple):
    """Right decisions of two runs about the same images.

    Attributes:
      first, second: images that only this run is right about.
      both: images that both are right about.
      p_value: of McNemar's exact test, that both are right equally often.
    """

    first: int
    second: int
    both: int
    p_value: float


class Pair(NamedTuple):
    """A run beside the first one.

    Attributes:
      name: of its folder.
      images: that both judged.
      only_one: images that only one of them judged; they do not count.
      values: metrics of the first run and of this one, by name.
      differences: of this run from the first, by metric, with adjusted p-values.
      decided: None where one of them has no threshold.
    """

    name: str
    images: int
    only_one: int
    values: dict[str, tuple[float, float]]
    differences: dict[str, Difference]
    decided: Decided | None


def read(folder: str) -> Run:
    """Reads a workdir, or a folder below its ``eval/``.

    Raises:
      UserError: it holds no run with results.
    """
    found = results.read(folder)
    metrics = found["columns"][results.final(found["columns"])]
    return Run(folder, metrics, found.get("intervals") or {}, outcome.read(Path(folder)))


def compare(found: Sequence[Run]) -> list[Pair]:
    """Compares every run with the first one.

    p-values are adjusted for the number of runs (Holm 1979), for each metric on its own.

    Args:
      found: two or more runs.

    Raises:
      UserError: runs have no test image in common.
    """
    first, *others = found
    pairs = [_pair(first, other) for other in others]
    for metric in METRICS:
        having = [pair for pair in pairs if metric in pair.differences]
        adjusted = holm([pair.differences[metric].p_value for pair in having])
        for pair, p_value in zip(having, adjusted, strict=True):
            pair.differences[metric] = pair.differences[metric]._replace(p_value=p_value)
    return pairs


def holm(p_values: Sequence[float]) -> list[float]:
    """Returns p-values that hold for all of them together, in the same order."""
    count, adjusted, least = len(p_values), [1.0] * len(p_values), 0.0
    for done, index in enumerate(np.argsort(p_values, kind="stable")):
        least = max(least, min(1.0, (count - done) * p_values[index]))
        adjusted[index] = least
    return adjusted


def _pair(first: Run, second: Run) -> Pair:
    columns: list[Mapping[str, float | None]] = [first.metrics, second.metrics]
    names = f"{first.name} and {second.name}"
    one, other, alone = _same_images(first.outcome, second.outcome, names)
    if alone:  # what stands in the results is of other images too
        everything = np.ones((1, len(one.labels)))
        columns = [
            {name: float(value[0]) for name, value in weighted.metrics(each, everything).items()}
            for each in (one, other)
        ]
    values: dict[str, tuple[float, float]] = {}
    differences: dict[str, Difference] = {}
    for name, difference in intervals.of_difference(one, other).items():
        before, after = (column.get(name) for column in columns)
        if before is not None and after is not None:
            values[name], differences[name] = (before, after), difference.at(after - before)
    return Pair(second.name, len(one.labels), alone, values, differences, _decided(one, other))


def _same_images(one: Outcome, other: Outcome, runs: str) -> tuple[Outcome, Outcome, int]:
    """Returns both with the images that both have, in one order, and how many only one has.

    Raises:
      UserError: there are none, or they disagree about which images are anomalous.
    """
    common, rows, others = np.intersect1d(one.names, other.names, return_indices=True)
    if not len(common):
        raise UserError(f"{runs} have no test image in common: compare runs of one data set")
    first, second = outcome.selected(one, rows), outcome.selected(other, others)
    if len(wrong := np.flatnonzero(first.labels != second.labels)):
        raise UserError(f"{runs} disagree whether {common[wrong[0]]} is anomalous: see the labels")
    return first, second, len(one.names) + len(other.names) - 2 * len(common)


def _decided(one: Outcome, other: Outcome) -> Decided | None:
    if one.flagged is None or other.flagged is None:
        return None
    first, second = (each.flagged == (each.labels == 1) for each in (one, other))
    only = int(np.sum(first & ~second)), int(np.sum(second & ~first))
    p_value = stats.binomtest(only[0], sum(only)).pvalue if sum(only) else 1.0
    return Decided(*only, int(np.sum(first & second)), float(p_value))


def markdown(first: str, pairs: Sequence[Pair]) -> str:
    """Returns tables for people, one for every run beside the first."""
    return "\n\n".join(_section(first, pair) for pair in pairs) + "\n"


def _section(first: str, pair: Pair) -> str:
    head, *rows = cells(text(first), pair._replace(name=text(pair.name)))
    parts = [images_sentence(pair), markdown_table([head, ["---", *["---:"] * 5], *rows])]
    if pair.decided:
        parts.append(decisions_sentence(pair.decided))
    return "\n\n".join(parts)


def images_sentence(pair: Pair) -> str:
    """How many images the comparison rests on."""
    note = f"{pair.images} test images that both judged"
    left_out = f"; {pair.only_one} that only one of them did are left out" * bool(pair.only_one)
    return f"{note}{left_out}."


def decisions_sentence(decided: Decided) -> str:
    """Which run is right how often."""
    return (
        f"Decisions: both are right about {decided.both} images, only the first about "
        f"{decided.first}, only the second about {decided.second} (McNemar, p "
        f"{shown_p(decided.p_value)})."
    )


def cells(first: str, pair: Pair) -> list[list[str]]:
    """The table of differences: its head, and a row for every metric."""
    rows = [["percent", first, pair.name, "difference", "95 % interval", "p"]]
    for name, difference in pair.differences.items():
        low, high = (f"{100 * end:+.2f}" for end in difference.interval)
        change = f"{100 * difference.value:+.2f}"
        values = (percent(value) for value in pair.values[name])
        p_value = shown_p(difference.p_value).removeprefix("= ")
        rows.append([METRICS[name], *values, change, f"{low} to {high}", p_value])
    return rows


def shown_p(value: float) -> str:
    """A p-value as people write it."""
    return f"= {value:.2g}" if value >= 0.001 else "< 0.001"


def as_json(first: str, pairs: Sequence[Pair]) -> dict[str, Any]:
    """Returns the same for programs, as fractions of 1."""
    return {
        "first": first,
        "others": [
            {
                **pair._asdict(),
                "differences": {name: d._asdict() for name, d in pair.differences.items()},
                "decided": pair.decided._asdict() if pair.decided else None,
            }
            for pair in pairs
        ],
    }
