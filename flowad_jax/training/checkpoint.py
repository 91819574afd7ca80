"""Checkpoints of a run: state, position in the data, calibration. The only user of Orbax."""

from __future__ import annotations

import contextlib
import logging
import shutil
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from flowad_jax import parallel, schema
from flowad_jax.errors import UserError
from flowad_jax.evaluation import fitted
from flowad_jax.training import checksums, splits
from flowad_jax.types import TrainState

FOLDER = "checkpoints"
STATE, META = "state", "meta/metadata"  # of each of them; Orbax writes the state
UNFINISHED = ".unfinished"
KEPT = 2

log = logging.getLogger("flowad_jax")

_META = schema.table(
    {
        "position": schema.array(schema.integer(low=0), least=2, most=2),
        "encoder_sha256": schema.TEXT,
    },
    {
        "state": schema.table({}, others=schema.TEXT),
        "config": schema.table({}),
        "epoch_seconds": schema.array(schema.number(low=0)),
        "features_seconds": schema.nullable(schema.number(low=0)),
        "steps": schema.array(schema.table({}, others=schema.number())),
        "fitted": fitted.SCHEMA,
        "images": splits.SCHEMA,
        "changed_data": schema.array(schema.TEXT),
    },
)


class Position(NamedTuple):
    """Where in the data a run stands: ``epoch`` is under way, ``batch`` its next image batch."""

    epoch: int
    batch: int


def steps(workdir: Path) -> list[int]:
    """Lists the steps of the complete checkpoints of a workdir, the oldest first."""
    folder = workdir / FOLDER
    found = [path for path in folder.iterdir() if path.is_dir()] if folder.is_dir() else []
    return sorted(int(path.name) for path in found if path.name.isdecimal())


def read_meta(workdir: Path, step: int) -> dict[str, Any]:
    """Reads what a checkpoint says about itself, and nothing else of it.

    Returns:
      ``position``, the checksums of the ``state``, unless version 0.1 wrote it, and the values
      given to `Checkpoints.save`.

    Raises:
      UserError: it is damaged.
    """
    file = workdir / FOLDER / str(step) / META
    meta, sealed = checksums.read_sealed(file, _META, _remedy(workdir, step))
    if sealed and not meta.get("state"):
        raise UserError(f"{file} has no checksums: {_remedy(workdir, step)}")
    return meta


