"""Tables of the HTML report as plain values: metrics, calibration, kinds of defects, the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from flowad_jax.evaluation import conformal, metrics
from flowad_jax.evaluation.decisions import ESTIMATE
from flowad_jax.report import results
from flowad_jax.report.formats import flatten, is_finite, percent, plural, rate, share, shown
from flowad_jax.report.scored_images import SYNTHETIC, ScoredImages

EPOCH = {"epoch": "epoch", "holdout_loss": "loss on held-out normal images"}
TILES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro_0.30": "AUPRO (0.30)"}
NO_THRESHOLD = (
    "No threshold: no normal images were held out, or the scores are not calibrated, so that "
    "nothing can be said about the rate of false alarms."
)


class Table(NamedTuple):
    """A table with a row of headings; the first cell of a row is its heading; notes below."""

    head: Sequence[Any]
    rows: Sequence[Sequence[Any]]
    notes: Sequence[str] = ()


def tiles(found: Mapping[str, Any], counts: Mapping[str, int]) -> list[tuple[str, str]]:
    """The most important figures with their titles; undefined ones are left out."""
    values = found["columns"][results.final(found["columns"])]
    titles = TILES | {f"{SYNTHETIC}{name}": f"synthetic {title}" for name, title in TILES.items()}
    figures = [
        (f"{percent(values[name])}\u00a0%", title)
        for name, title in titles.items()
        if is_finite(values.get(name))
    ]
    if counts.get("anomalous"):
        figures.append((f"{counts['detected']} of {counts['anomalous']}", "defects detected"))
    if counts.get("good"):
        figures.append((f"{counts['false_alarms']} of {counts['good']}", "false alarms"))
    return figures


def metric_table(found: Mapping[str, Any]) -> Table:
    """Metrics in percent, one column per choice of the epoch, and why a metric is missing."""
    columns = {
        name: found["columns"][name] for name in results.COLUMNS if found["columns"].get(name)
    }
    sure = {results.final(columns): found.get("intervals") or {}}
    rows = [
        [title, *results.metric_cells(name, columns, sure)]
        for name, title in results.METRICS.items()
        if any(name in values for values in columns.values())
    ]
    rows += results.further_rows(found, len(columns))
    for name, title in EPOCH.items():
        if any(values.get(name) is not None for values in columns.values()):
            rows.append([title, *(shown(values.get(name)) for values in columns.values())])
    notes = [
        f"Not defined, because {reason}: {', '.join(titles)}."
        for reason, titles in results.missing_metrics(found.get("undefined", {})).items()
    ]
    notes = [results.INTERVALS_NOTE] * bool(*sure.values()) + notes
    titles = [results.COLUMNS[name].partition(" (") for name in columns]
    return Table(
        [("in percent", ""), *((t, note.rstrip(")")) for t, _, note in titles)], rows, notes
    )


def calibration(card: Mapping[str, Any], counts: Mapping[str, int]) -> tuple[str, dict[str, str]]:
    """What to warn of, and where the threshold comes from, what it promises and what it did.

    Args:
      card: see `Decisions`; empty without a threshold.
      counts: what the threshold did on the test set.
    """
    if not card:
        return NO_THRESHOLD, {}
    entries = {"Images are decided by": card["meaning"]}
    if images := card["images"]:
        least = 1 / (images + 1)
        entries["Rests on"] = f"{plural(images, 'normal image')}, unseen by what scored them"
        entries["Least rate that so many can promise"] = rate(least)
        if card["decided_by"] == ESTIMATE and card["calibration"] == "split":
            asked = card["false_alarm_rate"]
            needed = plural(conformal.needed(asked), "image")
            entries[f"To promise {rate(asked)}"] = f"hold out {needed} (data.holdout)"
    if card.get("promised") is not None:
        entries["False alarms guaranteed"] = (
            f"at most {rate(card['promised'])} of new normal images"
        )
    if is_finite(card.get("image")):
        entries["An image is anomalous"] = f"if its score is above {card['image']:.6g}"
    if is_finite(card.get("pixel")):
        entries["A region is anomalous"] = f"where the map is above {card['pixel']:.6g}"
    if card.get("interval"):
        low, high = card["interval"]
        entries["True rate of such a threshold"] = (
            f"{rate(low)} to {rate(high)}, in nine of ten draws of as many images"
        )
    return "", entries | _measurements(counts)


def _measurements(counts: Mapping[str, int]) -> dict[str, str]:
    """What the threshold did on the test set, with exact binomial intervals."""
    entries = {}
    for title, name, of in (
        ("Measured false alarms", "false_alarms", "good"),
        ("Measured detections", "detected", "anomalous"),
    ):
        if counts.get(of):
            low, high = conformal.binomial_interval(counts[name], counts[of])
            interval = f"95\u00a0% interval {rate(low)} to {rate(high)}"
            entries[title] = f"{share(counts[name], counts[of])}, {interval}"
    return entries


def kinds(images: ScoredImages) -> Table:
    """How well each kind of defect is told from the normal images."""
    head = ["kind", "images", "image AUROC", "pixel AUROC", "AUPRO (0.30)", "decided"]
    used = [0, 1, 2, *[3, 4] * (images.masks is not None), *[5] * (images.alarms is not None)]
    rows = [_kind(images, *key, rows) for key, rows in images.groups().items()]
    note = "Metrics in percent, of each kind together with all normal images."
    if images.origin == "synthetic":
        head[2:5] = [f"synthetic {title}" for title in head[2:5]]
    return Table([head[i] for i in used], [[row[i] for i in used] for row in rows], [note])


def _kind(images: ScoredImages, label: int, kind: str, rows: np.ndarray) -> list[Any]:
    scores = images.scores.image
    alarms = 0 if images.alarms is None else int(np.sum(images.alarms[rows]))
    decided = f"{share(alarms, len(rows))} {'detected' if label == 1 else 'raise an alarm'}"
    if label != 1:
        return [kind, len(rows), "", "", "", decided]
    normal = np.flatnonzero(images.labels == 0)
    both = np.concatenate([normal, rows])
    labels = np.repeat([0, 1], [len(normal), len(rows)])
    values = metrics.image_metrics(labels, scores[both])
    if images.masks is not None:
        masks, maps, overlap = images.masks[both], images.scores.pixel, images.scores.overlap
        values |= metrics.pixel_metrics(masks, maps[both])
        if overlap is not None:
            regions = metrics.pixel_metrics(masks, overlap[both])
            values |= {name: regions[name] for name in metrics.AUPRO_METRICS}
    return [kind, len(rows), *(percent(values.get(name)) for name in TILES), decided]


def image_counts(data: Mapping[str, Any]) -> Table:
    """How many images every split has."""
    splits = {name: entry for name, entry in data.items() if isinstance(entry, Mapping)}
    rows = [
        [count, *(shown(split.get(count)) for split in splits.values())]
        for count in ("images", "good", "anomalous", "masks")
    ]
    return Table(["", *splits], rows)


def overrides(config: Mapping[str, Any]) -> str:
    """All settings, as one writes them on the command line."""
    return "\n".join(
        f"{key}={','.join(map(str, value)) if isinstance(value, list | tuple) else value}"
        for key, value in flatten(config).items()
    )
