"""Lets a graph compute in 8 bits, where that changes no decision."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from flowad_jax.bundle import card, reference, runtime
from flowad_jax.bundle.checks import Agreement, Scales
from flowad_jax.bundle.reference import Images, Reference
from flowad_jax.data.subset import Subset, evenly_spaced
from flowad_jax.detector import splits
from flowad_jax.errors import UserError
from flowad_jax.evaluation.decisions import Decisions
from flowad_jax.inference.predictor import Predictor

SAMPLE = 32  # training images that show which values are usual


def quantize(folder: Path, predictor: Predictor) -> None:
    """Lets the ONNX file of a bundle convolve and multiply matrices in 8 bits.

    Args:
      folder: the bundle.
      predictor: the detector, whose training images show which values are usual.

    Raises:
      UserError: the images are not at hand.
    """
    path = folder / card.ONNX
    path.write_bytes(_quantized(path, _inputs(predictor, _of_training(predictor))))


def _of_training(predictor: Predictor) -> Images:
    """Some of the images that the detector was trained on."""
    train = splits.source(predictor.model.config, "train")
    apart = predictor.held_out.sources() if predictor.held_out else []
    held = {name for source in apart for name in source.paths}
    rest = [index for index, name in enumerate(train.paths) if name not in held]
    chosen = Subset(train, np.array(rest)) if rest else train
    return Images("training images", [evenly_spaced(chosen, SAMPLE)])


def _inputs(predictor: Predictor, images: Images) -> Iterator[dict[str, np.ndarray]]:
    """Yields what a graph is given, image by image."""
    for index in range(len(images)):
        yield reference.graph_inputs(predictor, images[index])


def _quantized(path: Path, inputs: Iterator[Mapping[str, np.ndarray]]) -> bytes:
    """Static quantisation of ONNX Runtime, weights by channel."""
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.quant_utils import add_pre_process_metadata

    class Reader(quantization.CalibrationDataReader):  # type: ignore[misc]
        def get_next(self) -> Any:
            return next(inputs, None)

    model = onnx.load(path)
    add_pre_process_metadata(model)  # the converter has inferred shapes and folded constants
    with tempfile.TemporaryDirectory() as folder:
        quantization.quantize_static(
            model,
            Path(folder) / path.name,
            Reader(),
            op_types_to_quantize=["Conv", "MatMul", "Gemm"],
            per_channel=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
        )
        return (Path(folder) / path.name).read_bytes()


def recalibrate(folder: Path, about: dict[str, Any], predictor: Predictor) -> None:
    """Takes the scores of held-out images from the quantised graph, and what they decide.

    It is another detector: ranks among the scores of the first one would promise
    nothing. The scores of ``cross_fast`` are an estimate by other detectors and stay.

    Args:
      folder: the bundle.
      about: its card, which is changed.
      predictor: the detector.

    Raises:
      UserError: the images are not at hand.
    """
    fitted = about["calibration"]
    if not fitted["image"][0] or fitted["kind"] == "cross_fast" or predictor.held_out is None:
        return
    detector = runtime.load(folder).Detector(folder)
    for part, source in enumerate(predictor.held_out.sources()):
        found = [
            runtime.outputs(detector, given) for given in _inputs(predictor, Images("", [source]))
        ]
        fitted["image"][part] = [float(score[0, part]) for score, _ in found]
        if len(predictor.parts) == 1:  # of several there is only the mean of their maps
            fitted["peak"][part] = [float(values.max()) for _, values in found]
    image, peak = ([np.array(fold) for fold in fitted[key]] for key in ("image", "peak"))
    rate, kind = fitted["false_alarm_rate"], fitted["kind"]
    about["card"] = Decisions(image, peak, rate, kind, about["threshold"]).card


def compare(
    folder: Path, predictor: Predictor, given: Reference, images: Images
) -> list[Agreement]:
    """Compares the decisions of a quantised bundle with those of the detector.

    Args:
      folder: the bundle.
      predictor: the detector.
      given: the images that the bundle brings along.
      images: all that are judged, by every backend that is installed.

    Raises:
      UserError: one of the decisions is another one, or there is none to compare.
    """
    if not len(images) or not predictor.thresholds:
        why = images.reason or "training held no images out (data.holdout=0)"
        raise UserError(f"--dtype=int8 needs decisions to compare, and there are none: {why}")
    module, scales = runtime.load(folder), Scales.of(card.read(folder), given)
    judges = [
        (Agreement(name, version, exact=False), module.Detector(folder, backend=name))
        for name, version in runtime.installed().items()
    ]
    changed = dict.fromkeys(runtime.installed(), 0)
    for index, image in enumerate(images.names()):  # one at a time: each comes with its map
        expected = predictor.predict([images[index]])[0]
        for agreement, detector in judges:
            found = detector.predict(images[index])
            agreement.add(image, expected, found, scales)
            changed[agreement.backend] += expected.anomalous != found.anomalous
    for agreement, _ in judges:
        if count := changed[agreement.backend]:
            raise UserError(
                f"--dtype=int8: {count} of {len(images)} decisions change with "
                f"{agreement.backend}, scores by up to {agreement.score:.2g} of the largest of a "
                "normal image: export with --dtype=float32; nothing was written"
            )
    return [agreement for agreement, _ in judges]
