"""Patches obey the constants of their category; labels say what changed."""

import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from flowad_jax.errors import UserError
from flowad_jax.synthesis import CATEGORY_CONSTANTS, constants, labels, make, nsa, patches
from flowad_jax.synthesis.labels import Change
from flowad_jax.synthesis.nsa_constants import DEFAULT
from tests.synthesis.images import disk, noise

GAMMA = nsa.Settings().gamma


@pytest.mark.parametrize(
    ("dataset", "category", "expected"),
    [
        ("mvtec", "carpet", (True, (), 0.40, 0.40, 0.0, 0.0, 4, (1 / 3, 7))),
        ("mvtec", "wood", (True, (), 0.40, 0.40, 0.0, 0.0, 4, (1 / 6, 15))),
        ("mvtec", "bottle", (False, ((200, 60),), 0.40, 0.40, 0.70, 0.25, 3, (1 / 12, 24))),
        ("mvtec", "cable", (False, (), 0.40, 0.40, 0.0, 0.0, 3, (1 / 12, 24))),
        ("mvtec", "capsule", (False, ((200, 60),), 0.15, 0.40, 0.70, 0.25, 3, (1 / 2, 4))),
        ("mvtec", "hazelnut", (False, ((20, 20),), 0.35, 0.35, 0.70, 0.25, 3, (1 / 12, 24))),
        ("mvtec", "metal_nut", (False, ((20, 20),), 0.40, 0.40, 0.50, 0.25, 3, (1 / 3, 7))),
        ("mvtec", "pill", (False, ((20, 20),), 0.20, 0.40, 0.70, 0.25, 3, (1 / 3, 7))),
        ("mvtec", "screw", (False, ((200, 60),), 0.12, 0.12, 0.50, 0.25, 4, (1, 3))),
        ("mvtec", "toothbrush", (False, ((20, 20),), 0.40, 0.20, 0.25, 0.25, 3, (1 / 6, 15))),
        ("mvtec", "transistor", (False, (), 0.40, 0.40, 0.0, 0.0, 3, (1 / 6, 15))),
        ("mvtec", "zipper", (False, ((200, 60),), 0.40, 0.20, 0.70, 0.25, 4, (1 / 6, 15))),
        ("btad", "03", (False, ((200, 60),), 0.40, 0.40, 0.70, 0.25, 3, (1 / 12, 24))),
        ("btad", "02", (True, (), 0.40, 0.40, 0.0, 0.0, 4, (1 / 3, 7))),
        ("dagm", "Class10", (True, (), 0.40, 0.40, 0.0, 0.0, 4, (1 / 3, 7))),
    ],
)
def test_published_constants(dataset, category, expected):
    c = constants(dataset, category)
    found = (c.texture, c.background, c.rows[1], c.columns[1], c.min_object, c.min_overlap)
    assert (*found, c.max_patches, c.logistic) == expected
    assert c.factors == ((0.5, 2.0) if c.texture else (0.7, 1.3))
    assert c.rows[0] == c.columns[0] == (0.05 if category == "cable" else 0.03)


def test_all_categories_are_there_and_others_have_a_default():
    assert {name: len(rows) for name, rows in CATEGORY_CONSTANTS.items()} == {
        "mvtec": 15,
        "btad": 3,
        "dagm": 10,
    }
    assert constants("magnetic_tile", "") == constants() == DEFAULT
    with pytest.raises(UserError, match="did you mean 'screw'"):
        constants("mvtec", "screws")


def test_patches_of_an_object_lie_on_objects():
    own = constants("btad", "01")
    (source, _), (target, truth) = disk(0), disk(1)
    masks = [patches.object_mask(image, own.background, 7) for image in (source, target)]
    assert (masks[1] != truth).mean() < 0.01
    placed = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        patch = patches.cut(source, masks[0], own, GAMMA, 200, rng)
        if patch is None:
            continue
        assert patch.object.mean() > 0.70
        patch = patches.scaled(patch, source.shape, own, rng)
        corner = patches.place(patch, masks[1], own, 200, rng)
        if corner is None:
            continue
        (top, left), (h, w) = corner, patch.object.shape
        there = masks[1][top : top + h, left : left + w]
        assert there.shape == (h, w)
        assert (patch.object & there).sum() > 0.25 * patch.object.sum()
        placed += 1
    assert placed > 40


