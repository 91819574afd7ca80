"""Gallery of a report: images with mask, map and overlay, to be sorted and filtered."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageColor
from scipy import ndimage

from flowad_jax.evaluation import _drawing as draw
from flowad_jax.evaluation.pictures import Limits, colour_limits
from flowad_jax.evaluation.report_findings import GROUPS, Findings
from flowad_jax.evaluation.report_html import Html, join, plural, tag

SIDE = 192  # pixels of the longer side of a thumbnail
# Full resolution of colours: the outline in an overlay is a thin line.
JPEG = {"format": "JPEG", "quality": 85, "subsampling": 0, "optimize": True}
PNG = {"format": "PNG", "optimize": True}


def gallery(findings: Findings, limit: int) -> Html:
    """The chosen images, highest score first, below the controls that filter them."""
    chosen = choose(findings, limit)
    limits = colour_limits(findings.scores.pixel, findings.labels)
    numbers = {key: str(number) for number, key in enumerate(findings.groups())}
    entries = [_entry(findings, index, limits, numbers) for index in chosen]
    return join(
        [
            _extent(len(chosen), len(findings.labels)),
            _scale(limits),
            _controls(findings, chosen, numbers),
            tag("div", *entries, class_="entries", id="entries"),
            tag("p", "No image matches the filters.", id="none", hidden=True, class_="note"),
        ]
    )


def choose(findings: Findings, limit: int) -> list[int]:
    """At most ``limit`` images, highest score first.

    Kinds get equal shares as far as they have images; within a kind, every so many ranks of the
    score one image is taken, from the highest to the lowest.
    """
    scores = findings.scores.image
    groups = sorted(findings.groups().values(), key=len)
    chosen: list[int] = []
    for waiting, rows in zip(range(len(groups), 0, -1), groups, strict=True):
        size = min(len(rows), (limit - len(chosen)) // waiting)
        falling = rows[np.argsort(-scores[rows], kind="stable")]
        chosen += falling[np.linspace(0, len(rows) - 1, size).round().astype(int)].tolist()
    return sorted(chosen, key=lambda index: (-scores[index], index))


def _entry(
    findings: Findings, index: int, limits: Limits, numbers: Mapping[tuple[int, str], str]
) -> Html:
    record = findings.records[index]
    outcome = findings.decision(index)
    score = f"score {findings.scores.image[index]:.4g}"
    if findings.p_values is not None:
        score += f", p\u00a0{findings.p_values[index]:.3g}"
    return tag(
        "article",
        _heading(record, score, outcome),
        thumbnails(record, findings.scores.pixel[index], limits, findings.masks is not None),
        class_="entry",
        data_kind=numbers[int(record.label), record.kind],
        data_outcome=outcome[1] if outcome else None,
    )


def thumbnails(record: Any, scored: np.ndarray, limits: Limits, has_masks: bool) -> Html:
    """Image, mask, map and overlay side by side.

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
    truth = _covered(record.mask, size) if has_masks else np.zeros(size[::-1], bool)
    overlay = _outlined(draw.blend(np.asarray(image), level), truth)
    name = record.path
    if has_masks and truth.any():
        mask = _picture("mask", Image.fromarray(truth), f"Mask of the defect in {name}", PNG)
    else:
        without = "no mask" if record.label else "no defect"
        mask = tag("figure", tag("div", without, class_="blank"), tag("figcaption", "mask"))
    heat = Image.fromarray(draw.HEAT(level, bytes=True)[..., :3])
    return tag(
        "div",
        _picture("image", image, f"Image {name}", JPEG),
        mask,
        _picture("map", heat, f"Anomaly map of {name}", JPEG),
        _picture("overlay", overlay, f"Anomaly map over {name}", JPEG),
        class_="thumbs",
    )


