import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.training import schedules
from tests import golden

# By the name of the published rates: the schedule, and batches for each of them.
REFERENCES = {
    "cflow_meta25_sub8_batches10": (schedules.cflow(2e-4, 200, 10), 1),
    "sanflow_lr5e4_meta20_sub4_batches7": (schedules.cflow(5e-4, 80, 7, sub_epochs=4), 1),
    "msflow_per_sub_epoch": (schedules.msflow(1e-4, 100, 7), 7),
    "ssnf_per_epoch": (schedules.ssnf(2e-4, 500, 3), 3),  # down, up, down, up, down
}


@pytest.mark.parametrize("name", REFERENCES)
def test_rates_agree_with_the_reference(name):
    schedule, repeat = REFERENCES[name]
    stored = np.repeat(golden.load("lr_schedules")[name], repeat)
    np.testing.assert_allclose(schedule(jnp.arange(len(stored))), stored, rtol=1e-5)


def test_cflow_without_warmup_starts_at_the_top():
    schedule = schedules.cflow(2e-4, 200, 10, warmup_meta_epochs=0)
    np.testing.assert_allclose(schedule(jnp.array(0)), 2e-4, rtol=1e-6)


@pytest.mark.parametrize("epochs", [1, 3, 16])
def test_short_runs_stay_within_bounds(epochs):
    rates = schedules.cflow(1e-3, epochs, 5, sub_epochs=2)(jnp.arange(5 * 16))[: 5 * epochs]
    assert rates.min() >= 0.99e-6
    assert rates.max() <= 1e-3


def test_msflow_milestones_are_shares_of_the_run():
    rates = schedules.msflow(1.0, 30, 1, warmup_meta_epochs=0)(jnp.arange(30))
    np.testing.assert_allclose(rates, [1.0] * 21 + [0.33] * 6 + [0.33**2] * 3, rtol=1e-5)


def test_ssnf_falls_once_if_asked_to():
    rates = schedules.ssnf(1.0, 8, 2, t_max=0, eta_min=0.5)(jnp.arange(16))
    expected = 0.75 + 0.25 * np.cos(np.pi * np.arange(8) / 8)
    np.testing.assert_allclose(rates, np.repeat(expected, 2), rtol=1e-6)


def test_ssnf_names_a_negative_length():
    with pytest.raises(UserError, match=r"train\.schedule\.t_max=-1"):
        schedules.ssnf(1.0, 8, 2, t_max=-1)


def test_constant():
    np.testing.assert_array_equal(schedules.constant(0.5, 1, 1)(jnp.arange(3)), [0.5] * 3)
