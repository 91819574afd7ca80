"""The embedded set: strips apart, exact masks, every kind there, and the same bits everywhere."""

import hashlib

import numpy as np
import pytest

from flowad_jax.data import textures
from flowad_jax.data._texture_defects import PAINTERS
from flowad_jax.errors import UserError

HASHES = {"brick": "29af616860b527eb", "grass": "8a9a352cace8879f", "gravel": "f95289518da0ab09"}


@pytest.fixture(params=textures.CATEGORIES)
def category(request):
    return request.param


def test_counts(category):
    train, test = (textures.build("", category, split) for split in ("train", "test"))
    assert train.describe() == {
        "images": 48, "good": 48, "anomalous": 0, "masks": False, "kinds": {"good": 48}
    }  # fmt: skip
    assert test.describe()["kinds"] == {**dict.fromkeys(PAINTERS, 8), "good": 16}
    assert len({*train.paths, *test.paths}) == 48 + 56
    assert textures.categories("") == ["brick", "grass", "gravel"]


def test_masks_are_exact(category):
    source = textures.build("", category, "test")
    for i, kind in enumerate(source.kinds):
        record, clean = source[i], source.clean(i)
        assert record.image.shape == (160, 160, 3)
        changed = (record.image != clean[..., None]).any(axis=-1)
        assert not (changed & ~record.mask).any()
        assert record.mask.any() == (kind != "good") == record.label
        if kind != "good":
            assert changed.sum() > 0.8 * record.mask.sum(), record.path
            assert 20 < record.mask.sum() < 0.2 * record.mask.size, record.path


def test_train_and_test_share_no_pixel(category, monkeypatch):
    """Every tile is cut from a photograph whose columns are numbered."""
    columns = np.tile(np.arange(textures.SIDE), (textures.SIDE, 1))
    monkeypatch.setattr(textures, "_photograph", lambda name: columns)
    seen = {}
    for split in ("train", "test"):
        source = textures.build("", category, split)
        seen[split] = {int(x) for i in range(len(source)) for x in np.unique(source.clean(i))}
    assert max(seen["train"]) < min(seen["test"])
    assert len(seen["train"]) > 290  # and use nearly all of their strips
    assert len(seen["test"]) > 190


def test_foreign_patches_are_cut_from_the_test_strip(category, monkeypatch):
    columns = np.tile(np.arange(textures.SIDE), (textures.SIDE, 1))
    monkeypatch.setattr(textures, "_photograph", lambda name: columns)
    source = textures.build("", category, "test")
    rng = np.random.default_rng(0)
    cuts = [source._cut(name, rng) for name in textures.CATEGORIES for _ in range(20)]
    assert min(int(cut.min()) for cut in cuts) >= textures.COLUMNS["test"][0]


def test_strength_moves_the_contrast(category):
    weak, strong = (
        textures.build("", category, "test", strength=strength) for strength in (0.3, 1.0)
    )
    for i, label in enumerate(weak.labels):
        clean = weak.clean(i)[..., None].astype(int)
        change = [np.abs(source[i].image - clean).mean() for source in (weak, strong)]
        assert change[0] < change[1] if label else change == [0, 0]
        np.testing.assert_array_equal(clean[..., 0], strong.clean(i))


def test_same_bits_everywhere(category):
    """A changed hash means other results: then say so in the changelog and measure again."""
    digest = hashlib.sha256()
    for split in ("train", "test"):
        source = textures.build("", category, split)
        for i in range(len(source)):
            digest.update(source[i].image.tobytes() + source[i].mask.tobytes())
    assert digest.hexdigest()[:16] == HASHES[category]


def test_seed_gives_other_tiles(category):
    one, two = (textures.build("", category, "train", seed=seed)[0].image for seed in (0, 1))
    assert (one != two).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"category": "gras"}, r"data\.category='gras' is unknown: did you mean 'grass'"),
        ({"split": "valid"}, r"split='valid'"),
        ({"tile": 256}, r"data\.options\.tile=256 is out of range: use 32 to 200"),
        ({"strength": 0}, r"data\.options\.strength=0"),
        ({"train_images": 0}, r"data\.options\.train_images=0"),
        ({"seed": -1}, r"data\.options\.seed=-1"),
    ],
)
def test_values_out_of_range(options, message):
    with pytest.raises(UserError, match=message):
        textures.build("", **{"category": "grass", "split": "train", **options})


def test_a_tile_as_wide_as_the_strip():
    source = textures.build("", "grass", "test", tile=200, good_images=2, images_per_kind=1)
    assert {source[i].image.shape for i in range(len(source))} == {(200, 200, 3)}
