"""Adam: idle groups against explicit zero gradients, weight decay, and all against PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flowad_jax.errors import UserError
from flowad_jax.training.optimizer import Adam

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
    rested, rested_state = jax.jit(adam.idle_step)(params, state, idle, RATE)
    np.testing.assert_allclose(rested["w"], expected["w"], rtol=1e-6)
    assert np.abs(rested["w"] - params["w"]).max() > 1e-3
    np.testing.assert_allclose(rested_state.mu["w"], expected_state.mu["w"], rtol=1e-4, atol=1e-30)
    np.testing.assert_allclose(rested_state.nu["w"], expected_state.nu["w"], rtol=1e-4)
    assert int(rested_state.count) == int(expected_state.count) == 4 + idle


@pytest.mark.parametrize(("rule", "own"), [("decay", 0), ("skip", 4)])
def test_a_group_that_never_stepped_or_is_skipped_stands_still(rule, own):
    adam = Adam(rule)
    params, state = some_steps(adam, own)
    rested = adam.idle_step(params, state, 50, RATE)
    for one, other in zip(*map(jax.tree.leaves, ((params, state), rested)), strict=True):
        np.testing.assert_array_equal(one, other)


OPTAX = {
    "l2": lambda eps, amount: optax.chain(
        optax.add_decayed_weights(amount), optax.adam(RATE, eps=eps)
    ),
    "decoupled": lambda eps, amount: optax.adamw(RATE, eps=eps, weight_decay=amount),
}


@pytest.mark.parametrize("decay", OPTAX)
def test_decay_agrees_with_optax(decay):
    params, _ = some_steps(Adam(eps=1e-3, weight_decay=0.3, decay=decay), 6)
    theirs, optimizer = {"w": jnp.array([1.0, 2.0, -3.0])}, OPTAX[decay](1e-3, 0.3)
    state, rng = optimizer.init(theirs), np.random.default_rng(0)
    for _ in range(6):
        updates, state = optimizer.update({"w": jnp.asarray(rng.normal(size=3))}, state, theirs)
        theirs = optax.apply_updates(theirs, updates)
    np.testing.assert_allclose(params["w"], theirs["w"], rtol=1e-6)
    assert np.abs(params["w"] - some_steps(Adam(eps=1e-3), 6)[0]["w"]).max() > 1e-3


@pytest.mark.parametrize(("decay", "expected"), [("l2", 2 - RATE * 6 / 10), ("decoupled", 1.94)])
def test_first_step_in_closed_form(decay, expected):
    """Without gradient from p = 2: g = 3 p and p - rate g / (|g| + eps), or p (1 - 3 rate)."""
    adam, params = Adam(eps=4.0, weight_decay=3.0, decay=decay), jnp.array(2.0)
    moved, _ = adam.update(jnp.array(0.0), adam.init(params), params, RATE)
    np.testing.assert_allclose(moved, expected, rtol=1e-6)


@pytest.mark.parametrize("rule", ["decay", "skip"])
def test_groups_at_rest_do_not_decay(rule):
    plain, decaying = Adam(rule), Adam(rule, weight_decay=0.5, decay="decoupled")
    params, state = some_steps(plain, 4)
    expected, _ = plain.idle_step(params, state, 7, RATE)
    np.testing.assert_array_equal(decaying.idle_step(params, state, 7, RATE)[0]["w"], expected["w"])


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"idle": "dekay"}, r"train\.adam_idle='dekay': did you mean 'decay'"),
        ({"eps": 0.0}, r"train\.adam_eps=0\.0"),
        ({"eps": float("nan")}, r"train\.adam_eps=nan"),
        ({"weight_decay": -1e-5}, r"train\.weight_decay=-1e-05"),
        ({"weight_decay": float("inf")}, r"train\.weight_decay=inf"),
        ({"decay": "decouple"}, r"train\.decay='decouple': did you mean 'decoupled'"),
    ],
)
def test_wrong_values_are_named(options, match):
    with pytest.raises(UserError, match=match):
        Adam(**options)


@pytest.mark.live
@pytest.mark.parametrize(("decay", "peer"), [("l2", "Adam"), ("decoupled", "AdamW")])
def test_decay_agrees_with_torch(decay, peer):
    torch = pytest.importorskip("torch")
    ours, _ = some_steps(Adam(eps=1e-4, weight_decay=0.3, decay=decay), 6)
    theirs, rng = torch.nn.Parameter(torch.tensor([1.0, 2.0, -3.0])), np.random.default_rng(0)
    optimizer = getattr(torch.optim, peer)([theirs], lr=RATE, eps=1e-4, weight_decay=0.3)
    for _ in range(6):
        theirs.grad = torch.tensor(rng.normal(size=3), dtype=torch.float32)
        optimizer.step()
    np.testing.assert_allclose(ours["w"], theirs.detach().numpy(), rtol=2e-6)


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
        ours[other], states[other] = adam.idle_step(ours[other], states[other], 5, RATE)
    for mine, peer in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(mine, peer.detach().numpy(), rtol=2e-6)
