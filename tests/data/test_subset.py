"""Parts of a source: drawn by the seed, disjoint, in order."""

import numpy as np
import pytest

from flowad_jax.data import record
from flowad_jax.data.sets import textures
from flowad_jax.data.subset import evenly_spaced, few_shot, fold, held_out
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
    assert record.count(part)["images"] == 7


def test_the_seed_draws(source):
    draws = [tuple(few_shot(source, 7, seed).indices) for seed in (1, 1, 2)]
    assert draws[0] == draws[1] != draws[2]


@pytest.mark.parametrize(("share", "size"), [(0.0, 0), (0.001, 1), (0.1, 2), (0.5, 10)])
def test_a_share_is_held_out(source, share, size):
    rest, part = held_out(source, share, seed=3)
    assert len(part) == size
    assert sorted([*rest.indices, *part.indices]) == list(range(len(source)))


@pytest.mark.parametrize(
    ("draw", "values", "words"),
    [
        (few_shot, (-1, 0, 1000), r"data\.few_shot={}: the set has"),
        (held_out, (-0.1, 0.99, 1.0, 3), r"data\.holdout={}: a share of the 20 training"),
    ],
)
def test_no_such_number_or_share(source, draw, values, words):
    for value in values:
        with pytest.raises(UserError, match=words.format(value)):
            draw(source, value, seed=0)


def test_even_spacing_takes_the_ends(source):
    assert list(evenly_spaced(source, 3).indices) == [0, 10, 19]
    assert len(evenly_spaced(source, 1000)) == len(source)


@pytest.mark.parametrize("folds", [2, 3, 20])
def test_every_image_is_in_one_part(source, folds):
    parts = [fold(source, number, folds, seed=3) for number in range(folds)]
    held = np.concatenate([held.indices for _, held in parts])
    np.testing.assert_array_equal(np.sort(held), np.arange(len(source)))
    assert np.ptp([len(held) for _, held in parts]) <= 1
    for train, kept in parts:
        assert sorted([*train.indices, *kept.indices]) == list(range(len(source)))
    assert not np.array_equal(held, np.arange(len(source))), "drawn, not in order"


@pytest.mark.parametrize(("number", "folds"), [(0, 1), (5, 5), (-1, 5), (0, 21)])
def test_parts_that_there_are_not(source, number, folds):
    with pytest.raises(UserError, match="give 2 to 20 parts"):
        fold(source, number, folds, seed=0)
