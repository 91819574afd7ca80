"""The folder that predictions go to: a line and up to three pictures for every image.

A picture is there before the line that names it, lines are only ever added, and no file that is
there already is written over.
"""

from __future__ import annotations

import contextlib
import csv
import io
import json
import math
import os
import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from . import pictures
from .detector import Prediction
from .drift import Drift
from .errors import UserError, printable

SUMMARY, LINES, TABLE = "summary.json", "predictions.jsonl", "predictions.csv"
FOLDERS = {"heatmap": "heatmaps", "overlay": "overlays", "map": "maps"}
COLUMNS = (
    "path", "score", "p_value", "anomalous", "regions", "width", "height", "seconds", "error",
    "reason", "decided_by",
)  # fmt: skip
WRITTEN_BY = "run.py"
NAMED = 5  # skipped files in the summary
_DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)\d", re.IGNORECASE)  # what Windows takes for one
# Spreadsheets take the full-width forms of = + - @ for the plain ones.
_FORMULA = tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")

Line = dict[str, Any]


def check(folder: Path, is_continued: bool) -> dict[str, Any]:
    """Returns the summary of an output that is continued; empty for a new or an empty folder.

    Raises:
      UserError: the folder holds anything else, which stays as it is.
    """
    names = [name for name in os.listdir(folder) if name[0] != "."] if folder.exists() else []
    if not names:
        return {}
    summary = _parse((folder / SUMMARY).read_bytes()) if SUMMARY in names else None
    is_ours = summary is not None and summary.get("written_by") == WRITTEN_BY
    if summary is not None and is_ours and is_continued:
        return summary
    what = "an earlier output" if is_ours else f"other files, such as '{min(names)}'"
    raise UserError(f"--output: {folder} holds {what}: choose a new or an empty folder")


def _parse(text: bytes) -> Line | None:
    try:
        line = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return line if isinstance(line, dict) else None


