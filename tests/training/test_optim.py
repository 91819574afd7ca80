"""Adam with idle groups against explicit zero gradients, and against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.training.optim import Adam

RATE = 1e-2


def some_steps(adam, count):
    params = {"w": jnp.array([1.0, 2.0, -3.0])}
    state = adam.init(params)
    rng = np.random.default_rng(0)
    for _ in range(count):
        params, state = adam.update({"w": jnp.asarray(rng.normal(size=3))}, state, params, RATE)
    return params, state


@pytest.mark.parametrize("idle", [1, 7, 400])
def test_decay_equals_steps_with_zero_gradients(idle):
    adam = Adam("decay")
    params, state = some_steps(adam, 4)
    expected, expected_state = params, state
    zero_step = jax.jit(lambda p, s: adam.update({"w": jnp.zeros(3)}, s, p, RATE))
    for _ in range(idle):
        expected, expected_state = zero_step(expected, expected_state)
    rested, rested_state = jax.jit(adam.rest)(params, state, idle, RATE)
    np.testing.assert_allclose(rested["w"], expected["w"], rtol=1e-6)
    assert np.abs(rested["w"] - params["w"]).max() > 1e-3
    np.testing.assert_allclose(rested_state.mu["w"], expected_state.mu["w"], rtol=1e-4, atol=1e-30)
    np.testing.assert_allclose(rested_state.nu["w"], expected_state.nu["w"], rtol=1e-4)
    assert int(rested_state.count) == int(expected_state.count) == 4 + idle


def test_a_group_that_never_stepped_does_not_move():
    adam = Adam("decay")
    params, state = some_steps(adam, 0)
    rested, rested_state = adam.rest(params, state, 50, RATE)
    np.testing.assert_array_equal(rested["w"], params["w"])
    assert int(rested_state.count) == 0


def test_skip_leaves_an_idle_group_alone():
    adam = Adam("skip")
    params, state = some_steps(adam, 4)
    rested, rested_state = adam.rest(params, state, 50, RATE)
    assert rested is params
    assert rested_state is state


def test_unknown_rule_is_named():
    with pytest.raises(UserError, match=r"train\.adam_idle='dekay': did you mean 'decay'"):
        Adam("dekay")


@pytest.mark.live
@pytest.mark.parametrize(("rule", "to_none"), [("decay", False), ("skip", True)])
def test_two_groups_taking_turns_agree_with_torch(rule, to_none):
    torch = pytest.importorskip("torch")
    adam, start = Adam(rule), np.array([[1.0, -2.0], [3.0, 0.5]], np.float32)
    theirs = [torch.nn.Parameter(torch.tensor(row)) for row in start]
    optimizer = torch.optim.Adam(theirs, lr=RATE)
    ours = [jnp.asarray(row) for row in start]
    states = [adam.init(p) for p in ours]
    rng = np.random.default_rng(0)
    for group in (0, 1, 0, 1):
        for _ in range(5):
            grad = rng.normal(size=2).astype(np.float32)
            optimizer.zero_grad(set_to_none=to_none)
            (theirs[group] * torch.tensor(grad)).sum().backward()
            optimizer.step()
            ours[group], states[group] = adam.update(grad, states[group], ours[group], RATE)
        other = 1 - group
        ours[other], states[other] = adam.rest(ours[other], states[other], 5, RATE)
    for mine, peer in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, peer.detach().numpy(), rtol=2e-6)
