"""A deep ensemble as one detector: members that learn side by side, likelihoods averaged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import jax
import jax.numpy as jnp

from flowad_jax.errors import UserError
from flowad_jax.types import Aux, Batch, Method, Phase, Tree

Loss = tuple[jax.Array, Aux]


def ensemble(method: Method, count: int) -> Method:
    """Returns the method with ``count`` members that learn side by side, each from its own seed.

    Members share batches and differ in initial parameters, fixed permutations and whatever else a
    seed draws; the first one is what would be trained alone. The likelihood of a position is the
    mean of the members' likelihoods there, in the units of the method's maps. As they are one
    detector, they hold out the same images, so that thresholds keep their promise.

    Lakshminarayanan, Pritzel, Blundell: "Simple and Scalable Predictive Uncertainty Estimation
    using Deep Ensembles", NeurIPS 2017.

    Raises:
      UserError: the method finds its buffers in one pass over the images, whatever the seed.
    """
    if method.fit is not None:
        raise UserError(
            f"train.ensemble={count}: members would be equal, as this method fits the features "
            "itself: set it to 1"
        )

    def init(rng: jax.Array, batch: Batch) -> dict[str, Tree]:
        found: dict[str, Tree] = {"params": {}, "buffers": {}}
        for member in range(count):
            for kind, groups in method.init(_seed(rng, member), batch).items():
                found[kind] |= _named(member, groups)
        return found

    def phases(buffers: dict[str, Tree], batch: Batch, rng: jax.Array) -> tuple[Phase, ...]:
        return tuple(
            _phase(member, phase)
            for member in range(count)
            for phase in method.phases(_own(member, buffers), batch, _seed(rng, member))
        )

    def log_probs(variables: Mapping[str, Tree], batch: Batch) -> tuple[jax.Array, ...]:
        members = (
            method.log_probs({kind: _own(member, variables[kind]) for kind in variables}, batch)
            for member in range(count)
        )
        maps = zip(*members, strict=True)
        return tuple(jax.nn.logsumexp(jnp.stack(x), axis=0) - math.log(count) for x in maps)

    return replace(method, init=init, phases=phases, log_probs=log_probs)


def _seed(rng: jax.Array, member: int) -> jax.Array:
    """The key of a member; the first has that of a detector alone."""
    return jax.random.fold_in(rng, member) if member else rng


def _name(member: int, group: str) -> str:
    return f"member_{member}_{group}"


def _named(member: int, groups: Mapping[str, Tree]) -> dict[str, Tree]:
    return {_name(member, group): tree for group, tree in groups.items()}


def _own(member: int, groups: Mapping[str, Tree]) -> dict[str, Tree]:
    """The groups of one member, named as the method names them."""
    prefix = _name(member, "")
    return {
        name.removeprefix(prefix): tree for name, tree in groups.items() if name.startswith(prefix)
    }


def _phase(member: int, phase: Phase) -> Phase:
    """The phase with the names that the groups have among all members; theirs rest meanwhile."""

    def loss_fn(params: Tree, buffers: Tree, minibatch: Tree) -> Loss:
        own = _own(member, params), _own(member, buffers)
        loss, aux = phase.loss_fn(*own, minibatch)
        return loss, aux._replace(buffers=_named(member, aux.buffers))

    return phase._replace(
        param_groups=tuple(_name(member, group) for group in phase.param_groups),
        mutable=tuple(_name(member, group) for group in phase.mutable),
        loss_fn=loss_fn,
        family=_name(member, ""),
    )