def test_object_is_what_differs_from_every_background():
    image = np.repeat(np.uint8([10, 100, 230]), 20)[:, None, None] * np.ones((1, 60, 3), np.uint8)
    rows = patches.object_mask(image, ((230, 60), (20, 20)), 7)[:, 30]
    np.testing.assert_array_equal(rows, np.repeat([0, 1, 0], 20))
    assert patches.object_mask(image, (), 7).all()


def test_label_covers_the_objects_of_both_images(monkeypatch):
    left, top = np.zeros((2, 30, 30), np.uint8)
    left[:, :15], top[:15] = 1, 1
    patch = patches.Patch(noise(1, (30, 30), 180), left, (0, 0))
    monkeypatch.setattr(nsa.Nsa, "_find", lambda *args: (patch, (10, 20)))
    target, target_mask = noise(0, (64, 64), 0, 90), np.zeros((64, 64), np.uint8)
    target_mask[10:40, 20:50] = top
    change = make("nsa", blend="paste")._attempt(
        target, target, [None, target_mask], np.random.default_rng(0)
    )
    np.testing.assert_array_equal(change.area[10:40, 20:50], left | top)
    assert change.area.sum() == np.sum(left | top)
    label = labels.binary(change, 1, 1.0)
    assert label[change.area == 0].sum() <= 3  # the median rounds the inner corner
    assert label[12:38, 22:33].all()


@pytest.mark.parametrize(("dataset", "category"), [("", ""), ("mvtec", "capsule")])
def test_sizes_stay_within_their_bounds(dataset, category):
    own = dataclasses.replace(constants(dataset, category), background=(), min_object=0)
    image = noise(0, (200, 300))
    (low_h, high_h), (low_w, high_w) = patches.limits(image.shape, own)
    assert (low_h, low_w) == (6, 9)
    for seed in range(200):
        rng = np.random.default_rng(seed)
        patch = patches.cut(image, np.ones((200, 300), np.uint8), own, GAMMA, 200, rng)
        h, w = patch.object.shape
        assert h <= 2 * high_h
        assert w <= 2 * high_w
        h, w = patches.scaled(patch, image.shape, own, rng).object.shape
        assert low_h <= h <= high_h  # as published: bounds of half a side hold for the whole one
        assert low_w <= w <= high_w


@pytest.mark.parametrize(("most", "mean"), [(3, 2.0), (4, 2.5)])
def test_number_of_patches(monkeypatch, most, mean):
    tries = []
    monkeypatch.setattr(nsa.Nsa, "_find", lambda *args: tries.append(1))
    synthesise = make("nsa", max_patches=most, retries=0)
    for seed in range(500):
        assert not synthesise(
            noise(0, (8, 8)), noise(1, (8, 8)), np.random.default_rng(seed)
        ).changed
    assert len(tries) / 500 == pytest.approx(mean, abs=0.12)  # 3 standard errors


def test_failure_is_reported_after_the_retries(monkeypatch):
    attempts = []
    attempt = nsa.Nsa._attempt
    monkeypatch.setattr(nsa.Nsa, "_attempt", lambda *a: attempts.append(1) or attempt(*a))
    white = np.full((64, 64, 3), 255, np.uint8)
    synthesise = make("nsa", dataset="btad", category="01", retries=2)
    image, mask, kind, changed = synthesise(white, white, np.random.default_rng(0))
    assert (changed, kind, len(attempts)) == (False, "nsa", 3)
    assert not mask.any()
    np.testing.assert_array_equal(image, white)


