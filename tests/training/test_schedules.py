import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.training import schedules
from tests import golden


def test_cflow_agrees_with_the_reference():
    stored = golden.load("lr_schedules")["cflow_meta25_sub8_batches10"]
    rates = schedules.cflow(2e-4, epochs=200, steps_per_epoch=10)(jnp.arange(len(stored)))
    np.testing.assert_allclose(rates, stored, rtol=1e-5)


def test_cflow_without_warmup_starts_at_the_top():
    schedule = schedules.cflow(2e-4, 200, 10, warmup_meta_epochs=0)
    np.testing.assert_allclose(schedule(jnp.array(0)), 2e-4, rtol=1e-6)


@pytest.mark.parametrize("epochs", [1, 3, 16])
def test_short_runs_stay_within_bounds(epochs):
    rates = schedules.cflow(1e-3, epochs, 5, sub_epochs=2)(jnp.arange(5 * epochs))
    assert rates.min() >= 0.99e-6
    assert rates.max() <= 1e-3


def test_msflow_agrees_with_the_reference():
    stored = golden.load("lr_schedules")["msflow_per_sub_epoch"]
    batch = jnp.arange(7 * len(stored))
    rates = schedules.msflow(1e-4, epochs=100, steps_per_epoch=7)(batch)
    np.testing.assert_allclose(rates, np.repeat(stored, 7), rtol=1e-5)


def test_msflow_milestones_are_shares_of_the_run():
    rates = schedules.msflow(1.0, 30, 1, warmup_meta_epochs=0)(jnp.arange(30))
    np.testing.assert_allclose(rates, [1.0] * 21 + [0.33] * 6 + [0.33**2] * 3, rtol=1e-5)


def test_constant():
    np.testing.assert_array_equal(schedules.constant(0.5, 1, 1)(jnp.arange(3)), [0.5] * 3)
