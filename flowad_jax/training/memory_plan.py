"""What a run will need on the device, told before anything is computed, from shapes alone.

What a compiler does with it is its own: intermediate results may be fused away or computed anew.
So the parts that depend on the batch are estimates; all others are exact.
"""

from __future__ import annotations

import contextlib
import logging
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from flowad_jax.errors import UserError
from flowad_jax.features import memory
from flowad_jax.parallel import Devices
from flowad_jax.training import state
from flowad_jax.training.system import System
from flowad_jax.types import Batch, Tree

log = logging.getLogger("flowad_jax")


@dataclass(frozen=True)
class Plan:
    """The needs of a run, in bytes per device.

    Attributes:
      always: by name, what is there all the time.
      batch: by name, what a batch of ``batch_size`` images takes while it is trained on.
      batch_size: images per batch.
      members: detectors trained together, see `flowad_jax.training.stack`.
      devices: that share a batch.
      free: bytes free on the device; 0 where it does not say.
    """

    always: dict[str, int]
    batch: dict[str, int]
    batch_size: int
    devices: int
    free: int
    members: int = 1

    @property
    def total(self) -> int:
        """Bytes in all."""
        return sum(self.always.values()) + sum(self.batch.values())

    @property
    def largest_batch(self) -> int:
        """Images per batch for which there is room, as what a batch takes grows with it."""
        spare = self.free - sum(self.always.values())
        per_image = sum(self.batch.values()) / self.batch_size
        fitting = max(0, math.floor(spare / per_image))
        return fitting // self.multiple * self.multiple

    @property
    def multiple(self) -> int:
        """What batches must be a multiple of."""
        return self.devices if self.members == 1 else 1

    def lines(self) -> Iterator[str]:
        """The plan as a table."""
        title = f"a batch of {self.batch_size} images"
        title += f" for each of {self.members} detectors" * (self.members > 1)
        title += f" on {self.devices} devices" * (self.devices > 1)
        batch = {f"{name}, {title}": need for name, need in self.batch.items()}
        for name, need in (self.always | batch).items():
            yield f"  {memory.text(need):>10}  {name}"
        room = f"{memory.text(self.free)} free, room for batches of {self.largest_batch} images"
        yield f"  {memory.text(self.total):>10}  in all; {room if self.free else 'free: unknown'}"


