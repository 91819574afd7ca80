"""What a run found, for programs (``results.json``) and for people (``results.md``)."""

from __future__ import annotations

import contextlib
import json
import math
import os
import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import quote

from flowad_jax import files, schema
from flowad_jax.errors import printable
from flowad_jax.report.formats import flatten, with_interval
from flowad_jax.report.scored_images import SYNTHETIC, SYNTHETIC_NOTE, WITHOUT_METRICS

REQUIRED = ("method", "data", "encoder", "seed", "columns", "timing", "versions")
COLUMNS = {
    "last": "last epoch",
    "converted": "converted checkpoint (its epoch is its trainer's choice, maybe made on test)",
    "validation": "validation (epoch chosen on held-out good images)",
    "oracle": "oracle (best epoch on test: not comparable)",
}
METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image average precision",
    "pixel_auroc": "pixel AUROC",
    "pixel_ap": "pixel average precision",
    "pixel_f1_max": "pixel F1, best threshold",
    "aupro_0.30": "AUPRO, false positive rate up to 0.30",
    "aupro_0.05": "AUPRO, false positive rate up to 0.05",
}
FURTHER = {
    "seg_f1": "SegF1, pixels at the detector's own threshold",
    "aupro_released": "AUPRO as the released program computes it, not comparable",
    "aupimo": "AUPIMO, false positive rate 1e-5 to 1e-4",
    "au_spro": "AU-sPRO, false positive rate up to 0.05",
    "sample_auroc": "sample AUROC, by the highest score of its images",
}
METRICS |= {f"{SYNTHETIC}{name}": f"synthetic {title}" for name, title in METRICS.items()}
INTERVALS_NOTE = (
    "In brackets: 95 % intervals over test images of the same kinds and numbers (DeLong for image "
    "AUROC, bootstrap for the others); another training would differ besides."
)
PACKAGES = (
    "flowad-jax jax jaxlib flax optax distrax orbax-checkpoint numpy scipy scikit-learn pillow"
)

_MARKUP = str.maketrans({mark: f"\\{mark}" for mark in "\\`*[]|"} | {"&": "&amp;", "<": "&lt;"})
_LINK = re.compile(r"://|\bwww\.|@", re.IGNORECASE)  # what viewers turn into links by themselves
_LINKS = str.maketrans({":": "&#58;", ".": "&#46;", "@": "&#64;"})


_METRIC = schema.nullable(schema.number(0, 1))
_COLUMN = schema.table({}, dict.fromkeys(METRICS, _METRIC))
_RESULTS = schema.table(
    {
        "columns": {
            **schema.table({}, others=_COLUMN),
            "anyOf": [{"required": ["last"]}, {"required": ["converted"]}],
            "description": "a table with the column 'last' or 'converted'",
        }
    }
)


