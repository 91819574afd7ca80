"""The filtered loss of SSNF on given likelihoods: stored cases, weights, several devices."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.methods.ssnf import Contrast
from tests import golden

DIMENSIONS = 100
RELEASED = Contrast(0.5, 1e5 / DIMENSIONS)


def loss(nll, label, weight=None, objective=RELEASED):
    weight = np.ones(len(nll)) if weight is None else weight
    rows = (np.asarray(values) for values in (label, weight))
    return objective(jnp.asarray(nll, jnp.float32), *rows, DIMENSIONS)


@pytest.mark.parametrize("case", range(6))
def test_cases_of_the_reference(case):
    stored = golden.load("ssnf")
    positive, negative = stored["case_pos"][case], stored["case_neg"][case]
    value, metrics = loss([*positive, *negative], [0] * 4 + [1] * 4)
    np.testing.assert_allclose(value, stored["case_loss"][case], rtol=1e-5)
    np.testing.assert_allclose(metrics["nll"], positive.mean() / DIMENSIONS, rtol=1e-5)
    np.testing.assert_allclose(metrics["nll_synthetic"], negative.mean() / DIMENSIONS, rtol=1e-5)
    kept = (negative < 1e5) & (negative < positive.max())
    np.testing.assert_allclose(metrics["kept"], kept.mean())


@pytest.mark.parametrize(
    ("weight", "expected", "kept"),
    [
        ([1, 1, 1, 1, 1, 1], (1 + 2 + 9) / 3 / 2 - (3 + 8) / 2 / 2, 2 / 3),
        ([1, 1, 0, 1, 1, 1], 1.5, 0),  # without the 9 no negative is likelier than a positive
        ([1, 1, 1, 0, 1, 1], 2 - 4, 1 / 2),
        ([1, 1, 1, 0, 1, 0], 2 - 4, 1),
        ([1, 1, 1, 0, 0, 0], 4, 0),
        ([0, 0, 0, 1, 1, 1], 0, 0),
        ([0, 0, 0, 0, 0, 0], 0, 0),
    ],
)
def test_rows_of_weight_zero_are_nowhere(weight, expected, kept):
    value, metrics = loss([1, 2, 9, 3, 8, 10], [0, 0, 0, 1, 1, 1], weight)
    np.testing.assert_allclose(value, expected, rtol=1e-6)
    np.testing.assert_allclose(metrics["kept"], kept, rtol=1e-6)
    hidden = np.where(weight, [1, 2, 9, 3, 8, 10], np.nan)
    np.testing.assert_array_equal(loss(hidden, [0, 0, 0, 1, 1, 1], weight)[0], value)


def test_the_order_of_rows_does_not_count():
    order = [4, 0, 5, 1, 3, 2]
    nll, label = np.array([1.0, 2, 9, 3, 8, 10]), np.array([0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(loss(nll[order], label[order])[0], loss(nll, label)[0], rtol=1e-6)


def test_negatives_from_the_cap_on_do_not_train():
    """The cap itself is out already."""
    tight = Contrast(0.5, 3.0 / DIMENSIONS)
    for cap, expected in ((tight, 4.0), (RELEASED, 2.0 - 1.5)):
        value, _ = loss([1, 2, 9, 3], [0, 0, 0, 1], objective=cap)
        np.testing.assert_allclose(value, expected, rtol=1e-6)


@pytest.mark.parametrize(("kind", "alone"), [("switch", 1.0), ("constant", 0.75)])
def test_weights_reach_the_gradients(kind, alone):
    """Per row: share over the number of rows of its kind; the filter itself has no gradient."""
    objective = Contrast(0.25, 1e5, kind)

    def gradient(nll):
        return jax.grad(lambda values: loss(values, [0, 0, 1, 1], objective=objective)[0])(
            jnp.array(nll, jnp.float32)
        )

    np.testing.assert_allclose(gradient([1, 5, 6, 7]), [alone / 2, alone / 2, 0, 0])
    np.testing.assert_allclose(gradient([1, 5, 4, 7]), [0.375, 0.375, -0.25, 0])
    np.testing.assert_allclose(gradient([1, 5, 4, 3]), [0.375, 0.375, -0.125, -0.125])


TWO_DEVICES = """
import sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from flowad_jax.methods.ssnf import Contrast

nll, label = np.float32([1, 2, 3, 9, 4, 5, 8, 10]), np.repeat([0, 1], 4)
order = np.array([0, 1, 4, 6, 2, 3, 5, 7])  # each device has two of both kinds
rows = [values[order] for values in (nll, label, np.ones(8, np.float32))]
mesh = Mesh(np.array(jax.devices()), ("data",))
assert mesh.size == 2
halves = jax.device_put(rows, NamedSharding(mesh, PartitionSpec("data")))
assert {shard.data.shape for shard in halves[0].addressable_shards} == {(4,)}
compute = jax.jit(jax.value_and_grad(lambda *rows: Contrast(0.5, 1e5)(*rows, 1)[0]))
for value, gradient in (compute(*halves), compute(*rows)):
    print(float(value), *np.asarray(gradient)[np.argsort(order)].tolist())
"""


def test_the_filter_sees_the_batch_of_all_devices():
    """The largest positive is on one device, and negatives between 2 and 9 on the other."""
    environment = os.environ | {"JAX_NUM_CPU_DEVICES": "2"}
    done = subprocess.run(
        [sys.executable, "-c", TWO_DEVICES],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    sharded, whole = (np.array(line.split(), float) for line in done.stdout.splitlines())
    expected = [15 / 4 / 2 - 17 / 3 / 2, *[1 / 8] * 4, *[-1 / 6] * 3, 0]
    np.testing.assert_allclose(whole, expected, rtol=1e-5)
    np.testing.assert_allclose(sharded, expected, rtol=1e-5)
