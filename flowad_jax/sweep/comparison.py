"""One table of many runs, generated from their ``results.json``: never typed."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowad_jax import files
from flowad_jax.report import results
from flowad_jax.report.formats import with_interval
from flowad_jax.report.results import COLUMNS, METRICS, markdown_table, text
from flowad_jax.report.scored_images import SYNTHETIC

SHOWN = ("last", "validation", "oracle")
Run = Mapping[str, Any]


def write(path: Path, runs: Sequence[Run], **facts: Any) -> dict[str, Any]:
    """Writes ``results.json``, ``results.md`` and ``results.csv`` of several runs below ``path``.

    Args:
      path: folder to write into.
      runs: for each ``folder`` (relative), ``category``, ``encoder``, ``seed``, ``status`` and
        ``fault``; their metrics are read from ``folder/results.json`` where ``status`` is "done".
      **facts: what else is worth keeping, such as the method.

    Returns:
      The contents of ``results.json``.
    """
    read = [{**run, **_of_run(path, run)} for run in runs]
    found = {**facts, "runs": read, "means": means(read)}
    files.write_text(path / "results.json", json.dumps(found, indent=2, ensure_ascii=False) + "\n")
    files.write_text(path / "results.md", markdown(found))
    files.write_text(path / "results.csv", table(found))
    return found


def _of_run(path: Path, run: Run) -> dict[str, Any]:
    """Metrics of a run by column, and the intervals of its last epoch."""
    if run["status"] != "done":
        return {"columns": {}, "intervals": {}}
    found = results.read(path / run["folder"])
    columns = found["columns"]
    return {
        "columns": {
            name: {metric: columns[name].get(metric) for metric in METRICS}
            for name in SHOWN
            if columns.get(name)
        },
        "intervals": found.get("intervals") or {},
    }


def means(runs: Sequence[Run]) -> list[dict[str, Any]]:
    """Returns means over categories of the means over seeds, for each encoder and column.

    The deviation is that between seeds of the mean over categories, where every category has
    every seed; with a single seed, or where runs are missing, there is none.
    """
    found = []
    for encoder in dict.fromkeys(run["encoder"] for run in runs):
        own = [run for run in runs if run["encoder"] == encoder]
        for column in SHOWN:
            have = sum(column in run["columns"] for run in own)
            if have:
                values = {metric: _statistics(metric, column, own) for metric in METRICS}
                known = {metric: value for metric, value in values.items() if value}
                counts = {"runs": have, "of": len(own)}
                found.append({"encoder": encoder, "column": column, **counts, "metrics": known})
    return found


def _statistics(metric: str, column: str, runs: Sequence[Run]) -> dict[str, float | None] | None:
    """Mean and deviation of a metric over all runs of an encoder."""
    seeds, categories = ({run[key] for run in runs} for key in ("seed", "category"))
    by_category: dict[str, dict[int, float]] = {}
    for run in runs:
        value = run["columns"].get(column, {}).get(metric)
        if value is not None:
            by_category.setdefault(run["category"], {})[run["seed"]] = value
    if not by_category:
        return None
    mean = float(np.mean([np.mean(list(own.values())) for own in by_category.values()]))
    whole = by_category.keys() == categories and all(seeds == set(o) for o in by_category.values())
    per_seed = [np.mean([own[seed] for own in by_category.values()]) for seed in seeds if whole]
    return {"mean": mean, "std": float(np.std(per_seed)) if len(per_seed) > 1 else None}


def markdown(found: Mapping[str, Any]) -> str:
    """Returns the text of ``results.md``: a table for every encoder and column."""
    sections = [f"# {text(found['method'])} on {text(found['data'])}: {len(found['runs'])} runs"]
    for mean in found["means"]:
        runs = [run for run in found["runs"] if run["encoder"] == mean["encoder"]]
        sections.append(f"## {text(mean['encoder'])}, {COLUMNS[mean['column']]}")
        sections.append(_table(runs, mean))
    faults = [
        f"- {text(run['folder'])}: {text(run['fault'] or run['status'])}"
        for run in found["runs"]
        if run["status"] != "done"
    ]
    if faults:
        sections.append("## Without results\n\n" + "\n".join(faults))
    return "\n\n".join(sections) + "\n"


def _table(runs: Sequence[Run], mean: Mapping[str, Any]) -> str:
    metrics, seeds = list(mean["metrics"]), len({run["seed"] for run in runs})
    head = ["percent" + f", {seeds} seeds" * (seeds > 1), *(METRICS[name] for name in metrics)]
    rows = [head, ["---", *["---:"] * len(metrics)]]
    for category in dict.fromkeys(run["category"] for run in runs):
        own = [run for run in runs if run["category"] == category]
        cells = [_cell(own, mean["column"], metric) for metric in metrics]
        rows.append([text(category or "all images"), *cells])
    missing = f" of {mean['runs']} of {mean['of']} runs" * (mean["runs"] < mean["of"])
    values = (_percent(value["mean"], value["std"]) for value in mean["metrics"].values())
    rows.append([f"**mean{missing}**", *(f"**{value}**" for value in values)])
    return markdown_table(rows)


def _cell(runs: Sequence[Run], column: str, metric: str) -> str:
    """Mean and deviation over the seeds of a category; of a single one the interval."""
    values = [run["columns"].get(column, {}).get(metric) for run in runs]
    known = [value for value in values if value is not None]
    if not known:
        return "–"
    if len(runs) == 1 and column == "last":
        return with_interval(known[0], runs[0].get("intervals", {}).get(metric))
    return _percent(float(np.mean(known)), float(np.std(known)) if len(known) > 1 else None)


def _percent(mean: float, std: float | None) -> str:
    return f"{100 * mean:.2f}" + (f" ± {100 * std:.2f}" if std is not None else "")


def table(found: Mapping[str, Any]) -> str:
    """Returns the text of ``results.csv``: a line for every run and column, fractions of 1."""
    seen = {name for mean in found["means"] for name in mean["metrics"]}
    metrics = [name for name in METRICS if not name.startswith(SYNTHETIC) or name in seen]
    lines = [files.csv_row(["category", "encoder", "seed", "status", "column", *metrics])]
    for run in found["runs"]:
        key = [run["category"], run["encoder"], run["seed"], run["status"]]
        for column, values in (run["columns"] or {"": {}}).items():
            lines.append(files.csv_row([*key, column, *map(values.get, metrics)]))
    return "".join(lines)
