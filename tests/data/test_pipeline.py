"""Batches depend on seed, epoch and record alone; nothing is lost, doubled or left running."""

import logging
import threading
from contextlib import closing

import numpy as np
import pytest

from flowad_jax.data import transforms
from flowad_jax.data.pipeline import Loader
from flowad_jax.data.record import Record, count
from flowad_jax.errors import UserError


class Numbered:
    """Records of different sizes; the first pixel row holds the index."""

    has_masks = True

    def __init__(self, n, broken=None):
        self.labels = np.arange(n, dtype=np.int32) % 2
        self.kinds = ["odd" if label else "good" for label in self.labels]
        self.paths = [f"{i}.png" for i in range(n)]
        self.broken = broken
        self.reads = []

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        if index == self.broken:
            raise OSError("disk gone")
        self.reads.append(index)
        image = np.random.default_rng(index).integers(0, 256, (20 + index, 31, 3), np.uint8)
        mask = np.zeros(image.shape[:2], bool)
        mask[5:15, 5:15] = self.labels[index]
        return Record(image, mask, int(self.labels[index]), self.kinds[index], self.paths[index])

    describe = count


ZERO, ONE = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # pixels keep their values


def loader(n=7, batch_size=3, **options):
    return Loader(Numbered(n), 16, batch_size, ZERO, ONE, **options)