def _covered(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The mask at another size; any coverage counts, so that thin defects stay visible."""
    small = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return np.asarray(small) > 0


def _outlined(picture: np.ndarray, truth: np.ndarray) -> Image.Image:
    """Marks the border of a mask, with a dark rim that shows it on bright ground too."""
    border = ndimage.binary_dilation(truth, iterations=2) & ~truth
    rim = ndimage.binary_dilation(truth, iterations=3) & ~truth & ~border
    pixels = (255 * picture).astype(np.uint8)
    pixels[rim] = (16, 32, 42)
    pixels[border] = ImageColor.getrgb(draw.CONTOUR)
    return Image.fromarray(pixels)


def _picture(caption: str, image: Image.Image, alt: str, encoding: dict[str, Any]) -> Html:
    buffer = io.BytesIO()
    image.save(buffer, **encoding)
    data = base64.b64encode(buffer.getvalue()).decode()
    source = f"data:image/{encoding['format'].lower()};base64,{data}"
    picture = tag(
        "img", src=source, alt=alt, width=image.width, height=image.height, loading="lazy",
        decoding="async",
    )  # fmt: skip
    return tag("figure", picture, tag("figcaption", caption))


def _heading(record: Any, score: str, outcome: tuple[str, str] | None) -> Html:
    badge = tag("span", outcome[0], class_=f"badge {outcome[1]}") if outcome else None
    # The end of a path tells images apart.
    short = "/".join(re.split(r"[\\/]", record.path)[-2:])
    return tag(
        "header",
        tag("h3", record.kind, badge),
        tag("p", score, class_="numbers"),
        tag("p", short, class_="path", title=record.path),
    )


def _extent(shown: int, total: int) -> Html:
    if shown == total:
        words = f"All {plural(total, 'test image')}, highest score first."
    else:
        words = (
            f"{shown} of {plural(total, 'test image')}, evenly over the scores of each kind; "
            f"{total - shown} left out to keep this file small."
        )
    return tag("p", words, class_="lead")


def _scale(limits: Limits) -> Html:
    """Legend of the colours that all maps share."""
    stops = ", ".join(
        "rgb({} {} {})".format(*draw.HEAT(at, bytes=True)[:3]) for at in np.linspace(0, 1, 9)
    )
    ends = tag(
        "span",
        tag("span", f"{limits.low:.3g}"),
        tag("span", f"{limits.usual:.3g}: 99.9 % of {limits.pixels} are below"),
        tag("span", f"{limits.high:.3g}"),
        class_="ends",
    )
    bar = tag("span", class_="bar", style=f"background: linear-gradient(90deg, {stops})")
    outline = tag("p", "The line in an overlay is the border of the mask.", class_="note")
    return tag("div", tag("div", bar, ends, class_="scale"), outline, class_="legend")


def _controls(
    findings: Findings, chosen: list[int], numbers: Mapping[tuple[int, str], str]
) -> Html:
    """Filters, hidden until the script makes them work."""
    options = [tag("option", f"all kinds ({len(chosen)})", value="")]
    for key, rows in findings.groups(chosen).items():
        options.append(tag("option", f"{key[1]} ({len(rows)})", value=numbers[key]))
    outcomes = [outcome[1] for outcome in map(findings.decision, chosen) if outcome]
    choices = [_choice("", f"All ({len(chosen)})", checked=True)]
    for group, name in GROUPS.items():
        if group != "unknown" or group in outcomes:  # few sets have such images
            choices.append(_choice(group, f"{name} ({outcomes.count(group)})"))
    decided = findings.threshold is not None
    orders = [tag("option", f"{end} score first", value=end) for end in ("highest", "lowest")]
    return tag(
        "form",
        tag("label", "Kind", tag("select", *options, name="kind")),
        tag("fieldset", tag("legend", "Decision"), *choices) if decided else None,
        tag("label", "Order", tag("select", *orders, name="order")),
        tag("output", aria_live="polite", id="shown"),
        id="filters",
        class_="filters",
        hidden=True,
        autocomplete="off",
    )


def _choice(value: str, name: str, checked: bool = False) -> Html:
    button = tag("input", type="radio", name="outcome", value=value, checked=checked)
    return tag("label", button, tag("span", name), class_="choice")
