"""How the pictures look: layout, colours, lettering.

Figures are made without pyplot: no window system is touched and no figure stays open. The colours
are those of Okabe and Ito and the map "inferno", which colour-blind readers can tell apart. Names
that come from files are drawn with ``parse_math=False``: a "$" in them is a letter. They pass
`printable`, because the font engine refuses bytes that are not UTF-8.
"""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps, patheffects
from matplotlib.cm import ScalarMappable
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter
from PIL import Image

from flowad_jax.errors import printable

if TYPE_CHECKING:
    from flowad_jax.evaluation.metrics import Curve
    from flowad_jax.evaluation.pictures import Limits

GOOD, BAD, NEUTRAL = "#0072B2", "#D55E00", "#5F6368"
# By the label of an image: name, colour, marker and hatching.
LABELS = {
    0: ("good", GOOD, "o", None),
    1: ("anomalous", BAD, "^", "////"),
    -1: ("unknown", NEUTRAL, "s", "...."),
}
CONTOUR = "#3FE0FF"  # a hue that "inferno" does not have
OUTCOMES = {"detected": GOOD, "passed": GOOD, "missed": BAD, "false alarm": BAD}
HEAT = colormaps["inferno"]
DPI = 110
CELL, CAPTION, BAR, GAP, TOP = 2.3, 2.0, 1.3, 0.08, 0.8  # inches in a panel
LOWEST, HIGHEST = 1.75, 2 * CELL  # inches of a row: room for its caption, an end for tall images
COLUMNS = ("image", "mask", "anomaly map", "overlay")


def panel(title: str, count: int, size: tuple[int, int], limits: Limits) -> tuple[Figure, list]:
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


def row(axes: list, image: np.ndarray, mask: np.ndarray, score: np.ndarray, limits: Limits) -> None:
    """Draws image, mask, map and overlay at the size of the map."""
    height, width = score.shape
    small = np.asarray(Image.fromarray(image).resize((width, height), Image.Resampling.BICUBIC))
    # Any coverage counts: a defect thinner than a pixel of the map stays visible.
    covered = Image.fromarray(mask.astype(np.float32)).resize((width, height), Image.Resampling.BOX)
    truth = np.asarray(covered) > 0
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


def curves(count: int) -> tuple[Figure, list]:
    """A row of square axes for rates from 0 to 1."""
    figure = Figure(figsize=(0.4 + 4 * count, 4.15), dpi=DPI, layout=_airy())
    axes = list(figure.subplots(1, count, squeeze=False)[0])
    for one in axes:
        one.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal")
        one.xaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        one.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
        _quiet(one)
    return figure, axes


def image_roc(
    axes: Any, labels: np.ndarray, scores: np.ndarray, values: dict, reason: str | None
) -> None:
    """Draws the ROC curve over images."""
    from sklearn.metrics import roc_curve

    _name(axes, "Images: ROC", "good images with an alarm", "anomalous images found")
    if reason:
        return _explain(axes, reason)
    false, true, _ = roc_curve(labels, scores)
    _curve(axes, false, true, f"AUROC {100 * values['image_auroc']:.2f} %")


def pixel_roc(axes: Any, curve: Curve | None, values: dict, reason: str | None) -> None:
    """Draws the ROC curve over pixels."""
    _name(axes, "Pixels: ROC", "defect-free pixels with an alarm", "defect pixels found")
    if curve is None:
        return _explain(axes, reason)
    _curve(axes, curve.false_rate, curve.true_rate, f"AUROC {100 * values['pixel_auroc']:.2f} %")


def pro(axes: Any, curve: Curve | None, values: dict, reason: str | None) -> None:
    """Draws the PRO curve and the areas that AUPRO takes from it."""
    _name(axes, "Regions: PRO", "defect-free pixels with an alarm", "mean part of a region found")
    if curve is None:
        return _explain(axes, reason)
    axes.plot(curve.false_rate, curve.overlap, color=BAD, linewidth=2)
    x = np.linspace(0, 1, 2001)
    y = np.interp(x, curve.false_rate, curve.overlap)
    for limit, alpha in ((0.30, 0.16), (0.05, 0.34)):
        label = f"AUPRO {100 * values[f'aupro_{limit:.2f}']:.2f} %, up to {100 * limit:.0f} %"
        inside = x <= limit
        axes.fill_between(x[inside], y[inside], color=BAD, alpha=alpha, linewidth=0, label=label)
    axes.legend(loc="lower right", frameon=False, fontsize=8.5, handlelength=1.2, borderaxespad=0.1)


