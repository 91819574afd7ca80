"""What holds for every kind: reproducible, robust to small images, clear about wrong input."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from flowad_jax import lookup, synthesis
from flowad_jax.errors import UserError
from flowad_jax.synthesis import KINDS, draw_source, make
from tests.synthesis.images import noise

FAMILIES = ("cutpaste", "mixture", "nsa")


def test_families_are_found_by_name():
    assert tuple(lookup.choices("flowad_jax.synthesis")) == FAMILIES
    assert all(hasattr(synthesis, name) for name in synthesis.__all__)


@pytest.mark.parametrize("name", FAMILIES)
def test_same_generator_same_result_in_any_order_and_thread(name):
    images = [noise(seed, (48, 40)) for seed in range(3)]
    synthesise = make(name)

    def record(index):
        rng = np.random.default_rng([11, index])
        source = draw_source(index % 3, 3, rng)
        return synthesise(images[index % 3], images[source], rng)

    alone = [record(index) for index in range(24)]
    with ThreadPoolExecutor(4) as pool:
        together = list(pool.map(record, reversed(range(24))))[::-1]
    for one, other in zip(alone, together, strict=True):
        np.testing.assert_array_equal(one.image, other.image)
        np.testing.assert_array_equal(one.mask, other.mask)
        assert one[2:] == other[2:]
    different = {result.image.tobytes() for result in alone if result.changed}
    assert len(different) == sum(result.changed for result in alone) > 12


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (7, 7), (5, 40), (16, 16), (33, 64)])
def test_images_of_any_size(name, shape):
    synthesise, target, source = make(name), noise(0, shape), noise(1, (20, 30))
    before = target.copy()
    for seed in range(6):
        image, mask, kind, changed = synthesise(target, source, np.random.default_rng(seed))
        assert (image.shape, image.dtype) == (target.shape, np.uint8)
        assert (mask.shape, mask.dtype) == (shape, np.float32)
        assert 0 <= mask.min() <= mask.max() <= 1
        assert changed == bool(mask.any()) == bool(np.any(image != target))
        assert kind
        assert not np.shares_memory(image, target)
    np.testing.assert_array_equal(target, before)


@pytest.mark.parametrize("name", KINDS)
def test_alike_flat_images_are_reported_as_unchanged(name):
    black = np.zeros((32, 32, 3), np.uint8)
    result = make(name)(black, black, np.random.default_rng(0))
    assert not result.changed
    assert not result.mask.any()


def test_source_is_any_other_record():
    rng = np.random.default_rng(0)
    drawn = np.bincount([draw_source(1, 4, rng) for _ in range(600)], minlength=4)
    assert drawn[1] == 0
    assert all(abs(number - 200) < 40 for number in drawn[[0, 2, 3]])
    assert {draw_source(0, 2, rng) for _ in range(9)} == {1}
    assert draw_source(0, 1, rng) == 0
    with pytest.raises(UserError, match="not in a set of 3"):
        draw_source(3, 3, rng)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((9, 9, 3), np.float32), "target image is float32.*uint8"),
        (np.zeros((9, 9), np.uint8), r"shape \(9, 9\).*repeat grey"),
        (np.zeros((9, 9, 4), np.uint8), "drop alpha"),
        (np.zeros((0, 9, 3), np.uint8), r"shape \(0, 9, 3\)"),
        ([[1, 2], [3, 4]], "target image is list"),
    ],
)
def test_wrong_images(name, image, words):
    with pytest.raises(UserError, match=words):
        make(name)(image, noise(0), np.random.default_rng(0))


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("nsaa", {}, "did you mean 'nsa'"),
        ("mixture.star", {}, "did you mean 'mixture.scar'"),
        ("nsa", {"blnd": "mixed"}, "did you mean 'blend'"),
        ("nsa", {"blend": "mix"}, "did you mean 'mixed'"),
        ("nsa", {"label": "soft"}, "choices are binary"),
        ("nsa", {"retries": -1}, "synthesis.retries=-1: must be 0 or more"),
        ("nsa", {"retries": None}, "must be a whole number"),
        ("nsa", {"resize": 1}, "synthesis.resize=1: must be true or false"),
        ("nsa", {"gamma": (1, 2)}, "must be a list of 3 or more"),
        ("nsa", {"rows": (0.4, 0.1)}, "give the smaller number first"),
        ("nsa", {"gamma": (2, -1, 0)}, "synthesis.gamma.1=-1: must be 0 or more"),
        ("nsa", {"min_object": 70}, "min_object=70: must be 1 or less"),
        ("nsa", {"max_patches": 0}, "max_patches=0: must be 1 or more"),
        ("nsa", {"background": (200, 60)}, "background.0=200: must be a list"),
        (
            "nsa",
            {"dataset": "mvtec", "category": "nut"},
            "synthesis.category='nut': choices",
        ),
        ("cutpaste", {"kinds": ("patches",)}, "did you mean 'patch'"),
        ("cutpaste", {"kinds": ()}, "must be a list of 1 or more"),
        ("cutpaste", {"kinds": "patch"}, "must be a list"),
        ("cutpaste", {"area": (0.2, 3)}, "area.1=3: must be 1 or less"),
        ("mixture", {"jitter": 0.6}, "must be 0.5 or less"),
        ("mixture", {"jitter": "strong"}, "must be a finite number"),
        ("mixture", {"jitter_per_sample": "yes"}, "must be true or false"),
    ],
)
def test_wrong_options(name, options, words):
    with pytest.raises(UserError, match=words):
        make(name, **options)


def test_options_as_a_config_gives_them():
    synthesise = make("nsa", gamma=None, factors=[0.7, 1.3], background=[[200, 60]], tolerance=0)
    assert synthesise(noise(0), noise(1), np.random.default_rng(0)).kind == "nsa"
