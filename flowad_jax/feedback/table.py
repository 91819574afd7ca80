"""Judgements and verdicts as a table."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from flowad_jax.feedback.store import Row

COLUMNS = (
    *("id", "time", "name", "score", "p_value", "anomalous", "verdict", "verdict_time"),
    *("brightness", "sharpness", "image", "detector"),
)
# Spreadsheets take text that begins so for a formula, in half or full width.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")


def csv_text(rows: Sequence[Row]) -> str:
    """A line for every image; the score is the mean over the parts of the detector."""
    file = io.StringIO()
    table = csv.writer(file, lineterminator="\n")
    table.writerow(COLUMNS)
    for row in rows:
        one = row.judgement
        values: dict[str, Any] = {**one._asdict(), **row._asdict()}
        values["score"] = sum(one.scores) / len(one.scores) if one.scores else None
        values["time"], values["verdict_time"] = _iso(one.time), _iso(row.verdict_time)
        table.writerow([_safe(values[name]) for name in COLUMNS])
    return file.getvalue()


def _iso(seconds: float | None) -> str | None:
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _safe(value: Any) -> Any:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value
