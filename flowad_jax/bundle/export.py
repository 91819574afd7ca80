"""Writes a trained detector as a bundle, which needs neither JAX nor this package, and checks it.

The order: what JAX says about a few images, both graphs, the runtime; then every backend judges all
test images of the run that are at hand, through the runtime, and has to say the same as JAX.
"""

from __future__ import annotations

import logging
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

import jax

from flowad_jax import archive, files, memory
from flowad_jax.bundle import (
    card,
    comparison,
    half,
    place,
    quantization,
    reference,
    runtime,
    stablehlo,
)
from flowad_jax.bundle.card import GraphOptions
from flowad_jax.bundle.checks import Agreement
from flowad_jax.bundle.scorer import Scorer
from flowad_jax.detector import checkpoint, converted, folds
from flowad_jax.errors import UserError, printable
from flowad_jax.inference import loading
from flowad_jax.inference.predictor import Predictor
from flowad_jax.weights.layout import aligned

log = logging.getLogger("flowad_jax")

HEADS = ("backend", "version", "images", "score differs by", "map by")


class Exported(NamedTuple):
    """What was written, and how it was checked.

    Attributes:
      place: the bundle.
      sizes: bytes of its files.
      checkpoint: bytes of the checkpoint that it was made of.
      agreements: of every backend.
      checked: what it was checked with, in words.
      equal: what is the same in all of it.
    """

    place: Path
    sizes: dict[str, int]
    checkpoint: int
    agreements: list[Agreement]
    checked: str
    equal: str


def export(
    workdir: str | Path,
    output: str,
    options: GraphOptions | None = None,
    false_alarm_rate: float | None = None,
    threshold: float | None = None,
    allow_import: Collection[str] = (),
) -> Exported:
    """Writes the detector of a finished run as a bundle.

    Args:
      workdir: folder of the run.
      output: folder to write, or a ``.zip``; an earlier bundle there is replaced.
      options: how the graph is written; None for the defaults.
      false_alarm_rate: that thresholds are made for; None for that of the run's config.
      threshold: image score above which an image is anomalous, instead of a rate.
      allow_import: packages whose functions the stored config may name.

    Raises:
      UserError: there is no finished run, the place is taken, something is not installed, the
        detector cannot be exported, or a backend does not agree with JAX. Nothing is written then.
    """
    target, options = place.check(output), options or GraphOptions()
    runtime.require("onnx", "onnxruntime")
    predictor = loading.load(workdir, false_alarm_rate, allow_import, threshold=threshold)
    if options.dtype == "float16":
        predictor = half.rounded(predictor)
    scorer = _traceable(predictor, options)
    images = reference.find(predictor)
    with place.filling(target) as folder:
        with files.writing(target):
            sample = comparison.sample(predictor, images)
            archive.save_arrays(folder / card.CHECK, sample.expected.arrays())
            _write_graphs(folder, predictor.name, scorer, options)
            runtime.copy(folder)
            (folder / card.TRAINING).write_text(_training_images(workdir, predictor))
            about = card.describe(predictor, options, _versions())
            card.write(folder, about, [])  # the runtime reads it
        agreements = comparison.compare(folder, predictor, scorer, sample, images)
        if options.dtype == "int8":
            images = reference.find_all(predictor)
            with files.writing(target):
                quantization.quantize(folder, predictor)
                card.write(folder, about, [])
                quantization.recalibrate(folder, about, predictor)
                card.write(folder, about, [])
            agreements = quantization.compare(folder, predictor, sample.expected, images)
        with files.writing(target):
            card.write(folder, about, [one.record() for one in agreements])
        sizes = {name: (folder / name).stat().st_size for name in card.files_of(folder)}
    path = Path(workdir).absolute()
    return Exported(
        target,
        sizes,
        _checkpoint_bytes(path, predictor),
        agreements,
        comparison.described(images),
        "decisions" if options.dtype == "int8" else "decisions, p-values and regions",
    )


