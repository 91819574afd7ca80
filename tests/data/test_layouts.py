"""The small copies of data sets are what their data sets expect."""

import numpy as np
import pytest

from flowad_jax.data import sources
from tests.data import layouts


@pytest.mark.parametrize("name", layouts.WRITERS)
def test_every_copy_has_the_promised_images(name, tmp_path):
    write, category = layouts.WRITERS[name]
    write(tmp_path)
    assert sources.categories(name, tmp_path) == [category]
    train = sources.build(name, tmp_path, category, "train")
    test = sources.build(name, tmp_path, category, "test")
    assert train.labels.tolist() == [0] * 4
    assert sorted(test.labels) == [0, 0, 1, 1]
    assert test.has_masks
    assert not set(train.paths) & set(test.paths)
    for record in test:
        np.testing.assert_array_equal(record.mask, layouts.DEFECT * bool(record.label))


@pytest.mark.parametrize("name", layouts.WRITERS)
def test_every_copy_has_the_validation_split_of_its_set(name, tmp_path):
    write, category = layouts.WRITERS[name]
    validation = sources.about(name).validation
    if validation:
        write(tmp_path)
        source = sources.build(name, tmp_path, category, validation)
        assert source.labels.tolist() == [0, 0]
        train = sources.build(name, tmp_path, category, "train")
        assert not set(train.paths) & set(source.paths)
