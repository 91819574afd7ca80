"""One detector on its way through the epochs: its state, where it stands, and what it writes."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Generator, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from tqdm.auto import tqdm

from flowad_jax import parallel
from flowad_jax.detector import checkpoint, config_schema, folds, splits, state
from flowad_jax.detector.calibration import to_json
from flowad_jax.detector.checkpoint import Position
from flowad_jax.detector.splits import Split
from flowad_jax.errors import UserError
from flowad_jax.interrupt import Interrupted, Signals
from flowad_jax.training import (
    closed_form,
    feature_cache,
    loggers,
    metrics_log,
    scoring,
    summary,
    warm_start,
)
from flowad_jax.training.experiment import Experiment
from flowad_jax.training.metrics_log import MetricsLog, explain_not_finite, numbers
from flowad_jax.training.optimizer import fresh_state, state_shapes
from flowad_jax.training.scoring import Scored
from flowad_jax.training.step import make_loss
from flowad_jax.types import Batch, TrainState

log = logging.getLogger("flowad_jax")


class TrainingRun:
    """The training of one detector, except for the gradient steps, which `loop.train` takes.

    Attributes:
      experiment: what the config describes.
      workdir: the folder of the run.
      state: after the last gradient step.
      position: where it stands in the data.
      features: its feature maps.
      title: tells it from others in messages.
    """

    state: TrainState

    def __init__(
        self,
        experiment: Experiment,
        workdir: Path,
        outputs: Path,
        title: str = "",
        allow_changed_data: bool = False,
    ):
        """Takes the newest checkpoint of the workdir, or a fresh state; logs go to ``outputs``.

        Raises:
          UserError: the checkpoint is of other encoder weights, or of other images and that is
            not allowed.
        """
        self.experiment, self.workdir, self.title = experiment, workdir, title
        self.features = experiment.features
        self._outputs, self._config = outputs, experiment.config.train
        self._steps_per_epoch = len(experiment.train_loader)
        self._loss = make_loss(experiment.method)
        self._pending: list[dict[str, Any]] = []  # what the steps of this epoch reported
        self._earlier: list[dict[str, float]] = []  # the same, before the run was stopped
        self._scored: Scored | None = None  # of this state
        prefix = f"{title}: " if title else ""
        is_new = checkpoint.latest(workdir) is None
        if is_new:
            self.state = experiment.devices.replicate(fresh_state(experiment))
            self.position = Position(0, 0)
            sha256 = experiment.encoder.source["sha256"]
            self._meta: dict[str, Any] = {"encoder_sha256": sha256}
        else:
            self.state, self.position, self._meta = state.of_workdir(
                experiment, workdir, experiment.devices, state_shapes(experiment)
            )
            log.info("%sresuming at epoch %d, batch %d", prefix, *self.position)
        self._check_images(allow_changed_data)
        if is_new and self._config.init_from:
            self.state, self._meta["ancestors"] = warm_start.continued(
                self.state, experiment, self._meta["images"]
            )
        if "fitted" not in self._meta:  # else it still has to say what that was fitted for
            self._meta["config"] = config_schema.plain(experiment.config)
        for line in experiment.findings:
            log.warning("%s%s", prefix, line)

    def _check_images(self, allow_change: bool) -> None:
        """Compares the images with those of the checkpoint, and notes them for the next one."""
        experiment, before = self.experiment, self._meta.get("images")
        made_from = getattr(experiment.test, "normal", None)
        split = Split(experiment.train, experiment.holdout, made_from)
        now = splits.listed(experiment.config, split, source_files=True)
        if before is None and self.position != (0, 0):
            log.warning("%s does not say which images it was trained on", self.workdir)
        elif before is not None and (found := splits.differences(before, now)):
            left = self.position.epoch < self._config.epochs
            if not (left and allow_change):
                raise splits.refused(self.workdir, found, left)
            log.warning("training goes on with other images: %s", splits.first(found))
            epoch, batch = self.position
            self.position = Position(epoch, min(batch, self._steps_per_epoch))
            note = f"epoch {epoch}, batch {batch}: {splits.first(found)}"
            self._meta["changed_data"] = [*self._meta.get("changed_data", []), note]
        self._meta["images"] = now
        # What was mended since was doubtful in the epochs before.
        doubtful = [*self._meta.get("findings", ()), *experiment.training_findings]
        self._meta["findings"] = list(dict.fromkeys(doubtful))

    @property
    def is_over(self) -> bool:
        """Whether the last gradient step was taken."""
        return self.position >= Position(self._config.epochs - 1, self._steps_per_epoch)

    @property
    def between_epochs(self) -> bool:
        """Whether no epoch is under way, so that the state is read before the next batch."""
        return self.position.batch in (0, self._steps_per_epoch)

    def prepare_features(self, signals: Signals) -> None:
        """Computes features that never change and fits what takes no steps, if epochs are left."""
        if self.position.epoch < self._config.epochs:
            self.features = feature_cache.prepare(
                self.experiment, self._outputs, lambda: self.stop_if_asked(signals)
            )
            if self.position == (0, 0) and not self._config.init_from:
                self.state = closed_form.fitted(
                    self.experiment,
                    self.state,
                    self.features.train,
                    lambda: self.stop_if_asked(signals),
                )
            # None: within the epochs.
            self._meta["features_seconds"] = round(self.features.train.seconds, 3) or None

    @contextlib.contextmanager
    def open(self, bar: tqdm) -> Iterator[None]:
        """While open, writes logs and shows its progress on a bar."""
        self._bar = bar
        with (
            closing(self.experiment.train_loader),
            closing(
                MetricsLog(self._outputs, int(self.state.step), self.experiment.config)
            ) as self._log,
        ):
            done = self.position.epoch
            if done and not self.position.batch and self.is_evaluated(done):
                rows = metrics_log.read(self._outputs)
                if not any(row["kind"] == "eval" and row["epoch"] == done for row in rows):
                    self.evaluate()  # came to nothing between a checkpoint and its row
            yield

    def begin_epoch(self) -> Generator[Batch, None, None]:
        """Returns the batches that are left of an epoch."""
        epoch, self._first = self.position
        self._started = time.perf_counter()
        self._pending, self._earlier = [], self._meta.pop("steps", [])
        self._scored = None
        return self.features.train.epoch(epoch, self._first)

    def record_step(self, metrics: dict[str, Any]) -> None:
        """Notes that a gradient step was taken with the latest batch.

        Raises:
          UserError: the step before became NaN or infinite.
        """
        epoch, index = self.position
        self.position = Position(epoch, index + 1)
        # Reading the step before keeps the device busy with this one.
        self.check_finite(index - 1)
        self._pending.append(metrics)
        self._bar.update(self.experiment.train_loader.images(index))

    def check_finite(self, index: int) -> None:
        """Raises a UserError if the latest recorded step, of batch ``index``, is not finite."""
        if not self._pending:
            return
        metrics, epoch = self._pending[-1], self.position.epoch
        if not bool(metrics["finite"]):
            step = epoch * self._steps_per_epoch + index + 1
            raise UserError(
                f"training became NaN or infinite in step {step} (epoch {epoch}, batch {index}), "
                f"{explain_not_finite(metrics)}; the last checkpoint in {self.workdir} is kept"
            )
        self._bar.set_postfix(loss=f"{float(metrics['loss']):.4f}", refresh=False)

    def stop_if_asked(self, signals: Signals) -> None:
        """Saves and raises `Interrupted` if a signal came to one of the hosts."""
        if received := parallel.max_over_hosts(signals.received):
            self.save()
            raise Interrupted(received, self.position, self.workdir)

    def log_epoch(self) -> None:
        """Writes the means over all steps of an epoch, which is over then."""
        seconds = time.perf_counter() - self._started
        self.check_finite(self._steps_per_epoch - 1)
        if self._first == 0:
            self._meta.setdefault("epoch_seconds", []).append(round(seconds, 3))
        steps = self._earlier + numbers(self._pending)
        here = len(self._pending) / self._steps_per_epoch * self.experiment.images_per_epoch
        values = {
            **{name: float(np.mean([step[name] for step in steps])) for name in steps[0]},
            "learning_rate": steps[-1]["learning_rate"],
            "seconds": round(seconds, 3),
            "seconds_waited": round(self.features.train.waited, 3),
            "images_per_second": round(here / seconds, 2),
        }
        self._pending, self._earlier = [], []
        self.position = Position(self.position.epoch + 1, 0)
        self._log.write("train", int(self.state.step), self.position.epoch, values)

    def fit(self) -> None:
        """Fits to normal images what the checkpoint of the last epoch keeps beside the state."""
        config = self.experiment.config
        fitted = scoring.fit(self.experiment, self.state, self.features)
        if config.eval.calibration == "cross_fast":  # the scores of those that had not seen them
            found = [fold.fitted for fold in folds.read(self.experiment, self.workdir, config)]
            image, peak = (
                np.concatenate([getattr(one, name) for one in found]) for name in ("image", "peak")
            )
            fitted = fitted._replace(image=image, peak=peak)
        self._meta["fitted"] = to_json(fitted)

    def save(self) -> None:
        """Writes a checkpoint here, wherever in an epoch that is."""
        self.check_finite(self.position.batch - 1)
        if steps := self._earlier + numbers(self._pending):
            self._meta["steps"] = steps
        checkpoint.save(self.workdir, self.state, self.position, self._meta)

    def is_evaluated(self, done: int) -> bool:
        """Says whether the state after so many epochs is scored on the test images."""
        return done == self._config.epochs or done % self._config.eval_every == 0

    def evaluate(self) -> None:
        """Scores the test images and the loss of the held-out ones, and logs both."""
        done, self._scored = self.position.epoch, self._score()
        values = dict(self._scored.metrics)
        if self.features.holdout is not None:
            with closing(self.features.holdout.epoch(0)) as batches:
                parts = [
                    (self._loss(self.state, batch), jnp.sum(batch.weight)) for batch in batches
                ]
            losses, weights = zip(*jax.device_get(parts), strict=True)
            values["holdout_loss"] = float(np.average(losses, weights=weights))
        form = self.experiment.config.eval.scoring
        self._log.write("eval", int(self.state.step), done, values, scoring=form)
        if parallel.is_first():
            title = f"{self.title}, epoch" if self.title else "epoch"
            self._bar.write(f"{title} {done}: {summary.one_line(values)}")

    def _score(self) -> Scored:
        fitted = state.fitted_of(self._meta, self.experiment.config)
        return scoring.score(self.experiment, self.state, self.features, fitted)

    def report(self) -> dict[str, Any]:
        """Writes the report of a training that is over; returns the contents of results.json."""
        scored = self._scored or self._score()
        if gain := warm_start.gain(self.experiment.config, self._outputs):
            log.info("%s", gain)
        found = summary.report(self.experiment, self._outputs, self._meta, scored)
        loggers.end(self.experiment.config, self._outputs, found)
        return found


def progress(runs: list[TrainingRun]) -> tqdm:
    """Returns a bar over all images that runs have before them or behind them."""
    visits = [(run.experiment.images_per_epoch, run.experiment.config, run) for run in runs]
    return tqdm(
        total=sum(images * config.train.epochs for images, config, _ in visits),
        initial=sum(images * run.position.epoch for images, _, run in visits),
        desc="train",
        unit="img",
        smoothing=0.05,
        disable=None,
    )
