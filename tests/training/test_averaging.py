"""The moving average of parameters beside Adam."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.recipes import cflow_textures
from flowad_jax.training.optimizer import Adam, Averaging, final, make_optimizer
from flowad_jax.types import TrainState

DECAY = 0.8


def steps(optimizer, params, count=5):
    rng, state, seen = np.random.default_rng(0), optimizer.init(params), []
    for _ in range(count):
        grads = {"w": jnp.asarray(rng.normal(size=3), jnp.float32)}
        params, state = optimizer.update(grads, state, params, 0.1)
        seen.append(np.asarray(params["w"]))
    return params, state, seen


def test_the_average_is_that_of_the_steps_with_falling_weights():
    start = {"w": jnp.array([1.0, 2.0, 3.0])}
    optimizer = Averaging(Adam(), DECAY)
    params, state, seen = steps(optimizer, start)
    plain, _, same = steps(Adam(), start)
    np.testing.assert_array_equal(seen, same)  # Adam does not feel it
    np.testing.assert_array_equal(params["w"], plain["w"])
    weights = DECAY ** np.arange(len(seen))[::-1]
    expected = np.average(seen, axis=0, weights=weights)
    np.testing.assert_allclose(optimizer.averaged(params, state)["w"], expected, rtol=1e-5)


def test_idle_steps_are_not_averaged():
    start = {"w": jnp.array([1.0, 2.0, 3.0])}
    optimizer = Averaging(Adam(idle="decay"), DECAY)
    params, state, _ = steps(optimizer, start)
    moved, after = optimizer.idle_step(params, state, jnp.array(3), 0.1)
    assert not np.array_equal(moved["w"], params["w"])
    before, same = (optimizer.averaged(p, s)["w"] for p, s in ((params, state), (moved, after)))
    np.testing.assert_array_equal(before, same)


def test_a_run_ends_with_averages_only_where_it_has_some():
    start = {"w": jnp.array([1.0, 2.0, 3.0])}
    for optimizer in (Adam(), Averaging(Adam(), DECAY)):
        params, own, _ = steps(optimizer, start)
        fresh = {"w": jnp.ones(2)}
        state = TrainState(
            jnp.array(5),
            {"a": params, "b": fresh},
            {"a": own, "b": optimizer.init(fresh)},
            {},
            jax.random.key(0),
        )
        ended = final(state, optimizer).params
        changed = not np.array_equal(ended["a"]["w"], params["w"])
        assert changed == isinstance(optimizer, Averaging)
        np.testing.assert_array_equal(ended["b"]["w"], fresh["w"])  # it never took a step


@pytest.mark.parametrize(("decay", "kind"), [(None, Adam), (0.9, Averaging)])
def test_the_config_chooses(decay, kind):
    config = cflow_textures.get_config()
    config.train.ema_decay = decay
    assert type(make_optimizer(config.train)) is kind
