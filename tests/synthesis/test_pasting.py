"""CutPaste and SANFlow's mixture: shares, sizes, and statistics of the masks."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from flowad_jax.synthesis import cutpaste, make, mixture
from flowad_jax.synthesis.mixture import soft_mask
from flowad_jax.synthesis.paste import _turn_hue, colour_jitter, paste, rotate
from tests.synthesis.images import noise

PASTED = ("cutpaste.patch", "cutpaste.scar", "mixture.rectangle", "mixture.circle", "mixture.scar")


def rng(seed):
    return np.random.default_rng(seed)


@pytest.mark.parametrize(("name", "kinds"), [("mixture", 4), ("cutpaste", 2)])
def test_kinds_are_equally_likely(name, kinds):
    synthesise, target, source = make(name), noise(0, (8, 8)), noise(1, (8, 8))
    count = Counter(synthesise(target, source, rng(seed)).kind for seed in range(400))
    assert len(count) == kinds
    for number in count.values():
        assert number / 400 == pytest.approx(1 / kinds, abs=0.075)  # 3 standard errors


@pytest.mark.parametrize(
    ("kind", "share", "mean"), [("circle", 0.046, 0.030), ("rectangle", 0.109, 0.073)]
)
def test_masks_have_the_statistics_of_the_published_generators(kind, share, mean):
    masks = np.stack([soft_mask(kind, (256, 256), rng([7, seed])) for seed in range(300)])
    # Three standard errors of 300 draws: 0.0015 for circles and 0.0075 for rectangles.
    assert (masks > 0).mean() == pytest.approx(share, abs=0.0015 if kind == "circle" else 0.0075)
    assert masks.mean() == pytest.approx(mean, abs=0.0012 if kind == "circle" else 0.006)
    assert masks.max() == 1
    lowest, highest = (0.029, 0.066) if kind == "circle" else (0.028, 0.235)
    assert lowest < (masks > 0).mean(axis=(1, 2)).min()
    assert (masks > 0).mean(axis=(1, 2)).max() < highest


@pytest.mark.parametrize("name", PASTED)
def test_outside_of_the_mask_nothing_changes_and_inside_it_all_does(name):
    target, source = noise(0, (128, 96), 0, 80), noise(1, (128, 96), 180)
    options = {"same_image": False} if name.startswith("cutpaste") else {}
    for seed in range(5):
        result = make(name, **options)(target, source, rng(seed))
        changed = np.any(result.image != target, axis=-1)
        assert result.changed
        assert not changed[result.mask == 0].any()
        # A share of 5 % of a source that is brighter by 100 shows; a scar is of the image itself.
        assert changed[result.mask > 0.05].mean() > (0.9 if name == "mixture.scar" else 0.999)


def test_blend_is_the_convex_combination():
    target, source = np.full((64, 64, 3), 40, np.uint8), np.full((64, 64, 3), 200, np.uint8)
    result = make("mixture.circle", jitter=0.0)(target, source, rng(0))
    np.testing.assert_array_equal(result.image[..., 0], np.rint(40 + 160 * result.mask))


def test_scars_of_the_mixture_have_the_published_sizes(monkeypatch):
    sizes = []
    cut = mixture.cut
    monkeypatch.setattr(
        mixture, "cut", lambda image, size, g: sizes.append(size) or cut(image, size, g)
    )
    image = noise(0, (256, 256))
    for seed in range(300):
        make("mixture.scar")(image, image, rng(seed))
    heights, widths = np.transpose(sizes)
    assert (heights.min(), heights.max()) == (2, 16)
    assert (widths.min(), widths.max()) == (4, 32)


def test_patches_of_cutpaste_have_the_published_area_and_aspect():
    image, tall = noise(0, (200, 200)), 0
    for seed in range(100):
        mask = make("cutpaste.patch")(image, image, rng(seed)).mask
        height, width = mask.any(axis=1).sum(), mask.any(axis=0).sum()
        assert mask.sum() == height * width
        assert 0.019 < mask.mean() < 0.153  # of 0.02 to 0.15, and rounding to whole pixels
        assert 0.28 < width / height < 3.5  # of 0.3 to 3.3
        tall += height > width
    assert 35 < tall < 65


def test_scars_of_cutpaste_grow_with_the_image():
    def mean(side):
        image = noise(0, (side, side))
        return np.mean([make("cutpaste.scar")(image, image, rng(s)).mask.sum() for s in range(60)])

    assert mean(256) == pytest.approx(17.5 * 9, rel=0.2)  # mean length times mean width
    assert mean(512) == pytest.approx(4 * mean(256), rel=0.1)


def test_cutpaste_takes_the_patch_from_the_image_itself():
    target, source = noise(0, (64, 64), 0, 80), noise(1, (64, 64), 180)
    plain = cutpaste.build(kinds=("patch",), jitter=0.0)(target, source, rng(0))
    foreign = cutpaste.build(kinds=("patch",), jitter=0.0, same_image=False)
    assert plain.image.max() < 80
    assert foreign(target, source, rng(0)).image.max() >= 180


def test_jitter_stays_within_its_strength_and_keeps_shapes():
    pixels = np.full((5, 7, 3), (120, 100, 80), np.uint8)
    means = [colour_jitter(pixels, 0.1, rng(seed)).mean() for seed in range(100)]
    assert np.ptp(means) > 5
    assert min(means) > 85
    assert max(means) < 116
    np.testing.assert_array_equal(colour_jitter(pixels, 0.0, rng(0)), pixels)


def test_hue_turns_grey_not_at_all_and_red_a_lot():
    grey, red = np.full((4, 4, 3), 128, np.uint8), np.full((4, 4, 3), (200, 0, 0), np.uint8)
    turned = [colour_jitter(red, 0.5, rng(seed)) for seed in range(20)]
    assert max(int(pixels[..., 1:].max()) for pixels in turned) > 100
    for seed in range(20):
        assert np.ptp(colour_jitter(grey, 0.5, rng(seed)), axis=-1).max() == 0


@pytest.mark.parametrize(
    ("turn", "steps"), [(0.9, 0), (1.9, 1), (-0.9, 0), (-1.9, -1), (100.7, 100), (-127.5, -127)]
)
def test_hue_is_cut_off_towards_zero_as_in_torchvision(turn, steps):
    image = Image.fromarray(noise(3, (16, 16)))
    hsv = np.array(image.convert("HSV"))
    hsv[..., 0] = (hsv[..., 0].astype(int) + steps) % 256
    expected = Image.fromarray(hsv, "HSV").convert("RGB")
    np.testing.assert_array_equal(np.asarray(_turn_hue(image, turn / 255)), np.asarray(expected))


def test_rotation_keeps_the_area_and_pasting_cuts_what_does_not_fit():
    patch = noise(0, (20, 8), 1)
    pixels, inside = rotate(patch, 30.0)
    assert inside.sum() == pytest.approx(160, rel=0.1)
    image, mask = paste(np.zeros((15, 15, 3), np.uint8), pixels, inside, 5, 5)
    np.testing.assert_array_equal(mask > 0, image.any(axis=-1))
    assert 0 < mask.sum() < inside.sum()
