"""Methods over many categories: which is better than which, by the ranks that they take.

Demšar: "Statistical Comparisons of Classifiers over Multiple Data Sets", JMLR 7 (2006).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from scipy import stats

from flowad_jax import schema
from flowad_jax.comparison.runs import shown_p
from flowad_jax.errors import UserError
from flowad_jax.report.formats import percent
from flowad_jax.report.results import METRICS, markdown_table, text

ALPHA = 0.05
_RUN = schema.table(
    {
        "category": schema.nullable(schema.TEXT),
        "encoder": schema.TEXT,
        "columns": schema.table({}, others=schema.table({})),
    }
)
_TABLE = schema.table({}, {"runs": schema.array(_RUN)})  # of a sweep; a single run has no runs


class Ranking(NamedTuple):
    """M methods over N categories.

    Attributes:
      metric: that is compared, larger is better.
      names: (M,) of the methods.
      categories: (N,) that all methods have.
      values: (N, M) means over seeds, fractions of 1.
      ranks: (M,) mean ranks; 1 is the best.
      p_value: that all are equal: Friedman's test, or Wilcoxon's signed ranks for two methods.
      critical: mean ranks that differ by more than this differ (Nemenyi, 5 %); None for two.
    """

    metric: str
    names: list[str]
    categories: list[str]
    values: Float[np.ndarray, "N M"]
    ranks: Float[np.ndarray, " M"]
    p_value: float
    critical: float | None


def is_sweep(folder: str) -> bool:
    """Whether a folder holds the table of many runs."""
    return "runs" in _read(folder)


def rank(folders: Sequence[str], metric: str) -> Ranking:
    """Ranks the methods of several sweeps; every encoder of a sweep counts as a method.

    Args:
      folders: of ``flowad train`` with several categories.
      metric: one of `METRICS`.

    Raises:
      UserError: there are fewer than two methods, or fewer than two categories that all have.
    """
    methods: dict[str, dict[str, float]] = {}
    for folder in folders:
        methods |= _methods(folder, metric)
    if len(methods) < 2:
        raise UserError(f"{', '.join(folders)}: one method; name a second sweep to compare with")
    common = sorted(set.intersection(*(set(values) for values in methods.values())))
    if len(common) < 2:
        raise UserError(
            f"the sweeps have {len(common)} categories with {metric} in common: 2 needed"
        )
    values = np.array([[own[category] for own in methods.values()] for category in common])
    ranks = stats.rankdata(-values, axis=1)
    critical = critical_difference(*values.shape) if len(methods) > 2 else None
    p_value = _p_value(values)
    return Ranking(metric, [*methods], common, values, ranks.mean(axis=0), p_value, critical)


def critical_difference(categories: int, methods: int, alpha: float = ALPHA) -> float:
    """The least difference of mean ranks that chance does not explain (Nemenyi)."""
    quantile = stats.studentized_range.ppf(1 - alpha, methods, np.inf) / math.sqrt(2)
    return float(quantile * math.sqrt(methods * (methods + 1) / (6 * categories)))


def _p_value(values: Float[np.ndarray, "N M"]) -> float:
    if (values == values[:, :1]).all():
        return 1.0
    if values.shape[1] > 2:
        return float(stats.friedmanchisquare(*values.T).pvalue)
    return float(stats.wilcoxon(values[:, 0], values[:, 1]).pvalue)


def _read(folder: str) -> dict[str, Any]:
    return schema.read(Path(folder) / "results.json", _TABLE, "name a folder of flowad train")


def _methods(folder: str, metric: str) -> dict[str, dict[str, float]]:
    """Means over seeds by category, for every encoder of a sweep."""
    runs = _read(folder)["runs"]
    encoders = list(dict.fromkeys(run["encoder"] for run in runs))
    found = {}
    for encoder in encoders:
        seeds: dict[str, list[float]] = {}
        for run in runs:
            value = run["columns"].get("last", {}).get(metric)
            if run["encoder"] == encoder and value is not None:
                seeds.setdefault(run["category"] or "all images", []).append(value)
        name = f"{folder}, {encoder}" if len(encoders) > 1 else folder
        found[name] = {category: float(np.mean(values)) for category, values in seeds.items()}
    return found


def markdown(found: Ranking) -> str:
    """Returns the table for people, and what the tests say."""
    head = [f"{METRICS[found.metric]}, percent", *map(text, found.names)]
    rows = [head, ["---", *["---:"] * len(found.names)]]
    for category, values in zip(found.categories, found.values, strict=True):
        rows.append([text(category), *map(percent, values)])
    rows.append(["**mean**", *(f"**{percent(value)}**" for value in found.values.mean(axis=0))])
    rows.append(["mean rank", *(f"{value:.2f}" for value in found.ranks)])
    return f"{markdown_table(rows)}\n\n{_verdict(found)}\n"


def _verdict(found: Ranking) -> str:
    test = "Wilcoxon" if found.critical is None else "Friedman"
    verdict = f"That all are equal: p {shown_p(found.p_value)} ({test})."
    if found.critical is None:
        return verdict
    verdict += f" Mean ranks that differ by more than {found.critical:.2f} differ (Nemenyi, 5 %)"
    better = [
        f"{text(found.names[i])} is better than {text(found.names[j])}"
        for i, j in np.ndindex(len(found.names), len(found.names))
        if found.ranks[j] - found.ranks[i] > found.critical
    ]
    return f"{verdict}: {'; '.join(better) or 'none do'}."


def as_json(found: Ranking) -> dict[str, Any]:
    """Returns the same for programs."""
    plain: Mapping[str, Any] = found._asdict()
    return {**plain, "values": found.values.tolist(), "ranks": found.ranks.tolist()}
