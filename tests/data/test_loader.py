"""Batches depend on seed, epoch and record alone; nothing is lost, doubled or left running."""

import itertools
import logging
import pickle
import threading
from contextlib import closing

import numpy as np
import pytest

from flowad_jax.data import transforms
from flowad_jax.data.augment import Augmentation, Synthesis
from flowad_jax.data.loader import Loader
from flowad_jax.data.record import Record
from flowad_jax.errors import UserError
from flowad_jax.synthesis import make


class Numbered:
    """Records of different sizes; of noise, with a mask on every second."""

    has_masks = True

    def __init__(self, n, broken=None, bright=False):
        self.labels = np.arange(n, dtype=np.int32) % 2
        self.kinds = ["odd" if label else "good" for label in self.labels]
        self.paths = [f"{i}.png" for i in range(n)]
        self.broken, self.bright = broken, bright
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
        if self.bright:  # where the mask is, and nowhere else
            image = np.where(mask[..., None], 255, 0).repeat(3, -1).astype(np.uint8)
        return Record(image, mask, int(self.labels[index]), self.kinds[index], self.paths[index])


ZERO, ONE = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # pixels keep their values
TURNED = Augmentation(rotation_degrees=5.0)


def loader(n=7, batch_size=3, source=None, augmentation=TURNED, **options):
    source = source or Numbered(n)
    return Loader(source, 16, batch_size, ZERO, ONE, augmentation=augmentation, **options)


def resized(index, **options):
    return transforms.resize_image(Numbered(7)[index].image, 16, **options)


