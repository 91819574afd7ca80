"""The embedded set: strips apart, exact masks, every kind there, and the same bits everywhere."""

import functools
import hashlib

import numpy as np
import pytest

from flowad_jax.data import sources
from flowad_jax.data.record import count
from flowad_jax.data.sets import textures
from flowad_jax.data.texture_defects import PAINTERS
from flowad_jax.errors import UserError

HASHES = {"brick": "29af616860b527eb", "grass": "8a9a352cace8879f", "gravel": "f95289518da0ab09"}


@pytest.fixture(params=HASHES)
def category(request):
    return request.param


def build(category="grass", split="test", **options):
    return sources.build("textures", "", category, split, **options)


@functools.cache
def records(category, split, **options):
    return list(build(category, split, **options))


def test_counts_and_the_same_bits_everywhere(category):
    """A changed hash means other results: then say so in the changelog and measure again."""
    train, test = build(category, "train"), build(category)
    counts = {"images": 48, "good": 48, "anomalous": 0, "masks": False, "kinds": {"good": 48}}
    assert count(train) == counts
    assert count(test)["kinds"] == {**dict.fromkeys(PAINTERS, 8), "good": 16}
    assert len({*train.paths, *test.paths}) == 48 + 56
    assert sources.categories("textures", "") == ["brick", "grass", "gravel"]
    digest = hashlib.sha256()
    for record in (*records(category, "train"), *records(category, "test")):
        digest.update(record.image.tobytes() + record.mask.tobytes())
    assert digest.hexdigest()[:16] == HASHES[category]


def test_masks_are_exact_and_strength_moves_the_contrast(category):
    source, weak = build(category), build(category, strength=0.3)
    for i, record in enumerate(records(category, "test")):
        clean = source.before_defect(i)[..., None]
        np.testing.assert_array_equal(clean, weak.before_defect(i)[..., None])
        assert record.image.shape == (160, 160, 3)
        changed = (record.image != clean).any(axis=-1)
        assert not (changed & ~record.mask).any()
        assert record.mask.any() == (record.kind != "good") == record.label
        if record.label:
            assert changed.sum() > 0.8 * record.mask.sum(), record.path
            assert 20 < record.mask.sum() < 0.2 * record.mask.size, record.path
            change = [np.abs(r.image - clean.astype(int)).mean() for r in (weak[i], record)]
            assert change[0] < change[1]


def test_train_and_test_share_no_pixel(category, monkeypatch):
    """Every tile is cut from a photograph whose columns are numbered, foreign patches too."""
    columns = np.tile(np.arange(textures.SIDE), (textures.SIDE, 1))
    monkeypatch.setattr(textures, "_photograph", lambda name: columns)
    seen = {}
    for split in ("train", "test"):
        source = build(category, split)
        tiles = [source.before_defect(i) for i in range(len(source))]
        seen[split] = {int(x) for tile in tiles for x in np.unique(tile)}
    assert max(seen["train"]) < min(seen["test"])
    assert len(seen["train"]) > 290  # and use nearly all of their strips
    assert len(seen["test"]) > 190
    rng = np.random.default_rng(0)
    cuts = [source._cut(name, rng) for name in HASHES for _ in range(20)]
    assert min(int(cut.min()) for cut in cuts) >= textures.COLUMNS["test"][0]


def test_seed_gives_other_tiles(category):
    assert (build(category, "train", seed=1)[0].image != records(category, "train")[0].image).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"category": "gras"}, "Textures has no category 'gras': did you mean 'grass'"),
        ({"split": "valid"}, r"split='valid'"),
        ({"tile": 256}, r"data\.options\.tile=256: must be 200 or less"),
        ({"strength": 0}, r"data\.options\.strength=0"),
        ({"train_images": 0}, r"data\.options\.train_images=0"),
        ({"good_images": 0}, r"data\.options\.good_images=0"),
        ({"images_per_kind": -1}, r"data\.options\.images_per_kind=-1"),
        ({"seed": -1}, r"data\.options\.seed=-1"),
    ],
)
def test_values_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        build(**options)


def test_a_scikit_image_with_other_photographs(monkeypatch):
    monkeypatch.setattr(textures, "read_image", lambda path: np.zeros((9, 9, 3), np.uint8))
    with pytest.raises(UserError, match=r"brick\.png' is not the photograph of 512 x 512: reinst"):
        build()


def test_a_tile_as_wide_as_the_strip():
    source = build(tile=200, good_images=2, images_per_kind=1)
    assert {record.image.shape for record in source} == {(200, 200, 3)}