@contextlib.contextmanager
def owning(folder: Path) -> Iterator[None]:
    """Keeps a folder, created if need be, to this process, where the system has such locks.

    Raises:
      UserError: another process has it.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / ".lock", "ab") as file:
        try:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{folder} is in use by another process: wait until it ends") from None
        except (ImportError, OSError):
            pass  # Windows, or a file system without locks
        yield


class Output:
    """An output folder to which predictions are added.

    Attributes:
      lines: of an earlier call, which are continued.
      counts: of the lines: ``anomalous``, ``normal``, ``undecided``, ``unreadable``.
      shows_images: whether pictures are written that show the image itself.
      drift: the statistic of the images in the order of their lines; None if it is not asked for.
    """

    def __init__(
        self,
        folder: Path,
        about: Mapping[str, Any],
        thresholds: Mapping[str, Any],
        save: Collection[str] = tuple(FOLDERS),
        map_format: str = "tiff",
        drift: Drift | None = None,
    ) -> None:
        """Begins in an empty folder, or continues what passed `check`.

        Args:
          folder: the folder.
          about: the detector, for the summary.
          thresholds: its calibration card; may be empty.
          save: kinds of pictures to write, of `FOLDERS`.
          map_format: ``"tiff"`` or ``"npy"``.
          drift: that nothing was added to.

        Raises:
          UserError: another detector wrote there.
        """
        self._folder, self._about = folder, {**about, "calibration": dict(thresholds)}
        self._save, self._map_format = save, map_format
        self._pixel, self._high = thresholds.get("pixel"), pictures.scale_of(thresholds)
        self._last: Counter[str] = Counter()  # number of a name, so that many equal ones are fast
        summary = check(folder, True)
        if summary and {key: summary.get(key) for key in self._about} != self._about:
            raise UserError(
                f"--output: {folder} holds predictions of another detector or false-alarm rate: "
                "choose another folder to watch into"
            )
        content = (folder / LINES).read_bytes() if (folder / LINES).exists() else b""
        self.lines = [x for x in map(_parse, content.split(b"\n")) if x and "path" in x]
        self.counts = Counter(map(_verdict, self.lines))
        self.drift = drift
        for line in self.lines:
            self._follow(line)
        self.shows_images = "overlay" in save
        self.write_summary()  # from here on the folder counts as an output
        whole = "".join(json.dumps(line) + "\n" for line in self.lines)  # none is cut off
        _write(folder / LINES, lambda file: file.write(whole.encode()))
        rows = _row(COLUMNS) + "".join(map(_table_row, self.lines))
        _write(folder / TABLE, lambda file: file.write(_encode(rows)))

    def add(
        self,
        path: Path,
        found: Prediction | str,
        pixels: np.ndarray | None,
        seconds: float,
        state: Mapping[str, Any],
    ) -> None:
        """Adds an image: its pictures, and its line.

        Args:
          path: the file.
          found: what the detector says, or why the image could not be judged.
          pixels: (H, W, 3) uint8, for an overlay.
          seconds: of computation.
          state: of the file, by which it is known again.
        """
        line: Line = {"path": str(path)}
        if isinstance(found, str):
            line["error"] = printable(found)
        else:
            height, width = found.map.shape
            line |= {
                "score": found.score if math.isfinite(found.score) else None,
                "p_value": found.p_value,
                "anomalous": found.anomalous,
                "decided_by": found.decided_by,
                **({"reason": found.reason} if found.reason else {}),
                "regions": [region._asdict() for region in found.regions],
                **self._write_pictures(path, found, pixels),
                **({"scores": found.scores} if len(found.scores) > 1 else {}),
                "brightness": found.brightness,
                "sharpness": found.sharpness,
                "width": width,
                "height": height,
                "seconds": round(seconds, 4),
            }
        line |= state
        for name, text in ((LINES, json.dumps(line) + "\n"), (TABLE, _table_row(line))):
            with open(self._folder / name, "ab") as file:
                file.write(_encode(text))
        self.counts[_verdict(line)] += 1
        self._follow(line)

    def _follow(self, line: Line) -> None:
        if self.drift:
            self.drift.add_line(line)

    def write_summary(self, skipped: Sequence[str] = (), finished: bool = False) -> None:
        """Writes the summary of the lines so far; the last one with what was skipped."""
        verdicts = ("anomalous", "normal", "undecided", "unreadable")
        values = {
            "written_by": WRITTEN_BY,
            **self._about,
            "images": self.counts.total(),
            **{verdict: self.counts[verdict] for verdict in verdicts},
            "skipped": {"count": len(skipped), "first": skipped[:NAMED]},
            "colour_scale": self._high and {"low": 0.0, "high": self._high},
            **({"drift": self.drift.record()} if self.drift else {}),
            "finished": finished,
        }
        text = json.dumps(values, indent=2) + "\n"
        _write(self._folder / SUMMARY, lambda file: file.write(text.encode()))

    def _write_pictures(self, path: Path, found: Prediction, pixels: np.ndarray | None) -> Line:
        self._high = high = self._high or pictures.scale_to(found.map)
        places, values = self._places(path), found.map
        for kind, place in places.items():
            if kind == "map":
                _write(self._folder / place, partial(pictures.save_map, values, self._map_format))
                continue
            picture = pictures.heatmap(values, high)
            if kind == "overlay" and pixels is not None:
                picture = pictures.overlay(pixels, values, high, self._pixel, found.regions)
            _write(self._folder / place, partial(picture.save, format="PNG"))
        return places

    def _places(self, path: Path) -> dict[str, str]:
        """File names for the pictures of an image, which every file system takes and none has."""
        kept = "".join(x if x.isalnum() or x == "_" else "-" for x in path.stem)
        name = re.sub("-+", "-", kept).strip("-")[:40] or "image"
        name = f"image-{name}" if _DEVICE.fullmatch(name) else name
        ends = {"heatmap": "png", "overlay": "png", "map": self._map_format}
        while True:
            self._last[name] += 1
            number = f"-{self._last[name]}" * (self._last[name] > 1)
            places = {kind: f"{FOLDERS[kind]}/{name}{number}.{ends[kind]}" for kind in self._save}
            if not any(os.path.lexists(self._folder / place) for place in places.values()):
                return places


def _write(path: Path, write: Callable[[BinaryIO], Any]) -> None:
    """Writes a file that is whole or not there, whenever the program is ended."""
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        with open(part, "wb") as file:
            write(file)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _verdict(line: Mapping[str, Any]) -> str:
    if "error" in line:
        return "unreadable"
    anomalous = line.get("anomalous")
    return "anomalous" if anomalous is True else "normal" if anomalous is False else "undecided"


def _table_row(line: Mapping[str, Any]) -> str:
    regions = line.get("regions")
    cells = {**line, "regions": len(regions) if isinstance(regions, list) else None}
    return _row([cells.get(column) for column in COLUMNS])


def _row(cells: Sequence[Any]) -> str:
    """A line of a CSV file; text that a spreadsheet takes for a formula gets a leading quote."""
    safe = [f"'{x}" if isinstance(x, str) and x.startswith(_FORMULA) else x for x in cells]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(safe)
    return text.getvalue()


def _encode(text: str) -> bytes:
    return text.encode(errors="backslashreplace")  # a file name that is not UTF-8
