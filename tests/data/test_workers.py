"""Processes and hosts change who makes a batch, and nothing in it."""

import itertools
import pickle

import numpy as np
import pytest

from flowad_jax.data import augment
from flowad_jax.data.pipeline import Loader
from flowad_jax.errors import UserError
from flowad_jax.synthesis import make
from tests.data.test_pipeline import ONE, ZERO, Numbered, assert_equal, loader


def test_processes_give_the_same_bits_epoch_after_epoch_and_after_a_jump():
    expected, tried = loader(seed=4), loader(seed=4, processes=2)
    try:
        for epoch in (0, 1):  # the second one comes from processes that are already at it
            assert_equal(list(expected.epoch(epoch)), list(tried.epoch(epoch)))
        first = tried._stream
        half = list(itertools.islice(tried.epoch(2), 1))
        assert_equal(half + list(tried.epoch(2, 1)), list(expected.epoch(2)))
        assert tried._stream is first
        assert_equal(list(tried.epoch(1, 1)), list(expected.epoch(1, 1)))
        assert tried._stream is not first
    finally:
        tried.close()
    assert tried._stream is None


def test_a_fault_in_a_process_is_one_line():
    data = Loader(Numbered(7, broken=3), 16, 3, ZERO, ONE, processes=1)
    try:
        with pytest.raises(UserError, match=r"^cannot read '3\.png': disk gone$"):
            list(data.epoch(0))
    finally:
        data.close()


def test_a_copy_for_a_process_brings_no_images_along():
    data = loader()
    expected = list(data.epoch(0))
    size = len(pickle.dumps(loader()))
    copied = pickle.loads(pickle.dumps(data))
    assert len(pickle.dumps(data)) < size + 200
    assert_equal(list(copied.epoch(0)), expected)


@pytest.mark.parametrize("hosts", [2, 4])
@pytest.mark.parametrize("arrangement", [None, "mixture"])
def test_hosts_make_their_parts_of_the_same_batches(hosts, arrangement):
    synthesis = augment.Synthesis(make("mixture"), arrangement) if arrangement else None
    options = {"n": 9, "batch_size": 4, "synthesis": synthesis}
    whole = list(loader(**options).epoch(1))
    parts = [list(loader(**options, shard=(host, hosts)).epoch(1)) for host in range(hosts)]
    assert [len(part) for part in parts] == [3] * hosts
    for expected, *found in zip(whole, *parts, strict=True):
        for field, *pieces in zip(expected[:4], *(batch[:4] for batch in found), strict=True):
            np.testing.assert_array_equal(np.concatenate(pieces), field)


def test_hosts_keep_pairs_together():
    """Each host has its clean images first, then their synthetic versions, as one host has."""
    options = {"n": 8, "batch_size": 4}
    options["synthesis"] = augment.Synthesis(make("cutpaste"), "pairs")
    whole = next(loader(**options).epoch(0)).image
    found = [next(loader(**options, shard=(host, 2)).epoch(0)).image for host in (0, 1)]
    np.testing.assert_array_equal(np.concatenate([x[:2] for x in found]), whole[:4])
    np.testing.assert_array_equal(np.concatenate([x[2:] for x in found]), whole[4:])


def test_a_batch_that_hosts_cannot_share_equally():
    with pytest.raises(UserError, match="a batch of 3 images cannot be divided among 2 hosts"):
        loader(shard=(0, 2))
    with pytest.raises(UserError, match=r"data\.processes=-1 is too small"):
        loader(processes=-1)
