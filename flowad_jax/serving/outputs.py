"""The folder that predictions go to: a line, a heat map, an overlay and a map for every image.

It holds ``predictions.jsonl``, ``predictions.csv``, ``summary.json``, ``heatmaps/``, ``overlays/``
and ``maps/``. A picture is there before the line that names it; what no line names stays as it is.
"""

from __future__ import annotations

import csv
import io
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowad_jax import __version__, files
from flowad_jax.errors import UserError
from flowad_jax.serving import pictures
from flowad_jax.serving.detector import Prediction
from flowad_jax.serving.places import FOLDERS, Places, listed

SUMMARY, LINES, TABLE = "summary.json", "predictions.jsonl", "predictions.csv"
MAP_FORMATS = ("tiff", "npy")
WRITTEN_BY = "predict.py"
COLUMNS = (
    "path", "score", "p_value", "anomalous", "regions", "width", "height", "seconds", "error",
    "reason",
)  # fmt: skip


class Judged(NamedTuple):
    """One image with what the detector said about it.

    Attributes:
      path: the file, as it was found.
      modified: when it was last written, in nanoseconds.
      image: (H, W, 3) uint8.
      prediction: the detector's.
      seconds: of computation, its share of the batch; the first batch also waits for compilers.
    """

    path: Path
    modified: int | None
    image: np.ndarray
    prediction: Prediction
    seconds: float


class Unreadable(NamedTuple):
    """An image that could not be judged, and why."""

    path: Path
    reason: str


class Earlier(NamedTuple):
    """What an earlier call left in an output folder: its summary and its lines, or nothing."""

    summary: dict[str, Any]
    lines: list[dict[str, Any]]


def look(folder: Path) -> Earlier:
    """Reads what an earlier call of predict.py left in a folder.

    Raises:
      UserError: the folder holds files but no output of predict.py, or cannot be read.
    """
    try:
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
        visible = [name for name in names if not name.startswith(".")]
        summary = json.loads((folder / SUMMARY).read_text("utf-8")) if SUMMARY in names else None
        text = (folder / LINES).read_text("utf-8") if LINES in names else ""
    except (OSError, ValueError) as error:
        raise UserError(f"--output: cannot read {folder} ({error}): choose another one") from error
    ours = isinstance(summary, dict) and summary.get("written_by") == WRITTEN_BY
    if visible and not ours:
        raise UserError(
            f"--output: {folder} holds other files, such as '{min(visible)}': choose a new or an "
            "empty folder"
        )
    return Earlier(summary or {}, list(_parsed(text)))