def assert_equal(one, two):
    assert len(one) == len(two) > 0
    for a, b in zip(one, two, strict=True):
        assert a.maps == b.maps == ()
        for x, y in zip(a[1:], b[1:], strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype


@pytest.mark.parametrize("arrangement", ["pairs", "mixture"])
@pytest.mark.parametrize("kind", [None, "nsa", "mixture"])
def test_workers_caches_and_restarts_change_no_bit_and_epochs_do(kind, arrangement):
    synthesis = Synthesis(make(kind), arrangement, 0.1) if kind else None
    augmentation = Augmentation(rotation_degrees=5.0, sharpen=0.5, synthesis=synthesis)
    options = {"augmentation": augmentation, "seed": 3, "repeat": 2}
    expected = loader(workers=0, **options)
    epochs = [list(expected.epoch(epoch)) for epoch in (0, 1)]
    assert (epochs[0][0].image != epochs[1][0].image).any()
    for workers, cache_bytes in ((1, 0), (1, 2**20), (2, 2000), (3, 0), (5, 2**20)):
        tried = loader(workers=workers, cache_bytes=cache_bytes, **options)
        for epoch, batches in enumerate(epochs):
            assert_equal(batches, list(tried.epoch(epoch)))
    for start in range(1, 5):
        assert_equal(epochs[1][start:], list(loader(workers=1, **options).epoch(1, start)))
    assert list(expected.epoch(1, 5)) == []


@pytest.mark.whole
def test_processes_give_the_same_bits_epoch_after_epoch_and_after_a_jump():
    expected, tried = loader(seed=4), loader(seed=4, processes=2)
    with closing(tried):
        for epoch in (0, 1):  # the second one comes from processes that are already at it
            assert_equal(list(expected.epoch(epoch)), list(tried.epoch(epoch)))
        first = tried._stream
        half = list(itertools.islice(tried.epoch(2), 1))
        assert_equal(half + list(tried.epoch(2, 1)), list(expected.epoch(2)))
        assert tried._stream is first
        assert_equal(list(tried.epoch(1, 1)), list(expected.epoch(1, 1)))
        assert tried._stream is not first
    assert tried._stream is None


@pytest.mark.parametrize(
    "workers",
    [{"workers": 0}, {"workers": 2}, pytest.param({"processes": 1}, marks=pytest.mark.whole)],
)
def test_a_record_that_cannot_be_read_is_named(workers):
    before = threading.active_count()
    with (
        closing(loader(source=Numbered(7, broken=4), batch_size=2, **workers)) as data,
        pytest.raises(UserError, match=r"^cannot read '4\.png': disk gone$"),
    ):
        list(data.epoch(0))
    assert threading.active_count() == before or "processes" in workers


def test_a_copy_for_a_process_brings_no_images_along():
    data = loader()
    expected = list(data.epoch(0))
    size = len(pickle.dumps(loader()))
    copied = pickle.loads(pickle.dumps(data))
    assert len(pickle.dumps(data)) < size + 200
    assert_equal(list(copied.epoch(0)), expected)


@pytest.mark.parametrize("hosts", [2, 4])
@pytest.mark.parametrize("arrangement", [None, "mixture", "pairs"])
def test_hosts_make_their_parts_of_the_same_batches(hosts, arrangement):
    """Of pairs, each host has its images first, then their synthetic versions, as one host has."""
    synthesis = Synthesis(make("cutpaste"), arrangement) if arrangement else None
    options = {"n": 9, "batch_size": 4, "augmentation": Augmentation(5.0, synthesis=synthesis)}
    whole = list(loader(**options).epoch(1))
    parts = [list(loader(**options, shard=(host, hosts)).epoch(1)) for host in range(hosts)]
    assert [len(part) for part in parts] == [3] * hosts
    halves = 2 if arrangement == "pairs" else 1
    for expected, *found in zip(whole, *parts, strict=True):
        for field, *pieces in zip(expected[1:], *(batch[1:] for batch in found), strict=True):
            split = [piece.reshape(halves, -1, *piece.shape[1:]) for piece in pieces]
            joined = np.concatenate(split, axis=1).reshape(field.shape)
            np.testing.assert_array_equal(joined, field)


def test_seed_and_epoch_change_order_and_angles():
    first = next(loader(seed=1, batch_size=7, workers=0).epoch(0))
    for seed, epoch in ((1, 1), (2, 0)):
        other = next(loader(seed=seed, batch_size=7, workers=0).epoch(epoch))
        assert (first.image != other.image).any()
    still = loader(seed=1, batch_size=7, workers=0, shuffle=False)
    turned = [next(still.epoch(epoch)).image for epoch in (0, 1)]
    assert (turned[0] != turned[1]).any()


def test_evaluation_keeps_order_pixels_and_masks():
    data = loader(shuffle=False, augmentation=None)
    batches = list(data.epoch(0))
    images, masks = (np.concatenate([batch[i] for batch in batches])[:7] for i in (1, 2))
    for i, (image, mask) in enumerate(zip(images, masks, strict=True)):
        np.testing.assert_array_equal(image, transforms.normalize(resized(i), ZERO, ONE))
        np.testing.assert_array_equal(mask, transforms.resize_mask(Numbered(7)[i].mask, 16))
    labels = np.concatenate([batch.label[batch.weight > 0] for batch in batches])
    np.testing.assert_array_equal(labels, data.source.labels)


def test_rotation_is_within_bounds_follows_the_resize_and_turns_the_mask():
    image = next(loader(n=1, batch_size=1, seed=5, workers=0).epoch(4)).image[0]
    draw = np.random.default_rng([5, 4, 1]).random()
    expected = transforms.rotate(resized(0), 5 * (2 * draw - 1))
    np.testing.assert_array_equal(image, transforms.normalize(expected, ZERO, ONE))
    far = Augmentation(rotation_degrees=45)
    data = loader(2, 2, Numbered(2, bright=True), far, filter="nearest", workers=0)
    batch = next(data.epoch(0))
    assert batch.mask.any()
    np.testing.assert_array_equal(batch.image[..., 0] > 128, batch.mask)


def test_last_batch_is_padded_with_weight_zero_or_dropped():
    batches = list(loader().epoch(0))
    assert len(batches) == len(loader()) == 3
    last = batches[-1]
    assert last.weight.tolist() == [1, 0, 0]
    assert last.image.shape == (3, 16, 16, 3)
    np.testing.assert_array_equal(last.image[1], last.image[0])
    assert not last.mask[1:].any()
    assert not last.label[1:].any()
    assert sum(batch.weight.sum() for batch in batches) == 7
    assert [a.dtype for a in last[1:]] == [np.float32, bool, np.int32, np.float32]
    data = loader(drop_last=True)
    batches = list(data.epoch(0))
    assert len(batches) == len(data) == 2
    assert all(batch.weight.all() for batch in batches)


def test_every_record_is_read_once_per_epoch_or_once_at_all_if_there_is_memory():
    for cache_bytes, times in ((0, 2), (2**20, 1)):
        data = loader(cache_bytes=cache_bytes)
        for epoch in (0, 1):
            list(data.epoch(epoch))
        assert sorted(data.source.reads) == sorted([*range(7)] * times)
    data.forget_images()
    list(data.in_order().epoch(0))
    list(data.epoch(0))
    assert len(data.source.reads) == 14


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


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"batch_size": 0}, "data.batch_size=0 is too small: use 1 or more"),
        ({"repeat": 0}, r"data\.repeat=0"),
        ({"seed": -1}, "data.seed=-1 is too small: use 0 or more"),
        ({"workers": -1}, r"data\.workers=-1"),
        ({"processes": -1}, r"data\.processes=-1"),
        ({"filter": "x"}, r"data\.filter='x'"),
        ({"n": 0}, "the data set has no images: check data.root and data.category"),
        ({"shard": (0, 2)}, "a batch of 3 images cannot be divided among 2 hosts"),
        (
            {"batch_size": 8, "drop_last": True},
            "batch_size 8 is larger than the set of 7",
        ),
        (
            {"batch_size": 15, "drop_last": True, "repeat": 2},
            "batch_size 15 is larger than the set of 7 images, each visited 2 times",
        ),
    ],
)
def test_settings_that_do_not_work(options, words):
    with pytest.raises(UserError, match=words):
        loader(**options)


def test_rows_say_what_a_batch_is_made_of_without_decoding():
    data = loader(augmentation=None)
    plan = list(data.rows(1))
    assert not data.source.reads
    for rows, batch in zip(plan, data.epoch(1), strict=True):
        np.testing.assert_array_equal(rows.weight, batch.weight)
        np.testing.assert_array_equal(rows.label, batch.label)
        assert (rows.label.dtype, rows.weight.dtype) == (np.int32, np.float32)
        for record, image in zip(rows.records, batch.image, strict=True):
            shown = transforms.normalize(resized(int(record)), ZERO, ONE)
            np.testing.assert_array_equal(image, shown)
    assert [rows.records.tolist() for rows in data.rows(1, 2)] == [plan[2].records.tolist()]
