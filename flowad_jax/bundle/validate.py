"""Checks a bundle again, on any machine: its files, what backends say, and how long they take.

A bundle may come from a stranger, so its ``run.py`` is compared and not run: the one of this
package judges.
"""

from __future__ import annotations

import statistics
import time
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowad_jax import flowad_runtime
from flowad_jax.bundle import card, checks, runtime
from flowad_jax.bundle.checks import Agreement, Mismatch, Scales
from flowad_jax.bundle.reference import UNDECIDED, Reference
from flowad_jax.errors import UserError
from flowad_jax.flowad_runtime.detector import Loaded
from flowad_jax.weights.layout import aligned

_REPEATS = 7
_LARGEST = 2**30  # bytes of the arrays of a bundle
HEADS = ("backend", "version", "score differs by", "map by", "decisions", "ms/image", "s to first")


class Validated(NamedTuple):
    """A backend that agrees with JAX.

    Attributes:
      agreement: how far it is from JAX.
      milliseconds: for one image on the canvas, the median.
      first: seconds from nothing to the first decision.
    """

    agreement: Agreement
    milliseconds: float
    first: float


def validate(path: str | Path) -> list[Validated]:
    """Has every backend that is installed judge the images of a bundle.

    Raises:
      UserError: it is no bundle, a file was changed, no backend is installed, or one says something
        else than JAX said when the bundle was written.
    """
    folder = Path(path)
    about = card.read(folder)
    expected = read_check(folder / card.CHECK)
    _check_shapes(folder / card.CHECK, expected, about)
    if not (found := runtime.installed()):
        raise UserError(f"neither onnxruntime nor openvino is installed: {runtime.INSTALL}")
    scales, exact = Scales.of(about, expected), about["dtype"] != "int8"
    return [
        _validate(folder, Agreement(name, version, exact=exact), expected, scales)
        for name, version in found.items()
    ]


def read_check(file: Path) -> Reference:
    """Reads the images of a bundle and what JAX said about them.

    Raises:
      UserError: the file is damaged.
    """
    try:
        with zipfile.ZipFile(file) as packed:
            if sum(entry.file_size for entry in packed.infolist()) > _LARGEST:
                raise ValueError("it is too large")
        with np.load(file, allow_pickle=False) as arrays:
            return Reference(**{"place": None, **{name: arrays[name] for name in arrays.files}})
    except (OSError, ValueError, TypeError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} cannot be read ({error}): export the detector again") from None


def _check_shapes(file: Path, found: Reference, about: Mapping[str, Any]) -> None:
    """Raises a `UserError` unless the arrays are those of the detector's graph."""
    image, folds = about["image"], about["calibration"]["image"]
    count, sides = len(found.image), (image["height"], image["width"])
    wanted = {
        "image": ("uint8", (count, *sides, 3)),
        "place": ("int32", (count, 4)),
        "size": ("int64", (count, 2)),
        "score": ("float64", (count, len(folds))),
        "map": ("float32", (count, *sides)),
        "p_value": ("float64", (count,)),
        "anomalous": ("int8", (count,)),
    }
    if image["fit"] != "pad":
        del wanted["place"]
    arrays = found.arrays()
    if not count or {k: (x.dtype.name, x.shape) for k, x in arrays.items()} != wanted:
        raise UserError(f"{file} is not of this detector: export the detector again")


def _validate(folder: Path, agreement: Agreement, expected: Reference, scales: Scales) -> Validated:
    inputs, started = expected.inputs(), time.perf_counter()
    one = {name: x[:1] for name, x in inputs.items()}
    try:
        detector = flowad_runtime.Detector(folder, backend=agreement.backend)
        runtime.outputs(detector, one)
        first = time.perf_counter() - started
        seconds = [_seconds(lambda: runtime.outputs(detector, one)) for _ in range(_REPEATS)]
        outputs = runtime.outputs(detector, inputs)
    except Exception as error:  # each backend has exceptions of its own
        reason = str(error).partition("\n")[0]
        raise UserError(f"{agreement.backend} fails with {folder}: {reason}") from error
    names = [f"image {number} of {card.CHECK}" for number in range(len(expected.image))]
    checks.compare_canvas(agreement, names, expected, outputs, scales)
    for row, name in enumerate(names):
        _compare_decision(agreement, name, expected, row, detector, outputs)
    return Validated(agreement, 1000 * statistics.median(seconds), first)


def _compare_decision(
    agreement: Agreement,
    name: str,
    expected: Reference,
    row: int,
    detector: flowad_runtime.Detector,
    outputs: tuple[np.ndarray, np.ndarray],
) -> None:
    """Raises a `Mismatch` unless the same follows from the scores of an image as in JAX."""
    on_canvas = Loaded(expected.image[row], detector.canvas[:2])  # size is no matter
    found = detector._decide(on_canvas, *(x[row] for x in outputs))
    p_value = np.nan if found.p_value is None else found.p_value
    same = np.array_equal(p_value, expected.p_value[row], equal_nan=True)
    if agreement.exact and not same:
        what = f"p_value is {p_value}, must be {expected.p_value[row]}"
        raise Mismatch(agreement.backend, name, what)
    decision = UNDECIDED if found.anomalous is None else int(found.anomalous)
    if decision != expected.anomalous[row]:
        what = f"anomalous is {decision}, must be {expected.anomalous[row]}"
        raise Mismatch(agreement.backend, name, what)


def _seconds(call: Callable[[], Any]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def shown(found: list[Validated]) -> str:
    """The table that a person reads."""
    rows = [
        (
            *(x.agreement.backend, x.agreement.version),
            *(f"{x.agreement.score:.1e}", f"{x.agreement.map:.1e}", "equal"),
            *(f"{x.milliseconds:.1f}", f"{x.first:.2f}"),
        )
        for x in found
    ]
    return "\n".join(aligned([HEADS, *rows]))
