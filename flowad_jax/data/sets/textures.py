"""The embedded data set: tiles of photographs that come with scikit-image, with painted defects.

Categories ``brick``, ``grass`` and ``gravel`` are photographs of 512 x 512 grey pixels, which
scikit-image has in its wheel, so nothing is downloaded. Training tiles are cut from a vertical
strip on the left and test tiles from one on the right, with a gap between them; columns, because
the perspective of the photographs changes along the rows only. All is drawn from a fixed seed.
"""

from __future__ import annotations

import importlib.resources
from pathlib import Path
from typing import Annotated

import numpy as np

from flowad_jax.data.dataset_card import DatasetCard
from flowad_jax.data.images import read_image
from flowad_jax.data.record import GOOD, Record
from flowad_jax.data.texture_defects import PAINTERS, paint, uniform
from flowad_jax.errors import UserError
from flowad_jax.schema import within

CARD = DatasetCard(
    title="Textures",
    licence="the photographs come with scikit-image, public domain",
    metric="image AUROC, pixel AUROC, AUPRO up to 0.30",
    source="embedded",
    layout="nothing: the photographs are in scikit-image",
    categories=("brick", "grass", "gravel"),
)
SIDE = 512
COLUMNS = {"train": (0, 304), "test": (312, SIDE)}


def build(
    root: str | Path,
    category: str,
    split: str,
    *,
    train_images: Annotated[int, within(1, 10**6)] = 48,
    good_images: Annotated[int, within(1, 10**6)] = 16,
    images_per_kind: Annotated[int, within(0, 10**6)] = 8,
    tile: Annotated[int, within(32, SIDE - COLUMNS["test"][0])] = 160,
    strength: Annotated[float, within(0.05, 2)] = 1.0,
    seed: Annotated[int, within(0, 2**32 - 1)] = 0,
) -> TextureSource:
    """Cuts one split of one texture.

    Args:
      root: not used.
      category: ``"brick"``, ``"grass"`` or ``"gravel"``.
      split: ``"train"`` or ``"test"``.
      train_images: tiles to learn from.
      good_images: test tiles without defect.
      images_per_kind: test tiles of each of the five kinds of defect.
      tile: side of a tile in pixels, at most the width of the test strip, 200.
      strength: contrast of the defects; 1 as designed, towards 0 they vanish.
      seed: another number gives other tiles and defects.

    Raises:
      UserError: scikit-image comes without the photographs.
    """
    kinds = [GOOD] * train_images
    if split == "test":
        names = sorted([*PAINTERS, GOOD])
        kinds = [k for k in names for _ in range(good_images if k == GOOD else images_per_kind)]
    return TextureSource(category, split, kinds, tile=tile, strength=strength, seed=seed)


def categories(root: str | Path) -> list[str]:
    """All three, wherever the root is."""
    return list(CARD.categories)


class TextureSource:
    """A ``record.Source`` that cuts and paints its tiles on demand."""

    def __init__(
        self, category: str, split: str, kinds: list[str], *, tile: int, strength: float, seed: int
    ) -> None:
        """Reads the photographs; see `build` for the arguments."""
        self._photographs = {name: _photograph(name) for name in CARD.categories}
        self._category, self._split = category, split
        self._tile, self._strength, self._seed = tile, strength, seed
        self.kinds = kinds
        self.labels = np.array([kind != GOOD for kind in kinds], np.int32)
        self.paths = [f"{category}/{split}/{kind}/{i:03d}.png" for i, kind in enumerate(kinds)]
        self.has_masks = bool(self.labels.any())

    def __len__(self) -> int:
        """Number of tiles."""
        return len(self.kinds)

    def __getitem__(self, index: int) -> Record:
        """Cuts one tile and paints its defect."""
        rng = self._generator(index)
        image = self._cut(self._category, rng)
        mask = np.zeros(image.shape, bool)
        kind = self.kinds[index]
        if kind != GOOD:
            others = [name for name in CARD.categories if name != self._category]
            other = self._cut(others[int(2 * rng.random())], rng)
            image, mask = paint(kind, image, other, self._strength, rng)
        rgb = np.repeat(image[..., None], 3, axis=-1)
        return Record(rgb, mask, int(self.labels[index]), kind, self.paths[index])

    def before_defect(self, index: int) -> np.ndarray:
        """The tile of a record before its defect was painted, (H, W) uint8."""
        return self._cut(self._category, self._generator(index))

    def _generator(self, index: int) -> np.random.Generator:
        category, split = CARD.categories.index(self._category), [*COLUMNS].index(self._split)
        return np.random.default_rng([self._seed, category, split, index])

    def _cut(self, name: str, rng: np.random.Generator) -> np.ndarray:
        """A random tile of the split's strip, mirrored or not."""
        left, right = COLUMNS[self._split]
        x = int(uniform(rng, left, right - self._tile + 1))
        y = int(uniform(rng, 0, SIDE - self._tile + 1))
        tile = self._photographs[name][y : y + self._tile, x : x + self._tile]
        return tile[:, ::-1] if rng.random() < 0.5 else tile


def _photograph(name: str) -> np.ndarray:
    file = importlib.resources.files("skimage") / "data" / f"{name}.png"
    with importlib.resources.as_file(file) as path:
        pixels = read_image(path)[..., 0]
    if pixels.shape != (SIDE, SIDE):
        raise UserError(f"'{file}' is not the photograph of 512 x 512: reinstall scikit-image")
    return pixels
