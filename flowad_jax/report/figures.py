"""How the pictures look: layout, colours, lettering.

Figures are made without pyplot: no window system is touched and no figure stays open. The colours
are those of Okabe and Ito and the map "inferno", which colour-blind readers can tell apart. Names
that come from files are drawn with ``parse_math=False``: a "$" in them is a letter. They pass
`printable`, because the font engine refuses bytes that are not UTF-8.
"""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from PIL import Image

from flowad_jax.errors import printable
from flowad_jax.report.scored_images import Limits

GOOD, BAD, NEUTRAL = "#0072B2", "#D55E00", "#5F6368"
# By the label of an image: name, colour, marker and hatching.
LABELS = {
    0: ("good", GOOD, "o", None),
    1: ("anomalous", BAD, "^", "////"),
    -1: ("unknown", NEUTRAL, "s", "...."),
}
CONTOUR, RIM = "#3FE0FF", "#10202A"  # a hue that "inferno" does not have, and a dark one around it
OUTCOMES = {"detected": GOOD, "passed": GOOD, "missed": BAD, "false alarm": BAD}
HEAT = colormaps["inferno"]
DPI = 110
CELL, CAPTION, BAR, GAP, TOP = 2.3, 2.0, 1.3, 0.08, 0.8  # inches in a panel
LOWEST, HIGHEST = 1.75, 2 * CELL  # inches of a row: room for its caption, an end for tall images
COLUMNS = ("image", "mask", "anomaly map", "overlay")


def panel(
    title: str, count: int, size: tuple[int, int], limits: Limits
) -> tuple[Figure, list[Any]]:
    """An empty panel with a colour bar.

    Returns:
      The figure and ``count`` rows of five axes: a caption and four cells of the shape of ``size``.
    """
    high = min(max(CELL * size[0] / size[1], LOWEST), HIGHEST)
    width = CAPTION + 4 * (CELL + GAP) + BAR
    height = TOP + count * (high + GAP) + GAP
    figure = Figure(figsize=(width, height), dpi=DPI)

    def place(left: float, top: float, wide: float, tall: float) -> Any:
        return figure.add_axes(
            (left / width, 1 - (top + tall) / height, wide / width, tall / height)
        )

    rows = []
    for top in TOP + (high + GAP) * np.arange(count):
        cells = [place(CAPTION + k * (CELL + GAP), top, CELL, high) for k in range(4)]
        rows.append([place(0.15, top, CAPTION - 0.25, high), *cells])
    for axes, name in zip(rows[0][1:], COLUMNS, strict=True):
        axes.set_title(name, fontsize=10, pad=5, color=NEUTRAL)
    _colour_bar(place(CAPTION + 4 * (CELL + GAP) + 0.06, TOP, 0.16, high), limits)
    figure.text(
        0.15 / width, 1 - 0.16 / height, printable(title),
        fontsize=13, va="top", weight="bold", parse_math=False,
    )  # fmt: skip
    return figure, rows


def caption(axes: Any, kind: str, text: str, outcome: str, name: str) -> None:
    """Writes kind, text, outcome and file name, one below the other."""
    axes.axis("off")
    heading = textwrap.fill(printable(kind), 17, max_lines=2, placeholder=" …")
    inches = axes.get_position().height * axes.figure.get_figheight()
    top = 1.0
    for block, size, weight, colour in (
        (heading, 11, "bold", "black"),
        ("\n".join(textwrap.fill(line, 24) for line in text.split("\n")), 9, "normal", "black"),
        (outcome, 9, "bold", OUTCOMES.get(outcome)),
    ):
        style = {"fontsize": size, "weight": weight, "color": colour, "va": "top"}
        axes.text(0, top, block, linespacing=1.3, parse_math=False, **style)
        top -= (block.count("\n") + 1.4) * 1.45 * size / 72 / inches  # 72 points are an inch
    name = printable(name)
    ending = name if len(name) <= 50 else "…" + name[-49:]
    ending = textwrap.fill(ending, 26)
    axes.text(0, 0, ending, fontsize=7, color=NEUTRAL, va="bottom", parse_math=False)


def row(
    axes: list[Any], image: np.ndarray, mask: np.ndarray, score: np.ndarray, limits: Limits
) -> None:
    """Draws image, mask, map and overlay at the size of the map."""
    height, width = score.shape
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    truth = covered(mask, (width, height))
    level = np.clip((score - limits.low) / (limits.high - limits.low), 0, 1)
    pictures = (small, np.repeat(truth[..., None], 3, -1) * 1.0, HEAT(level), blend(small, level))
    for cell, shown in zip(axes, pictures, strict=True):
        cell.imshow(shown, interpolation="nearest")
        cell.set(xticks=[], yticks=[], anchor="N")
        cell.spines[:].set_visible(False)
    if not truth.any():
        axes[1].text(
            0.5, 0.5, "no defect marked", color="0.65", fontsize=9, ha="center", va="center",
            transform=axes[1].transAxes,
        )  # fmt: skip
    elif not truth.all():
        _outline(axes[3], truth)


def covered(mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A mask at another size (width, height); any coverage counts, so that thin defects stay."""
    small = Image.fromarray(mask.astype(np.float32)).resize(size, Image.Resampling.BOX)
    return np.asarray(small) > 0


def _colour_bar(axes: Any, limits: Limits) -> None:
    scale = ScalarMappable(Normalize(limits.low, limits.high), HEAT)
    bar = axes.figure.colorbar(scale, cax=axes, extend="both", extendfrac=0.03)
    usual = f"\n\n\n{limits.usual:.3g}\n99.9 % of\n{limits.pixels}\nare below"  # centred there
    names = [f"{limits.low:.3g}", usual, f"{limits.high:.3g}"]
    bar.set_ticks([limits.low, limits.usual, limits.high], labels=names, fontsize=8)
    bar.outline.set_visible(False)


def blend(image: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The image under the heat map, which is transparent where the score is usual.

    Where it is not, the image is in grey: its own colours would be taken for those of the map.
    """
    grey = image.mean(axis=-1, keepdims=True)
    heat = np.clip((level[..., None] - 0.4) / 0.3, 0, 1)
    ground = (image + heat * (grey - image)) / 255
    return (1 - 0.75 * heat) * ground + 0.75 * heat * HEAT(level)[..., :3]


def _outline(axes: Any, truth: np.ndarray) -> None:
    """Draws the border of a mask, with a dark rim that shows it on bright ground too."""
    framed = np.pad(truth, 1).astype(float)  # regions at the border of the image close there
    rows, columns = (np.arange(-1, side + 1) for side in truth.shape)
    lines = axes.contour(columns, rows, framed, [0.5], colors=CONTOUR, linewidths=1.1)
    lines.set_path_effects([patheffects.withStroke(linewidth=2.2, foreground=RIM)])
    axes.set(xlim=(-0.5, truth.shape[1] - 0.5), ylim=(truth.shape[0] - 0.5, -0.5))
