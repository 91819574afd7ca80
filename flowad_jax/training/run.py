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
from tqdm import tqdm

from flowad_jax import parallel
from flowad_jax.errors import UserError
from flowad_jax.evaluation.fitted import to_json
from flowad_jax.features.store import Maps
from flowad_jax.training import config_schema, feature_cache, scoring, splits, state, summary
from flowad_jax.training import logging as metrics_log
from flowad_jax.training.checkpoint import Checkpoints, Position
from flowad_jax.training.interrupt import Interrupted, Signals
from flowad_jax.training.logging import MetricsLog, culprits, numbers
from flowad_jax.training.scoring import Scored
from flowad_jax.training.splits import Split
from flowad_jax.training.step import make_loss
from flowad_jax.training.system import System
from flowad_jax.types import Batch, TrainState

log = logging.getLogger("flowad_jax")


class Run:
    """All of a training but the gradient steps, which are its user's.

    Attributes:
      system: what the config describes.
      state: after the last gradient step; whoever steps keeps it up to date where an epoch ends
        and before `save`.
      position: where it stands in the data.
      features: its feature maps.
      title: tells it from others in messages.

    Example:
      with run.open(bar), closing(run.batches()) as batches:
          for maps, batch in batches:
              run.state, metrics = step(run.state, maps, batch)
              run.took(metrics)
      results = run.report()
    """

    state: TrainState

    def __init__(
        self,
        system: System,
        path: Path,
        checkpoints: Checkpoints,
        title: str = "",
        allow_changed_data: bool = False,
    ):
        """Takes the newest checkpoint, or a fresh state; files go to the folder ``path``.

        Raises:
          UserError: the checkpoint is of other encoder weights, or of other images and that is
            not allowed.
        """
        self.system, self.title = system, title
        self.features = system.features
        self._path, self._checkpoints, self._config = path, checkpoints, system.config.train
        self._steps_per_epoch = len(system.train_loader)
        self._loss = make_loss(system.method)
        self._pending: list[dict[str, Any]] = []  # what the steps of this epoch reported
        self._earlier: list[dict[str, float]] = []  # the same, before the run was stopped
        self._scored: Scored | None = None
        self._meta: dict[str, Any]
        if checkpoints.latest is None:
            self.state = system.devices.everywhere(state.fresh(system))
            self.position = Position(0, 0)
            self._meta = {"encoder_sha256": system.encoder.source["sha256"], "epoch_seconds": []}
        else:
            self.state, self.position, self._meta = state.restored(
                system, checkpoints, system.devices
            )
            log.info("%sresuming at epoch %d, batch %d", title and f"{title}: ", *self.position)
        self._check_images(allow_changed_data)
        if "fitted" not in self._meta:  # else it still has to say what that was fitted for
            self._meta["config"] = config_schema.plain(system.config)
        for line in system.findings:
            log.warning("%s%s", title and f"{title}: ", line)

    def _check_images(self, allow_change: bool) -> None:
        """Compares the images with those of the checkpoint, and notes them for the next one."""
        now = splits.all_listed(self.system.config, Split(self.system.train, self.system.holdout))
        before = self._meta.get("images")
        if before is None and self.position != (0, 0):
            log.warning("%s does not say which images it was trained on", self.workdir)
        elif before is not None:
            found = splits.differences(before, now)
            left = self.position.epoch < self._config.epochs
            if found and not (left and allow_change):
                raise splits.refused(self.workdir, found, left)
            if found:
                log.warning("training goes on with other images: %s", splits.first(found))
                epoch, batch = self.position
                self.position = Position(epoch, min(batch, self._steps_per_epoch))
                note = f"epoch {epoch}, batch {batch}: {splits.first(found)}"
                self._meta["changed_data"] = [*self._meta.get("changed_data", []), note]
        self._meta["images"] = now

    @property
    def images(self) -> tuple[int, int]:
        """Visits to images in the whole training, and those of the epochs that are done."""
        per_epoch = self.system.images_per_epoch
        return per_epoch * self._config.epochs, per_epoch * self.position.epoch

    @property
    def is_over(self) -> bool:
        """Whether the last gradient step was taken."""
        return self.position >= Position(self._config.epochs - 1, self._steps_per_epoch)

    @property
    def between_epochs(self) -> bool:
        """Whether no epoch is under way, so that the state is read before the next batch."""
        return self.position.batch in (0, self._steps_per_epoch)

    @property
    def workdir(self) -> Path:
        """The folder of the run."""
        return self._checkpoints.workdir

    def prepare_features(self, signals: Signals) -> None:
        """Computes the features that never change, if epochs are left that need them."""
        if self.position.epoch == self._config.epochs:
            return
        self.features = feature_cache.prepare(
            self.system, self._path, lambda: self.stop_if_asked(signals)
        )
        # None: within the epochs.
        self._meta["features_seconds"] = round(self.features.train.seconds, 3) or None

    @contextlib.contextmanager
    def open(self, bar: tqdm) -> Iterator[None]:
        """While open, writes logs and shows its progress on a bar."""
        step = int(self.state.step)
        with (
            closing(self.system.train_loader),
            closing(MetricsLog(self._path, step)) as self._log,
        ):
            self._bar = bar
            self._scored = self._owed()
            yield

    def batches(self) -> Generator[tuple[Maps, Batch], None, None]:
        """Yields the batches that are left; between epochs it logs, saves and evaluates."""
        while self.position.epoch < self._config.epochs:
            epoch, first = self.position
            started = time.perf_counter()
            self._pending, self._earlier = [], self._meta.pop("steps", [])
            with closing(self.features.train.epoch(epoch, first)) as batches:
                yield from batches
            self._end_epoch(first, time.perf_counter() - started)
            self._after_epoch()

    def took(self, metrics: dict[str, Any]) -> None:
        """Notes that a gradient step was taken with the batch that was yielded last.

        Raises:
          UserError: the step before became NaN or infinite.
        """
        epoch, index = self.position
        self.position = Position(epoch, index + 1)
        # Reading the step before keeps the device busy with this one.
        if self._pending:
            self._show(self._pending[-1], index - 1)
        self._pending.append(metrics)
        self._bar.update(self.system.train_loader.images(index))

    def save(self) -> None:
        """Writes a checkpoint here, wherever in an epoch that is."""
        if self._pending:
            self._show(self._pending[-1], self.position.batch - 1)
        if steps := self._earlier + numbers(self._pending):
            self._meta["steps"] = steps
        self._checkpoints.save(self.state, self.position, self._meta)

    def stop_if_asked(self, signals: Signals) -> None:
        """Saves and raises `Interrupted` if a signal came to one of the hosts."""
        if received := parallel.any_host(signals.received):
            self.save()
            raise Interrupted(received, self.position, self.workdir)

    def report(self) -> dict[str, Any]:
        """Writes the report of a training that is over; returns the contents of results.json."""
        past = summary.past_of(self._meta)
        return summary.report(self.system, self._path, past, self._scored or self._score())

    def _show(self, metrics: dict[str, Any], index: int) -> None:
        if not bool(metrics["finite"]):
            epoch = self.position.epoch
            step = epoch * self._steps_per_epoch + index + 1
            raise UserError(
                f"training became NaN or infinite in step {step} (epoch {epoch}, batch {index}), "
                f"{culprits(metrics)}; the last checkpoint in "
                f"{self.workdir} is kept"
            )
        self._bar.set_postfix(loss=f"{float(metrics['loss']):.4f}", refresh=False)

    def _end_epoch(self, first: int, seconds: float) -> None:
        """Logs an epoch, which took these seconds from batch ``first`` on."""
        if self._pending:
            self._show(self._pending[-1], self._steps_per_epoch - 1)
        if first == 0:
            self._meta["epoch_seconds"].append(round(seconds, 3))
        self._log_epoch(self._earlier + numbers(self._pending), len(self._pending), seconds)
        self._pending, self._earlier = [], []
        self.position = Position(self.position.epoch + 1, 0)

    def _log_epoch(self, steps: list[dict[str, float]], here: int, seconds: float) -> None:
        """Writes means over all steps of an epoch, of which so many took these seconds."""
        means = {name: float(np.mean([step[name] for step in steps])) for name in steps[0]}
        images = here / self._steps_per_epoch * self.system.images_per_epoch
        values = {
            **means,
            "learning_rate": steps[-1]["learning_rate"],
            "seconds": round(seconds, 3),
            "seconds_waited": round(self.features.train.waited, 3),
            "images_per_second": round(images / seconds, 2),
        }
        self._log.write("train", int(self.state.step), self.position.epoch + 1, values)

    def _owed(self) -> Scored | None:
        """Makes up for an evaluation that came to nothing between a checkpoint and its row."""
        done = self.position.epoch
        if self.position.batch or not done or not self._evaluates(done):
            return None
        rows = metrics_log.read(self._path)
        known = any(row["kind"] == "eval" and row["epoch"] == done for row in rows)
        return None if known else self._evaluate()

    def _evaluates(self, done: int) -> bool:
        return done == self._config.epochs or done % self._config.eval_every == 0

    def _after_epoch(self) -> None:
        done, last = self.position.epoch, self.position.epoch == self._config.epochs
        if last:  # a state is saved once, so this must be there by then
            fitted = scoring.fit(self.system, self.state, self.features)
            self._meta["fitted"] = to_json(fitted)
        if last or done % self._config.checkpoint_every == 0:
            self._checkpoints.save(self.state, self.position, self._meta)
        self._scored = self._evaluate() if self._evaluates(done) else None

    def _evaluate(self) -> Scored:
        """Scores the test images and writes it down."""
        done, scored = self.position.epoch, self._score()
        values = scored.metrics | self._holdout_loss()
        form = self.system.config.eval.scoring
        self._log.write("eval", int(self.state.step), done, values, scoring=form)
        if parallel.is_first():
            title = f"{self.title}, epoch" if self.title else "epoch"
            self._bar.write(f"{title} {done}: {summary.one_line(scored.metrics)}")
        return scored

    def _score(self) -> Scored:
        fitted = state.fitted_of(self._meta, self.system.config)
        return scoring.score_as_asked(self.system, self.state, self.features, fitted)

    def _holdout_loss(self) -> dict[str, float]:
        """Mean training loss of the normal images that are not trained on."""
        if self.features.holdout is None:
            return {}
        with closing(self.features.holdout.epoch(0)) as batches:
            parts = [(self._loss(self.state, *pair), jnp.sum(pair[1].weight)) for pair in batches]
        losses, weights = zip(*jax.device_get(parts), strict=True)
        return {"holdout_loss": float(np.average(losses, weights=weights))}


def progress(runs: list[Run]) -> tqdm:
    """A bar over all images that runs have before them or behind them."""
    totals, done = zip(*(run.images for run in runs), strict=True)
    return tqdm(
        total=sum(totals),
        initial=sum(done),
        desc="train",
        unit="img",
        smoothing=0.05,
        disable=None,
    )