def read(workdir: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads the ``results.json`` of a run; only its metrics are checked, which others rely on.

    Raises:
      UserError: it is missing, damaged, or not of a run.
    """
    path = Path(workdir) / "results.json"
    return schema.read(path, _RESULTS, f"flowad eval --workdir={workdir} writes it anew")


def final(columns: Mapping[str, Mapping[str, Any]]) -> str:
    """The name of the column that a run is reported by."""
    return "converted" if "converted" in columns else "last"


def write(workdir: str | os.PathLike[str], results: Mapping[str, Any]) -> None:
    """Writes ``results.json`` and ``results.md``; either file is replaced whole or not at all.

    Args:
      workdir: folder of the run; created where it is missing.
      results: ``method`` and ``seed``; the tables ``data``, ``encoder`` (``name``, ``sha256``),
        ``timing`` and ``versions``; ``columns`` from names in `COLUMNS`
        to metrics as fractions of 1. May hold more; of that, ``results.md`` shows ``findings``
        (lines about the files of the data set), ``undefined`` (metric to reason), ``commands``
        (command lines) and ``pictures`` (paths under
        ``workdir``). A number that is not finite becomes ``null``.

    Raises:
      UserError: the folder cannot be written.
      ValueError: a required entry is missing.
    """
    missing = [key for key in REQUIRED if key not in results]
    if missing:
        raise ValueError(f"results lack {', '.join(missing)}")
    plain = _plain(results)
    strict = json.dumps(plain, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    files.write_text(Path(workdir) / "results.json", strict)
    files.write_text(Path(workdir) / "results.md", markdown(plain))


def versions() -> dict[str, str]:
    """Returns the versions of Python, the operating system and the packages that compute."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for name in PACKAGES.split():
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[name] = metadata.version(name)
    return found


def markdown(results: Mapping[str, Any]) -> str:
    """Returns the text of ``results.md`` for results without numbers that are not finite."""
    without = WITHOUT_METRICS.get(str(results.get("scored_images")), "")
    sections = [
        f"# {text(results['method'])}",
        f"{without[:1].upper()}{without[1:]}." if without else "",
        SYNTHETIC_NOTE if results.get("scored_images") == "synthetic" else "",
        _metric_table(results),
        *([_findings(results["findings"])] if results.get("findings") else []),
        "## Data\n\n" + _table(results["data"]),
        "## Encoder\n\n" + _table(results["encoder"]),
        "## Run\n\n" + _table(_scalars(results) | results["timing"]),
    ]
    if results.get("commands"):
        sections.append(
            "## Commands\n\n" + "\n".join(f"    {printable(line)}" for line in results["commands"])
        )
    if results.get("pictures"):
        sections.append("## Pictures\n\n" + "\n\n".join(map(_picture, results["pictures"])))
    sections.append("## Versions\n\n" + _table(results["versions"]))
    return "\n\n".join(filter(None, sections)) + "\n"


def _plain(value: Any) -> Any:
    """Turns arrays, paths and tuples into what strict JSON knows, and NaN into None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # NumPy and jax, scalars and arrays
        return _plain(value.tolist())
    if isinstance(value, os.PathLike):
        return Path(value).as_posix()
    if isinstance(value, (list, tuple, set, frozenset)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def _metric_table(results: Mapping[str, Any]) -> str:
    """Metrics in percent, one row each; below, what intervals are, and why a value is missing."""
    columns = {name: values for name, values in results["columns"].items() if values}
    if not columns:
        return ""
    sure = {final(columns): results.get("intervals") or {}}
    rows = [["metric, in percent", *(COLUMNS.get(name, name) for name in columns)]]
    rows.append(["---"] + ["---:"] * len(columns))
    for metric, title in METRICS.items():
        if any(metric in values for values in columns.values()):
            rows.append([title, *metric_cells(metric, columns, sure)])
    for other in dict.fromkeys(name for values in columns.values() for name in values):
        if other not in METRICS:
            rows.append([text(other), *(text(values.get(other)) for values in columns.values())])
    notes = [
        f"No {'; '.join(titles)}: {text(reason)}."
        for reason, titles in missing_metrics(results.get("undefined", {})).items()
    ]
    rows += further_rows(results, len(columns))
    notes = [INTERVALS_NOTE] * bool(*sure.values()) + notes
    return "\n\n".join([markdown_table(rows), *notes])


def further_rows(results: Mapping[str, Any], width: int) -> list[list[str]]:
    """Rows of the metrics that only the final state has, for a table of so many columns."""
    rows = []
    for name, figure in (results.get("further") or {}).items():
        metric, _, kind = name.partition("/")
        title = FURTHER.get(metric, metric) + f", {kind}" * bool(kind)
        value = with_interval(figure["value"], figure["interval"])
        rows.append([title, value, *[""] * (width - 1)])
    return rows


def metric_cells(
    metric: str,
    columns: Mapping[str, Mapping[str, float | None]],
    sure: Mapping[str, Mapping[str, Sequence[float]]],
) -> list[str]:
    """A metric in every column, with its intervals by column and metric."""
    return [
        with_interval(values.get(metric), sure.get(name, {}).get(metric))
        for name, values in columns.items()
    ]


def missing_metrics(reasons: Mapping[str, str]) -> dict[str, list[str]]:
    """Titles of the metrics that have no value, by the reason why."""
    titles: dict[str, list[str]] = {}
    for metric, reason in reasons.items():
        titles.setdefault(reason, []).append(METRICS.get(metric, metric))
    return titles


def _findings(lines: Iterable[str]) -> str:
    return "## Findings\n\n" + "\n".join(f"- {text(line)}" for line in lines)


def _scalars(results: Mapping[str, Any]) -> dict[str, Any]:
    """Seed, and whatever else is said about the run in one word."""
    return {
        key: value
        for key, value in results.items()
        if key != "method" and not isinstance(value, (Mapping, list))
    }


def _table(entries: Mapping[str, Any]) -> str:
    """Names and values; tables inside tables get dotted names."""
    rows = [[text(key), text(value)] for key, value in flatten(entries).items()]
    return markdown_table([["", ""], ["---", "---"], *rows])


def markdown_table(rows: Iterable[Iterable[str]]) -> str:
    """Rows of cells, the first of them the head and the second its rule, in Markdown."""
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def text(value: Any) -> str:
    """A value for Markdown, within a line or a table cell; no letter of it is markup or a link."""
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return ", ".join(map(text, value))
    plain = printable(" ".join(str(value).split()))
    return _LINK.sub(lambda found: found[0].translate(_LINKS), plain.translate(_MARKUP))


def _picture(path: str) -> str:
    return f"![{Path(path).stem.replace('_', ' ')}]({quote(path)})"
