"""Metrics beyond those of every set: at the detector's own threshold, or of a set's authors."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from tqdm.auto import tqdm

from flowad_jax.evaluation import (
    delong,
    image_counts,
    intervals,
    mask_resolution,
    metrics,
    released_aupro,
    spro,
)
from flowad_jax.evaluation.aupimo import aupimo
from flowad_jax.evaluation.intervals import Interval
from flowad_jax.evaluation.segmentation import seg_f1_parts
from flowad_jax.training.experiment import Experiment
from flowad_jax.training.scoring import Scored


class Figure(NamedTuple):
    """A metric as a fraction of 1, and its 95 % interval where there is one."""

    value: float
    interval: Interval | None = None


def measure(experiment: Experiment, scored: Scored) -> dict[str, Figure]:
    """Returns the further metrics that these data define, by name.

    ``aupro_released`` is for scores in a paper's own form, ``seg_f1`` needs masks and a threshold,
    ``aupimo`` masks and normal images, ``au_spro`` (and for each kind ``au_spro/KIND``) a data set
    that knows single defects, ``sample_auroc`` one with several images of a sample.
    """
    found = _of_pixels(experiment, scored) | _spro(experiment, scored)
    return found | _of_samples(experiment, scored)


def _of_pixels(experiment: Experiment, scored: Scored) -> dict[str, Figure]:
    labels, masks, maps, regional = metrics.known(experiment.test.labels, *scored.compared)
    if masks is None or not any(map(np.any, masks)):
        return {}
    found = {}
    threshold = scored.decisions.card.get("pixel")
    if threshold is not None:
        if experiment.config.eval.mask_size == "native":  # such maps are less their largest value
            threshold -= mask_resolution.highest(scored.scores.pixel)
        found["seg_f1"] = _ratio(labels, *seg_f1_parts(masks, maps, threshold))
    form = released_aupro.FORMS.get(experiment.config.method.name)
    if form and experiment.config.eval.scoring == experiment.method.published:
        shown = maps if regional is None else regional
        found["aupro_released"] = Figure(released_aupro.released_aupro(masks, shown, form))
    if not all(map(np.any, masks)):
        areas = aupimo(masks, maps)
        found["aupimo"] = _ratio(labels, np.nan_to_num(areas), (~np.isnan(areas)).astype(float))
    return found


def _ratio(labels: np.ndarray, parts: np.ndarray, wholes: np.ndarray) -> Figure:
    value = float(parts.sum() / wholes.sum())
    return Figure(value, intervals.of_ratio(labels, parts, wholes))


def _spro(experiment: Experiment, scored: Scored) -> dict[str, Figure]:
    """AU-sPRO up to 0.05 at the size of the images: of each kind with the good images, and mean."""
    test: Any = experiment.test
    if not hasattr(test, "defects"):
        return {}
    bar = tqdm(range(len(test)), "defects", unit="img", disable=None, leave=False)
    defects = [test.defects(row) for row in bar]
    sizes = [test.shape(row) for row in range(len(test))]
    maps = mask_resolution.resized(scored.scores.pixel, sizes, experiment.canvas)
    areas = {}
    for kind in sorted({kind for kind, own in zip(test.kinds, defects, strict=True) if own}):
        rows = [row for row, own in enumerate(test.kinds) if own in (kind, intervals.GOOD)]
        values = spro.au_spro([defects[row] for row in rows], [maps[row] for row in rows])
        areas[kind] = values[spro.HEADLINE]
    if not areas:
        return {}
    areas[""] = float(np.mean(list(areas.values())))
    counts = image_counts.count_defects(defects, maps)
    sure = intervals.of_overlaps(test.kinds, counts, areas, spro.HEADLINE)
    return {
        f"au_spro/{kind}".rstrip("/"): Figure(value, sure.get(kind))
        for kind, value in areas.items()
    }


def _of_samples(experiment: Experiment, scored: Scored) -> dict[str, Figure]:
    """Image AUROC of samples, each with the highest score of its images."""
    samples = np.array(getattr(experiment.test, "samples", ()), str)
    if not samples.size or (samples == "").any():
        return {}
    labels, names, scores = metrics.known(experiment.test.labels, samples, scored.scores.image)
    known, which = np.unique(names, return_inverse=True)
    worst, label = np.full(len(known), -np.inf), np.zeros(len(known), int)
    np.maximum.at(worst, which, scores)
    np.maximum.at(label, which, labels)
    value = metrics.image_metrics(label, worst)["image_auroc"]
    return {"sample_auroc": Figure(value, delong.interval(label, worst))}
