r"""The folder that predictions go to: a line, a heat map, an overlay and a map for every image.

It holds ``predictions.jsonl``, ``predictions.csv``, ``summary.json``, ``heatmaps/``, ``overlays/``
and ``maps/``. A picture is there before the line that names it; what no line names stays as it is.
A byte of a file name that is not UTF-8 stands in the lines as Python's ``surrogateescape`` has it,
byte FF as ``\udcff``: ``os.fsencode(line["path"])`` is the name itself.
"""

from __future__ import annotations

import json
import math
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowad_jax import files, schema
from flowad_jax.data.inputs import Identity
from flowad_jax.errors import UserError, printable
from flowad_jax.flowad_runtime.drift import Drift
from flowad_jax.inference import output_lines, pictures
from flowad_jax.inference.output_lines import LINES, SUMMARY, Line
from flowad_jax.inference.output_paths import FOLDERS, OutputPaths
from flowad_jax.inference.prediction import Prediction
from flowad_jax.version import __version__

MAP_FORMATS = ("tiff", "npy")
NAMED = 5  # skipped files in the summary
_WRITTEN_BY = "predict.py"
_VERDICTS = ("anomalous", "normal", "undecided", "unreadable")
_SUMMARY = schema.table(
    {"written_by": {"enum": [_WRITTEN_BY]}},
    {"colour_scale": schema.nullable(schema.table({"high": schema.number(above=0)}))},
)


class PredictedImage(NamedTuple):
    """An image file with what the detector said about it, or why it said nothing.

    Attributes:
      path: the file, as it was found.
      file: its identity when it was read; None if it vanished.
      prediction: the detector's; None if there is an error.
      pixels: (H, W, 3) uint8, or None where no overlay is written.
      seconds: of computation, its share of the batch; the first batch also waits for compilers.
      error: why it could not be judged.
    """

    path: Path
    file: Identity | None
    prediction: Prediction | None = None
    pixels: np.ndarray | None = None
    seconds: float = 0.0
    error: str | None = None


class PreviousOutput(NamedTuple):
    """What an earlier call left in an output folder: its summary and its lines, or nothing."""

    summary: dict[str, Any]
    lines: list[Line]


