"""The folder that the server of MVTec AD 2 evaluates, from one detector for each category.

    {output}/anomaly_images/{category}/{split}/{stem}.tiff               float16 anomaly map
    {output}/anomaly_images_thresholded/{category}/{split}/{stem}.png    255 where anomalous, else 0

for every image of the splits ``test_private`` and ``test_private_mixed``, at its own size.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from tqdm.auto import tqdm

from flowad_jax import files
from flowad_jax.data import sources
from flowad_jax.data.images import image_size
from flowad_jax.data.sets.mvtec_ad2 import CARD
from flowad_jax.detector import workdir
from flowad_jax.errors import UserError
from flowad_jax.inference import loading
from flowad_jax.inference.prediction import Prediction

NAME = "mvtec_ad2"
SPLITS = ("test_private", "test_private_mixed")
MAPS, DECISIONS = "anomaly_images", "anomaly_images_thresholded"
_HIGHEST = float(np.finfo(np.float16).max)


def find(folders: Sequence[str]) -> dict[str, Path]:
    """Returns the workdir of every category among runs and sweeps.

    Raises:
      UserError: a folder holds no run of MVTec AD 2, or two are of one category.
    """
    found: dict[str, Path] = {}
    for folder in map(Path, folders):
        for path in _runs(folder):
            data = workdir.load_config(path).data
            if sources.plain(data.name) != NAME:
                raise UserError(f"{path} is a run on '{data.name}': name runs on {NAME}")
            if data.category in found:
                raise UserError(f"{path} and {found[data.category]} are both of {data.category}")
            found[data.category] = path
    return found


def _runs(folder: Path) -> list[Path]:
    if (folder / workdir.LEDGER).exists():
        return sorted(file.parent for file in folder.rglob(workdir.CONFIG))
    return [folder]


def write(run: Path, output: Path, data: str | None = None) -> int:
    """Judges the private images of a run's category; returns how many there are.

    Args:
      run: workdir.
      output: folder of the submission.
      data: root of the data set; None: as the run has it.

    Raises:
      UserError: the run has no threshold for pixels, or an image cannot be read.
    """
    predictor = loading.load(run)
    threshold = predictor.thresholds.get("pixel")
    if threshold is None:
        raise UserError(f"{run} has no threshold for pixels: hold out images (data.holdout)")
    config = predictor.model.config
    images = list(private_images(data or config.data.root, config.data.category))
    bar = tqdm(total=len(images), desc=config.data.category, unit="img", disable=None)
    with bar:
        for first in range(0, len(images), predictor.batch_size):
            photos, places = zip(*images[first : first + predictor.batch_size], strict=True)
            for place, found in zip(places, predictor.predict(photos), strict=True):
                _save(output, place, found, threshold)
                bar.update()
    return len(images)


def private_images(root: str, category: str) -> Iterator[tuple[Path, Path]]:
    """Yields every private image of a category, and its place in a submission, without suffix."""
    for split in SPLITS:
        for image in map(Path, sources.build(NAME, root, category, split).paths):
            yield image, Path(category) / split / image.stem


def _save(output: Path, place: Path, found: Prediction, threshold: float) -> None:
    # The server ranks values; none but the most extreme leave the range of float16.
    values = np.clip(found.map, -_HIGHEST, _HIGHEST).astype(np.float16)
    with files.atomic_write(output / MAPS / place.with_suffix(".tiff")) as file:
        tifffile.imwrite(file, values)
    called = np.where(found.map > threshold, 255, 0).astype(np.uint8)
    with files.atomic_write(output / DECISIONS / place.with_suffix(".png")) as file:
        Image.fromarray(called).save(file)


def problems(output: Path, roots: Mapping[str, str]) -> list[str]:
    """Returns what the server would refuse, a line each; nothing if the folder is complete.

    Args:
      output: folder of the submission.
      roots: of the data set, by category.
    """
    missing = [name for name in CARD.categories if name not in roots]
    lines = [f"no run of {name}" for name in missing]
    wanted = set()
    for category, root in roots.items():
        for image, place in private_images(root, category):
            size = image_size(image)
            for folder, suffix in ((MAPS, ".tiff"), (DECISIONS, ".png")):
                file = output / folder / place.with_suffix(suffix)
                wanted.add(file)
                lines += [f"{file}: {fault}" for fault in _faults(file, size)]
    written = (file for name in (MAPS, DECISIONS) for file in (output / name).rglob("*.*"))
    return lines + [f"{file}: is of no private image" for file in sorted({*written} - wanted)]


def _faults(file: Path, size: tuple[int, int]) -> Iterator[str]:
    if not file.is_file():
        yield "is missing"
        return
    try:
        values = tifffile.imread(file) if file.suffix == ".tiff" else np.asarray(Image.open(file))
    except (OSError, ValueError) as error:
        yield f"cannot be read ({error})"
        return
    wanted = np.float16 if file.suffix == ".tiff" else np.uint8
    if values.dtype != wanted:
        yield f"is {values.dtype} instead of {np.dtype(wanted)}"
    if values.shape != size:
        yield f"is {values.shape} but its image is {size}"
    if not np.isfinite(values).all():
        yield "has a value that is not finite"
    if wanted is np.uint8 and not np.isin(values, (0, 255)).all():
        yield "has values other than 0 and 255"


def pack(output: Path) -> Path:
    """Writes ``{output}.tar.gz`` and returns its path."""
    target = output.with_name(f"{output.name}.tar.gz")
    with files.atomic_write(target) as file, tarfile.open(file, "w:gz") as packed:
        for name in (MAPS, DECISIONS):
            packed.add(output / name, name)
    return target
