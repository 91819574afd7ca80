r"""The folder that predictions go to: a line, a heat map, an overlay and a map for every image.

It holds ``predictions.jsonl``, ``predictions.csv``, ``summary.json``, ``heatmaps/``, ``overlays/``
and ``maps/``. A picture is there before the line that names it; what no line names stays as it is.
A byte of a file name that is not UTF-8 stands in the lines as Python's ``surrogateescape`` has it,
byte FF as ``\udcff``: ``os.fsencode(line["path"])`` is the name itself.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowad_jax import __version__, files, schema
from flowad_jax.errors import UserError, printable
from flowad_jax.serving import pictures, tables
from flowad_jax.serving.detector import Prediction
from flowad_jax.serving.places import FOLDERS, Places
from flowad_jax.serving.tables import LINES, SUMMARY, Line
from flowad_jax.serving.watch import Identity

MAP_FORMATS = ("tiff", "npy")
WRITTEN_BY = "predict.py"
KINDS = ("anomalous", "normal", "undecided", "unreadable")
NAMED = 5  # skipped files in the summary
_SUMMARY = schema.table(
    {"written_by": {"enum": [WRITTEN_BY]}},
    {"colour_scale": schema.nullable(schema.table({"high": schema.number(above=0)}))},
)


class Judged(NamedTuple):
    """One image with what the detector said about it.

    Attributes:
      path: the file, as it was found.
      file: its identity when it was read; None if it vanished.
      image: (H, W, 3) uint8, or None where no overlay is written.
      prediction: the detector's.
      seconds: of computation, its share of the batch; the first batch also waits for compilers.
    """

    path: Path
    file: Identity | None
    image: np.ndarray | None
    prediction: Prediction
    seconds: float


class Unreadable(NamedTuple):
    """An image that could not be judged, why, and its identity, which is None if it is gone."""

    path: Path
    file: Identity | None
    reason: str


class Earlier(NamedTuple):
    """What an earlier call left in an output folder: its summary and its lines, or nothing."""

    summary: dict[str, Any]
    lines: list[Line]


def check(folder: Path) -> dict[str, Any]:
    """Returns the summary that an earlier call left in a folder; empty for a new or empty folder.

    Raises:
      UserError: the folder holds files but no output of predict.py, or cannot be read.
    """
    try:
        names = [path.name for path in folder.iterdir()] if folder.exists() else []
    except OSError as error:
        raise UserError(f"--output: cannot read {folder} ({error}): choose another one") from error
    visible = [name for name in names if not name.startswith(".")]
    if visible and SUMMARY not in visible:
        raise UserError(
            f"--output: {folder} holds other files, such as '{min(visible)}': choose a new or an "
            "empty folder"
        )
    fix = "this is no output of predict.py: choose another folder for --output"
    return schema.read(folder / SUMMARY, _SUMMARY, fix) if visible else {}


def take_over(folder: Path) -> Earlier:
    """Reads an output, after finishing or undoing what a call that was killed had begun.

    Raises:
      UserError: as for `check`.
    """
    check(folder)
    tables.settle(folder)
    return Earlier(check(folder), tables.read(folder / LINES))


class Output:
    """An output folder to which predictions are added.

    Attributes:
      counts: of the lines: ``anomalous``, ``normal``, ``undecided``, ``unreadable``.
      shows_images: whether pictures are written that show the image itself.
      replaces: whether an earlier output is there, which stays until `finish`.
    """

    def __init__(
        self,
        folder: Path,
        earlier: Earlier,
        about: Mapping[str, Any],
        thresholds: Mapping[str, Any],
        save: Collection[str] = tuple(FOLDERS),
        map_format: str = MAP_FORMATS[0],
        keep: bool = False,
    ):
        """Takes over a new or empty folder, or the output of an earlier call.

        Args:
          folder: created where missing.
          earlier: what `take_over` found in it.
          about: put into the summary.
          thresholds: calibration card of the detector, see `conformal.card`; may be empty.
          save: which of ``heatmap``, ``overlay`` and ``map`` to write.
          map_format: ``"tiff"`` or ``"npy"``.
          keep: add to what an earlier call wrote. Otherwise `finish` replaces that, and until then
            it stays as it is.

        Raises:
          UserError: the folder cannot be written.
        """
        self._folder, self._about, self._thresholds = folder, dict(about), dict(thresholds)
        kept = earlier if keep else Earlier({}, [])
        self._scale = pictures.scale_of(thresholds) or kept.summary.get("colour_scale")
        self.counts = Counter(map(_verdict, kept.lines))
        suffixes = {"heatmap": ".png", "overlay": ".png", "map": f".{map_format}"}
        self._places = Places(folder, {kind: suffixes[kind] for kind in save}, kept.lines)
        self.shows_images = "overlay" in save
        self.replaces = bool(earlier.summary) and not keep
        self._target = tables.stage(folder) if self.replaces else folder
        if not self.replaces:
            self._summarise()  # from here on the folder counts as an output
        tables.mend(self._target)

    def add(self, batch: Sequence[Judged | Unreadable]) -> None:
        """Writes the pictures and lines of some images.

        Raises:
          UserError: a file cannot be written.
        """
        maps = [item.prediction.map for item in batch if isinstance(item, Judged)]
        if maps and self._scale is None:
            highest = max(float(values.max()) for values in maps)
            self._scale = pictures.scale_to(highest, "largest value of the first images")
        lines = [self._line(item) for item in batch]
        tables.append(self._target, lines)
        self.counts.update(map(_verdict, lines))
        if not self.replaces:
            self._summarise()

    def finish(self, skipped: Collection[Path] = (), finished: bool = True) -> None:
        """Writes the last summary; what is finished takes the place of an earlier output.

        Args:
          skipped: files of the inputs that are no images.
          finished: whether all images were judged.

        Raises:
          UserError: a file cannot be written.
        """
        if finished or not self.replaces:
            self._summarise(skipped, finished)
        tables.settle(self._folder)

    def _summarise(self, skipped: Collection[Path] = (), finished: bool = False) -> None:
        values = {
            "written_by": WRITTEN_BY,
            "flowad_jax": __version__,
            **self._about,
            "calibration": self._thresholds,
            "images": self.counts.total(),
            **{kind: self.counts[kind] for kind in KINDS},
            "skipped": {"count": len(skipped), "first": [*map(str, skipped)][:NAMED]},
            "colour_scale": self._scale,
            "finished": finished,
        }
        files.write_text(self._target / SUMMARY, json.dumps(values, indent=2) + "\n")

    def _line(self, judged: Judged | Unreadable) -> dict[str, Any]:
        if isinstance(judged, Unreadable):
            error = printable(judged.reason)
            return {"path": str(judged.path), "error": error, **_state(judged.file)}
        found, (height, width) = judged.prediction, judged.prediction.map.shape
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
            **_state(judged.file),
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
                elif judged.image is not None:
                    pixel = self._thresholds.get("pixel")
                    pictures.overlay(judged.image, values, high, pixel).save(temporary)
        return places


def _state(file: Identity | None) -> dict[str, Any]:
    return file._asdict() if file else {}


def _verdict(line: Mapping[str, Any]) -> str:
    if "error" in line:
        return "unreadable"
    anomalous = line.get("anomalous")
    return "anomalous" if anomalous is True else "normal" if anomalous is False else "undecided"
