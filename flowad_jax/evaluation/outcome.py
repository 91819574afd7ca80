"""What a run made of its test images, as far as intervals and comparisons need it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

from flowad_jax import archive, files
from flowad_jax.errors import UserError
from flowad_jax.evaluation import image_counts
from flowad_jax.evaluation.aupro import Images
from flowad_jax.evaluation.image_counts import ImageCounts
from flowad_jax.evaluation.metrics import known

FILE = "outcome.npz"  # in a workdir, beside results.json
LIMIT = 2**32  # bytes in memory
_COUNTS = ("pixel", "region")


class Outcome(NamedTuple):
    """N test images whose label is known, in the order of the data set.

    Attributes:
      names: (N,) what the data set calls them.
      labels: (N,) 0 for normal, 1 for anomalous.
      scores: (N,) image scores.
      flagged: (N,) what was called anomalous; None without a threshold.
      pixel: what pixel metrics are sums of; None without masks.
      region: what AUPRO is a sum of: ``pixel``, unless the method has other maps for it.
    """

    names: np.ndarray
    labels: Int[np.ndarray, " N"]
    scores: Float[np.ndarray, " N"]
    flagged: Bool[np.ndarray, " N"] | None = None
    pixel: ImageCounts | None = None
    region: ImageCounts | None = None


def gather(
    names: Sequence[str],
    labels: Int[np.ndarray, " N"],
    scores: Float[np.ndarray, " N"],
    flagged: Bool[np.ndarray, " N"] | None,
    masks: Images | None = None,
    maps: Images | None = None,
    overlap: Images | None = None,
) -> Outcome:
    """Leaves out images of unknown label and counts the pixels of the others; see `metrics`."""
    labels, used, scores, flagged, masks, maps, overlap = known(
        labels, np.array(names, str), scores, flagged, masks, maps, overlap
    )
    if masks is None or maps is None or not len(labels):
        return Outcome(used, labels, scores, flagged)
    pixel = image_counts.count(masks, maps)
    region = pixel if overlap is None else image_counts.count(masks, overlap)
    return Outcome(used, labels, scores, flagged, pixel, region)


def selected(found: Outcome, rows: Int[np.ndarray, " n"]) -> Outcome:
    """Returns what was found on some of the images, in the order of their rows."""

    def of_rows(values: Any) -> Any:
        if isinstance(values, ImageCounts):
            return ImageCounts(*map(of_rows, values))
        return None if values is None else values[rows]

    return Outcome(*map(of_rows, found))


def write(path: Path, found: Outcome) -> None:
    """Writes ``outcome.npz`` into a folder."""
    arrays = {"names": found.names, "labels": found.labels, "scores": found.scores}
    if found.flagged is not None:
        arrays["flagged"] = found.flagged
    same = found.region is found.pixel
    for kind in _COUNTS[: 1 if same else 2]:
        counts = getattr(found, kind)
        if counts is not None:
            arrays |= {f"{kind}.{name}": values for name, values in counts._asdict().items()}
    with files.atomic_write(path / FILE) as file:
        archive.save_arrays(file, arrays)


def read(path: Path) -> Outcome:
    """Reads what `write` wrote; it may come from a stranger.

    Raises:
      UserError: it is missing, damaged or too large.
    """
    file = path / FILE
    remedy = f"flowad eval --workdir={path} writes it anew"
    try:
        with files.open_regular(file) as opened:
            with zipfile.ZipFile(opened) as packed:
                if sum(entry.file_size for entry in packed.infolist()) > LIMIT:
                    raise ValueError("too large")
            opened.seek(0)
            with np.load(opened, allow_pickle=False) as stored:
                return _built(dict(stored))
    except FileNotFoundError:
        raise UserError(f"{file} is missing: {remedy}") from None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(f"{file} is damaged: {remedy}") from error


def _built(arrays: Mapping[str, np.ndarray]) -> Outcome:
    """Raises a KeyError or ValueError where arrays are missing or do not fit."""
    counts = [
        ImageCounts(*(arrays[f"{kind}.{name}"] for name in ImageCounts._fields))
        if f"{kind}.false" in arrays
        else None
        for kind in _COUNTS
    ]
    pixel, region = counts[0], counts[1] or counts[0]
    names, labels, scores = (arrays[name] for name in ("names", "labels", "scores"))
    found = Outcome(names, labels, scores, arrays.get("flagged"), pixel, region)
    rows = [found.flagged, *(pixel or ()), *(region or ()), labels, scores]
    numbers = [one for one in rows if one is not None]
    if names.dtype.kind != "U" or any(one.dtype.kind not in "biuf" for one in numbers):
        raise ValueError("other types")
    if {one.shape[:1] for one in (names, *numbers)} != {(len(names),)}:
        raise ValueError("other shapes")
    if not (np.isin(labels, (0, 1)).all() and np.isfinite(scores).all()):
        raise ValueError("other values")
    for kind in filter(None, (pixel, region)):
        if len({one.shape for one in kind[:3]}) > 1 or kind.false.ndim != 2:
            raise ValueError("other shapes")
    return found
