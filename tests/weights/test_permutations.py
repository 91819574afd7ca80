"""FrEIA's forms of a permutation, checked and stored once."""

import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.weights import freia, permutations

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
    ],
)
def test_what_permutes_nothing_is_refused(stored, inverse, message):
    with pytest.raises(UserError, match=f"'w_perm'.* {message}"):
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
