"""The held-out images of a run, judged in tiles: what tiled images are ranked among.

A tiled image is looked at once per tile, so it has more chances to look anomalous than an image of
one look. Among normal images that were looked at in the same way its rank is uniform again, and no
bound over the tiles is needed. The scores are kept in the workdir, bound to its checkpoint.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from ml_collections import config_dict
from tqdm.auto import tqdm

from flowad_jax import files, schema
from flowad_jax.data import fingerprint
from flowad_jax.data.images import WHITE, Windows, open_windows
from flowad_jax.data.record import Source
from flowad_jax.detector import checksums, folds, splits, workdir
from flowad_jax.errors import UserError

log = logging.getLogger("flowad_jax")

FILE = "tiled_calibration.json"
_SCORES = schema.array(schema.array(schema.number()))
_SCHEMA = schema.table(
    {"belongs_to": schema.TEXT, "most_tiles": schema.integer(1), "image": _SCORES, "peak": _SCORES},
    others=False,
)

Image = np.ndarray | Windows


class TiledScores(NamedTuple):
    """Of held-out images, fold by fold.

    Attributes:
      most_tiles: of one of them; an image of more was looked at more often than they were.
      image: their scores, each by the detector that has not seen the image.
      peak: the largest values of their maps.
    """

    most_tiles: int
    image: list[np.ndarray]
    peak: list[np.ndarray]


class HeldOut:
    """The held-out images of a workdir, which are opened when they are asked for."""

    def __init__(self, path: Path, config: config_dict.ConfigDict):
        """Notes where they are."""
        self._file, self._white = path / FILE, config.data.options.get("white", WHITE)
        self._runs = [(path, config)]
        if config.eval.calibration == "cross":
            numbers = range(config.eval.folds)
            self._runs = [
                (path / folds.FOLDER / str(k), folds.config_of(config, k)) for k in numbers
            ]

    def scores(
        self,
        judge: Callable[[int, Image], tuple[int, float, float]],
    ) -> TiledScores:
        """Returns the scores that were kept, or else judges all images and keeps them.

        ``judge`` says the number of tiles, the score and the largest map value of an image by the
        detector of a fold.

        Raises:
          UserError: the images are not at hand, or are not those that were held out.
        """
        metas = [workdir.meta_of(path) for path, _ in self._runs]
        owner = checksums.of_json([[meta.get("fitted"), meta.get("state")] for meta in metas])
        if (kept := self._read(owner)) is not None:
            return kept
        sources = self.sources()
        found: list[list[tuple[int, float, float]]] = []
        total, title = sum(map(len, sources)), "held-out images in tiles"
        with tqdm(total=total, desc=title, unit="img", disable=None, leave=False) as bar:
            for fold, source in enumerate(sources):
                found.append([])
                for pixels in self._images(source):
                    found[-1].append(judge(fold, pixels))
                    bar.update()
        most = max(tiles for one in found for tiles, _, _ in one)
        image, peak = ([np.array([x[k] for x in one]) for one in found] for k in (1, 2))
        if not all(np.isfinite(x).all() for x in (*image, *peak)):
            raise UserError("the detector gives NaN or infinite values for them")
        scores = TiledScores(most, image, peak)
        self._write(owner, scores)
        return scores

    def sources(self) -> list[Source]:
        """Returns the held-out images of every fold.

        Raises:
          UserError: they are not at hand, or are not those that were held out.
        """
        return [self._open(workdir.meta_of(path), config) for path, config in self._runs]

    def _open(self, meta: dict[str, Any], config: config_dict.ConfigDict) -> Source:
        images = meta.get("images", {})
        if not images.get("holdout"):
            raise UserError("the run does not say which images it held out")
        held, root = splits.again(config, images).holdout, config.data.root
        now = fingerprint.listing(held, root, "held-out")
        if found := fingerprint.differences(images["holdout"], now):
            raise UserError(f"the images that were held out are others now: {splits.first(found)}")
        return held

    def _images(self, source: Source) -> Iterator[Image]:
        for index, path in enumerate(source.paths):
            if Path(path).is_file():
                with open_windows(path, self._white) as windows:
                    yield windows
            else:  # a made-up name
                yield source[index].image

    def _read(self, owner: str) -> TiledScores | None:
        if not self._file.exists():
            return None
        try:
            content, _ = checksums.read_sealed(self._file, _SCHEMA, "it is made anew")
        except UserError as error:
            log.warning("%s", error)
            return None
        if content["belongs_to"] != owner:
            return None
        image, peak = ([np.array(x) for x in content[key]] for key in ("image", "peak"))
        return TiledScores(content["most_tiles"], image, peak)

    def _write(self, owner: str, scores: TiledScores) -> None:
        image, peak = ([x.tolist() for x in values] for values in scores[1:])
        content = {"belongs_to": owner, "most_tiles": scores.most_tiles}
        try:
            text = checksums.seal({**content, "image": image, "peak": peak})
            files.write_text(self._file, text)
        except UserError as error:  # a folder that may only be read
            log.warning("%s: the held-out images will be judged again", error)