class Checkpoints:
    """The checkpoints of a workdir; the newest two are kept.

    Each is written into a folder of another name, which is renamed when all of it is there, so
    that an interrupted or failed write leaves the earlier checkpoints as they were. Reading
    changes nothing.

    Attributes:
      workdir: the folder that holds theirs.
    """

    def __init__(self, workdir: Path):
        """Takes those below ``workdir``; their folder is created at the first save."""
        self.workdir = workdir

    def close(self) -> None:
        """Nothing is open."""

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return max(steps(self.workdir), default=None)

    def folder(self, step: int | str) -> Path:
        """The folder of one of them."""
        return self.workdir / FOLDER / str(step)

    def save(self, state: TrainState, position: Position, meta: dict[str, Any]) -> None:
        """Writes a checkpoint and waits until it is complete.

        Args:
          state: what to save, under the step it holds.
          position: where training goes on.
          meta: further JSON values, such as the encoder's checksum.

        Raises:
          UserError: it cannot be written; earlier checkpoints are intact.
        """
        step = int(state.step)
        if step == self.latest:
            return
        unfinished = self.folder(f"{step}{UNFINISHED}")
        try:
            with _echoes_silenced():
                self._write(unfinished, state, {"position": list(position), **meta})
        except (OSError, ValueError, RuntimeError) as error:
            shutil.rmtree(unfinished, ignore_errors=True)
            kept = "no earlier one exists" if self.latest is None else f"step {self.latest} is kept"
            raise UserError(
                f"cannot write a checkpoint into {self.workdir}: {_reason(error)} ({kept}); "
                "free some space, then the same command resumes"
            ) from None

    def restore(self, like: TrainState) -> tuple[TrainState, Position, dict[str, Any]]:
        """Reads the newest checkpoint.

        Args:
          like: a state of the same shapes, concrete or abstract.

        Returns:
          The state, the position, and the other values given to `save`.

        Raises:
          UserError: there is none, it is damaged, or it has other shapes.
        """
        step = self.latest
        if step is None:
            raise UserError(f"{self.workdir} holds no complete checkpoint: train first")
        meta, folder = read_meta(self.workdir, step), self.folder(step) / STATE
        digests, damaged = meta.pop("state", None), _remedy(self.workdir, step)
        if digests is None:
            log.warning("%s cannot be checked for damage: version 0.1 wrote no checksums", folder)
        elif damage := checksums.first_damage(folder, digests):
            raise UserError(f"{folder}/{damage}: {damaged}")
        advice = damaged if digests is None else "use the version of flowad_jax that wrote it"
        state = self._restored(folder, like, advice)
        if int(state.step) != step:
            raise UserError(f"{folder.parent}: rename it to {int(state.step)}, its step")
        return state, Position(*meta.pop("position")), meta

    def _write(self, unfinished: Path, state: TrainState, meta: dict[str, Any]) -> None:
        """All hosts write the state, the first one what belongs to it."""
        first, step = parallel.is_first(), int(state.step)
        if first:
            for leftover in (self.workdir / FOLDER).glob(f"*{UNFINISHED}"):
                shutil.rmtree(leftover)
            (unfinished / META).parent.mkdir(parents=True)
        parallel.wait("checkpoint begun")
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
            writer.save(unfinished / STATE, args=ocp.args.StandardSave(state._asdict()))
        if first:
            digests = checksums.of_files(unfinished / STATE)
            (unfinished / META).write_text(checksums.seal({**meta, "state": digests}))
            unfinished.rename(self.folder(step))
            for old in steps(self.workdir)[:-KEPT]:
                shutil.rmtree(self.folder(old))
        parallel.wait("checkpoint complete")

    def _restored(self, folder: Path, like: TrainState, advice: str) -> TrainState:
        """Reads a state onto the devices that ``like`` lies on."""
        target = jax.tree.map(_abstract, like._asdict())
        try:
            with _echoes_silenced(), ocp.Checkpointer(ocp.StandardCheckpointHandler()) as reader:
                return TrainState(**reader.restore(folder, args=ocp.args.StandardRestore(target)))
        except jax.errors.JaxRuntimeError:  # no memory, say: that is no fault of the checkpoint
            raise
        except Exception as error:  # Orbax raises whatever the bytes that it finds lead to
            what = f"{folder} is damaged or of another version"
            raise UserError(f"{what}: {advice}") from error


def _remedy(workdir: Path, step: int) -> str:
    before = [earlier for earlier in steps(workdir) if earlier < step]
    start = f"step {before[-1]}" if before else "the start"
    return (
        f"checkpoint {step} in {workdir} cannot be restored because {FOLDER}/{step} is damaged; "
        f"delete {FOLDER}/{step} to go back to {start}"
    )


def _reason(error: Exception) -> str:
    """The end of TensorStore's nested message, where the operating system speaks."""
    line = str(error).splitlines()[0] if str(error) else type(error).__name__
    return line if len(line) < 160 else "..." + line[-160:]


@contextlib.contextmanager
def _echoes_silenced() -> Iterator[None]:
    """Keeps one failed write from printing a traceback for each task that Orbax abandons.

    The failure itself is raised as usual; the echoes say nothing more and come when the abandoned
    tasks and coroutines are collected, so after a failure the silence stays.
    """
    quiet = warnings.catch_warnings()
    quiet.__enter__()
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)
    loggers = [logging.getLogger(name) for name in ("asyncio", "absl")]
    levels, hook = [logger.level for logger in loggers], sys.unraisablehook

    def drop_closed_loop(unraisable: Any) -> None:
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    sys.unraisablehook = drop_closed_loop
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    yield
    quiet.__exit__(None, None, None)
    sys.unraisablehook = hook
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def _abstract(leaf: Any) -> Any:
    if not hasattr(leaf, "shape"):
        return leaf
    place = getattr(leaf, "sharding", None) or SingleDeviceSharding(jax.devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place)
