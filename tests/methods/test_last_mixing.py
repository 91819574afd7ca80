"""No method feels that the last permutation of its flows is left out.

MSFlow, which does it along with another, is among the laws of `MultiScaleFlow`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax import lookup
from flowad_jax.flows import CouplingBlock
from flowad_jax.methods.cflow import make_decoders
from flowad_jax.ops import arrays
from flowad_jax.types import Batch
from tests.methods.test_laws import make_batch

# One block, which is the last: programs are short, and nothing else mixes.
METHODS = [
    ("cflow", {"condition": 4, "fibre_steps": 1}),
    ("cflow", {"condition": 4, "fibre_steps": 1, "permutation": "hard"}),
    ("sanflow", {"condition": 0}),
    ("sanflow", {"condition": 0, "permutation": "soft"}),
    ("ssnf", {"hidden": 4, "heads": 2, "score": "nll", "layout": "conv"}),
]


def outcome(method, params, buffers, batch):
    """Likelihood maps, and the loss of every first step with its gradients."""
    steps = []
    for phase in method.phases(buffers, batch, jax.random.key(2)):
        first = jax.tree.map(lambda leaf: leaf[0], phase.minibatches)
        own = {group: params[group] for group in phase.param_groups}
        mutable = {group: buffers[group] for group in phase.mutable}
        step = jax.value_and_grad(phase.loss_fn, has_aux=True)
        (loss, _), gradient = step(own, mutable, first)
        steps.append((loss, gradient))
    return method.log_probs({"params": params, "buffers": buffers}, batch), steps


@pytest.mark.parametrize(("name", "options"), METHODS)
def test_nothing_changes(name, options, monkeypatch):
    """Sums over channels in another order differ by rounding, and gradients by that of sums."""
    method = lookup.find("flowad_jax.methods", name)(blocks=1, **options)
    batch, rng = make_batch()._replace(maps=make_batch().maps[1:]), np.random.default_rng(1)
    made = jax.jit(method.init)(jax.random.key(0), batch)
    params = jax.tree.map(  # away from where scales and offsets do nothing
        lambda p: p + 0.1 * rng.normal(size=p.shape).astype(np.float32), made["params"]
    )
    given = (params, made["buffers"], batch)
    ours = jax.jit(lambda *args: outcome(method, *args))(*given)
    call = CouplingBlock.__call__
    always = lambda block, x, cond=None, permute=True: call(block, x, cond)  # noqa: E731
    monkeypatch.setattr(CouplingBlock, "__call__", always)
    expected = jax.jit(lambda *args: outcome(method, *args))(*given)
    for got, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        scale = max(1e-3, float(np.abs(wanted).max()))
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=2e-5 * scale)


def test_a_mean_feels_a_rotation():
    """Why SANFlow's loss needs the last one where its permutations are soft."""
    decoders = make_decoders(0, 1, 1.9, "tanh", "soft")
    rows = jnp.asarray(np.random.default_rng(0).normal(size=(5, 1, 1, 8)), jnp.float32)

    @jax.jit
    def latents(rows):
        variables = decoders.init(jax.random.key(0), Batch((rows,)))
        return [
            decoders.latent(variables, 0, arrays.fibres(rows), None, m)[0] for m in (False, True)
        ]

    without, mixed = latents(rows)
    np.testing.assert_allclose(jnp.sum(without**2, -1), jnp.sum(mixed**2, -1), rtol=1e-5)
    apart = jnp.sum((without - 1) ** 2, -1) / jnp.sum((mixed - 1) ** 2, -1)
    assert np.abs(apart - 1).max() > 0.1