def make(system: System, members: int = 1, devices: Devices | None = None) -> Plan:
    """Adds up the shapes of a run; computes nothing.

    Args:
      system: the run.
      members: detectors like it that are trained together.
      devices: that share them; None: those of the run.
    """
    size, count = system.train_loader.batch_size, (devices or system.devices).count
    variables = state.variable_shapes(system)
    params = variables["params"]
    optimizer = {g: jax.eval_shape(system.optimizer.init, tree) for g, tree in params.items()}
    maps, image = _inputs(system, size)
    batch = _saved(system, variables, maps, image.shape)
    batch["images"] = _bytes(image)
    batch["feature maps"] = _bytes(maps)
    batch["encoder at work"] = _working(system.encoder.apply, system.encoder.variables, image)
    detectors = {"flows": variables, "optimizer": optimizer, "gradients": params}
    here = max(1, members // count)  # a single one is on all devices
    always = {"encoder": _bytes(system.encoder.variables)}
    always |= {name: here * _bytes(tree) for name, tree in detectors.items()}
    shared = {name: members * need // count for name, need in batch.items()}
    free = memory.host() if jax.default_backend() == "cpu" else memory.device()
    return Plan(always, shared, size, count, free, members)


def show(plan: Plan) -> None:
    """Prints the plan, and warns where the estimated part has no room.

    Raises:
      UserError: there is no room even for what is certain.
    """
    log.info("on the device:")
    for line in plan.lines():
        log.info("%s", line)
    if not plan.free or plan.total <= plan.free:
        return
    certain = sum(plan.always.values()) + plan.batch["images"] + plan.batch["feature maps"]
    if certain > plan.free:
        raise UserError(
            f"the run needs {memory.text(certain)} and more, but {memory.text(plan.free)} are free "
            f"on the device: {_remedy(plan)}"
        )
    log.warning("this may be more than there is room for: %s", _remedy(plan))


@contextlib.contextmanager
def told(plan: Plan | None) -> Iterator[None]:
    """Turns the device's refusal of memory into one line, with the plan's remedy if there is one.

    Raises:
      UserError: the device had no room.
    """
    try:
        yield
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        reason = str(error).splitlines()[0]
        remedy = _remedy(plan) if plan else "set train.batch_size to less"
        raise UserError(f"no memory left on the device ({reason}): {remedy}") from error


def _remedy(plan: Plan) -> str:
    smaller = min(plan.largest_batch, plan.batch_size // 2 // plan.multiple * plan.multiple)
    less = "lower data.image_size or take a smaller encoder"
    if plan.members > 1:
        less = f"list fewer than {plan.members} detectors in train.stack, {less}"
    return f"set train.batch_size to {smaller}, {less}" if smaller else less


def _inputs(system: System, size: int) -> tuple[tuple[jax.ShapeDtypeStruct, ...], Any]:
    """Feature maps and images of a batch; pairs have a synthetic image for every clean one."""
    rows = size * (2 if system.method.learns_from == "pairs" else 1)
    side = system.image_size
    maps = tuple(
        jax.ShapeDtypeStruct((rows, *shape.shape[1:]), shape.dtype)
        for shape in system.feature_shapes
    )
    return maps, jax.ShapeDtypeStruct((rows, side, side, 3), np.float32)


def _saved(
    system: System, variables: Tree, maps: tuple[jax.ShapeDtypeStruct, ...], image: tuple[int, ...]
) -> dict[str, int]:
    """What gradient steps are made of, and what the largest of them saves for its gradient."""
    rows, side, *_ = image
    batch = Batch(
        None,
        jax.ShapeDtypeStruct((rows, side, side), bool),
        jax.ShapeDtypeStruct((rows,), np.int32),
        jax.ShapeDtypeStruct((rows,), np.float32),
    )
    saved: list[int] = []
    stacks: list[int] = []

    def phases(variables: Tree, maps: Any, batch: Batch) -> None:
        params, constants = variables["params"], variables["constants"]
        for phase in system.method.phases(constants, maps, batch, jax.random.key(0)):
            step = jax.tree.map(lambda leaf: leaf[0], phase.minibatches)
            own = {group: params[group] for group in phase.trains}
            updated = {group: constants[group] for group in phase.updates}
            _, backward, _ = jax.vjp(
                lambda p, phase=phase, u=updated, s=step: phase.loss_fn(p, u, s), own, has_aux=True
            )
            saved.append(max(0, _bytes(backward) - _bytes(own)))  # parameters are no copies
            stacks.append(_bytes(phase.minibatches))

    jax.eval_shape(phases, variables, maps, batch)
    return {"gradient steps": sum(stacks), "saved for a gradient": max(saved)}


def _working(apply: Callable, variables: Tree, image: jax.ShapeDtypeStruct) -> int:
    """The most that one operation of the encoder reads and writes."""
    jaxpr = jax.make_jaxpr(apply)(variables, image)
    return max((_traffic(equation, len(image.shape)) for equation in jaxpr.eqns), default=0)


def _traffic(equation: Any, axes: int) -> int:
    values = [v.aval for v in (*equation.invars, *equation.outvars) if hasattr(v, "aval")]
    return sum(
        math.prod(a.shape) * a.dtype.itemsize
        for a in values
        if len(getattr(a, "shape", ())) == axes
    )


def _bytes(tree: Tree) -> int:
    """Bytes of all arrays of a tree, whether they exist or not."""
    leaves = jax.tree.leaves(tree)
    return sum(
        math.prod(leaf.shape) * jax.dtypes.itemsize_bits(leaf.dtype) // 8
        if jax.dtypes.issubdtype(leaf.dtype, np.number) or leaf.dtype == bool
        else 8
        for leaf in leaves
    )
