"""What a visit changes and what a batch holds; workers change nothing."""

import numpy as np
import pytest

from flowad_jax.data import transforms
from flowad_jax.data.augment import Augmentation, Synthesis
from flowad_jax.data.loader import Loader
from flowad_jax.data.record import Record
from flowad_jax.errors import UserError
from flowad_jax.synthesis import Synthetic
from tests.data.test_loader import ONE, ZERO, assert_equal

SIDE = 32
HALVES = slice(4), slice(4, 8)  # of a batch of pairs


class Normal:
    """Normal records; by default each of noise in a band of grey levels of its own."""

    has_masks = False

    def __init__(self, n, images=None):
        self.labels, self.kinds = np.zeros(n, np.int32), ["good"] * n
        self.paths, self.images = [f"{i}.png" for i in range(n)], images

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        if self.images:
            image = self.images[index]
        else:
            low, rng = 20 * index + 5, np.random.default_rng(index)
            image = rng.integers(low, low + 10, (SIDE, SIDE, 3), np.uint8)
        return Record(image, np.zeros(image.shape[:2], bool), 0, "good", self.paths[index])


def whose(images):
    """The record that each image of grey levels is made of."""
    return (images.mean(axis=(1, 2, 3)) // 20).astype(int)


def show_source(target, source, rng):
    """Shows nothing but the source; a quarter of it is anomalous, another half less so."""
    mask = np.zeros(target.shape[:2], np.float32)
    mask[: SIDE // 4], mask[SIDE // 2 :] = 1, 0.3
    return Synthetic(source.copy(), mask, "shown", True)


def half_the_time(target, source, rng):
    """Leaves an image as it is or makes it white."""
    if rng.random() < 0.5:
        return Synthetic(target.copy(), np.zeros(target.shape[:2], np.float32), "none", False)
    return Synthetic(np.full_like(target, 255), np.ones(target.shape[:2], np.float32), "w", True)


def loader(synthesis=None, n=6, batch_size=4, source=None, size=SIDE, **options):
    names = ("rotation_degrees", "sharpen")
    own = {name: options.pop(name) for name in names if name in options}
    augmentation = Augmentation(**own, synthesis=synthesis)
    options = {"workers": 0, "augmentation": augmentation} | options
    return Loader(source or Normal(n), size, batch_size, ZERO, ONE, **options)


def batches_of(loader):
    """The batches of an epoch with pixels as whole numbers again."""
    return [batch._replace(image=np.rint(batch.image)) for batch in loader.epoch(0)]


def stacked(loader):
    columns = zip(*(batch[1:] for batch in batches_of(loader)), strict=True)
    return [np.concatenate(column) for column in columns]


def test_pairs_put_the_synthetic_versions_below_the_clean_images_in_their_order():
    data = loader(Synthesis(show_source, "pairs"))
    plain = list(loader().epoch(0))
    for rows, clean, batch in zip(data.rows(0), plain, data.epoch(0), strict=True):
        assert batch.image.shape == (8, SIDE, SIDE, 3)
        np.testing.assert_array_equal(batch.image[:4], clean.image)
        np.testing.assert_array_equal(whose(batch.image[:4]), rows.records)
        np.testing.assert_array_equal(batch.weight, np.tile(rows.weight, 2))
        np.testing.assert_array_equal(batch.label, np.repeat([0, 1], 4) * batch.weight)
        assert not batch.mask[:4].any()
        rows_of_masks = batch.mask[4:].all(axis=2)
        expected = np.repeat([True, False, True, True], SIDE // 4)
        np.testing.assert_array_equal(rows_of_masks, rows.weight[:, None] * expected > 0)
        assert [x.dtype for x in batch[1:]] == [np.float32, bool, np.int32, np.float32]


def test_patches_come_from_any_other_record_and_never_the_target():
    data = loader(Synthesis(show_source, "pairs"), n=4, batch_size=4, repeat=10)
    seen = set()
    for batch in data.epoch(0):
        targets, others = whose(batch.image[:4]), whose(batch.image[4:])
        seen |= set(zip(targets.tolist(), others.tolist(), strict=True))
    assert seen == {(i, j) for i in range(4) for j in range(4) if i != j}


def test_mixture_replaces_images_and_unchanged_ones_are_normal():
    image, mask, label, weight = stacked(loader(Synthesis(half_the_time, "mixture"), repeat=4))
    assert weight.all()
    white = (image == 255).all(axis=(1, 2, 3))
    assert 4 < white.sum() < 20
    np.testing.assert_array_equal(label, white)
    np.testing.assert_array_equal(mask.all(axis=(1, 2)), white)
    np.testing.assert_array_equal(mask.any(axis=(1, 2)), white)


@pytest.mark.parametrize("as_released", [False, True])
def test_a_pair_without_an_anomaly_is_left_out_unless_it_trains_as_one(as_released):
    synthesis = Synthesis(half_the_time, "pairs", unchanged_as_negative=as_released)
    unchanged = 0
    for batch in batches_of(loader(synthesis, n=5, batch_size=5, repeat=4)):
        assert batch.weight[:5].all()
        white = (batch.image[5:] == 255).all(axis=(1, 2, 3))
        np.testing.assert_array_equal(batch.weight[5:], white | as_released)
        np.testing.assert_array_equal(batch.label[5:], white | as_released)
        assert not batch.mask[5:][~white].any()
        unchanged += np.sum(~white)
    assert 4 < unchanged < 16


def test_mask_threshold_is_exclusive():
    for threshold, share in ((0.0, 0.75), (0.3, 0.25), (0.5, 0.25)):
        # 0.3 is written to a mask of 32 bits, which the same number of 64 bits must not fall below.
        threshold = float(np.float32(threshold))
        mask = stacked(loader(Synthesis(show_source, "mixture", threshold), batch_size=6))[1]
        assert mask.mean() == share


def test_repeat_visits_every_record_with_random_numbers_of_its_own():
    data = loader(rotation_degrees=45, n=3, batch_size=4, repeat=3)
    assert len(data) == 3
    assert [data.images(batch) for batch in range(3)] == [4, 4, 1]
    rows = list(data.rows(0))
    records = np.concatenate([r.records[r.weight > 0] for r in rows])
    assert sorted(records.tolist()) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    image, weight = (stacked(data)[i] for i in (0, 3))
    image = image[weight > 0]
    assert len(np.unique(image.reshape(9, -1), axis=0)) == 9
    visits = np.concatenate([r.visits[r.weight > 0] for r in rows])
    draw = np.random.default_rng([0, 0, 1 + int(visits[0])]).random()
    turned = transforms.rotate(data.source[int(records[0])].image, 45 * (2 * draw - 1))
    np.testing.assert_array_equal(image[0], turned)


def test_a_few_images_may_fill_a_large_batch_by_repeating():
    data = loader(n=2, batch_size=8, repeat=4)
    assert data.batch_size == data.in_order().batch_size == 8  # of rows of weight 0
    assert len(loader(repeat=2, drop_last=True, batch_size=5)) == 2


def test_sharpening_hits_its_share_and_the_source_of_a_patch_on_its_own():
    def is_sharp(images):
        plain = np.stack([Normal(6)[int(i)].image for i in whose(images)])
        return (images != plain).any(axis=(1, 2, 3))

    batches = batches_of(loader(Synthesis(show_source, "pairs"), sharpen=0.3, repeat=100))
    whole = [batch for batch in batches if all(batch.weight)]
    target, other = (np.concatenate([is_sharp(b.image[part]) for b in whole]) for part in HALVES)
    assert abs(target.mean() - 0.3) < 0.08  # four standard deviations of 600 draws
    assert abs(other.mean() - 0.3) < 0.08
    assert abs((target & other).mean() - 0.09) < 0.05


def test_sharpened_pixels_are_those_of_the_transform():
    (batch,) = batches_of(loader(n=1, sharpen=1.0, batch_size=1))
    np.testing.assert_array_equal(batch.image[0], transforms.sharpen(Normal(1)[0].image))


def test_in_order_is_plain():
    synthesis = Synthesis(show_source, "pairs")
    for options in ({"rotation_degrees": 5}, {"sharpen": 1.0}, {"synthesis": synthesis}):
        data = loader(**options, repeat=3, drop_last=True)
        assert not data.deterministic
        assert data.in_order().deterministic
        assert_equal(list(data.in_order().epoch(3)), list(loader(shuffle=False).epoch(0)))
    assert loader(repeat=2).deterministic
    data = loader(drop_last=True)
    data.in_order()
    assert len(data) == 1  # the original still drops its last batch


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"sharpen": 1.5}, r"data\.sharpen=1\.5"),
        ({"sharpen": float("nan")}, r"data\.sharpen=nan"),
        ({"rotation_degrees": -5.0}, r"data\.rotation_degrees=-5\.0 is too small: use 0 or more"),
        ({"mask_threshold": 1.0}, r"synthesis\.mask_threshold=1\.0"),
        ({"mask_threshold": -0.1}, r"synthesis\.mask_threshold=-0\.1"),
        (
            {"arrangement": "mixture", "unchanged_as_negative": True},
            r"synthesis\.unchanged_as_negative=True: this method does not learn from pairs",
        ),
        ({"arrangement": "pair"}, r"synthesis\.arrangement.*did you mean 'pairs'"),
    ],
)
def test_values_out_of_range(options, culprit):
    own = {key: value for key, value in options.items() if key in Synthesis._fields}
    synthesis = Synthesis(**({"make": show_source, "arrangement": "pairs"} | own))
    with pytest.raises(UserError, match=culprit):
        Augmentation(synthesis=synthesis, **{k: v for k, v in options.items() if k not in own})


def test_jitter_changes_brightness_and_contrast_within_its_bound():
    """And draws nothing where it is off, so that runs of before stay what they were."""
    image = np.full((8, 8, 3), 100, np.uint8)
    image[:4] = 140
    brighter = transforms.jitter(image, 1.2, 1.0)
    np.testing.assert_array_equal(brighter, np.where(image == 140, 168, 120))
    flatter = transforms.jitter(image, 1.0, 0.5)
    assert np.ptp(flatter) == 20
    assert abs(flatter.mean() - image.mean()) <= 1
    assert Augmentation(jitter=0.2).varies
