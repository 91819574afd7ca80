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
from jax.sharding import NamedSharding, PartitionSpec, SingleDeviceSharding

from flowad_jax import parallel, schema
from flowad_jax.detector import calibration, checksums, splits
from flowad_jax.errors import UserError
from flowad_jax.parallel import ALONE, Devices
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
        "fitted": calibration.SCHEMA,
        "images": splits.SCHEMA,
        "changed_data": schema.array(schema.TEXT),
        "recalibrated": schema.table({}),
        "ancestors": schema.array(schema.TEXT),  # images that earlier runs were trained on
        "findings": schema.array(schema.TEXT),  # of the normal images
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


def latest(workdir: Path) -> int | None:
    """Returns the step of the newest complete checkpoint, or None."""
    return max(steps(workdir), default=None)


def read_meta(workdir: Path, step: int) -> dict[str, Any]:
    """Reads ``position``, checksums of the ``state`` (not in 0.1), and what `save` was given.

    Raises:
      UserError: it is damaged.
    """
    file = workdir / FOLDER / str(step) / META
    meta, sealed = checksums.read_sealed(file, _META, _remedy(workdir, step))
    if sealed and not meta.get("state"):
        raise UserError(f"{file} has no checksums: {_remedy(workdir, step)}")
    return meta


def save(workdir: Path, state: TrainState, position: Position, meta: dict[str, Any]) -> None:
    """Writes a checkpoint under the state's step, waits until it is there, and keeps two.

    It is written into a folder of another name, which is renamed when it is complete: an
    interrupted or failed write leaves the earlier checkpoints as they were. ``meta`` are further
    JSON values.

    Raises:
      UserError: it cannot be written.
    """
    step, newest, first = int(state.step), latest(workdir), parallel.is_first()
    if step == newest:
        return
    folder = workdir / FOLDER
    unfinished = folder / f"{step}{UNFINISHED}"
    try:
        with _echoes_silenced():
            if first:
                for leftover in folder.glob(f"*{UNFINISHED}"):
                    shutil.rmtree(leftover)
                (unfinished / META).parent.mkdir(parents=True)
            parallel.wait("checkpoint begun")
            with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as writer:
                writer.save(unfinished / STATE, args=ocp.args.StandardSave(_stored(state)))
            if first:
                digests = checksums.of_files(unfinished / STATE)
                content = {"position": list(position), **meta, "state": digests}
                (unfinished / META).write_text(checksums.seal(content))
                unfinished.rename(folder / str(step))
                for old in steps(workdir)[:-KEPT]:
                    shutil.rmtree(folder / str(old))
            parallel.wait("checkpoint complete")
    except (OSError, ValueError, RuntimeError) as error:
        shutil.rmtree(unfinished, ignore_errors=True)
        kept = "no earlier one exists" if newest is None else f"step {newest} is kept"
        # The end of TensorStore's nested message, where the operating system speaks.
        line = str(error).splitlines()[0] if str(error) else type(error).__name__
        reason = line if len(line) < 160 else "..." + line[-160:]
        raise UserError(
            f"cannot write a checkpoint into {workdir}: {reason} ({kept}); "
            "free some space, then the same command resumes"
        ) from None


def restore(
    workdir: Path, like: TrainState, devices: Devices = ALONE
) -> tuple[TrainState, Position, dict[str, Any]]:
    """Reads the newest checkpoint onto the devices; returns what `save` was given.

    Args:
      workdir: the folder of the run.
      like: a state of the same shapes, concrete or abstract; without ``opt_state`` the
        optimizer's state is not read.
      devices: each gets all of the state.

    Raises:
      UserError: there is none, it is damaged, or it has other shapes.
    """
    step = latest(workdir)
    if step is None:
        raise UserError(f"{workdir} holds no complete checkpoint: train first")
    meta, folder = read_meta(workdir, step), workdir / FOLDER / str(step) / STATE
    digests, advice = meta.pop("state", None), _remedy(workdir, step)
    if digests is None:
        log.warning("%s cannot be checked for damage: version 0.1 wrote no checksums", folder)
    elif damage := checksums.first_damage(folder, digests):
        raise UserError(f"{folder}/{damage}: {advice}")
    else:  # intact, so that only its shapes can be wrong
        advice = "use the version of flowad_jax that wrote it"
    try:
        state = _read_state(folder, like, devices)
    except jax.errors.JaxRuntimeError:  # no memory, say: that is no fault of the checkpoint
        raise
    except Exception as error:  # Orbax raises whatever the bytes that it finds lead to
        what = f"{folder} is damaged or of another version"
        raise UserError(f"{what}: {advice}") from error
    if int(state.step) != step:
        raise UserError(f"{folder.parent}: rename it to {int(state.step)}, its step")
    return state, Position(*meta.pop("position")), meta


def _stored(state: TrainState) -> dict[str, Any]:
    """The fields of a state by the names that they have on disk."""
    fields = state._asdict()
    if not state.opt_state:
        del fields["opt_state"]
    return {"constants": fields.pop("buffers"), **fields}


def _read_state(folder: Path, like: TrainState, devices: Devices) -> TrainState:
    folder = folder.absolute()  # Orbax finds nothing at a relative path
    alone = SingleDeviceSharding(jax.devices()[0])
    place = NamedSharding(devices.mesh, PartitionSpec()) if devices.mesh else alone
    target = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), _stored(like)
    )
    arguments = ocp.checkpoint_utils.construct_restore_args(target)
    args = ocp.args.PyTreeRestore(target, restore_args=arguments, partial_restore=True)
    with _echoes_silenced(), ocp.Checkpointer(ocp.PyTreeCheckpointHandler()) as reader:
        tree = reader.metadata(folder).item_metadata.tree
        present = {name: tree[name] for name in target if name in tree}
        if _leaves(present) != _leaves(target):  # a partial read would leave them out
            raise ValueError("other arrays")
        fields = {"opt_state": {}, **reader.restore(folder, args=args)}
        return TrainState(buffers=fields.pop("constants"), **fields)


def _leaves(tree: Any) -> set[str]:
    paths = [path for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
    return {jax.tree_util.keystr(path, simple=True, separator="/") for path in paths}


def _remedy(workdir: Path, step: int) -> str:
    before = [earlier for earlier in steps(workdir) if earlier < step]
    start = f"step {before[-1]}" if before else "the start"
    return (
        f"checkpoint {step} in {workdir} cannot be restored because {FOLDER}/{step} is damaged; "
        f"delete {FOLDER}/{step} to go back to {start}"
    )


@contextlib.contextmanager
def _echoes_silenced() -> Iterator[None]:
    """Keeps one failed write from printing a traceback for each task that Orbax abandons.

    The failure itself is raised as usual. Its echoes come when the abandoned tasks and coroutines
    are collected, so after a failure the silence stays.
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