def _traceable(predictor: Predictor, options: GraphOptions) -> Scorer:
    """The scorer of a detector, after a look at whether JAX can trace it."""
    config = predictor.model.config
    if config.eval.scoring != "calibrated":
        log.info("eval.scoring=%s: exported are calibrated scores, as flowad predict has them",
                 config.eval.scoring)  # fmt: skip
    kind = half.HalfScorer if options.dtype == "float16" else Scorer
    scorer = kind(predictor.model, predictor.parts)
    try:
        jax.eval_shape(scorer, *scorer.inputs.values())
    except Exception as error:  # a method of someone else's raises what it likes
        reason = str(error).partition("\n")[0]
        raise UserError(
            f"method {predictor.name} cannot be exported: its scores are no JAX program ({reason})"
        ) from error
    return scorer


def _write_graphs(folder: Path, method: str, scorer: Scorer, options: GraphOptions) -> None:
    from flowad_jax.onnx.convert import convert

    inputs = stablehlo.shapes(scorer.inputs, options.dynamic)
    try:
        is_half = options.dtype == "float16"  # whose weights fit into 16 bits as they are
        model = convert(scorer, inputs, ("score", "map"), options.opset, is_half)
    except Exception as error:  # of JAX where a method wants to know the number of images
        hint = "; try --batch=1" * (options.dynamic and not isinstance(error, UserError))
        reason = str(error).partition("\n")[0]
        raise UserError(f"method {method} cannot be exported: {reason}{hint}") from error
    if is_half:
        half.compress(model)
    (folder / card.ONNX).write_bytes(model.SerializeToString(deterministic=True))
    program = stablehlo.serialize(scorer, scorer.inputs, options.dynamic)
    (folder / card.STABLEHLO).write_bytes(program)


def _training_images(workdir: str | Path, predictor: Predictor) -> str:
    """Checksums of the images that the run had, so that none sets thresholds later."""
    meta = folds.meta_of(Path(workdir).absolute(), predictor.model.config)
    images = {**meta.get("images", {}), "ancestors": dict(enumerate(meta.get("ancestors", ())))}
    kinds = {"train": "train", "ancestors": "train", "holdout": "holdout"}
    lines = {f"{kinds[name]} {x}" for name in kinds for x in images.get(name, {}).values()}
    return "".join(f"{line}\n" for line in sorted(lines))


def _versions() -> dict[str, str]:
    import onnx

    return {"jax": jax.__version__, "onnx": onnx.__version__}


def _checkpoint_bytes(path: Path, predictor: Predictor) -> int:
    """The size of the state on disk, optimizer included."""
    config, parts = predictor.model.config, [path]
    if converted.is_converted(path):
        return (path / converted.DETECTOR).stat().st_size
    if config.eval.calibration == "cross":
        parts = [path / folds.FOLDER / str(number) for number in range(config.eval.folds)]
    steps = [part / checkpoint.FOLDER / str(checkpoint.latest(part)) for part in parts]
    return sum(file.stat().st_size for step in steps for file in step.rglob("*") if file.is_file())


def shown(exported: Exported) -> str:
    """What a person reads of an export."""
    names = (card.ONNX, card.STABLEHLO, card.CHECK)
    sizes = [f"{name} {memory.text(exported.sizes[name])}" for name in names]
    rows = [
        (x.backend, x.version, str(x.images), f"{x.score:.1e}", f"{x.map:.1e}")
        for x in exported.agreements
    ]
    lines = [
        f"{printable(str(exported.place))}: {memory.text(sum(exported.sizes.values()))}, "
        f"the checkpoint has {memory.text(exported.checkpoint)}",
        f"  {', '.join(sizes)}",
        f"compared with JAX on {exported.checked}:",
        *(f"  {line}" for line in aligned([HEADS, *rows])),
        f"{exported.equal} are equal; to run it without JAX:",
        "  pip install onnxruntime pillow numpy",
    ]
    name = printable(exported.place.name)
    folder = name.removesuffix(".zip")
    if folder != name:
        lines.append(f"  unzip {name}")
    return "\n".join([*lines, f"  python {folder}/run.py --input=IMAGES --output=found"])
