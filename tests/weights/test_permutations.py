"""FrEIA's forms of a permutation, checked and stored once."""

import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.weights import freia, msflow, permutations, sanflow, ssnf
from tests import golden

ORDER = np.array([2, 0, 3, 1])
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0].astype(np.float32)


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("indices", [False, True])
@pytest.mark.parametrize("ours", [ORDER, ROTATION], ids=["hard", "soft"])
def test_there_and_back(ours, indices, rank):
    stored, inverse = permutations.to_freia(ours, rank, indices)
    if indices and ours.ndim == 1:
        assert stored.dtype == inverse.dtype == np.int64
        np.testing.assert_array_equal(stored[inverse], np.arange(4))
    else:
        assert stored.shape == inverse.shape == ((4, 4) if rank == 1 else (4, 4, 1, 1))
        product = stored.reshape(4, 4) @ inverse.reshape(4, 4)
        np.testing.assert_allclose(product, np.eye(4), atol=1e-6)
    found = permutations.from_freia(stored, inverse, "w_perm")
    np.testing.assert_array_equal(found, ours)
    assert found.dtype == (np.int32 if ours.ndim == 1 else np.float32)


@pytest.mark.parametrize(
    ("stored", "inverse", "message"),
    [
        (np.array([0, 0, 1]), None, "is no order of 3 channels"),
        (np.array([0.0, 1.0]), None, "is no order of 2 channels"),
        (ORDER, ORDER, "do not belong together"),
        (ROTATION, ROTATION, "do not belong together"),
        (2 * ROTATION, None, "is neither a rotation nor an order"),
        (np.full((3, 3), np.nan, np.float32), None, "is neither a rotation nor an order"),
        (np.ones((3, 4)), None, "is no square matrix"),
        (np.ones((3, 3, 2, 2)), None, "is no square matrix"),
        (np.ones(()), None, "is no square matrix"),
        (ORDER, ROTATION, "do not belong together"),
        (np.eye(3)[[0, 0, 1]], None, "is no order of 3 channels"),
        # Products that overflow are told without NumPy's warning.
        (np.full((3, 3), 3e38, np.float32), None, "is neither a rotation nor an order"),
        (np.full((3, 3), np.inf, np.float32), None, "is neither a rotation nor an order"),
    ],
)
def test_what_permutes_nothing_is_refused(stored, inverse, message):
    with pytest.raises(UserError, match=f"'w_perm'.* {message}"):
        permutations.from_freia(stored, inverse, "w_perm")


@pytest.mark.parametrize("shape", [(), (4,), (4, 2, 2), (16, 1), (4, 4, 2, 2)])
def test_an_inverse_of_another_shape_is_named(shape):
    with pytest.raises(UserError, match=r"'w_perm_inv' has shape .*: it is no square matrix"):
        permutations.from_freia(ROTATION, np.zeros(shape), "w_perm")


def block(stored, names=("w_perm", "subnet.0", "subnet.2")):
    """A block on 4 channels with a condition of 3."""
    permutation, first, last = names
    rng = np.random.default_rng(1)
    return {
        "module_list.0.global_scale": rng.normal(size=(1, 4)),
        "module_list.0.global_offset": rng.normal(size=(1, 4)),
        f"module_list.0.{permutation}": stored,
        f"module_list.0.{first}.weight": rng.normal(size=(10, 5)),
        f"module_list.0.{first}.bias": rng.normal(size=10),
        f"module_list.0.{last}.weight": rng.normal(size=(4, 10)),
        f"module_list.0.{last}.bias": rng.normal(size=4),
    }


def test_names_of_the_tag_are_those_of_the_package():
    old = freia.chain(block(ROTATION, ("w", "s.0", "s.2")))
    new = freia.chain(block(ROTATION))
    for kind in ("params", "constants"):
        assert str(old[kind]) == str(new[kind])


@pytest.mark.parametrize(
    ("stored", "kind", "clamps"),
    [
        (np.eye(4, dtype=np.float32)[ORDER], "hard", ("tanh",)),
        (ORDER, "hard", ("tanh_ratio", "tanh")),
        (ROTATION, "soft", ("tanh", "tanh_ratio")),
    ],
)
def test_what_a_chain_tells(stored, kind, clamps):
    chain = block(stored)
    assert freia.chain_shape(chain) == (4, 1, 3, 10, kind)
    assert freia.clamp_kinds(chain) == clamps