def read_summary(folder: Path) -> dict[str, Any]:
    """Returns the summary that an earlier call left in a folder; empty for a new or empty folder.

    Raises:
      UserError: the folder holds files but no output of flowad predict, or cannot be read.
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
    fix = "this is no output of flowad predict: choose another folder for --output"
    return schema.read(folder / SUMMARY, _SUMMARY, fix) if visible else {}


def read_existing(folder: Path) -> PreviousOutput:
    """Reads an output, after finishing or undoing what a call that was killed had begun.

    Raises:
      UserError: as for `read_summary`.
    """
    read_summary(folder)
    output_lines.end_replacement(folder)
    return PreviousOutput(read_summary(folder), output_lines.read(folder / LINES))


class Output:
    """An output folder to which predictions are added.

    Attributes:
      counts: of the lines: ``anomalous``, ``normal``, ``undecided``, ``unreadable``.
      shows_images: whether pictures are written that show the image itself.
      replaces: whether an earlier output is there, which stays until `finish`.
      drift: the statistic of the images in the order of their lines; None if it is not asked for.
    """

    def __init__(
        self,
        folder: Path,
        previous: PreviousOutput,
        about: Mapping[str, Any],
        thresholds: Mapping[str, Any],
        save: Collection[str] = tuple(FOLDERS),
        map_format: str = MAP_FORMATS[0],
        keep: bool = False,
        drift: Drift | None = None,
    ):
        """Takes over a new or empty folder, or the output of an earlier call.

        Args:
          folder: created where missing.
          previous: what `read_existing` found in it.
          about: for the summary: ``workdir`` and ``method``.
          thresholds: calibration card of the detector, see `Decisions`; may be empty.
          save: kinds of pictures to write, of `FOLDERS`.
          map_format: one of `MAP_FORMATS`.
          keep: add to what an earlier call wrote, which `finish` replaces otherwise.
          drift: that nothing was added to.

        Raises:
          UserError: the folder cannot be written, or is to be kept but holds predictions of
            another detector.
        """
        self._folder, self._thresholds = folder, dict(thresholds)
        self._about = {**about, "calibration": self._thresholds}
        kept = previous if keep else PreviousOutput({}, [])
        if kept.summary:
            self._check_same(kept.summary)
        self._scale = pictures.scale_of(thresholds) or kept.summary.get("colour_scale")
        self.counts = Counter(map(_verdict, kept.lines))
        self.drift = drift
        self._follow(kept.lines)
        suffixes = {"heatmap": ".png", "overlay": ".png", "map": f".{map_format}"}
        self._paths = OutputPaths(folder, {kind: suffixes[kind] for kind in save}, kept.lines)
        self.shows_images = "overlay" in save
        self.replaces = bool(previous.summary) and not keep
        self._target = output_lines.begin_replacement(folder) if self.replaces else folder
        if not self.replaces:
            self._write_summary()  # from here on the folder counts as an output
        output_lines.repair(self._target)

    def add(self, images: Sequence[PredictedImage]) -> None:
        """Writes the pictures and lines of some images; a `UserError` if that cannot be."""
        maps = [image.prediction.map for image in images if image.prediction]
        if maps and self._scale is None:
            self._scale = pictures.scale_to(max(float(values.max()) for values in maps))
        lines = [self._line(image) for image in images]
        output_lines.append(self._target, lines)
        self._follow(lines)
        self.counts.update(map(_verdict, lines))
        if not self.replaces:
            self._write_summary()

    def _follow(self, lines: Sequence[Line]) -> None:
        for line in lines:
            if self.drift:
                self.drift.add_line(line)

    def finish(self, skipped: Collection[Path] = (), finished: bool = True) -> None:
        """Writes the last summary; what is finished takes the place of an earlier output.

        Args:
          skipped: files of the inputs that are no images.
          finished: whether all images were judged.
        """
        if finished or not self.replaces:
            self._write_summary(skipped, finished)
        output_lines.end_replacement(self._folder)

    def _check_same(self, summary: Mapping[str, Any]) -> None:
        """Lines of two detectors, or of two thresholds, must not mix."""
        stored = {key: summary.get(key) for key in self._about}
        if isinstance(stored["workdir"], str):
            stored["workdir"] = os.path.realpath(stored["workdir"])
        if json.loads(json.dumps(self._about)) != stored:  # as JSON has it: a tuple is a list there
            raise UserError(
                f"--output: {self._folder} holds predictions of another detector or false-alarm "
                "rate: choose another folder to watch into"
            )

    def _write_summary(self, skipped: Collection[Path] = (), finished: bool = False) -> None:
        values = {
            "written_by": _WRITTEN_BY,
            "flowad_jax": __version__,
            **self._about,
            "images": self.counts.total(),
            **{verdict: self.counts[verdict] for verdict in _VERDICTS},
            "skipped": {"count": len(skipped), "first": [*map(str, skipped)][:NAMED]},
            "colour_scale": self._scale,
            **({"drift": self.drift.record()} if self.drift else {}),
            "finished": finished,
        }
        files.write_text(self._target / SUMMARY, json.dumps(values, indent=2) + "\n")

    def _line(self, image: PredictedImage) -> Line:
        state = image.file._asdict() if image.file else {}
        if (found := image.prediction) is None:
            return {"path": str(image.path), "error": printable(image.error or ""), **state}
        height, width = found.map.shape
        return {
            "path": str(image.path),
            "score": found.score if math.isfinite(found.score) else None,  # JSON has no infinity
            "p_value": found.p_value,
            "anomalous": found.anomalous,
            "decided_by": found.decided_by,
            **({} if found.reason is None else {"reason": found.reason}),
            "regions": [region._asdict() for region in found.regions],
            **self._write_pictures(str(image.path), found, image.pixels),
            **({"scores": found.scores} if len(found.scores) > 1 else {}),
            "brightness": found.brightness,
            "sharpness": found.sharpness,
            "width": width,
            "height": height,
            "seconds": round(image.seconds, 4),
            **state,
        }

    def _write_pictures(
        self, path: str, found: Prediction, pixels: np.ndarray | None
    ) -> dict[str, str]:
        """Writes the pictures of an image and returns their paths within the folder."""
        assert self._scale is not None
        high, paths, values = self._scale["high"], self._paths.of(path), found.map
        for kind, place in paths.items():
            with files.atomic_write(self._folder / place) as temporary:
                if kind == "map":
                    pictures.save_map(temporary, values)
                elif kind == "heatmap":
                    pictures.heatmap(values, high).save(temporary)
                elif pixels is not None:
                    threshold = self._thresholds.get("pixel")
                    drawn = pictures.overlay(pixels, values, high, threshold, found.regions)
                    pictures.captioned(drawn, found.describe(), high, threshold).save(temporary)
        return paths


def _verdict(line: Mapping[str, Any]) -> str:
    if "error" in line:
        return "unreadable"
    anomalous = line.get("anomalous")
    return "anomalous" if anomalous is True else "normal" if anomalous is False else "undecided"
