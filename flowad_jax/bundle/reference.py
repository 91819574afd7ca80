"""What the JAX detector says about images of its run: other backends have to say the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.canvas import Canvas
from flowad_jax.data.record import Source
from flowad_jax.detector import splits
from flowad_jax.errors import UserError
from flowad_jax.evaluation.padding import hide_padding
from flowad_jax.evaluation.scores import mean_scores
from flowad_jax.inference.prediction import LoadedImage
from flowad_jax.inference.predictor import ImageLike, Predictor
from flowad_jax.types import Scores

CHECKED = 4  # images that a bundle brings along
UNDECIDED = -1


@dataclass(frozen=True)
class Images:
    """Images of a run that are at hand.

    Attributes:
      title: what they are, such as ``"test images"``.
      sources: that hold them.
      reason: why there are none.
    """

    title: str
    sources: Sequence[Source]
    reason: str = ""

    def __len__(self) -> int:
        return sum(map(len, self.sources))

    def names(self) -> list[str]:
        """Paths, or made-up names."""
        return [path for source in self.sources for path in source.paths]

    def labels(self) -> list[int]:
        """0 normal, 1 anomalous, -1 unknown."""
        return [int(label) for source in self.sources for label in source.labels]

    def __getitem__(self, index: int) -> np.ndarray | str:
        """The path of an image, or the pixels (H, W, 3) uint8 of one that is no file."""
        for source in self.sources:
            if index < len(source):
                path = source.paths[index]
                return path if Path(path).is_file() else source[index].image
            index -= len(source)
        raise IndexError(index)


class Reference(NamedTuple):
    """Images on the canvas and all that is said about them; the arrays of ``check.npz``.

    Attributes:
      image: (N, H, W, 3) uint8.
      place: (N, 4) int32 top, left, height, width of what shows the image; None unless padded.
      size: (N, 2) int64, (H, W) of the images themselves.
      score: (N, K) float64 by every part.
      map: (N, H, W) float32, the mean of the parts' maps.
      p_value: (N,) float64; NaN where there is none.
      anomalous: (N,) int8: 1, 0, or -1 where nothing can be decided.
    """

    image: np.ndarray
    place: np.ndarray | None
    size: np.ndarray
    score: np.ndarray
    map: np.ndarray
    p_value: np.ndarray
    anomalous: np.ndarray

    def arrays(self) -> dict[str, np.ndarray]:
        """The arrays that there are, by name."""
        return {name: value for name, value in self._asdict().items() if value is not None}

    def inputs(self) -> dict[str, np.ndarray]:
        """What a graph is given."""
        return {name: x for name, x in self.arrays().items() if name in ("image", "place")}


def find(predictor: Predictor) -> Images:
    """Returns the test images of a detector's run, or those that were held out."""
    try:
        test = splits.source(predictor.model.config, "test")
        if len(test):
            return Images("test images", [test])
        if predictor.held_out is not None:
            return Images("held-out images", predictor.held_out.sources())
        return Images("images", [], "the run has none")
    except UserError as error:
        return Images("images", [], str(error))


def find_all(predictor: Predictor) -> Images:
    """Returns the test images of a detector's run and those that were held out."""
    found = find(predictor)
    if found.title != "test images" or predictor.held_out is None:
        return found
    try:
        held = predictor.held_out.sources()
    except UserError:
        return found
    return Images("held-out and test images", [*held, *found.sources])


def choose(images: Images) -> list[int]:
    """Returns which images a bundle brings along: normal and anomalous ones, if there are both."""
    labels = np.array(images.labels())
    normal, others = (np.flatnonzero(chosen) for chosen in (labels == 0, labels != 0))
    half = CHECKED // 2
    count = CHECKED - min(half, len(others))
    return [*map(int, normal[:count]), *map(int, others[: CHECKED - min(count, len(normal))])]


def patterns(canvas: Canvas, count: int = CHECKED) -> list[np.ndarray]:
    """Returns random pictures (H, W, 3) uint8, always the same, for want of real images."""
    rng = np.random.default_rng(0)
    coarse = rng.integers(0, 256, (count, 8, 8, 3), np.uint8)
    rows, columns = (np.arange(side) * 8 // side for side in canvas.shape)
    fine = rng.normal(0, 12, (count, *canvas.shape, 3))
    return list((coarse[:, rows][:, :, columns] + fine).clip(0, 255).astype(np.uint8))


def of(predictor: Predictor, images: Sequence[LoadedImage]) -> Reference:
    """Has the JAX detector judge images, at most as many as it computes at once."""
    canvas, sizes = predictor.canvas, [one.size for one in images]
    found = scores(predictor, images)
    judged = list(predictor.judge(images))
    places = np.array([canvas.place(size) for size in sizes], np.int32)
    return Reference(
        image=np.stack(_pixels(images)),
        place=places if canvas.fit == "pad" else None,
        size=np.array(sizes, np.int64),
        score=np.stack([one.image for one in found], axis=1).astype(np.float64),
        map=mean_scores(found).pixel.astype(np.float32),
        p_value=np.array([np.nan if x.p_value is None else x.p_value for x in judged]),
        anomalous=np.array(
            [UNDECIDED if x.anomalous is None else x.anomalous for x in judged], np.int8
        ),
    )


def scores(predictor: Predictor, images: Sequence[LoadedImage]) -> list[Scores]:
    """Returns the scores and maps by every part of a detector, of as many images at most."""
    sizes = [one.size for one in images]
    found = predictor.log_probs(_pixels(images))
    return predictor._scores([hide_padding(part, predictor.canvas, sizes) for part in found])


def graph_inputs(predictor: Predictor, image: ImageLike) -> dict[str, np.ndarray]:
    """What a graph is given for one image: its pixels on the canvas, and its place if padded."""
    loaded = predictor.load_image(image)
    given = {"image": loaded.resized[None]}
    if predictor.canvas.fit == "pad":
        given["place"] = np.array([predictor.canvas.place(loaded.size)], np.int32)
    return given


def in_batches(predictor: Predictor, images: Sequence[LoadedImage]) -> Reference:
    """The same for any number of images."""
    size = predictor.batch_size
    found = [of(predictor, images[i : i + size]) for i in range(0, len(images), size)]
    names = found[0].arrays()
    joined: dict[str, Any] = {"place": None}
    joined |= {name: np.concatenate([one.arrays()[name] for one in found]) for name in names}
    return Reference(**joined)


def _pixels(images: Sequence[LoadedImage]) -> list[np.ndarray]:
    return [one.resized for one in images]