def two_blocks(**second):
    """A chain of two equal blocks, but for tensors of the second; None: without it."""
    first = block(ROTATION)
    changed = {key.replace("list.0", "list.1"): value for key, value in first.items()}
    changed |= {f"module_list.1.{name}": value for name, value in second.items()}
    return first | {key: value for key, value in changed.items() if value is not None}


NINE = np.linalg.qr(np.random.default_rng(2).normal(size=(9, 9)))[0]


@pytest.mark.parametrize(
    ("second", "message"),
    [
        ({"w_perm": ORDER}, "has a permutation stored as indices, that of block 0 rotation"),
        ({"w_perm": np.eye(4)[ORDER]}, "has a permutation stored as one-hot, that of block 0 rot"),
        ({"w_perm": NINE}, "permutes 9 channels, but 'module_list.1.global_scale' has 4"),
        ({"w_perm": NINE, "global_scale": np.ones((1, 9))}, "has channels 9, that of block 0 4"),
    ],
)
def test_blocks_of_a_chain_are_alike(second, message):
    assert freia.chain(two_blocks())["params"].keys() == {"blocks_0", "blocks_1"}
    with pytest.raises(UserError, match=f"^'module_list.1.w_perm' {message}"):
        freia.chain(two_blocks(**second))


@pytest.mark.parametrize("read", [freia.chain, freia.chain_shape, freia.clamp_kinds])
@pytest.mark.parametrize("shape", [(), (4, 4, 2, 2), (4, 3)])
def test_every_reader_refuses_what_is_no_matrix(read, shape):
    with pytest.raises(UserError, match=r"'module_list\.0\.w_perm' has shape"):
        read(block(np.ones(shape)))


@pytest.mark.parametrize("read", [freia.chain, freia.chain_shape, freia.clamp_kinds])
@pytest.mark.parametrize("name", ["vk_householder", "w_0"])
def test_every_reader_refuses_trained_permutations(read, name):
    """FrEIA stores them in the place of w_perm, which is what it would be missed by."""
    tensors = block(ROTATION)
    tensors[f"module_list.0.{name}"] = tensors.pop("module_list.0.w_perm")
    with pytest.raises(UserError, match=f"'module_list.0.{name}' is a trained permutation"):
        read(tensors)


def test_too_few_inputs_are_no_condition():
    tensors = block(ROTATION) | {"module_list.0.subnet.0.weight": np.ones((10, 1))}
    with pytest.raises(UserError, match="takes 1 inputs, fewer than the 2 passive ones of 4"):
        freia.chain_shape(tensors)


@pytest.mark.parametrize("value", [np.ones(()), np.ones((2, 2))])
@pytest.mark.parametrize("name", ["perm", "perm_inv"])
def test_an_order_of_msflow_is_a_vector(name, value):
    chain = {
        "module_list.0.global_scale": np.ones((1, 4)),
        "module_list.0.global_offset": np.ones((1, 4)),
        "module_list.0.w_perm": ORDER,
    } | {
        f"module_list.0.subnet.{layer}.{part}": np.ones(shape)
        for layer, shape in {"conv1": (2, 2, 3, 3), "ln": (2,), "conv2": (4, 2, 3, 3)}.items()
        for part, shape in {"weight": shape, "bias": shape[:1]}.items()
    }
    fusion = {"module_list.0.perm": ORDER, f"module_list.0.{name}": value}
    with pytest.raises(UserError, match=f"'module_list.0.{name}' has shape .* no order"):
        msflow.flows([chain], fusion)


@pytest.mark.parametrize("read", [ssnf.flow, sanflow.variance_net])
def test_names_from_a_file_cannot_steer_a_terminal(read):
    state = golden.state_dict(golden.load({ssnf.flow: "ssnf"}.get(read, "sanflow_snet")))
    state["module_list.0.subnet.attn.in_proj.\x1b[2J"] = np.ones(1)
    with pytest.raises(UserError, match="unknown") as caught:
        read(state)
    assert str(caught.value).isprintable()