class Output:
    """An output folder to which predictions are added.

    Attributes:
      counts: of the lines: ``anomalous``, ``normal``, ``undecided``, ``unreadable``.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        thresholds: Mapping[str, Any],
        save: Iterable[str] = tuple(FOLDERS),
        map_format: str = MAP_FORMATS[0],
        keep: bool = False,
    ):
        """Takes over a new or empty folder, or the output of an earlier call.

        Args:
          folder: created where missing.
          about: put into the summary.
          thresholds: calibration card of the detector, see `conformal.card`; may be empty.
          save: which of ``heatmap``, ``overlay`` and ``map`` to write.
          map_format: ``"tiff"`` or ``"npy"``.
          keep: add to what an earlier call wrote instead of replacing it.

        Raises:
          UserError: the folder is no output of predict.py, or cannot be written.
        """
        earlier = look(folder)
        self._folder, self._about, self._thresholds = folder, dict(about), dict(thresholds)
        kept = earlier if keep else Earlier({}, [])
        self._scale = pictures.scale_of(thresholds) or kept.summary.get("colour_scale")
        self.counts: Counter[str] = Counter()
        self.summarise()  # from here on the folder counts as an output
        if not keep:
            _remove(folder, earlier.lines)
        suffixes = {"heatmap": ".png", "overlay": ".png", "map": f".{map_format}"}
        self._places = Places(folder, {kind: suffixes[kind] for kind in save}, kept.lines)
        files.write_text(folder / LINES, "")
        files.write_text(folder / TABLE, _row(COLUMNS))
        self._add(kept.lines)

    def add(self, batch: Sequence[Judged | Unreadable]) -> None:
        """Writes the pictures and lines of some images.

        Raises:
          UserError: a file cannot be written.
        """
        maps = [item.prediction.map for item in batch if isinstance(item, Judged)]
        if maps and self._scale is None:
            highest = max(float(values.max()) for values in maps)
            self._scale = pictures.scale_to(highest, "largest value of the first images")
        self._add([self._line(item) for item in batch])

    def summarise(self, finished: bool = False) -> None:
        """Writes the summary, which is up to date after every call of `add` as well."""
        kinds = ("anomalous", "normal", "undecided", "unreadable")
        values = {
            "written_by": WRITTEN_BY,
            "flowad_jax": __version__,
            **self._about,
            "calibration": self._thresholds,
            "images": self.counts.total(),
            **{kind: self.counts[kind] for kind in kinds},
            "colour_scale": self._scale,
            "finished": finished,
        }
        files.write_text(self._folder / SUMMARY, json.dumps(values, indent=2) + "\n")

    def _add(self, lines: Sequence[dict[str, Any]]) -> None:
        text = "".join(json.dumps(line) + "\n" for line in lines)
        _append(self._folder / LINES, text)
        _append(self._folder / TABLE, "".join(_row(_cells(line)) for line in lines))
        self.counts.update(_verdict(line) for line in lines)
        self.summarise()

    def _line(self, judged: Judged | Unreadable) -> dict[str, Any]:
        if isinstance(judged, Unreadable):
            return {"path": str(judged.path), "error": judged.reason}
        found, (height, width) = judged.prediction, judged.image.shape[:2]
        return {
            "path": str(judged.path),
            "score": found.score if math.isfinite(found.score) else None,  # JSON has no infinity
            "p_value": found.p_value,
            "anomalous": None if found.anomalous is None else bool(found.anomalous),
            **({} if found.reason is None else {"reason": found.reason}),
            "regions": [region._asdict() for region in found.regions],
            **self._pictures(judged),
            "width": width,
            "height": height,
            "seconds": round(judged.seconds, 4),
            "modified": judged.modified,
        }

    def _pictures(self, judged: Judged) -> dict[str, str]:
        """Writes the pictures of an image and returns their paths within the folder."""
        assert self._scale is not None
        values, high = judged.prediction.map, self._scale["high"]
        places = self._places.of(str(judged.path))
        for kind, place in places.items():
            with files.replacing(self._folder / place) as temporary:
                if kind == "map":
                    pictures.save_map(temporary, values)
                elif kind == "heatmap":
                    pictures.heatmap(values, high).save(temporary)
                else:
                    pixel = self._thresholds.get("pixel")
                    pictures.overlay(judged.image, values, high, pixel).save(temporary)
        return places


def _parsed(text: str) -> Iterator[dict[str, Any]]:
    """Lines as far as they are whole: a crash may have cut off the last one."""
    for line in text.splitlines():
        try:
            values = json.loads(line)
        except ValueError:
            continue
        if isinstance(values, dict) and isinstance(values.get("path"), str):
            yield values


def _remove(folder: Path, lines: Sequence[Mapping[str, Any]]) -> None:
    """Removes the pictures of an earlier call, and nothing else."""
    with files.writing(folder):
        for line in lines:
            for place in listed(line):
                (folder / place).unlink(missing_ok=True)


def _append(path: Path, text: str) -> None:
    # A file name that is no Unicode, which Linux allows, must not end the run.
    with (
        files.writing(path),
        path.open("a", encoding="utf-8", errors="backslashreplace", newline="") as file,
    ):
        file.write(text)


def _cells(line: Mapping[str, Any]) -> list[Any]:
    cells = {**line, "regions": len(line["regions"]) if "regions" in line else None}
    return [files.spreadsheet_safe(cells.get(column)) for column in COLUMNS]


def _row(cells: Sequence[Any]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _verdict(line: Mapping[str, Any]) -> str:
    if "error" in line:
        return "unreadable"
    return {True: "anomalous", False: "normal", None: "undecided"}[line.get("anomalous")]
