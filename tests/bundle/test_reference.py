"""The images that a bundle is compared with, and what JAX says about them."""

import numpy as np
import pytest

from flowad_jax.bundle import reference
from flowad_jax.bundle.reference import Images


class Listed:
    """A source of images that are no files."""

    def __init__(self, labels):
        self.labels = np.array(labels, np.int32)
        self.paths = [f"made up {index}" for index in range(len(labels))]

    def __len__(self):
        return len(self.labels)


@pytest.mark.parametrize(
    ("labels", "chosen"),
    [
        ([0, 0, 0, 1, 1, 1], [0, 1, 3, 4]),
        ([0] * 9, [0, 1, 2, 3]),
        ([1] * 9, [0, 1, 2, 3]),
        ([-1, -1, 0], [2, 0, 1]),
        ([0, 0, 0, 0, 1], [0, 1, 2, 4]),
        ([0], [0]),
        ([], []),
    ],
)
def test_both_kinds_are_brought_along(labels, chosen):
    assert reference.choose(Images("images", [Listed(labels)])) == chosen


def test_test_images_are_files_as_users_have_them(trained, run):
    images = reference.find(trained)
    assert (images.title, len(images), images.reason) == ("test images", 6, "")
    assert images[5] == images.names()[5]
    assert images.labels() == [0, 0, 0, 1, 1, 1]
    with pytest.raises(IndexError):
        images[6]


def test_what_jax_says(trained):
    images = reference.find(trained)
    given = [images[row] for row in range(6)]
    found = reference.in_batches(trained, [trained.load_image(one) for one in given])
    assert found.place is None
    assert found.image.shape == (6, 32, 32, 3)
    assert found.size.tolist() == [[40, 36]] * 6
    assert found.score.shape == (6, 1)
    for row, judged in enumerate(trained.predict(given)):
        assert found.score[row, 0] == pytest.approx(judged.score, rel=1e-6)
        assert found.p_value[row] == judged.p_value
        assert found.anomalous[row] == judged.anomalous
    assert found.map.dtype == np.float32
    assert set(found.arrays()) == {"image", "size", "score", "map", "p_value", "anomalous"}
    assert set(found.inputs()) == {"image"}


def test_patterns_are_always_the_same(trained):
    one, other = (reference.patterns(trained.canvas) for _ in range(2))
    np.testing.assert_array_equal(one, other)
    assert np.shape(one) == (4, 32, 32, 3)
    assert np.std(one) > 40
