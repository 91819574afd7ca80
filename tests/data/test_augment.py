"""Synthesis in the loader: who lends, what a batch holds, and that workers change nothing."""

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import transforms
from flowad_jax.data.augment import Synthesis, lender_files
from flowad_jax.data.pipeline import Loader
from flowad_jax.data.record import Record, count
from flowad_jax.errors import UserError
from flowad_jax.synthesis import Synthetic, make

SIDE = 32
ZERO, ONE = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # pixels keep their values


class Normal:
    """Good records, each of noise in a band of grey levels of its own."""

    has_masks = False

    def __init__(self, n):
        self.labels = np.zeros(n, np.int32)
        self.kinds = ["good"] * n
        self.paths = [f"{i}.png" for i in range(n)]

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index):
        low = 20 * index + 5
        image = np.random.default_rng(index).integers(low, low + 10, (SIDE, SIDE, 3), np.uint8)
        return Record(image, np.zeros((SIDE, SIDE), bool), 0, "good", self.paths[index])

    describe = count


def whose(images):
    """The record that each image of grey levels is made of."""
    return (images.mean(axis=(1, 2, 3)) // 20).astype(int)


def lend(target, source, rng):
    """Shows nothing but the lender; a quarter of it is anomalous, another half less so."""
    mask = np.zeros(target.shape[:2], np.float32)
    mask[: SIDE // 4], mask[SIDE // 2 :] = 1, 0.3
    return Synthetic(source.copy(), mask, "lend", True)


def half_the_time(target, source, rng):
    """Leaves an image as it is or makes it white."""
    if rng.random() < 0.5:
        return Synthetic(target.copy(), np.zeros(target.shape[:2], np.float32), "none", False)
    return Synthetic(np.full_like(target, 255), np.ones(target.shape[:2], np.float32), "w", True)


def loader(synthesis=None, n=6, batch_size=4, **options):
    options = {"rotation_degrees": 0, "workers": 0} | options
    return Loader(Normal(n), SIDE, batch_size, ZERO, ONE, synthesis=synthesis, **options)


def batches_of(loader):
    """The batches of an epoch with pixels as whole numbers again."""
    return [batch._replace(image=np.rint(batch.image)) for batch in loader.epoch(0)]


def stacked(loader):
    return [np.concatenate(column) for column in zip(*batches_of(loader), strict=True)]


def assert_same(batches, others):
    assert len(batches) == len(others) > 0
    for a, b in zip(batches, others, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_array_equal(x, y)
            assert x.dtype == y.dtype


@pytest.mark.parametrize("arrangement", ["pairs", "mixture"])
@pytest.mark.parametrize("kind", ["nsa", "mixture"])
def test_workers_and_restarts_change_no_bit_and_epochs_do(arrangement, kind):
    def make_loader(workers, cache_bytes=2**20):
        synthesis = Synthesis(make(kind), arrangement, 0.1)
        return loader(
            synthesis,
            n=5,
            rotation_degrees=5,
            sharpen=0.5,
            repeat=2,
            workers=workers,
            cache_bytes=cache_bytes,
        )

    whole = list(make_loader(0).epoch(1))
    for workers in (1, 3):
        assert_same(whole, list(make_loader(workers, cache_bytes=0).epoch(1)))
    for start in (1, 2):
        assert_same(whole[start:], list(make_loader(1).epoch(1, start)))
    other = next(make_loader(0).epoch(2))
    assert (other.image != whole[0].image).any()


def test_pairs_put_the_synthetic_versions_below_the_clean_images_in_their_order():
    data = loader(Synthesis(lend, "pairs"))
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
        assert [x.dtype for x in batch] == [np.float32, bool, np.int32, np.float32]


def test_the_lender_is_any_other_record_and_never_the_target():
    data = loader(Synthesis(lend, "pairs"), n=4, batch_size=4, repeat=10)
    seen = set()
    for batch in data.epoch(0):
        targets, lenders = whose(batch.image[:4]), whose(batch.image[4:])
        seen |= set(zip(targets.tolist(), lenders.tolist(), strict=True))
    assert seen == {(i, j) for i in range(4) for j in range(4) if i != j}


def test_mixture_replaces_images_and_unchanged_ones_are_normal():
    image, mask, label, weight = stacked(loader(Synthesis(half_the_time, "mixture"), repeat=4))
    assert weight.all()
    white = (image == 255).all(axis=(1, 2, 3))
    assert 4 < white.sum() < 20
    np.testing.assert_array_equal(label, white)
    np.testing.assert_array_equal(mask.all(axis=(1, 2)), white)
    np.testing.assert_array_equal(mask.any(axis=(1, 2)), white)


def test_a_pair_without_an_anomaly_counts_for_nothing_but_its_clean_image_does():
    data = loader(Synthesis(half_the_time, "pairs"), n=5, batch_size=5, repeat=4)
    changed = []
    for batch in batches_of(data):
        assert batch.weight[:5].all()
        white = (batch.image[5:] == 255).all(axis=(1, 2, 3))
        np.testing.assert_array_equal(batch.weight[5:], white)
        np.testing.assert_array_equal(batch.label[5:], white)
        changed += white.tolist()
    assert 4 < sum(changed) < 16


def test_as_released_a_pair_without_an_anomaly_trains_as_one():
    data = loader(Synthesis(half_the_time, "pairs", unchanged_as_negative=True), n=5, repeat=4)
    unchanged = 0
    for batch in batches_of(data):
        np.testing.assert_array_equal(batch.weight[4:], batch.weight[:4])
        np.testing.assert_array_equal(batch.label[4:], batch.weight[4:])
        same = (batch.image[4:] == batch.image[:4]).all(axis=(1, 2, 3))
        assert not batch.mask[4:][same].any()
        unchanged += same.sum()
    assert 4 < unchanged < 16


def test_mask_threshold_is_exclusive():
    for threshold, share in ((0.0, 0.75), (0.3, 0.25), (0.5, 0.25)):
        # 0.3 is written to a mask of 32 bits, which the same number of 64 bits must not fall below.
        threshold = float(np.float32(threshold))
        mask = stacked(loader(Synthesis(lend, "mixture", threshold), batch_size=6))[1]
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


def test_repeated_records_that_never_change_are_still_deterministic():
    data = loader(repeat=2, drop_last=True, batch_size=5)
    assert data.deterministic
    assert len(data) == 2
    assert not loader(sharpen=0.1).deterministic
    assert not loader(Synthesis(lend, "pairs")).deterministic


def test_a_few_images_may_fill_a_large_batch_by_repeating():
    assert loader(n=2, batch_size=8, repeat=4).batch_size == 8
    assert loader(n=2, batch_size=8, repeat=4).in_order().batch_size == 8  # of rows of weight 0
    with pytest.raises(UserError, match="batch_size 9 is larger than the set of 2 images, each"):
        loader(n=2, batch_size=9, repeat=4, drop_last=True)


def sharpened(images):
    """Whether images that show one record each were sharpened."""
    plain = np.stack([Normal(6)[int(i)].image for i in whose(images)])
    return (images != plain).any(axis=(1, 2, 3))


def test_sharpening_hits_its_share_and_the_lender_on_its_own():
    for shared in (False, True):
        data = loader(Synthesis(lend, "pairs"), sharpen=0.3, share_sharpening=shared, repeat=100)
        both = np.array(
            [
                (sharpened(batch.image[:4]), sharpened(batch.image[4:]))
                for batch in batches_of(data)
                if batch.weight.all()
            ]
        )
        target, lender = both[:, 0].ravel(), both[:, 1].ravel()
        assert abs(target.mean() - 0.3) < 0.08  # four standard deviations of 600 draws
        if shared:
            np.testing.assert_array_equal(target, lender)
        else:
            assert abs(lender.mean() - 0.3) < 0.08
            assert abs((target & lender).mean() - 0.09) < 0.05


def test_sharpened_pixels_are_those_of_the_transform():
    (batch,) = batches_of(loader(n=1, sharpen=1.0, batch_size=1))
    np.testing.assert_array_equal(batch.image[0], transforms.sharpen(Normal(1)[0].image))


def test_in_order_is_plain():
    data = loader(
        Synthesis(lend, "pairs"), rotation_degrees=5, sharpen=1.0, repeat=3, drop_last=True
    )
    assert data.in_order().deterministic
    assert_same(list(data.in_order().epoch(3)), list(loader(shuffle=False).epoch(0)))
    assert len(data) == 4


def test_files_lend_instead_of_records(tmp_path):
    for name, grey in (("a.png", 200), ("deep/b.jpg", 250), ("deep/.hidden.png", 5)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (50, 40), grey).save(tmp_path / name)
    (tmp_path / "deep/notes.txt").write_text("not an image")
    files = lender_files(tmp_path)
    assert [path.name for path in files] == ["a.png", "b.jpg"]
    data = loader(Synthesis(lend, "mixture", lenders=files), repeat=4)
    image = stacked(data)[0]
    assert set(np.unique(image)) == {200, 250}
    assert 0.2 < np.mean(image == 200) < 0.8


def test_a_lender_that_cannot_be_read_is_named(tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no image")
    data = loader(Synthesis(lend, "mixture", lenders=lender_files(tmp_path)))
    with pytest.raises(UserError, match=r"broken\.png"):
        next(data.epoch(0))


def test_folders_without_images_are_refused(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=r"synthesis\.lenders='.*give"):
            lender_files(folder)


@pytest.mark.parametrize(
    ("options", "culprit"),
    [
        ({"sharpen": 1.5}, r"data\.sharpen=1\.5"),
        ({"sharpen": float("nan")}, r"data\.sharpen=nan"),
        ({"repeat": 0}, r"data\.repeat=0"),
        ({"synthesis": Synthesis(lend, "pairs", 1.0)}, r"synthesis\.mask_threshold=1\.0"),
        ({"synthesis": Synthesis(lend, "pairs", -0.1)}, r"synthesis\.mask_threshold=-0\.1"),
        (
            {"synthesis": Synthesis(lend, "mixture", unchanged_as_negative=True)},
            r"synthesis\.unchanged_as_negative=True: this method does not learn from pairs",
        ),
        ({"synthesis": Synthesis(lend, "pair")}, r"synthesis\.arrangement.*did you mean 'pairs'"),
    ],
)
def test_values_out_of_range(options, culprit):
    with pytest.raises(UserError, match=culprit) as error:
        loader(**options)
    assert "\n" not in str(error.value)
