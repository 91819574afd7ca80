"""Where the numbers of a run go besides its workdir, through the clients that people know.

TensorBoard files lie in the workdir. MLflow gets a database beside it, or the server that
MLFLOW_TRACKING_URI names; Weights & Biases has its own variables, such as WANDB_MODE=offline. Both
also get the config, the load of the machine, and at the end the report. A run that is resumed goes
on under the same name.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ml_collections import config_dict

from flowad_jax import files, parallel
from flowad_jax.detector.config_schema import plain
from flowad_jax.errors import UserError, one_line
from flowad_jax.lookup import check_choice
from flowad_jax.report.formats import flatten, is_finite

log = logging.getLogger("flowad_jax")

PROJECT, IN_WORKDIR = "flowad_jax", "tensorboard"
KEPT = ("results.json", "results.md", "report.html")


class Logger(Protocol):
    """What a run tells its numbers."""

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Takes finite numbers by names such as ``train/loss``."""

    def end(self, values: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Takes the final metrics and files of a training that is over."""

    def close(self) -> None:
        """Ends the connection; a later one goes on with the same run."""


class TensorBoard:
    """Event files in ``tensorboard/``; see `Logger`."""

    def __init__(self, workdir: Path, step: int):
        """Drops what was written after ``step`` in a future that was lost."""
        import tensorboardX

        with files.writing(workdir):
            self._board = tensorboardX.SummaryWriter(
                str(workdir / "tensorboard"), purge_step=step + 1 if step else None
            )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds points."""
        for name, value in values.items():
            self._board.add_scalar(name, value, step)
        self._board.flush()

    def end(self, values: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Nothing: the files lie beside it."""

    def close(self) -> None:
        """Closes the event file."""
        self._board.close()


class MLflow:
    """A run of MLflow; see `Logger`."""

    def __init__(self, workdir: Path, config: Mapping[str, Any]):
        """Finds the run of a workdir, or begins one with the config as parameters."""
        mlflow = _client("mlflow")
        beside = f"sqlite:///{workdir.parent / 'mlflow.db'}"
        uri = os.environ.get("MLFLOW_TRACKING_URI") or beside
        mlflow.set_tracking_uri(uri)  # the monitor knows no other way
        self._client = mlflow.MlflowClient(tracking_uri=uri)
        self._run = self._find(workdir, None if uri != beside else workdir.parent / "mlartifacts")
        if self._run is None:
            self._run = self._begin(workdir, config)
        monitor = importlib.import_module("mlflow.system_metrics.system_metrics_monitor")
        self._monitor = monitor.SystemMetricsMonitor(self._run, resume_logging=True)
        self._monitor.start()

    def _find(self, workdir: Path, artifacts: Path | None) -> str | None:
        known = self._client.get_experiment_by_name(PROJECT)
        place = artifacts.as_uri() if artifacts else None
        self._experiment = (
            known.experiment_id if known else self._client.create_experiment(PROJECT, place)
        )
        query = f"tags.workdir = '{_identity(workdir)}'"
        found = self._client.search_runs([self._experiment], query, max_results=1)
        return found[0].info.run_id if found else None

    def _begin(self, workdir: Path, config: Mapping[str, Any]) -> str:
        tags = {"workdir": _identity(workdir)}
        run = self._client.create_run(self._experiment, tags=tags, run_name=workdir.name)
        for name, value in flatten(config).items():
            self._client.log_param(run.info.run_id, name, str(value)[:500])
        return str(run.info.run_id)

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds points."""
        for name, value in values.items():
            self._client.log_metric(self._run, name, value, step=step)

    def end(self, values: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Adds the final metrics, and the files as artifacts."""
        for name, value in values.items():
            self._client.log_metric(self._run, name, value)
        for file in kept:
            self._client.log_artifact(self._run, str(file))

    def close(self) -> None:
        """Says that nothing more comes for now."""
        self._monitor.finish()
        self._client.set_terminated(self._run)


class WandB:
    """A run of Weights & Biases; see `Logger`."""

    def __init__(self, workdir: Path, config: Mapping[str, Any]):
        """Begins the run of a workdir, or goes on with it."""
        wandb = _client("wandb")
        self._run = wandb.init(
            dir=str(workdir),
            project=os.environ.get("WANDB_PROJECT") or PROJECT,
            id=_identity(workdir),
            name=workdir.name,
            config=dict(config),
            resume="allow",
            reinit="create_new",
            settings=wandb.Settings(console="off", silent=True),
        )

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Adds points."""
        self._run.log(dict(values), step=step)

    def end(self, values: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Puts the final metrics into the summary, and the files beside."""
        self._run.summary.update(dict(values))
        for file in kept:
            self._run.save(str(file), base_path=str(file.parent), policy="now")

    def close(self) -> None:
        """Sends what is left."""
        self._run.finish()


ELSEWHERE: Mapping[str, Callable[[Path, Mapping[str, Any]], Logger]] = {
    "mlflow": MLflow,
    "wandb": WandB,
}


def check(names: Collection[str]) -> None:
    """Raises a `UserError` for a name that there is not, or a client that is not installed."""
    for name in names:
        check_choice("train.loggers", name, (IN_WORKDIR, *ELSEWHERE))
        if name in ELSEWHERE:
            _client(name)


class _Told:
    """A logger whose failure costs its numbers and gets a line, but never ends a training."""

    def __init__(self, name: str, logger: Logger):
        self._name, self._logger, self._works = name, logger, True

    def scalars(self, values: Mapping[str, float], step: int) -> None:
        """Hands points on."""
        self._try(lambda: self._logger.scalars(values, step))

    def end(self, values: Mapping[str, float], kept: Sequence[Path]) -> None:
        """Hands results on."""
        self._try(lambda: self._logger.end(values, kept))

    def close(self) -> None:
        """Closes it."""
        self._try(self._logger.close)

    def _try(self, call: Callable[[], None]) -> None:
        if not self._works:
            return
        try:
            call()
        except Exception as error:  # whatever clients and networks come up with
            self._works = False
            log.warning("%s is told nothing more: %s", self._name, one_line(str(error)))


def open_all(config: config_dict.ConfigDict, workdir: Path, step: int) -> list[Logger]:
    """Opens the loggers of a run that stands at a step; of several hosts one tells programs."""
    found = _elsewhere(config, workdir)
    if IN_WORKDIR in config.train.loggers:
        found.append(TensorBoard(workdir, step))
    return found


def end(config: config_dict.ConfigDict, workdir: Path, found: Mapping[str, Any]) -> None:
    """Hands the results of a training that is over, and its report, to those that keep them."""
    values = {
        f"{column}/{name}": value
        for column, metrics in found["columns"].items()
        for name, value in metrics.items()
        if isinstance(value, float) and is_finite(value)
    }
    kept = [file for name in KEPT if (file := workdir / name).is_file()]
    try:
        opened = _elsewhere(config, workdir)
    except UserError as error:  # nothing is lost: the results are written
        log.warning("%s", error)
        return
    for logger in opened:
        logger.end(values, kept)
        logger.close()


def _elsewhere(config: config_dict.ConfigDict, workdir: Path) -> list[Logger]:
    """Raises a UserError where a client does not begin."""
    found: list[Logger] = []
    for name in config.train.loggers:
        if name != IN_WORKDIR and parallel.is_first():
            try:
                found.append(_Told(name, ELSEWHERE[name](workdir, plain(config))))
            except Exception as error:
                fix = "see to its settings, or leave it out"
                raise UserError(f"train.loggers: {name}: {one_line(str(error))}: {fix}") from error
    return found


def _client(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ImportError as error:
        fix = f"pip install 'flowad_jax[{name}]', or leave it out"
        raise UserError(f"train.loggers: {name} is not installed: {fix}") from error


def _identity(workdir: Path) -> str:
    """What a workdir is called among all runs: the same for one place, another for each."""
    place = hashlib.sha256(os.fsencode(workdir.absolute())).hexdigest()
    return place[:16]
