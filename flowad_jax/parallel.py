"""Devices and hosts: the only file that knows that there may be several.

A batch is cut along its rows, everything else is the same on all devices, and jitted programs find
out themselves what has to travel between them. All random numbers belong to rows of the whole
batch, so one device and eight compute the same up to rounding.
"""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flowad_jax import lock
from flowad_jax.errors import UserError

DATA = "data"  # the one axis of the mesh
Tree = Any

log = logging.getLogger("flowad_jax")


@dataclass(frozen=True)
class Devices:
    """The devices that share a run's batches; a single one has no mesh and places nothing."""

    mesh: Mesh | None = None

    @property
    def count(self) -> int:
        """How many there are, on all hosts."""
        return self.mesh.size if self.mesh else 1

    def replicate(self, tree: Tree) -> Tree:
        """Puts the same arrays on every device; all hosts must have the same."""
        if self.mesh is None:
            return tree
        place = NamedSharding(self.mesh, PartitionSpec())
        if jax.process_count() == 1:
            return jax.device_put(tree, place)

        def copied(leaf: Any) -> jax.Array:
            if isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
                return jax.random.wrap_key_data(copied(jax.random.key_data(leaf)))
            return jax.make_array_from_process_local_data(place, np.asarray(leaf))

        return jax.tree.map(copied, tree)

    def shard_batch(self, tree: Tree, batch_size: int) -> Tree:
        """Gives every device its rows of a batch; a single one gets what it computes with later.

        Args:
          tree: arrays whose first axis are rows, of this host's part of the batch.
          batch_size: images of the whole batch; arrays may have a multiple of as many rows, like
            normal images and below them their synthetic versions.
        """
        if self.mesh is None:
            return tree
        rows = NamedSharding(self.mesh, PartitionSpec(DATA))
        if jax.process_count() == 1:
            return jax.device_put(tree, rows)
        size, stacked = batch_size // jax.process_count(), PartitionSpec(None, DATA)
        place = NamedSharding(self.mesh, stacked)
        flat = jax.jit(lambda x: x.reshape(-1, *x.shape[2:]), out_shardings=rows)

        def joined(part: Any) -> jax.Array:
            """A global array of all hosts' parts; what is stacked in a part stays stacked."""
            part = np.asarray(part).reshape(len(part) // size, size, *part.shape[1:])
            return flat(jax.make_array_from_process_local_data(place, part))

        return jax.tree.map(joined, tree)

    def send(self, array: Any) -> jax.Array:
        """Starts to move an array to the device, unless `shard_batch` has done so."""
        return jax.device_put(array) if self.mesh is None else array

    def shard_minibatches(self, minibatches: Tree) -> Tree:
        """Keeps the rows (n_steps, n, ...) of every gradient step on all devices.

        Without it every device would compute every step whole: the same result, and no faster.
        """
        if self.mesh is None:
            return minibatches
        place = NamedSharding(self.mesh, PartitionSpec(None, DATA))

        def constrain(leaf: jax.Array) -> jax.Array:
            keys = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
            if keys or leaf.ndim < 2 or leaf.shape[1] % self.count:
                return leaf
            return jax.lax.with_sharding_constraint(leaf, place)

        return jax.tree.map(constrain, minibatches)

    def shard_rows(self, function: Callable[[Tree, Tree], Tree]) -> Callable[[Tree, Tree], Tree]:
        """Lets every device compute ``function(variables, rows)`` of its own rows alone."""
        if self.mesh is None:
            return function
        specs = (PartitionSpec(), PartitionSpec(DATA))
        return jax.shard_map(
            function, mesh=self.mesh, in_specs=specs, out_specs=PartitionSpec(DATA), check_vma=False
        )


ALONE = Devices()


def devices(batch_size: int) -> Devices:
    """Returns as many of the devices as can share batches of a size, or detectors, equally.

    Raises:
      UserError: there are several hosts, and they cannot.
    """
    number = jax.device_count()
    used = max(n for n in range(1, number + 1) if batch_size % n == 0)
    if used < number and jax.process_count() > 1:
        raise UserError(
            f"train.batch_size={batch_size} cannot be divided among {number} devices of "
            f"{jax.process_count()} hosts: use a multiple of {number}"
        )
    if used < number:
        log.info("using %d of %d devices, which share %d equally", used, number, batch_size)
    if number == 1 or used == 1:
        return Devices()
    return Devices(Mesh(np.array(jax.devices()[:used]), (DATA,), axis_types=(AxisType.Auto,)))


def is_first() -> bool:
    """Whether this is the host that writes."""
    return jax.process_index() == 0


def host() -> tuple[int, int]:
    """The number of this host and how many there are."""
    return jax.process_index(), jax.process_count()


def gather(array: Any) -> np.ndarray:
    """Returns all rows of an array, wherever they lie, on every host."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        if array.is_fully_replicated:
            return np.asarray(array.addressable_data(0))
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def max_over_hosts(value: int) -> int:
    """The largest of the numbers that all hosts have: what one of them was told, all know."""
    if jax.process_count() == 1:
        return value
    return int(np.max(multihost_utils.process_allgather(np.int32(value))))


def wait(name: str) -> None:
    """Returns when all hosts are here."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


@contextlib.contextmanager
def outputs(path: Path) -> Iterator[Path]:
    """The folder to write into: host 0 has ``path`` to itself, the others one that vanishes.

    Raises:
      UserError: another process has the folder, see `lock.owning`.
    """
    if is_first():
        with lock.owning(path):
            yield path
        return
    with TemporaryDirectory(prefix="flowad_jax_") as folder:
        yield Path(folder)


def initialise(address: str | None, hosts: int | None, number: int | None) -> None:
    """Joins the other hosts of a job; call it before anything is computed.

    Args:
      address: ``"host:port"`` of host 0; None, as for the others, where the cluster says it
        (SLURM, Open MPI, GKE, Cloud TPU).
      hosts: how many there are.
      number: of this one, from 0.

    Raises:
      UserError: the others cannot be found.
    """
    os.environ.setdefault("JAX_CPU_COLLECTIVES_IMPLEMENTATION", "gloo")
    try:
        jax.distributed.initialize(address, hosts, number)
    except (ValueError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(
            f"--distributed: {reason}; where no cluster says it, give --coordinator=HOST:PORT, "
            "--hosts and --host"
        ) from error
    if jax.process_index():
        log.setLevel(logging.WARNING)
