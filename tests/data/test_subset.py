"""Parts of a source: drawn by the seed, disjoint, in order."""

import numpy as np
import pytest

from flowad_jax.data import textures
from flowad_jax.data.subset import evenly_spaced, few_shot, held_out
from flowad_jax.errors import UserError


@pytest.fixture(name="source", scope="module")
def _source():
    return textures.build("", "brick", "test", good_images=5, images_per_kind=3)


def test_records_stay_what_they_are(source):
    part = few_shot(source, 7, seed=1)
    assert len(part) == 7
    assert list(part.indices) == sorted(set(part.indices))
    for position, index in enumerate(part.indices):
        assert part.paths[position] == source.paths[index] == part[position].path
        assert part.labels[position] == source.labels[index]
    np.testing.assert_array_equal(part[3].image, source[int(part.indices[3])].image)
    assert part.describe()["images"] == 7


def test_the_seed_draws(source):
    draws = [tuple(few_shot(source, 7, seed).indices) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize("size", [-1, 0, 1000])
def test_no_such_number_of_images(source, size):
    with pytest.raises(UserError, match=rf"data\.few_shot={size}: the set has"):
        few_shot(source, size, seed=0)


@pytest.mark.parametrize(("share", "size"), [(0.0, 0), (0.001, 1), (0.1, 2), (0.5, 10)])
def test_a_share_is_held_out(source, share, size):
    rest, part = held_out(source, share, seed=3)
    assert len(part) == size
    assert sorted([*rest.indices, *part.indices]) == list(range(len(source)))


@pytest.mark.parametrize("share", [-0.1, 0.99, 1.0, 3])
def test_no_such_share(source, share):
    with pytest.raises(UserError, match=rf"data\.holdout={share}: a share of the 20 training"):
        held_out(source, share, seed=0)


def test_even_spacing_takes_the_ends(source):
    assert list(evenly_spaced(source, 3).indices) == [0, 10, 19]
    assert len(evenly_spaced(source, 1000)) == len(source)
