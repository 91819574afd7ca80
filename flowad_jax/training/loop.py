"""The training loop: batches in, checkpoints, metrics and results out."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import config_dict
from tqdm import tqdm

from flowad_jax import parallel
from flowad_jax.errors import UserError
from flowad_jax.evaluation.fitted import from_json, to_json
from flowad_jax.training import feature_cache, memory_plan, scoring, state, summary, workdir
from flowad_jax.training import logging as metrics_log
from flowad_jax.training.checkpoint import Checkpoints, Position
from flowad_jax.training.interrupt import Interrupted, Signals
from flowad_jax.training.logging import MetricsLog
from flowad_jax.training.scoring import Scored
from flowad_jax.training.step import make_loss, make_train_step
from flowad_jax.training.system import System, build

log = logging.getLogger("flowad_jax")


def train(config: config_dict.ConfigDict, directory: str | Path) -> dict[str, Any]:
    """Trains, or goes on with, the run of a workdir; then evaluates and reports.

    Args:
      config: the recipe, see `configs/base.py`.
      directory: the workdir; created if needed.

    Returns:
      The contents of ``results.json``.

    Raises:
      UserError: something the user can fix; the workdir keeps its last good state.
      Interrupted: a signal asked to stop; the state was saved.
    """
    system = build(config)
    state.check(system)  # before anything is written
    path = Path(directory).absolute()
    if parallel.is_first():
        workdir.claim(path, config)
    parallel.wait("workdir")
    plan = memory_plan.make(system) if config.train.plan_memory else None
    if plan:
        memory_plan.show(plan)
    with (
        memory_plan.told(plan),
        parallel.outputs(path) as outputs,
        closing(Checkpoints(path)) as checkpoints,
        Signals() as signals,
    ):
        return _Run(system, outputs, checkpoints, signals).finish()


class _Run:
    """One call of `train`: the state, where it stands in the data, and its clocks."""

    def __init__(self, system: System, path: Path, checkpoints: Checkpoints, signals: Signals):
        self.system = system
        self.path = path
        self.checkpoints = checkpoints
        self.signals = signals
        self.config = system.config.train
        self.steps_per_epoch = len(system.train_loader)
        self.end = Position(self.config.epochs - 1, self.steps_per_epoch)
        self.step = make_train_step(
            system.method,
            system.optimizer,
            system.schedule,
            self.config.clip_norm,
            system.devices,
        )
        self.loss = make_loss(system.method)
        self.features = system.features
        self.meta: dict[str, Any]
        if checkpoints.latest is None:
            self.state = system.devices.everywhere(state.fresh(system))
            self.position = Position(0, 0)
            self.meta = {"encoder_sha256": system.encoder.source["sha256"], "epoch_seconds": []}
        else:
            self.state, self.position, self.meta = state.restored(
                system, checkpoints, system.devices
            )
            log.info("resuming at epoch %d, batch %d", *self.position)

    def finish(self) -> dict[str, Any]:
        """Trains the epochs that are left and reports."""
        images = self.system.images_per_epoch
        if self.position.epoch < self.config.epochs:
            self._prepare_features()
        with ExitStack() as stack:
            stack.enter_context(closing(self.system.train_loader))
            self.log = stack.enter_context(closing(MetricsLog(self.path, int(self.state.step))))
            self.bar = stack.enter_context(
                tqdm(
                    total=images * self.config.epochs,
                    initial=images * self.position.epoch,
                    desc="train",
                    unit="img",
                    smoothing=0.05,
                    disable=None,
                )
            )
            scored = self._owed()
            while self.position.epoch < self.config.epochs:
                self._epoch()
                scored = self._after_epoch()
        timing = summary.timing_of(self.meta)
        return summary.report(self.system, self.path, timing, scored or self._score())

    def _prepare_features(self) -> None:
        self.features = feature_cache.prepare(self.system, self.path, self._stop_if_asked)
        # None: within the epochs.
        self.meta["features_seconds"] = round(self.features.train.seconds, 3) or None

    def _epoch(self) -> None:
        """Trains from the current position to the end of its epoch."""
        epoch, first = self.position
        started = time.perf_counter()
        pending: list[dict[str, jax.Array]] = []
        earlier = self.meta.pop("steps", [])  # of this epoch, before the run was stopped
        with closing(self.features.train.epoch(epoch, first)) as batches:
            for index, (maps, batch) in enumerate(batches, start=first):
                self.state, metrics = self.step(self.state, maps, batch)
                self.position = Position(epoch, index + 1)
                # Reading the step before keeps the device busy with this one.
                if pending:
                    self._show(pending[-1], index - 1)
                pending.append(metrics)
                self.bar.update(self.system.train_loader.images(index))
                # After the very last step there is nothing to stop; see `_after_epoch`.
                if self.position != self.end and parallel.any_host(self.signals.received):
                    self._show(metrics, index)
                    self.meta["steps"] = earlier + _numbers(pending)
                    self._stop_if_asked()
        seconds = time.perf_counter() - started
        if pending:
            self._show(pending[-1], self.steps_per_epoch - 1)
        if first == 0:
            self.meta["epoch_seconds"].append(round(seconds, 3))
        self._log_epoch(earlier + _numbers(pending), len(pending), seconds)
        self.position = Position(epoch + 1, 0)

    def _show(self, metrics: dict[str, jax.Array], index: int) -> None:
        if not bool(metrics["finite"]):
            epoch = self.position.epoch
            step = epoch * self.steps_per_epoch + index + 1
            raise UserError(
                f"training became NaN or infinite in step {step} (epoch {epoch}, batch {index}), "
                f"{_culprits(metrics)}: lower train.learning_rate; the last checkpoint in "
                f"{self.checkpoints.workdir} is kept"
            )
        self.bar.set_postfix(loss=f"{float(metrics['loss']):.4f}", refresh=False)

    def _stop_if_asked(self) -> None:
        received = parallel.any_host(self.signals.received)
        if not received:
            return
        self.checkpoints.save(self.state, self.position, self.meta)
        raise Interrupted(received, self.position, self.checkpoints.workdir)

    def _log_epoch(self, steps: list[dict[str, float]], here: int, seconds: float) -> None:
        """Writes means over all steps of an epoch, of which so many took these seconds."""
        means = {name: float(np.mean([step[name] for step in steps])) for name in steps[0]}
        images = here / self.steps_per_epoch * self.system.images_per_epoch
        values = {
            **means,
            "learning_rate": steps[-1]["learning_rate"],
            "seconds": round(seconds, 3),
            "seconds_waited": round(self.features.train.waited, 3),
            "images_per_second": round(images / seconds, 2),
        }
        self.log.write("train", int(self.state.step), self.position.epoch + 1, values)

    def _owed(self) -> Scored | None:
        """Makes up for an evaluation that came to nothing between a checkpoint and its row."""
        done = self.position.epoch
        if self.position.batch or not done or not self._evaluates(done):
            return None
        rows = metrics_log.read(self.path)
        known = any(row["kind"] == "eval" and row["epoch"] == done for row in rows)
        return None if known else self._evaluate()

    def _evaluates(self, done: int) -> bool:
        return done == self.config.epochs or done % self.config.eval_every == 0

    def _after_epoch(self) -> Scored | None:
        done, last = self.position.epoch, self.position.epoch == self.config.epochs
        if last:  # a state is saved once, so this must be there by then
            fitted = scoring.fit(self.system, self.state, self.features)
            self.meta["fitted"] = to_json(fitted)
        if last or done % self.config.checkpoint_every == 0:
            self.checkpoints.save(self.state, self.position, self.meta)
        return self._evaluate() if self._evaluates(done) else None

    def _evaluate(self) -> Scored:
        """Scores the test images and writes it down."""
        done, scored = self.position.epoch, self._score()
        values = scored.metrics | self._holdout_loss()
        form = self.system.config.eval.scoring
        self.log.write("eval", int(self.state.step), done, values, scoring=form)
        if parallel.is_first():
            self.bar.write(f"epoch {done}: {summary.one_line(scored.metrics)}")
        return scored

    def _score(self) -> Scored:
        stored = self.meta.get("fitted")
        fitted = from_json(stored) if stored else None
        return scoring.score_as_asked(self.system, self.state, self.features, fitted)

    def _holdout_loss(self) -> dict[str, float]:
        """Mean training loss of the normal images that are not trained on."""
        if self.features.holdout is None:
            return {}
        with closing(self.features.holdout.epoch(0)) as batches:
            parts = [(self.loss(self.state, *pair), jnp.sum(pair[1].weight)) for pair in batches]
        losses, weights = zip(*jax.device_get(parts), strict=True)
        return {"holdout_loss": float(np.average(losses, weights=weights))}


def _numbers(metrics: list[dict[str, jax.Array]]) -> list[dict[str, float]]:
    """What steps reported, as numbers that a checkpoint can keep."""
    host = jax.device_get(metrics)
    return [
        {name: float(value) for name, value in step.items() if not name.startswith("finite")}
        for step in host
    ]


def _culprits(metrics: dict[str, jax.Array]) -> str:
    """The phases and parameter groups of a step that are not finite."""
    losses = [k for k, v in metrics.items() if k.startswith("loss/") and not np.isfinite(v)]
    groups = [k for k, v in metrics.items() if k.startswith("finite/") and not v]
    found = {"phase": losses, "parameters of": groups}
    return ", ".join(
        f"{title} {', '.join(name.partition('/')[2] for name in names)}"
        for title, names in found.items()
        if names
    )
