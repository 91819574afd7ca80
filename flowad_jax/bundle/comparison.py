"""Has every installed backend judge the images of a run, as users will, and compares with JAX."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm.auto import tqdm

from flowad_jax.bundle import card, checks, reference, runtime, stablehlo
from flowad_jax.bundle.checks import Agreement, Mismatch, Scales
from flowad_jax.bundle.reference import Images, Reference
from flowad_jax.bundle.scorer import Scorer
from flowad_jax.errors import UserError
from flowad_jax.inference.predictor import ImageLike, Predictor


class Sample(NamedTuple):
    """The images that a bundle brings along, and what JAX says about them."""

    names: Sequence[str]
    expected: Reference


def sample(predictor: Predictor, images: Images) -> Sample:
    """Chooses images; random patterns where there are none."""
    given: list[ImageLike]
    if chosen := reference.choose(images):
        given, every = [images[index] for index in chosen], images.names()
        names = [every[index] for index in chosen]
    else:
        given = [*reference.patterns(predictor.canvas)]
        names = [f"random pattern {number}" for number in range(len(given))]
    loaded = [predictor.load_image(one) for one in given]
    return Sample(names, reference.in_batches(predictor, loaded))


def compare(
    folder: Path, predictor: Predictor, scorer: Scorer, given: Sample, images: Images
) -> list[Agreement]:
    """Compares a bundle that was just written with the detector that it was made of.

    Args:
      folder: the bundle; its own runtime is loaded.
      predictor: the detector.
      scorer: what its graph was made of.
      given: the images of the bundle, which all its graphs judge.
      images: which the runtime judges with every backend that is installed.

    Raises:
      UserError: a backend says something else, at which image and from which stage on.
    """
    module = runtime.load(folder)
    try:
        return _Comparison(module, folder, predictor, scorer, given).check(images)
    except module.UserError as error:
        raise UserError(f"run.py refuses what JAX judges: {error}") from None


class _Comparison:
    """What is compared; see `compare`."""

    def __init__(
        self, module: Any, folder: Path, predictor: Predictor, scorer: Scorer, given: Sample
    ):
        self._folder, self._predictor, self._scorer, self._given = folder, predictor, scorer, given
        self._scales = Scales.of(card.read(folder), given.expected)
        self._backends = [
            (Agreement(name, version), module.Detector(folder, backend=name))
            for name, version in runtime.installed().items()
        ]

    def check(self, images: Images) -> list[Agreement]:
        """Compares the images that the bundle brings along, then all."""
        names, expected = self._given
        program = Agreement("stablehlo", jax.__version__)
        outputs = stablehlo.call((self._folder / card.STABLEHLO).read_bytes(), expected.inputs())
        checks.compare_canvas(program, names, expected, outputs, self._scales)
        for agreement, detector in self._backends:
            outputs = runtime.outputs(detector, expected.inputs())
            try:
                checks.compare_canvas(agreement, names, expected, outputs, self._scales)
            except Mismatch as mismatch:
                row = names.index(mismatch.image)
                inputs = {name: x[row : row + 1] for name, x in expected.inputs().items()}
                raise self._explained(mismatch, inputs) from None
            agreement.images = 0 if len(images) else agreement.images  # they are among these
        with tqdm(total=len(images), desc="compare", unit="img", disable=None, leave=False) as bar:
            size = self._predictor.batch_size
            for first in range(0, len(images), size):
                rows = range(len(images))[first : first + size]
                self._compare_batch(images, rows)
                bar.update(len(rows))
        return [*(agreement for agreement, _ in self._backends), program]

    def _compare_batch(self, images: Images, rows: Sequence[int]) -> None:
        names, limit = images.names(), self._predictor.thresholds.get("pixel")
        given = [images[row] for row in rows]
        expected = self._predictor.predict(given)
        for agreement, detector in self._backends:
            found = detector.predict(given)
            for row, image, one, other in zip(rows, given, expected, found, strict=True):
                try:
                    checks.compare(agreement, names[row], one, other, self._scales, limit)
                except Mismatch as mismatch:
                    raise self._explained(
                        mismatch, reference.graph_inputs(self._predictor, image)
                    ) from None

    def _explained(self, mismatch: Mismatch, inputs: dict[str, np.ndarray]) -> UserError:
        """Adds the first stage that is not the same."""
        from flowad_jax.onnx.convert import convert

        scorer = self._scorer
        values = jax.jit(scorer.trace)(*inputs.values())
        expected = dict(zip(scorer.stages, map(np.asarray, values), strict=True))
        model = convert(scorer.trace, scorer.inputs, scorer.stages)
        found = runtime.evaluate(mismatch.backend, model.SerializeToString(), inputs)
        if stage := checks.first_difference(expected, found):
            return UserError(f"{mismatch}; the first stage that differs is {stage}")
        return UserError(f"{mismatch}; no stage of the graph differs: it is decoding or deciding")


def described(images: Images) -> str:
    """What a bundle was checked with, in words."""
    if not len(images):
        return f"random patterns, as no images are at hand: {images.reason}"
    return f"{len(images)} {images.title} of the run"
