"""No method feels that the last permutation of its flows is left out.

MSFlow, which does it along with another, is among the laws of `MultiScaleFlow`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax import ops
from flowad_jax.flows import coupling
from flowad_jax.methods import cflow, sanflow, ssnf
from flowad_jax.methods.cflow import make_decoders
from flowad_jax.types import Batch

SIZE = (2, 2, 9)  # (h, w, C)
EFFORT = {"xla_backend_optimization_level": 0}  # the programs are long and run once
# One block, which is the last: programs are short, and nothing else mixes.
METHODS = {
    "cflow": lambda: cflow.build(condition=4, blocks=1, fibre_steps=1),
    "cflow hard": lambda: cflow.build(4, 1, permutation="hard", fibre_steps=1),
    "sanflow": lambda: sanflow.build(condition=0, blocks=1),
    "sanflow soft": lambda: sanflow.build(condition=0, blocks=1, permutation="soft"),
    "ssnf": lambda: ssnf.build(blocks=1, hidden=4, heads=2, score="nll", layout="conv"),
}


def maps_and_batch(name):
    rng = np.random.default_rng(0)
    sizes = (SIZE, (8, 8, 3)) if name.startswith("sanflow") else (SIZE,)  # with the image
    maps = tuple(jnp.asarray(rng.normal(size=(4, *size)), jnp.float32) for size in sizes)
    mask = np.zeros((4, 8, 8), bool)
    mask[2:, :4, :5] = True
    return maps, Batch(None, jnp.asarray(mask), jnp.array([0, 0, 1, 1]), jnp.ones(4))


def trained(method, maps):
    """Variables away from their initial values, where scales and offsets do nothing."""
    rng = np.random.default_rng(1)
    made = jax.jit(method.init)(jax.random.key(0), maps)
    noisy = jax.tree.map(
        lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), made["params"]
    )
    return {**made, "params": noisy}


def outcome(method, variables, maps, batch):
    """Likelihood maps, and the loss of every first step with its gradients."""

    def compute(params, constants):
        steps = []
        for phase in method.phases(constants, maps, batch, jax.random.key(2)):
            first = jax.tree.map(lambda leaf: leaf[0], phase.minibatches)
            own = {group: params[group] for group in phase.trains}
            updated = {group: constants[group] for group in phase.updates}
            step = jax.value_and_grad(phase.loss_fn, has_aux=True)
            (loss, _), gradient = step(own, updated, first)
            steps.append((loss, gradient))
        return method.log_probs({"params": params, "constants": constants}, maps), steps

    fast = jax.jit(compute, compiler_options=EFFORT)
    return fast(variables["params"], variables["constants"])


@pytest.mark.parametrize("name", METHODS)
def test_nothing_changes(name, monkeypatch):
    """Sums over channels in another order differ by rounding, and gradients by that of sums."""
    method = METHODS[name]()
    maps, batch = maps_and_batch(name)
    variables = trained(method, maps)
    ours = outcome(method, variables, maps, batch)
    forward = coupling.forward
    monkeypatch.setattr(coupling, "forward", lambda *args: forward(*args[:5]))  # always mixes
    expected = outcome(METHODS[name](), variables, maps, batch)
    for got, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        scale = max(1e-3, float(np.abs(wanted).max()))
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5 * scale)


def test_a_mean_feels_a_rotation():
    """Why SANFlow's loss needs the last one where its permutations are soft."""
    decoders = make_decoders(0, 1, 1.9, "tanh", "soft")
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(5, 1, 1, 8)), jnp.float32)

    def latents(rows):
        variables = decoders.init(jax.random.key(0), [rows])
        return [decoders.latent(variables, 0, ops.fibres(rows), None, m)[0] for m in (False, True)]

    without, mixed = jax.jit(latents, compiler_options=EFFORT)(rows)
    np.testing.assert_allclose(jnp.sum(without**2, -1), jnp.sum(mixed**2, -1), rtol=1e-5)
    apart = jnp.sum((without - 1) ** 2, -1) / jnp.sum((mixed - 1) ** 2, -1)
    assert np.abs(apart - 1).max() > 0.1