def distribution(groups: list[tuple[str, int, np.ndarray]], threshold: float | None) -> Figure:
    """Histograms of good and anomalous scores above a row of dots for every kind.

    Args:
      groups: name, label (-1 for unknown) and scores of every kind, from top to bottom.
      threshold: drawn as a line where given.
    """
    rows = 0.32 * len(groups) + 0.2
    figure = Figure(figsize=(7.6, 3.5 + rows), dpi=DPI, layout=_airy())
    figure.suptitle("Image scores", x=0.02, ha="left", fontsize=11, weight="bold")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(2.3, rows))
    _bins(above, groups)
    _dots(below, groups)
    if threshold is not None:
        label = f"threshold {threshold:.4g}"
        above.axvline(threshold, color="black", linestyle="--", linewidth=1.2, label=label)
        below.axvline(threshold, color="black", linestyle="--", linewidth=1.2)
    above.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3, frameon=False, fontsize=9)
    return figure


def _bins(axes: Any, groups: list[tuple[str, int, np.ndarray]]) -> None:
    pooled = np.concatenate([scores for _, _, scores in groups])
    # A likelihood may span decades; on a linear axis all good images would share one bin.
    wide = pooled.min() > 0 and pooled.max() > 30 * np.median(pooled)
    edges = (np.geomspace if wide else np.linspace)(*_span(pooled), 41)
    axes.set_xscale("log" if wide else "linear")
    for label, (name, colour, _, hatch) in LABELS.items():
        scores = np.concatenate([[], *(group for _, its, group in groups if its == label)])
        if scores.size:
            title = f"{name} ({scores.size})"
            style = {"facecolor": (colour, 0.35), "edgecolor": colour, "hatch": hatch}
            axes.hist(scores, edges, histtype="stepfilled", linewidth=1.5, label=title, **style)
    axes.set_ylabel("images")
    axes.yaxis.get_major_locator().set_params(integer=True)
    _quiet(axes)


def _dots(axes: Any, groups: list[tuple[str, int, np.ndarray]]) -> None:
    rng = np.random.default_rng(0)  # scatters dots, so that equal scores can be counted
    for height, (_, label, scores) in enumerate(groups):
        at = height + rng.uniform(-0.22, 0.22, scores.size)
        _, colour, marker, _ = LABELS[label]
        axes.scatter(scores, at, s=16, alpha=0.65, linewidths=0, marker=marker, color=colour)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    names = [f"{_short(printable(name), 24)} ({scores.size})" for name, _, scores in groups]
    axes.set_yticks(range(len(groups)), names, fontsize=9, parse_math=False)
    axes.set_xlabel("image score, larger is more anomalous")
    _quiet(axes)


def _short(text: str, length: int) -> str:
    return text if len(text) <= length else f"{text[: length - 1]}…"


def _airy() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)


def _span(scores: np.ndarray) -> tuple[float, float]:
    low, high = float(scores.min()), float(scores.max())
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _colour_bar(axes: Any, limits: Limits) -> None:
    scale = ScalarMappable(Normalize(limits.low, limits.high), HEAT)
    bar = axes.figure.colorbar(scale, cax=axes, extend="both", extendfrac=0.03)
    usual = f"\n\n\n{limits.usual:.3g}\n99.9 % of\n{limits.pixels}\nare below"  # centred there
    names = [f"{limits.low:.3g}", usual, f"{limits.high:.3g}"]
    bar.set_ticks([limits.low, limits.usual, limits.high], labels=names, fontsize=8)
    bar.outline.set_visible(False)


def blend(image: np.ndarray, level: np.ndarray) -> np.ndarray:
    """The grey image under the heat map, which is transparent where the score is usual."""
    grey = image.mean(axis=-1, keepdims=True) / 255
    opacity = 0.75 * np.clip((level[..., None] - 0.3) / 0.4, 0, 1)
    return (1 - opacity) * grey + opacity * HEAT(level)[..., :3]


def _outline(axes: Any, truth: np.ndarray) -> None:
    """Draws the border of a mask, with a dark rim that shows it on bright ground too."""
    framed = np.pad(truth, 1).astype(float)  # regions at the border of the image close there
    rows, columns = (np.arange(-1, side + 1) for side in truth.shape)
    lines = axes.contour(columns, rows, framed, [0.5], colors=CONTOUR, linewidths=1.1)
    lines.set_path_effects([patheffects.withStroke(linewidth=2.2, foreground="#10202A")])
    axes.set(xlim=(-0.5, truth.shape[1] - 0.5), ylim=(truth.shape[0] - 0.5, -0.5))


def _curve(axes: Any, x: np.ndarray, y: np.ndarray, label: str) -> None:
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":", linewidth=1.2)
    axes.plot(x, y, color=GOOD, linewidth=2)
    axes.text(0.97, 0.05, label, ha="right", fontsize=11, weight="bold")


def _name(axes: Any, title: str, x: str, y: str) -> None:
    axes.set_title(title, loc="left", fontsize=11, weight="bold")
    axes.set_xlabel(x)
    axes.set_ylabel(y)


def _explain(axes: Any, reason: str | None) -> None:
    text = textwrap.fill(f"not defined: {reason}", 28)
    axes.text(0.5, 0.5, text, ha="center", va="center", color=NEUTRAL)


def _quiet(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.6")
    axes.tick_params(colors="0.25", length=3)
