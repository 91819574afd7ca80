"""Numbers of a report: metrics, calibration card, kinds of defects, and what the run was."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from flowad_jax.evaluation import conformal, metrics, results
from flowad_jax.evaluation.report_findings import Findings, is_finite
from flowad_jax.evaluation.report_html import (
    Html,
    flat,
    join,
    pairs,
    percent,
    plural,
    rate,
    share,
    table,
    tag,
    text,
)

EPOCH = {"epoch": "epoch", "holdout_loss": "loss on held-out good images"}
TILES = {"image_auroc": "image AUROC", "pixel_auroc": "pixel AUROC", "aupro_0.30": "AUPRO (0.30)"}


def tiles(found: Mapping[str, Any], test: Mapping[str, int]) -> Html:
    """The figures that one wants first, large; undefined ones are left out."""
    values = found["columns"][results.final(found["columns"])]
    shown = [
        _tile(f"{percent(values[name])}\u00a0%", title)
        for name, title in TILES.items()
        if is_finite(values.get(name))
    ]
    if test.get("anomalous"):
        shown.append(_tile(f"{test['detected']} of {test['anomalous']}", "defects detected"))
    if test.get("good"):
        shown.append(_tile(f"{test['false_alarms']} of {test['good']}", "false alarms"))
    return tag("div", *shown, class_="tiles")


def metric_table(columns: Mapping[str, Mapping[str, Any]], reasons: Mapping[str, str]) -> Html:
    """Metrics in percent, one column per choice of the epoch; below, why a metric is missing."""
    columns = {name: columns[name] for name in results.COLUMNS if columns.get(name)}
    rows = [
        [title, *(percent(values.get(name)) for values in columns.values())]
        for name, title in results.METRICS.items()
    ]
    for name, title in EPOCH.items():
        if any(values.get(name) is not None for values in columns.values()):
            rows.append([title, *(text(values.get(name)) for values in columns.values())])
    by_reason: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        by_reason.setdefault(reason, []).append(results.METRICS.get(name, name))
    notes = [
        tag("p", f"Not defined, because {reason}: {', '.join(names)}.", class_="note")
        for reason, names in by_reason.items()
    ]
    head = ["in percent", *map(_column, columns)]
    return join([table(head, rows), *notes])


def calibration(card: Mapping[str, Any], test: Mapping[str, int]) -> Html:
    """Where the threshold comes from, what it promises, and what it did on the test set."""
    if not card:
        words = (
            "No threshold: no normal images were held out, or the scores are not calibrated, so "
            "that nothing can be said about the rate of false alarms."
        )
        return tag("p", words, class_="notice")
    count = card["images"]
    entries = {
        "False alarms asked for": f"at most {rate(card['false_alarm_rate'])} of new normal images",
        "Rests on": f"{plural(count, 'held-out normal image')}, never trained on",
        "Least rate that so many can promise": rate(1 / (count + 1)),
    }
    return join([_shortage(card), pairs(entries | _bounds(card) | _measurements(test))])


def _shortage(card: Mapping[str, Any]) -> Html | None:
    """What to do where too few images were held out for the rate asked for."""
    asked, least = card["false_alarm_rate"], 1 / (card["images"] + 1)
    if asked >= least:
        return None
    needed = math.ceil(round(1 / asked, 9)) - 1
    instead = f"the threshold is that of {rate(least)}" if _has_threshold(card) else "no threshold"
    words = (
        f"{plural(card['images'], 'held-out normal image')} cannot promise {rate(asked)}: "
        f"{instead}. Hold out {needed} or more, or ask for a higher rate."
    )
    return tag("p", words, class_="notice")


def _bounds(card: Mapping[str, Any]) -> dict[str, str]:
    """The thresholds, and how far their rate may be off by the luck of the draw."""
    if not _has_threshold(card):
        return {}
    entries = {"An image is anomalous": f"if its score is above {card['image']:.6g}"}
    if is_finite(card.get("pixel")):
        entries["A region is anomalous"] = f"where the map is above {card['pixel']:.6g}"
    low, high = card["interval"]
    spread = f"{rate(low)} to {rate(high)}, in nine of ten draws of as many images"
    return entries | {"True rate of such a threshold": spread}


def _has_threshold(card: Mapping[str, Any]) -> bool:
    return is_finite(card.get("image"))


def _measurements(test: Mapping[str, int]) -> dict[str, str]:
    """What the threshold did on the test set, with exact binomial intervals."""
    entries = {}
    for title, name, of in (
        ("Measured false alarms", "false_alarms", "good"),
        ("Measured detections", "detected", "anomalous"),
    ):
        if test.get(of):
            low, high = conformal.binomial_interval(test[name], test[of])
            interval = f"95\u00a0% interval {rate(low)} to {rate(high)}"
            entries[title] = f"{share(test[name], test[of])}, {interval}"
    return entries


def kinds(findings: Findings) -> Html:
    """How well each kind of defect is told from the good images."""
    rows = [_kind(findings, label, kind, rows) for (label, kind), rows in findings.groups().items()]
    head = ["kind", "images", "image AUROC", "pixel AUROC", "AUPRO (0.30)", "at the threshold"]
    masked, decided = findings.masks is not None, findings.threshold is not None
    used = [0, 1, 2, *([3, 4] if masked else []), *([5] if decided else [])]
    note = "Metrics in percent, of each kind together with all good images."
    shown = [[row[column] for column in used] for row in rows]
    return join([table([head[column] for column in used], shown), tag("p", note, class_="note")])


def details(found: Mapping[str, Any], config: Mapping[str, Any]) -> Html:
    """Counts, encoder, timings, versions, config and commands, folded."""
    sections = {
        "Encoder": found["encoder"],
        "Timings": found["timing"],
        "Versions": found["versions"],
    }
    shown = [_folded("Data", _counts(found["data"]))]
    shown += [_folded(title, pairs(entries)) for title, entries in sections.items()]
    lines = "\n".join(f"{key}={_plain(value)}" for key, value in flat(config).items())
    shown.append(_folded("Config", tag("pre", lines, tabindex="0")))
    if found.get("commands"):
        shown.append(_folded("Commands", tag("pre", "\n".join(found["commands"]), tabindex="0")))
    return join(shown)


def _kind(findings: Findings, label: int, kind: str, rows: np.ndarray) -> list[Any]:
    scores, threshold = findings.scores.image, findings.threshold
    alarms = 0 if threshold is None else int(np.sum(scores[rows] > threshold))
    decided = f"{share(alarms, len(rows))} {'detected' if label == 1 else 'raise an alarm'}"
    if label != 1:
        return [kind, len(rows), "", "", "", decided]
    good = np.flatnonzero(findings.labels == 0)
    both = np.concatenate([good, rows])
    labels = np.repeat([0, 1], [len(good), len(rows)])
    values = metrics.image_metrics(labels, scores[both]) | _pixel_metrics(findings, both)
    return [kind, len(rows), *(percent(values.get(name)) for name in TILES), decided]


def _pixel_metrics(findings: Findings, rows: np.ndarray) -> dict[str, float]:
    """Pixel metrics of some of the images; none without masks."""
    if findings.masks is None:
        return {}
    masks, scores = findings.masks[rows], findings.scores
    values = metrics.pixel_metrics(masks, scores.pixel[rows])
    if scores.overlap is not None:
        regions = metrics.pixel_metrics(masks, scores.overlap[rows])
        values |= {name: regions[name] for name in metrics.AUPRO_METRICS}
    return values


def _tile(value: str, title: str) -> Html:
    return tag("div", tag("strong", value), tag("span", title), class_="tile")


def _column(name: str) -> Html:
    """Name of a column above what it means."""
    title, _, note = results.COLUMNS[name].partition(" (")
    return join([title, tag("small", note.removesuffix(")")) if note else None])


def _folded(title: str, *content: Html) -> Html:
    return tag("details", tag("summary", title), *content)


def _counts(data: Mapping[str, Any]) -> Html:
    """How many images every split has; the kinds have a section of their own."""
    splits = {name: entry for name, entry in data.items() if isinstance(entry, Mapping)}
    rows = [
        [count, *(text(split.get(count)) for split in splits.values())]
        for count in ("images", "good", "anomalous", "masks")
    ]
    return table(["", *splits], rows)


def _plain(value: Any) -> str:
    """A value as one writes it on the command line."""
    return ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
