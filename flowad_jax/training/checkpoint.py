"""Checkpoints of a run: state, position in the data, calibration. The only user of Orbax."""

from __future__ import annotations

import contextlib
import logging
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import orbax.checkpoint as ocp
from jax.sharding import SingleDeviceSharding

from flowad_jax.errors import UserError
from flowad_jax.types import TrainState

FOLDER = "checkpoints"


class Position(NamedTuple):
    """Where in the data a run stands: ``epoch`` is under way, ``batch`` its next image batch."""

    epoch: int
    batch: int


class Checkpoints:
    """The checkpoints of a workdir; the newest two are kept.

    Orbax writes into a temporary folder and renames it, so that an interrupted or failed write
    leaves the earlier checkpoints as they were.

    Attributes:
      workdir: the folder that holds theirs.
    """

    def __init__(self, workdir: Path):
        """Opens the folder below ``workdir``; it is created at the first save."""
        self.workdir = workdir
        options = ocp.CheckpointManagerOptions(
            max_to_keep=2, create=True, enable_async_checkpointing=False
        )
        self._manager = ocp.CheckpointManager(workdir / FOLDER, options=options)

    def close(self) -> None:
        """Closes the manager."""
        self._manager.close()

    @property
    def latest(self) -> int | None:
        """Step of the newest complete checkpoint, or None."""
        return self._manager.latest_step()

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
        items = ocp.args.Composite(
            state=ocp.args.StandardSave(state._asdict()),
            meta=ocp.args.JsonSave({"position": list(position), **meta}),
        )
        try:
            with _echoes_silenced():
                self._manager.save(step, args=items)
        except (OSError, ValueError, RuntimeError) as error:
            self._manager.reload()
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
        target = jax.tree.map(_abstract, like._asdict())
        items = ocp.args.Composite(
            state=ocp.args.StandardRestore(target), meta=ocp.args.JsonRestore()
        )
        try:
            restored = self._manager.restore(step, args=items)
        except (OSError, ValueError, KeyError, RuntimeError) as error:
            raise UserError(
                f"checkpoint {step} in {self.workdir} cannot be restored: {_reason(error)}; "
                f"delete {FOLDER}/{step} to go back to the one before"
            ) from None
        meta = dict(restored["meta"])
        return TrainState(**restored["state"]), Position(*meta.pop("position")), meta


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
