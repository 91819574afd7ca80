"""Normal images and the same with synthetic anomalies, for those who have no defects."""

import numpy as np
import pytest

from flowad_jax.canvas import Canvas
from flowad_jax.data import sources
from flowad_jax.data.synthetic_test import SyntheticTest
from flowad_jax.errors import UserError
from flowad_jax.synthesis import KINDS
from tests.conftest import write_image

CANVAS = Canvas(64, 48)
UNCHANGED = "mixture.normal"


@pytest.fixture
def normal(tmp_path):
    for index in range(3):
        write_image(tmp_path / f"{index}.png", index, size=(80, 60))
    return sources.build("folder", tmp_path, "", "train")


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != UNCHANGED])
def test_anomalies_are_those_of_the_seed_and_marked(normal, kind):
    found = SyntheticTest(normal, kind, 0, CANVAS, "lanczos")
    assert found.kinds == ["good"] * 3 + [f"synthetic {kind}"] * 21
    assert found.labels.tolist() == [0] * 3 + [1] * 21
    assert len(set(found.paths)) == len(found) == 24
    again = SyntheticTest(normal, kind, 0, CANVAS, "lanczos")
    other = SyntheticTest(normal, kind, 1, CANVAS, "lanczos")
    for index in (3, 4, 23):
        record, before = found[index], normal.resized(index % 3, CANVAS, "lanczos").image
        assert record.image.shape == (64, 48, 3)
        assert record.mask.any()
        assert (record.image != before)[record.mask].any()
        assert np.array_equal(record.image, again[index].image)
        assert np.array_equal(record.mask, found.resized(index, CANVAS, "lanczos").mask)
        assert not np.array_equal(record.image, other[index].image)
    assert np.array_equal(found[1].image, normal[1].image)
    assert not found.resized(1, CANVAS, "lanczos").mask.any()
    assert found.shape(20) == (80, 60)
    assert found.resized(3, Canvas(32, 24), "lanczos").mask.shape == (32, 24)


def test_a_kind_that_changes_nothing_is_refused(normal):
    found = SyntheticTest(normal, UNCHANGED, 0, CANVAS, "lanczos")
    with pytest.raises(UserError, match=r"'mixture.normal' changes nothing in '.*0\.png': take"):
        found[3]
