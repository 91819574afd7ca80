"""What a run will need on the device, as its compiled programs say, told before the first step."""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from flowad_jax import memory
from flowad_jax.errors import UserError
from flowad_jax.parallel import DATA, Devices
from flowad_jax.training.experiment import Experiment
from flowad_jax.training.optimizer import state_shapes
from flowad_jax.types import Batch, Tree

log = logging.getLogger("flowad_jax")


@dataclass(frozen=True)
class MemoryPlan:
    """The needs of a run, in bytes per device.

    Attributes:
      always: by name, what is there all the time.
      batch: by name, what a batch of ``batch_size`` images takes while it is trained on.
      batch_size: images per batch.
      devices: that share a batch, or the detectors.
      free: bytes free on the device; 0 where it does not say.
      trials: detectors trained together, see `flowad_jax.sweep.stack`.
    """

    always: dict[str, int]
    batch: dict[str, int]
    batch_size: int
    devices: int
    free: int
    trials: int = 1

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.always.values()) + sum(self.batch.values())

    @property
    def largest_batch(self) -> int:
        """Images per batch for which there is room, as what a batch takes grows with it."""
        spare = self.free - sum(self.always.values())
        fitting = max(0, math.floor(spare * self.batch_size / sum(self.batch.values())))
        return fitting // self._multiple * self._multiple

    @property
    def _multiple(self) -> int:
        return self.devices if self.trials == 1 else 1

    @property
    def remedy(self) -> str:
        """What the user can do where there is no room."""
        half = self.batch_size // 2 // self._multiple * self._multiple
        smaller = min(self.largest_batch, half)
        less = "lower data.image_size or take a smaller encoder"
        if self.trials > 1:
            less = f"list fewer than {self.trials} detectors in train.stack, {less}"
        return f"set train.batch_size to {smaller}, {less}" if smaller else less

    def lines(self) -> Iterator[str]:
        """Yields the plan as a table, whose last line is the sum."""
        title = f"a batch of {self.batch_size} images"
        title += f" for each of {self.trials} detectors" * (self.trials > 1)
        title += f" on {self.devices} devices" * (self.devices > 1)
        batch = {f"{name}, {title}": need for name, need in self.batch.items()}
        for name, need in (self.always | batch).items():
            yield f"  {memory.text(need):>10}  {name}"
        room = f"{memory.text(self.free)} free, room for batches of {self.largest_batch} images"
        yield f"  {memory.text(self.total):>10}  in all; {room if self.free else 'free: unknown'}"

    def show(self) -> None:
        """Logs the sum, or all where there may be no room or ``--verbosity=1`` asks for it.

        Raises:
          UserError: there is no room even for what the programs work on.
        """
        *parts, whole = self.lines()
        has_room = not self.free or self.total <= self.free
        for line in parts:
            log.log(logging.DEBUG if has_room else logging.WARNING, "%s", line)
        log.info("memory: %s", whole.strip())
        if has_room:
            return
        certain = sum(self.always.values()) + self.batch["images"] + self.batch["feature maps"]
        if certain > self.free:
            raise UserError(
                f"the run needs {memory.text(certain)} and more, but {memory.text(self.free)} are "
                f"free on the device: {self.remedy}"
            )
        log.warning("this may be more than there is room for: %s", self.remedy)


def make(
    experiment: Experiment, step: Any, trials: int = 1, devices: Devices | None = None
) -> MemoryPlan:
    """Compiles the programs of a run, which are kept for it, and asks them what they need.

    Args:
      experiment: the run.
      step: its jitted gradient step; that of `make_stack_step` for a stack.
      trials: detectors of the stack.
      devices: that share the stack; None: it is a single run.
    """
    stacked, devices = devices is not None, devices or experiment.devices
    size, canvas = experiment.train_loader.batch_size, experiment.image_size
    # Pairs have a synthetic image for every normal one.
    rows = size * (2 if experiment.method.batch_kind == "pairs" else 1)
    lead = (trials,) if stacked else ()

    def shape(shape: tuple[int, ...], dtype: Any, split: bool = True) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec(DATA) if split else PartitionSpec()
        place = NamedSharding(devices.mesh, spec) if devices.mesh else None
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    image = shape((trials * rows, *canvas, 3), np.float32)
    one, facts = experiment.batch_shapes, ((canvas, bool), ((), np.int32), ((), np.float32))
    batch = Batch(
        *jax.tree.map(lambda x: shape((*lead, rows, *x.shape[1:]), x.dtype), one[:2]),
        *(shape((*lead, rows, *rest), dtype) for rest, dtype in facts),
    )
    state = jax.tree.map(
        lambda leaf: shape((*lead, *leaf.shape), leaf.dtype, split=stacked),
        state_shapes(experiment),
    )
    weights = experiment.encoder.variables
    variables = jax.tree.map(lambda leaf: shape(leaf.shape, leaf.dtype, split=False), weights)
    active = [shape((trials,), bool)] if stacked else []
    split, whole = devices.count, devices.count if stacked else 1
    return MemoryPlan(
        always={
            "encoder": _bytes(weights),
            "flows": _bytes((state.params, state.buffers)) // whole,
            "optimizer": _bytes(state.opt_state) // whole,
        },
        batch={
            "images": _bytes(image) // split,
            "feature maps": _bytes(batch[:2]) // split,
            "encoder at work": _working_memory(experiment.encode, variables, image),
            "gradient steps": _working_memory(step, state, batch, *active),
        },
        batch_size=size,
        devices=devices.count,
        free=memory.host() if jax.default_backend() == "cpu" else memory.device(),
        trials=trials,
    )


@contextlib.contextmanager
def explain_out_of_memory(plan: MemoryPlan | None) -> Iterator[None]:
    """Turns the device's refusal of memory into one line with the plan's remedy; None: to score.

    Raises:
      UserError: the device had no room.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        remedy = plan.remedy if plan else "set eval.batch_size to less"
        raise UserError(f"no memory left on the device ({reason}): {remedy}") from error


def _working_memory(function: Any, *shapes: Any) -> int:
    """Bytes of a device that a jitted function takes beside its arguments."""
    found = function.lower(*shapes).compile().memory_analysis()
    return found.temp_size_in_bytes if found else 0


def _bytes(tree: Tree) -> int:
    leaves = jax.tree.leaves(tree)
    return sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in leaves)