def test_label_is_where_the_image_changed():
    target, source = noise(0, (96, 96), 0, 90), noise(1, (96, 96), 160)
    for seed in range(10):
        result = make("nsa", blend="paste")(target, source, np.random.default_rng(seed))
        changed = np.any(result.image != target, axis=-1)
        assert result.changed
        assert changed.any()
        # The 5 x 5 median rounds corners: 3 pixels at each of 4 corners of 4 patches, and
        # where patches meet.
        assert np.sum((result.mask > 0) != changed) <= 60


@pytest.mark.parametrize("blend", ["normal", "mixed", "by_class", "either", "interpolate"])
def test_every_blend_changes_what_it_labels(blend):
    target, source = noise(0), noise(1)
    result = make("nsa", blend=blend)(target, source, np.random.default_rng(3))
    levels = np.abs(result.image.astype(float) - target).mean(axis=-1)
    changed = levels > 1  # grey levels, the tolerance
    assert result.changed
    assert changed.sum() > 50
    # Where the label ends, a median over 5 x 5 pixels has the last word.
    assert not changed[~ndimage.binary_dilation(result.mask > 0, iterations=4)].any()
    assert changed[result.mask > 0].mean() > 0.8


def test_by_class_is_mixed_for_textures_and_normal_for_objects():
    pair = noise(0), noise(1)

    def run(**options):
        return make("nsa", **options)(*pair, np.random.default_rng(5)).image

    texture, thing = run(blend="by_class"), run(blend="by_class", texture=False)
    np.testing.assert_array_equal(texture, run(blend="mixed"))
    np.testing.assert_array_equal(thing, run(blend="normal"))
    assert np.any(texture != thing)


def test_without_shift_and_resize_a_pasted_patch_stays_where_it_was():
    target, source = noise(0), noise(1)
    synthesise = make("nsa", blend="paste", shift=False, resize=False)
    image = synthesise(target, source, np.random.default_rng(0)).image
    changed = np.any(image != target, axis=-1)
    np.testing.assert_array_equal(image[changed], source[changed])


class TestLabels:
    before = np.full((40, 40, 3), 100, np.uint8)
    inside = np.zeros((40, 40), np.uint8)
    inside[10:30, 5:30] = 1

    def change(self, levels, factor=1.0):
        after = self.before + np.uint8(levels) * self.inside[..., None]
        return Change(self.before, after, np.ones_like(self.inside), factor)

    @pytest.mark.parametrize(
        ("mode", "value"),
        [
            ("binary", 1),
            ("intensity", 10 / 255),
            ("logistic-intensity", 1 / (1 + np.exp(-(10 - 7) / 3))),
            ("continuous", 0.3),
        ],
    )
    def test_values(self, mode, value):
        change = self.change(10, 0.3)
        mask = labels.binary(change, 1, 1.0)
        label = labels.label(mode, change, mask, (1 / 3, 7), 1.0)
        assert label.dtype == np.float32
        assert label[20, 15] == pytest.approx(value, rel=1e-6)
        assert label[0, 0] == label[9, 15] == 0

    def test_tolerance(self):
        assert not labels.binary(self.change(1), 1, 1.0).any()
        assert labels.binary(self.change(2), 1, 1.0)[10:30, 5:30].mean() > 0.95

    def test_area_limits_the_label(self):
        change = self.change(10)._replace(area=np.eye(40, dtype=np.uint8) * 0)
        assert not labels.binary(change, 1, 1.0).any()

    def test_cropped_median_is_that_of_the_whole_image(self):
        mask = np.zeros((50, 60), np.uint8)
        mask[0:20, 35:60] = 1
        values = np.random.default_rng(0).random((50, 60)).astype(np.float32) * mask
        grid = np.arange(-5, 6)
        whole = ndimage.median_filter(values, footprint=grid[:, None] ** 2 + grid**2 <= 25)
        np.testing.assert_array_equal(labels._smooth(values, mask, 5), whole)

    def test_filter_sizes_are_odd(self):
        assert [labels.odd(5, s) for s in (0.1, 0.5, 1, 1.75, 2)] == [1, 3, 5, 9, 9]
