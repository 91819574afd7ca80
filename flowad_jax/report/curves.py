"""Figures of rates and scores: ROC and PRO curves, and how image scores are distributed."""

from __future__ import annotations

import textwrap
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from flowad_jax.errors import printable
from flowad_jax.evaluation import metrics
from flowad_jax.report.figures import BAD, DPI, GOOD, LABELS, NEUTRAL
from flowad_jax.types import Scores


def rate_curves(
    labels: np.ndarray, scores: Scores, masks: Any, one_each: bool = False
) -> list[Figure]:
    """Draws ROC over images and, given masks, ROC over pixels and PRO.

    Args:
      labels: (N,) 0 for normal, 1 for anomalous, -1 for unknown.
      scores: of the N images.
      masks: N masks, or None.
      one_each: every curve in a figure of its own; else one figure with all, side by side.
    """
    labels, masks, image, pixel, overlap = metrics.known(labels, masks, *scores)
    reasons = metrics.undefined(labels, masks)
    count = 1 if masks is None else 3
    shapes = [1] * count if one_each else [count]
    drawn = [Figure((0.4 + 4 * n, 4.15), dpi=DPI, layout=_airy()) for n in shapes]
    axes = [
        a for f, n in zip(drawn, shapes, strict=True) for a in f.subplots(1, n, squeeze=False)[0]
    ]
    _image_roc(axes[0], labels, image, reasons.get("image_auroc"))
    if masks is not None:
        found = metrics.pixel_analysis(masks, pixel)
        _pixel_roc(axes[1], *found, reasons.get("pixel_auroc"))
        if overlap is not None:
            found = metrics.pixel_analysis(masks, overlap)
        pro(axes[2], *found, reasons.get("pixel_auroc"))
    return drawn


def _image_roc(axes: Any, labels: np.ndarray, scores: np.ndarray, reason: str | None) -> None:
    from sklearn.metrics import roc_curve

    rate_axes(axes, "Images: ROC", "normal images with an alarm", "anomalous images found", reason)
    if not reason:
        false, true, _ = roc_curve(labels, scores)
        area = metrics.image_metrics(labels, scores)["image_auroc"]
        _roc(axes, false, true, area)


def _pixel_roc(
    axes: Any, values: dict[str, float], curve: metrics.Curve | None, reason: str | None
) -> None:
    rate_axes(
        axes, "Pixels: ROC", "defect-free pixels with an alarm", "defect pixels found", reason
    )
    if curve is not None:
        _roc(axes, curve.false_rate, curve.true_rate, values["pixel_auroc"])


def pro(
    axes: Any, values: dict[str, float], curve: metrics.Curve | None, reason: str | None
) -> None:
    """Draws the PRO curve and the areas that AUPRO takes from it."""
    x_name, y_name = "defect-free pixels with an alarm", "mean part of a region found"
    rate_axes(axes, "Regions: PRO", x_name, y_name, reason)
    if curve is None:
        return
    axes.plot(curve.false_rate, curve.overlap, color=BAD, linewidth=2)
    x = np.linspace(0, 1, 2001)
    y = np.interp(x, curve.false_rate, curve.overlap)
    for limit, alpha in ((0.30, 0.16), (0.05, 0.34)):
        label = f"AUPRO {100 * values[f'aupro_{limit:.2f}']:.2f} %, up to {100 * limit:.0f} %"
        inside = x <= limit
        axes.fill_between(x[inside], y[inside], color=BAD, alpha=alpha, linewidth=0, label=label)
    axes.legend(loc="lower right", frameon=False, fontsize=8.5, handlelength=1.2, borderaxespad=0.1)


def _roc(axes: Any, false: np.ndarray, true: np.ndarray, area: float) -> None:
    axes.plot([0, 1], [0, 1], color="0.7", linestyle=":", linewidth=1.2)
    axes.plot(false, true, color=GOOD, linewidth=2)
    axes.text(0.97, 0.05, f"AUROC {100 * area:.2f} %", ha="right", fontsize=11, weight="bold")


def rate_axes(axes: Any, title: str, x_name: str, y_name: str, reason: str | None = None) -> None:
    """Prepares square axes from 0 to 1; if there is nothing to draw, they say the reason."""
    axes.set(xlim=(-0.01, 1.01), ylim=(-0.01, 1.01), aspect="equal", xlabel=x_name, ylabel=y_name)
    axes.set_title(title, loc="left", fontsize=11, weight="bold")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    quiet(axes)
    if reason:
        text = textwrap.fill(f"not defined: {reason}", 28)
        axes.text(0.5, 0.5, text, ha="center", va="center", color=NEUTRAL)


def distribution(groups: list[tuple[str, int, np.ndarray]], threshold: float | None) -> Figure:
    """Histograms of normal and anomalous scores above a row of dots for every kind.

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
    # A likelihood may span decades; on a linear axis all normal images would share one bin.
    wide = pooled.min() > 0 and pooled.max() > 30 * np.median(pooled)
    low, high = float(pooled.min()), float(pooled.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    edges = (np.geomspace if wide else np.linspace)(low, high, 41)
    axes.set_xscale("log" if wide else "linear")
    for label, (name, colour, _, hatch) in LABELS.items():
        scores = np.concatenate([[], *(group for _, its, group in groups if its == label)])
        if scores.size:
            title = f"{name} ({scores.size})"
            style = {"facecolor": (colour, 0.35), "edgecolor": colour, "hatch": hatch}
            axes.hist(scores, edges, histtype="stepfilled", linewidth=1.5, label=title, **style)
    axes.set_ylabel("images")
    axes.yaxis.get_major_locator().set_params(integer=True)
    quiet(axes)


def _dots(axes: Any, groups: list[tuple[str, int, np.ndarray]]) -> None:
    kinds = [kind for kind, _, _ in groups]
    rng = np.random.default_rng(0)  # scatters dots, so that equal scores can be counted
    for height, (_, label, scores) in enumerate(groups):
        at = height + rng.uniform(-0.22, 0.22, scores.size)
        _, colour, marker, _ = LABELS[label]
        axes.scatter(scores, at, s=16, alpha=0.65, linewidths=0, marker=marker, color=colour)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    short = [name if len(name) <= 24 else f"{name[:23]}…" for name in map(printable, kinds)]
    names = [f"{name} ({len(group[2])})" for name, group in zip(short, groups, strict=True)]
    axes.set_yticks(range(len(groups)), names, fontsize=9, parse_math=False)
    axes.set_xlabel("image score, larger is more anomalous")
    quiet(axes)


def _airy() -> ConstrainedLayoutEngine:
    return ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.08)


def quiet(axes: Any) -> None:
    """Takes the frame back behind what is drawn."""
    axes.spines[["top", "right"]].set_visible(False)
    axes.spines[["left", "bottom"]].set_color("0.6")
    axes.tick_params(colors="0.25", length=3)
