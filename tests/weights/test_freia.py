"""Blocks of FrEIA: its forms of a permutation, checked and stored once, and chains of blocks."""

import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.weights import freia, permutations
from tests.weights.references import assert_same, wrapped

ORDER = np.array([2, 0, 3, 1])
ROTATION = np.linalg.qr(np.random.default_rng(0).normal(size=(4, 4)))[0].astype(np.float32)
NINE = np.linalg.qr(np.random.default_rng(2).normal(size=(9, 9)))[0]


@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("indices", [False, True])
@pytest.mark.parametrize("ours", [ORDER, ROTATION], ids=["hard", "soft"])
def test_permutations_there_and_back(ours, indices, rank):
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
        (np.eye(3)[[0, 0, 1]], None, "is no order of 3 channels"),
        (ORDER, ORDER, "and the inverse beside it do not belong together"),
        (ORDER, ROTATION, "do not belong together"),
        (ROTATION, ROTATION, "do not belong together"),
        (2 * ROTATION, None, "is neither a rotation nor an order"),
        (np.full((3, 3), np.nan, np.float32), None, "is neither a rotation nor an order"),
        # Products that overflow are told without NumPy's warning.
        (np.full((3, 3), 3e38, np.float32), None, "is neither a rotation nor an order"),
        (np.full((3, 3), np.inf, np.float32), None, "is neither a rotation nor an order"),
        *((np.ones(shape), None, "no square matrix") for shape in ((), (3, 4), (3, 3, 2, 2))),
        *(
            (ROTATION, np.zeros(shape), r"_inv' has shape .*: it is no square matrix")
            for shape in ((), (4,), (4, 2, 2), (16, 1), (4, 4, 2, 2))
        ),
    ],
)
def test_what_permutes_nothing_is_refused(stored, inverse, message):
    with pytest.raises(UserError, match=f"'w_perm.*{message}"):
        permutations.from_freia(stored, inverse, "w_perm")


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
    assert_same(old, freia.chain(block(ROTATION)))


@pytest.mark.parametrize(
    ("stored", "kind", "clamps"),
    [
        (np.eye(4, dtype=np.float32)[ORDER], "hard", ("tanh",)),
        (ORDER, "hard", ("tanh_ratio", "tanh")),
        (ROTATION, "soft", ("tanh", "tanh_ratio")),
    ],
)
def test_what_a_chain_tells(stored, kind, clamps):
    assert freia.ChainShape.of(block(stored)) == (4, 1, 3, 10, kind, clamps)


def two_blocks(**second):
    """A chain of two equal blocks, but for tensors of the second."""
    first = block(ROTATION)
    changed = {key.replace("list.0", "list.1"): value for key, value in first.items()}
    return first | changed | wrapped(second, "module_list.1.")


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


TRAINED = {
    # FrEIA stores them in the place of w_perm, which is what it would be missed by.
    f"'module_list.0.{name}' is a trained permutation": {
        f"module_list.0.{name}": ROTATION,
        "module_list.0.w_perm": None,
    }
    for name in ("vk_householder", "w_0")
}
FAULTS = TRAINED | {
    "no tensor 'module_list.0.w_perm'|known sub-network": {"module_list.0.w_perm": None},
    "unknown key 'module_list.x' in a FrEIA chain": {"module_list.x": ORDER},
    r"has blocks \[0, 2\], not all from 0 on": {"module_list.2.w_perm": ORDER},
    "'module_list.0.w_perm' has shape": {"module_list.0.w_perm": np.ones((4, 3))},
}


@pytest.mark.parametrize("read", [freia.chain, freia.ChainShape.of])
@pytest.mark.parametrize("message", FAULTS)
def test_every_reader_of_chains_refuses(read, message):
    tensors = block(ROTATION) | FAULTS[message]
    with pytest.raises(UserError, match=message):
        read({key: value for key, value in tensors.items() if value is not None})


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [("extra", ORDER, "unknown tensors: "), ("subnet.0.bias", None, "no tensor ")],
)
def test_a_chain_wants_every_tensor_and_no_other(name, value, message):
    tensors = block(ROTATION) | {f"module_list.0.{name}": value}
    with pytest.raises(UserError, match=f"{message}'module_list.0.{name}'"):
        freia.chain({key: value for key, value in tensors.items() if value is not None})


def test_too_few_inputs_and_scalars_are_no_layers():
    tensors = block(ROTATION) | {"module_list.0.subnet.0.weight": np.ones((10, 1))}
    with pytest.raises(UserError, match="takes 1 inputs, fewer than the 2 passive ones of 4"):
        freia.ChainShape.of(tensors)
    with pytest.raises(UserError, match=r"'subnet.0.weight' is a single number"):
        freia.chain(tensors | {"module_list.0.subnet.0.weight": np.ones(())})