def assert_equal(one, two):
    assert len(one) == len(two)
    for a, b in zip(one, two, strict=True):
        for x, y in zip(a[:4], b[:4], strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype


@pytest.mark.parametrize("workers", [1, 2, 5])
@pytest.mark.parametrize("cache_bytes", [0, 2000, 2**20])
def test_any_number_of_workers_and_any_cache_give_the_same_bits(workers, cache_bytes):
    expected, tried = loader(workers=0), loader(workers=workers, cache_bytes=cache_bytes)
    for epoch in (0, 1):
        assert_equal(list(expected.epoch(epoch)), list(tried.epoch(epoch)))


def test_resume_equals_skipping():
    whole = list(loader(seed=3).epoch(2))
    for start in range(4):
        assert_equal(whole[start:], list(loader(seed=3).epoch(2, start)))


def test_seed_and_epoch_change_order_and_angles():
    first = next(loader(seed=1, batch_size=7, workers=0).epoch(0))
    for seed, epoch in ((1, 1), (2, 0)):
        other = next(loader(seed=seed, batch_size=7, workers=0).epoch(epoch))
        assert (first.image != other.image).any()
    still = loader(seed=1, batch_size=7, workers=0, shuffle=False)
    turned = [next(still.epoch(epoch)).image for epoch in (0, 1)]
    assert (turned[0] != turned[1]).any()


def test_evaluation_keeps_order_pixels_and_masks():
    data = loader(shuffle=False, rotation_degrees=0)
    batches = list(data.epoch(0))
    images = np.concatenate([batch.image for batch in batches])[:7]
    masks = np.concatenate([batch.mask for batch in batches])[:7]
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        record = Numbered(7)[i]
        resized = transforms.resize_image(record.image, 16)
        np.testing.assert_array_equal(image, transforms.normalize(resized, ZERO, ONE))
        np.testing.assert_array_equal(mask, transforms.resize_mask(record.mask, 16))
    labels = np.concatenate([batch.label[batch.weight > 0] for batch in batches])
    np.testing.assert_array_equal(labels, data.source.labels)


def test_rotation_is_within_bounds_and_follows_the_resize():
    record = Numbered(1)[0]
    resized = transforms.resize_image(record.image, 16)
    image = next(Loader(Numbered(1), 16, 1, ZERO, ONE, seed=5, workers=0).epoch(4)).image[0]
    draw = np.random.default_rng([5, 4, 1]).random()
    expected = transforms.rotate(resized, 5 * (2 * draw - 1))
    np.testing.assert_array_equal(image, transforms.normalize(expected, ZERO, ONE))


def test_mask_turns_with_its_image():
    class Bright(Numbered):
        def __getitem__(self, index):
            record = super().__getitem__(index)
            return record._replace(
                image=np.where(record.mask[..., None], 255, 0).repeat(3, -1).astype(np.uint8)
            )

    data = Loader(Bright(2), 16, 2, ZERO, ONE, filter="nearest", rotation_degrees=45, workers=0)
    batch = next(data.epoch(0))
    assert batch.mask.any()
    np.testing.assert_array_equal(batch.image[..., 0] > 128, batch.mask)


def test_last_batch_is_padded_with_weight_zero():
    batches = list(loader().epoch(0))
    assert len(batches) == len(loader()) == 3
    last = batches[-1]
    assert last.weight.tolist() == [1, 0, 0]
    assert last.image.shape == (3, 16, 16, 3)
    np.testing.assert_array_equal(last.image[1], last.image[0])
    assert not last.mask[1:].any()
    assert not last.label[1:].any()
    assert sum(batch.weight.sum() for batch in batches) == 7
    assert [a.dtype for a in last[:4]] == [np.float32, bool, np.int32, np.float32]


def test_every_record_once_per_epoch():
    data = loader(cache_bytes=0)
    for epoch in (0, 1):
        list(data.epoch(epoch))
    assert sorted(data.source.reads) == sorted([*range(7), *range(7)])


def test_cache_saves_decoding():
    data = loader()
    for epoch in range(3):
        list(data.epoch(epoch))
    assert sorted(data.source.reads) == list(range(7))


def test_drop_last():
    data = loader(drop_last=True)
    batches = list(data.epoch(0))
    assert len(batches) == len(data) == 2
    assert all(batch.weight.all() for batch in batches)
    with pytest.raises(UserError, match="batch_size 8 is larger than the set of 7 images"):
        loader(batch_size=8, drop_last=True)


def test_batch_larger_than_a_set_of_three_shrinks_with_one_warning(caplog):
    with caplog.at_level(logging.WARNING):
        data = loader(n=3, batch_size=32)
    assert [record.message for record in caplog.records] == [
        "batch_size 32 is larger than the set of 3 images: using 3"
    ]
    (batch,) = data.epoch(0)
    assert batch.weight.tolist() == [1, 1, 1]


def test_closing_early_leaves_no_threads():
    before = threading.active_count()
    data = loader(n=40, batch_size=2, workers=3, cache_bytes=0)
    with closing(data.epoch(0)) as batches:
        next(batches)
        assert threading.active_count() > before
    assert threading.active_count() == before
    assert len(data.source.reads) < 40  # the rest was not prepared ahead


@pytest.mark.parametrize("workers", [0, 2])
def test_a_failing_record_is_named(workers):
    before = threading.active_count()
    data = Loader(Numbered(7, broken=4), 16, 2, ZERO, ONE, workers=workers)
    with pytest.raises(UserError, match=r"cannot read '4\.png': disk gone"):
        list(data.epoch(0))
    assert threading.active_count() == before


@pytest.mark.parametrize(
    "options",
    [{"batch_size": 0}, {"seed": -1}, {"workers": -1}, {"rotation_degrees": -5.0}, {"filter": "x"}],
)
def test_values_out_of_range(options):
    with pytest.raises(UserError, match=next(iter(options))):
        loader(**options)


def test_empty_source():
    with pytest.raises(UserError, match="has no images"):
        loader(n=0)


def test_rows_say_what_a_batch_is_made_of_without_decoding():
    data = loader(rotation_degrees=0, shuffle=True)
    plan = list(data.rows(1))
    assert not data.source.reads
    for rows, batch in zip(plan, data.epoch(1), strict=True):
        np.testing.assert_array_equal(rows.weight, batch.weight)
        np.testing.assert_array_equal(rows.label, batch.label)
        assert (rows.label.dtype, rows.weight.dtype) == (np.int32, np.float32)
        for record, image in zip(rows.records, batch.image, strict=True):
            resized = transforms.resize_image(data.source[int(record)].image, 16)
            np.testing.assert_array_equal(image, transforms.normalize(resized, ZERO, ONE))
    assert [rows.records.tolist() for rows in data.rows(1, 2)] == [plan[2].records.tolist()]


def test_in_order_gives_every_record_as_it_is():
    data = loader(drop_last=True)
    plain = data.in_order()
    assert plain.deterministic
    assert not data.deterministic
    assert_equal(list(plain.epoch(3)), list(loader(shuffle=False, rotation_degrees=0).epoch(0)))
    assert len(data) == 2  # the original still drops its last batch


def test_forgotten_images_are_decoded_again():
    data = loader(workers=0)
    for _ in range(2):
        list(data.in_order().epoch(0))
    assert len(data.source.reads) == 7
    data.forget_images()
    list(data.epoch(0))
    list(data.epoch(1))
    assert len(data.source.reads) == 14
