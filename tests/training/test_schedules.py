import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.training import schedules
from tests import golden


def test_cflow_agrees_with_the_reference():
    stored = golden.load("lr_schedules")["cflow_meta25_sub8_batches10"]
    rates = schedules.cflow(2e-4, epochs=200, steps_per_epoch=10)(jnp.arange(len(stored)))
    np.testing.assert_allclose(rates, stored, rtol=1e-5)


def test_sanflow_has_the_schedule_of_cflow_with_other_numbers():
    stored = golden.load("lr_schedules")["sanflow_lr5e4_meta20_sub4_batches7"]
    schedule = schedules.cflow(5e-4, epochs=80, steps_per_epoch=7, sub_epochs=4)
    np.testing.assert_allclose(schedule(jnp.arange(len(stored))), stored, rtol=1e-5)


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


def test_ssnf_agrees_with_the_reference():
    """500 epochs of 3 batches: down, up, down, up, down."""
    stored = golden.load("lr_schedules")["ssnf_per_epoch"]
    rates = schedules.ssnf(2e-4, epochs=500, steps_per_epoch=3)(jnp.arange(3 * len(stored)))
    np.testing.assert_allclose(rates, np.repeat(stored, 3), rtol=1e-5)


def test_ssnf_falls_once_if_asked_to():
    rates = schedules.ssnf(1.0, 8, 2, t_max=0, eta_min=0.5)(jnp.arange(16))
    expected = 0.75 + 0.25 * np.cos(np.pi * np.arange(8) / 8)
    np.testing.assert_allclose(rates, np.repeat(expected, 2), rtol=1e-6)


def test_ssnf_names_a_negative_length():
    with pytest.raises(UserError, match=r"train\.schedule\.t_max=-1"):
        schedules.ssnf(1.0, 8, 2, t_max=-1)


def test_constant():
    np.testing.assert_array_equal(schedules.constant(0.5, 1, 1)(jnp.arange(3)), [0.5] * 3)
