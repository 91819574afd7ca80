"""What a bundle says about itself: ``detector.json``, and its files."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePath, PurePosixPath
from typing import Any, NamedTuple

import numpy as np

from flowad_jax import files, schema
from flowad_jax.canvas import FITS
from flowad_jax.data.transforms import FILTERS
from flowad_jax.errors import UserError
from flowad_jax.evaluation.decisions import CALIBRATIONS, ESTIMATE, GIVEN, PROMISE, Decisions
from flowad_jax.inference.predictor import Predictor
from flowad_jax.version import __version__

CARD, ONNX, STABLEHLO = "detector.json", "model.onnx", "model.stablehlo"
CHECK, RUNTIME = "check.npz", "run.py"
TRAINING = "training_images.txt"  # a line for every image: train or holdout, and its checksum
NEEDED = (ONNX, STABLEHLO, CHECK, RUNTIME)
FORMAT = 1
WRITTEN_BY = "flowad export"
_AGAIN = "export the detector again"
DTYPES = ("float32", "float16", "int8")

_NOTHING = {"type": "object", "maxProperties": 0}
_RATE = {**schema.number(above=0), "exclusiveMaximum": 1}
_SCORES = schema.array(schema.array(schema.number()), least=1)
_SIDE = schema.integer(1, 2**16)
_COUNT = schema.integer(0)


def _one_of(*values: object) -> dict[str, Any]:
    return {"enum": list(values)}


def _optional(wanted: schema.Schema) -> dict[str, Any]:
    return {**wanted, "type": [wanted["type"], "null"]}


_DECISIONS = schema.table(
    {
        "false_alarm_rate": _RATE,
        "calibration": _one_of(*CALIBRATIONS),
        "images": _COUNT,
        "level": schema.number(0, 1),
        "decided_by": _one_of(PROMISE, ESTIMATE, GIVEN),
        "promised": _optional(schema.number(0, 1)),
        "image": _optional(schema.number()),
        "pixel": _optional(schema.number()),
        "interval": _optional(schema.array(schema.number(0, 1), least=2, most=2)),
        "meaning": schema.TEXT,
    },
    others=False,
)
_TENSORS = schema.table({}, others={"type": "array", "minItems": 2, "maxItems": 2})
_FILE = schema.table({"sha256": schema.TEXT, "bytes": _COUNT}, others=False)
SCHEMA = schema.table(
    {
        "format": {**_one_of(FORMAT), "description": f"{FORMAT}, the only format so far"},
        "written_by": _one_of(WRITTEN_BY),
        "flowad_jax": schema.TEXT,
        "name": schema.TEXT,
        "encoder": schema.table({}, others=schema.TEXT),
        "image": schema.table(
            {
                "height": _SIDE,
                "width": _SIDE,
                "fit": _one_of(*FITS),
                "filter": _one_of(*FILTERS),
                "white": _SIDE,
            },
            others=False,
        ),
        "batch": schema.table({"dynamic": schema.BOOLEAN, "most": _SIDE}, others=False),
        "dtype": _one_of(*DTYPES),
        "opset": schema.integer(1),
        "calibration": schema.table(
            {
                "kind": _one_of(*CALIBRATIONS),
                "false_alarm_rate": _RATE,
                "image": _SCORES,
                "peak": _SCORES,
            },
            others=False,
        ),
        "threshold": _optional(schema.number()),
        "card": {"anyOf": [_NOTHING, _DECISIONS], "description": "a calibration card, or empty"},
        "position": schema.number(0),
        "min_region": _optional(schema.number(0)),
        "graph": schema.table({"inputs": _TENSORS, "outputs": _TENSORS}, others=False),
        "versions": schema.table({}, others=schema.TEXT),
        "checked": schema.array(
            schema.table(
                {
                    "backend": schema.TEXT,
                    "version": schema.TEXT,
                    "images": _COUNT,
                    "score": schema.number(0),
                    "map": schema.number(0),
                },
                others=False,
            )
        ),
        "files": schema.table(dict.fromkeys(NEEDED, _FILE), others=_FILE),
    },
    {
        "recalibrated": schema.table(
            {
                "from": schema.TEXT,
                "when": schema.TEXT,
                "images": _COUNT,
                "source": _one_of("images", "feedback"),
                "replaced": schema.BOOLEAN,
            },
            others=False,
        )
    },
    others=False,
)


class GraphOptions(NamedTuple):
    """How the graph is written.

    Attributes:
      dtype: of the stored weights, one of `DTYPES`; it computes in float32.
      opset: version of ONNX's operators.
      dynamic: whether it takes any number of images, or one.
    """

    dtype: str = "float32"
    opset: int = 18
    dynamic: bool = True


def describe(
    predictor: Predictor, options: GraphOptions, versions: Mapping[str, str]
) -> dict[str, Any]:
    """Returns the card of a detector, as far as it is known before anything was checked."""
    config, canvas = predictor.model.config, predictor.canvas
    fitted = [part.fitted for part in predictor.parts]
    rows: int | str = "B" if options.dynamic else 1
    inputs: dict[str, Any] = {"image": ["uint8", [rows, *canvas.shape, 3]]}
    if canvas.fit == "pad":
        inputs["place"] = ["int32", [rows, 4]]
    source = predictor.model.encoder.source
    return {
        "format": FORMAT,
        "written_by": WRITTEN_BY,
        "flowad_jax": __version__,
        "name": predictor.name,
        # Of a weight file the name: where it lies is nobody's business.
        "encoder": {**source, "weights": PurePath(source["weights"]).name},
        "image": {
            "height": canvas.height,
            "width": canvas.width,
            "fit": canvas.fit,
            "filter": predictor.filter,
            "white": predictor.white,
        },
        "batch": {
            "dynamic": options.dynamic,
            "most": predictor.batch_size if options.dynamic else 1,
        },
        "dtype": options.dtype,
        "opset": options.opset,
        "calibration": {
            "kind": config.eval.calibration,
            "false_alarm_rate": float(config.eval.false_alarm_rate),
            "image": [one.image.tolist() for one in fitted],
            "peak": [one.peak.tolist() for one in fitted],
        },
        "threshold": predictor.threshold,
        "card": predictor.thresholds,
        "position": predictor.position,
        "min_region": config.eval.min_region,
        "graph": {
            "inputs": inputs,
            "outputs": {
                "score": ["float32", [rows, len(fitted)]],
                "map": ["float32", [rows, *canvas.shape]],
            },
        },
        "versions": dict(versions),
    }


def write(folder: Path, card: Mapping[str, Any], checked: Sequence[Mapping[str, Any]]) -> None:
    """Writes the card of a folder that holds all other files of a bundle."""
    sums = {name: identify(folder / name) for name in files_of(folder) if name != CARD}
    content = {**card, "checked": list(checked), "files": sums}
    schema.check(content, CARD, SCHEMA)
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    (folder / CARD).write_text(text, encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """Reads the card of a bundle and compares the checksums of its files.

    Raises:
      UserError: it is no bundle, or a file is missing or was changed.
    """
    if not (folder / CARD).is_file():
        hint = "unpack it first" if folder.is_file() else f"it has no {CARD}"
        raise UserError(f"{folder} is not an exported detector: {hint}")
    card = schema.read(folder / CARD, SCHEMA, _AGAIN)
    _check_decisions(folder / CARD, card)
    for name, wanted in card["files"].items():
        if PurePosixPath(name).is_absolute() or {"..", "."} & {*name.split("/")}:
            raise UserError(f"{folder / CARD}: files names '{name}', which lies elsewhere")
        try:
            found = identify(folder / name)
        except OSError as error:
            reason = error.strerror or str(error)
            raise UserError(f"{folder / name} cannot be read ({reason}): copy it again") from None
        if found != wanted:
            raise UserError(f"{folder / name} is not the file that was exported: copy it again")
    return card


def _check_decisions(path: Path, card: Mapping[str, Any]) -> None:
    """Raises a `UserError` unless the thresholds follow from the scores beside them."""
    fitted = card["calibration"]
    image, peak = ([np.array(fold) for fold in fitted[key]] for key in ("image", "peak"))
    if [*map(len, image)] != [*map(len, peak)]:
        raise UserError(f"{path}: calibration.peak has other lengths than image: {_AGAIN}")
    rate, kind = fitted["false_alarm_rate"], fitted["kind"]
    wanted = Decisions(image, peak, rate, kind, card["threshold"]).card
    for key in wanted.keys() | card["card"].keys():
        one, other = wanted.get(key), card["card"].get(key)
        if isinstance(one, float) and isinstance(other, float | int):
            same = math.isclose(one, other, rel_tol=1e-9)
        else:
            same = one == other
        if not same:
            raise UserError(
                f"{path}: card.{key}={other!r} does not follow from its scores: {_AGAIN}"
            )


def files_of(folder: Path) -> list[str]:
    """Returns the names of all files below a folder, in order."""
    return sorted(x.relative_to(folder).as_posix() for x in folder.rglob("*") if x.is_file())


def identify(path: Path) -> dict[str, Any]:
    """Returns ``sha256`` and ``bytes`` of a file."""
    with files.open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    return {"sha256": digest, "bytes": path.stat().st_size}
