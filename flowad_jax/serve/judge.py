"""An exported detector or the workdir of a run, as the service holds it."""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.evaluation.decisions import Decisions
from flowad_jax.flowad_runtime import Detector, Prediction, pictures
from flowad_jax.flowad_runtime import UserError as RuntimeUserError
from flowad_jax.flowad_runtime import canvas as runtime_canvas
from flowad_jax.flowad_runtime.images import DecodedFile

CARD, CONFIG = "detector.json", "config.json"


class LoadOptions(NamedTuple):
    """How detectors are loaded: as in `Detector` and `flowad_jax.inference.loading.load`."""

    backend: str = "onnxruntime"
    threads: int = 0
    false_alarm_rate: float | None = None


@dataclass(frozen=True, eq=False)
class Judge:
    """A loaded detector.

    Attributes:
      detector: a `flowad_runtime.Detector` or an `inference.predictor.Predictor`.
      kind: ``"bundle"`` or ``"workdir"``.
      version: SHA-256 of what it says about itself.
      normal, peaks: scores and largest map values of the held-out normal images, by every part.
      calibration: its kind.
      canvas: (height, width) of what images are brought to.
    """

    detector: Any
    kind: str
    version: str
    normal: Sequence[np.ndarray]
    peaks: Sequence[np.ndarray]
    calibration: str
    canvas: tuple[int, int]

    @property
    def thresholds(self) -> dict[str, Any]:
        """The calibration card; empty if nothing decides."""
        return self.detector.thresholds

    def size(self, path: Path) -> tuple[int, int]:
        """(H, W) of an image file; a `UserError` if it is none."""
        return DecodedFile(path, self.detector.white).size

    def load(self, path: Path) -> Any:
        """Brings an image file to the canvas; raises a `UserError` of either kind."""
        if self.kind == "bundle":
            return self.detector.load(path)
        return self.detector.load_image(path)

    def judge(self, images: Sequence[Any]) -> Iterator[Prediction]:
        """Judges what `load` returned; workdirs give predictions with the same attributes."""
        yield from self.detector.judge(images)

    def card(self, rate: float) -> dict[str, Any]:
        """What would decide at another false-alarm rate; raises if that is no rate."""
        return Decisions(self.normal, self.peaks, rate, self.calibration).card

    def picture(self, kind: str, path: Path, found: Prediction) -> bytes:
        """Draws ``"overlay"`` or ``"heatmap"`` of a judged file, as PNG."""
        high = pictures.scale_of(self.thresholds) or pictures.scale_to(found.map)
        if kind == "heatmap":
            drawn = pictures.heatmap(found.map, high)
        else:
            file = DecodedFile(path, self.detector.white)
            pixels = runtime_canvas.rgb(file.read(0, file.size[0], 0, file.size[1]))
            pixel = self.thresholds.get("pixel")
            drawn = pictures.overlay(pixels, found.map, high, pixel, found.regions)
        content = io.BytesIO()
        drawn.save(content, "PNG")
        return content.getvalue()


def open_judge(path: str | os.PathLike[str], options: LoadOptions) -> Judge:
    """Loads what lies at a path.

    Raises:
      UserError: it is neither an exported detector nor a finished run, or is damaged.
    """
    folder = Path(path)
    if (folder / CARD).is_file():
        return _open_bundle(folder, options)
    if (folder / CONFIG).is_file():
        return _open_workdir(folder, options)
    what = "has neither" if folder.is_dir() else "is not there: looked for"
    raise UserError(f"{folder} {what} {CARD} (of flowad export) nor {CONFIG} (of flowad train)")


def _open_bundle(folder: Path, options: LoadOptions) -> Judge:
    version = hashlib.sha256((folder / CARD).read_bytes()).hexdigest()
    try:
        detector = Detector(
            folder, options.backend, options.false_alarm_rate, threads=options.threads
        )
    except RuntimeUserError as error:
        raise UserError(str(error)) from error
    shape = detector.canvas.height, detector.canvas.width
    learned = detector.normal, detector.peaks, detector.kind
    if options.false_alarm_rate is not None:  # the same with a sentence that says what it means
        detector.thresholds = Decisions(
            detector.normal, detector.peaks, options.false_alarm_rate, detector.kind
        ).card
    return Judge(detector, "bundle", version, *learned, shape)


def _open_workdir(folder: Path, options: LoadOptions) -> Judge:
    from flowad_jax.inference import loading  # takes its time

    detector = loading.load(folder, options.false_alarm_rate)
    normal, peaks = (
        [getattr(part.fitted, x) for part in detector.parts] for x in ("image", "peak")
    )
    digest = hashlib.sha256((folder / CONFIG).read_bytes())
    for scores in (*normal, *peaks):  # another training has others
        digest.update(scores.tobytes())
    calibration, shape = detector.model.config.eval.calibration, detector.canvas.shape
    return Judge(detector, "workdir", digest.hexdigest(), normal, peaks, calibration, shape)


def signature(path: str | os.PathLike[str]) -> tuple[Any, ...]:
    """What changes when another detector lies at a path."""
    folder = Path(path)
    real = os.path.realpath(folder)
    for name in (CARD, CONFIG):
        try:
            status = (folder / name).stat()
        except OSError:
            continue
        return real, status.st_ino, status.st_mtime_ns, status.st_size
    return (real,)
