"""Gallery of the HTML report: which images it shows, and their thumbnails."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, ImageColor
from scipy import ndimage

from flowad_jax.report import figures
from flowad_jax.report.formats import plural
from flowad_jax.report.pictures import colour_limits
from flowad_jax.report.scored_images import GROUPS, Limits, ScoredImages

SIDE = 192  # pixels of the longer side of a thumbnail
# Full resolution of colours: the outline in an overlay is a thin line.
JPEG = {"format": "JPEG", "quality": 85, "subsampling": 0, "optimize": True}
PNG = {"format": "PNG", "optimize": True}


class Thumbnail(NamedTuple):
    """A small picture as an address (data); without a mask only words."""

    caption: str
    alt: str = ""
    source: str = ""
    width: int = 0
    height: int = 0


def gallery(images: ScoredImages, limit: int) -> dict[str, Any]:
    """All that the page shows of at most ``limit`` images, highest score first."""
    chosen, total = choose(images, limit), len(images.labels)
    limits = colour_limits(images.scores.pixel, images.labels)
    numbered = dict(zip(images.groups(), numbers(images), strict=True))
    whole = plural(total, f"{images.origin} image")
    extent = f"All {whole}, highest score first."
    if len(chosen) < total:
        extent = (
            f"{len(chosen)} of {whole}, evenly over the scores of each kind; "
            f"{total - len(chosen)} left out to keep this file small."
        )
    stops = [figures.HEAT(at, bytes=True)[:3] for at in np.linspace(0, 1, 9)]
    return {
        "extent": extent,
        "colours": ", ".join("rgb({} {} {})".format(*stop) for stop in stops),
        "limits": limits,
        "filters": _filters(images, chosen, numbered),
        "entries": [_entry(images, index, limits, numbered) for index in chosen],
    }


def choose(images: ScoredImages, limit: int) -> list[int]:
    """At most ``limit`` images, highest score first.

    Kinds get equal shares as far as they have images; within a kind, every so many ranks of the
    score one image is taken, from the highest to the lowest.
    """
    scores = images.scores.image
    groups = sorted(images.groups().values(), key=len)
    chosen: list[int] = []
    for waiting, rows in zip(range(len(groups), 0, -1), groups, strict=True):
        size = min(len(rows), (limit - len(chosen)) // waiting)
        falling = rows[np.argsort(-scores[rows], kind="stable")]
        chosen += falling[np.linspace(0, len(rows) - 1, size).round().astype(int)].tolist()
    return sorted(chosen, key=lambda index: (-scores[index], index))


def numbers(images: ScoredImages) -> list[str]:
    """What the page calls the kinds, in the order of `ScoredImages.groups`."""
    return [str(number) for number in range(len(images.groups()))]


def _filters(
    images: ScoredImages, chosen: list[int], numbers: Mapping[tuple[int, str], str]
) -> dict[str, list[tuple[str, str]]]:
    """Values and names of the choices by kind and, where there are some, by decision."""
    kinds = [("", f"all kinds ({len(chosen)})")]
    kinds += [(numbers[k], f"{k[1]} ({len(r)})") for k, r in images.groups(chosen).items()]
    decisions = [decision[1] for decision in map(images.decision, chosen) if decision]
    outcomes = [("", f"All ({len(chosen)})")] + [
        (group, f"{name} ({decisions.count(group)})")
        for group, name in GROUPS.items()
        if group != "unknown" or group in decisions  # few sets have such images
    ]
    return {"kinds": kinds, "outcomes": outcomes if decisions else []}


def _entry(
    images: ScoredImages, index: int, limits: Limits, numbers: Mapping[tuple[int, str], str]
) -> dict[str, Any]:
    record = images.records[index]
    score = f"score {images.scores.image[index]:.4g}"
    if images.p_values is not None:
        score += f", p\u00a0{images.p_values[index]:.3g}"
    return {
        "record": record,
        "score": score,
        "decision": images.decision(index),
        "number": numbers[int(record.label), record.kind],
        "end_of_path": "/".join(re.split(r"[\\/]", record.path)[-2:]),
        "thumbnails": thumbnails(
            record, images.scores.pixel[index], limits, images.masks is not None
        ),
    }


def thumbnails(record: Any, scored: np.ndarray, limits: Limits, has_masks: bool) -> list[Thumbnail]:
    """Image, mask, map and overlay.

    Args:
      record: with ``image`` (h, w, 3) uint8, ``mask`` (h, w) bool, ``label`` and ``path``.
      scored: (H, W) anomaly map.
      limits: the colour scale.
      has_masks: whether the mask says where the defect is.
    """
    height, width = record.image.shape[:2]
    scale = min(1.0, SIDE / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(record.image).resize(size, Image.Resampling.LANCZOS)
    level = (scored - limits.low) / (limits.high - limits.low)
    level = np.asarray(Image.fromarray(level.astype(np.float32)).resize(size)).clip(0, 1)
    truth = figures.covered(record.mask, size) if has_masks else np.zeros(size[::-1], bool)
    overlay = _outlined(figures.blend(np.asarray(image), level), truth)
    name = record.path
    if truth.any():
        mask = _picture("mask", Image.fromarray(truth), f"Mask of the defect in {name}", PNG)
    else:
        mask = Thumbnail("mask", "no mask" if record.label else "no defect")
    heat = Image.fromarray(figures.HEAT(level, bytes=True)[..., :3])
    return [
        _picture("image", image, f"Image {name}", JPEG),
        mask,
        _picture("map", heat, f"Anomaly map of {name}", JPEG),
        _picture("overlay", overlay, f"Anomaly map over {name}", JPEG),
    ]


def _outlined(picture: np.ndarray, truth: np.ndarray) -> Image.Image:
    """Marks the border of a mask, with a dark rim that shows it on bright ground too."""
    border = ndimage.binary_dilation(truth, iterations=2) & ~truth
    rim = ndimage.binary_dilation(truth, iterations=3) & ~truth & ~border
    pixels = (255 * picture).astype(np.uint8)
    pixels[rim] = ImageColor.getrgb(figures.RIM)
    pixels[border] = ImageColor.getrgb(figures.CONTOUR)
    return Image.fromarray(pixels)


def _picture(caption: str, image: Image.Image, alt: str, encoding: dict[str, Any]) -> Thumbnail:
    buffer = io.BytesIO()
    image.save(buffer, **encoding)
    data = base64.b64encode(buffer.getvalue()).decode()
    source = f"data:image/{encoding['format'].lower()};base64,{data}"
    return Thumbnail(caption, alt, source, image.width, image.height)
