"""A run that starts from what an earlier one has learned, on new normal images."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowad_jax.detector import config_schema, state, workdir
from flowad_jax.errors import UserError
from flowad_jax.training import metrics_log
from flowad_jax.training.experiment import Experiment
from flowad_jax.types import TrainState

log = logging.getLogger("flowad_jax")

# What decides which arrays a detector has and what they mean.
SAME = ("method.", "encoder.", "data.image_size", "data.fit", "data.norm", "data.sharpen")
MOVED = ("encoder.weights",)  # known by its checksum


def continued(
    fresh: TrainState, experiment: Experiment, images: Mapping[str, Any]
) -> tuple[TrainState, list[str]]:
    """Returns a fresh state with the parameters and buffers of the run ``train.init_from``.

    And the checksums of all images that these have learned from, earlier runs included.

    The optimizer and the schedule start anew.

    Args:
      fresh: the state of the new run.
      experiment: the new run.
      images: checksums of its normal images, see `splits.listed`.

    Raises:
      UserError: that is no finished run of the same method, encoder and image size, or it was
        trained on images that this run holds out, or does not say on which.
    """
    config = experiment.config
    path = Path(config.train.init_from).absolute()
    if config.eval.calibration != "split" or config.train.stack or config.data.fold:
        raise UserError(
            "train.init_from: folds and stacks hold out images that the earlier run was trained "
            "on: use eval.calibration='split' without train.stack"
        )
    if not fresh.params:
        raise UserError(
            f"train.init_from: {config.method.name} is fitted anew in every run, so leave it out"
        )
    _check_same(config, path)
    earlier, _, meta = state.of_workdir(experiment, path, experiment.devices)
    seen = {*meta.get("images", {}).get("train", {}).values(), *meta.get("ancestors", ())}
    if not seen and images["holdout"]:
        raise UserError(
            f"train.init_from: {path} does not say which images it was trained on, so that none "
            "can be held out: use data.holdout=0"
        )
    if known := [name for name, digest in images["holdout"].items() if digest in seen]:
        raise UserError(
            f"train.init_from: {path} was trained on {len(known)} of the images that this run "
            f"holds out, such as '{known[0]}', so that its promise would not hold: give new images "
            "alone, or data.holdout=0"
        )
    log.info("starting from %s, step %d", path, int(earlier.step))
    return fresh._replace(params=earlier.params, buffers=earlier.buffers), sorted(seen)


def _check_same(config: Any, path: Path) -> None:
    wanted, found = (
        config_schema.flatten(config_schema.plain(one))
        for one in (config, workdir.load_config(path))
    )
    for key in sorted(wanted.keys() | found.keys()):
        is_decisive = key.startswith(SAME) and key not in MOVED
        if is_decisive and wanted.get(key) != found.get(key):
            raise UserError(
                f"train.init_from: {path} has another config ({key}: {found.get(key)!r} there, "
                f"{wanted.get(key)!r} here): a warm start needs the same"
            )


def gain(config: Any, outputs: Path) -> str | None:
    """Says how far the first epoch of a warm run is on the way of the earlier one, by their losses.

    None: it was no warm start, or there are no losses to compare.
    """
    if config.train.init_from is None:
        return None
    earlier, own = (
        [row for row in metrics_log.read(place) if row["kind"] == "train" and "loss" in row]
        for place in (Path(config.train.init_from).absolute(), outputs)
    )
    if not earlier or not own:
        return None
    loss = own[0]["loss"]
    ahead = next((n for n, row in enumerate(earlier) if row["loss"] <= loss), len(earlier))
    start = f"warm start: epoch 1 ended at a training loss of {loss:.4g}"
    if ahead == 0:
        return f"{start}, no better than the first epoch of the earlier run: nothing gained"
    seconds = sum(row.get("seconds", 0.0) for row in earlier[:ahead])
    if ahead == len(earlier):
        return f"{start}, below any of the earlier run's {ahead} epochs ({seconds:.0f} s)"
    return f"{start}, which took the earlier run {ahead + 1} epochs: about {seconds:.0f} s saved"
