"""The clone is OpenCV's; where it lands is ours."""

import numpy as np
import pytest

from flowad_jax.synthesis import seamless_clone
from tests.golden import load
from tests.synthesis.images import noise


@pytest.mark.parametrize("mode", ["normal", "mixed"])
def test_golden(mode):
    golden = load("poisson_clone")
    mask = golden["mask"][..., 0] > 0
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    x, y = golden["center_xy"]
    top = y - len(rows) // 2 - rows[0]  # the clone centres the bounding box of the mask
    left = x - len(columns) // 2 - columns[0]
    ours = seamless_clone(
        golden["source"], golden["destination"], top, left, mask, mixed=mode == "mixed"
    )
    apart = np.abs(ours.astype(int) - golden[mode])
    assert np.any(golden[mode] != golden["destination"])
    assert apart.max() <= 1  # grey levels: OpenCV truncates what its Fourier transform rounds
    assert (apart == 0).mean() > 0.99


@pytest.mark.parametrize("width", [16, 17])
def test_only_the_interior_of_the_rectangle_changes(width):
    patch, target = noise(0, (12, width), 150), noise(1, (40, 50), 0, 90)
    changed = np.any(seamless_clone(patch, target, 5, 20) != target, axis=-1)
    assert not changed[:6].any()
    assert not changed[16:].any()
    inner = np.flatnonzero(changed.any(axis=0))
    # The frame is left out and the next ring is the fixed border of the equation.
    assert (inner[0], inner[-1]) == (22, 20 + width - 3)


@pytest.mark.parametrize("width", [16, 17])
def test_legacy_shift_moves_odd_widths_one_column_to_the_right(width):
    patch, target = noise(0, (12, width), 150), noise(1, (40, 50), 0, 90)
    legacy = seamless_clone(patch, target, 5, 20, legacy_shift=True)
    np.testing.assert_array_equal(legacy, seamless_clone(patch, target, 5, 20 + width % 2))


def test_mixed_keeps_the_stronger_texture():
    flat, target = np.full((24, 24, 3), 99, np.uint8), noise(1, (40, 40))
    wiped = seamless_clone(flat, target, 8, 8)[16:24, 16:24]
    kept = seamless_clone(flat, target, 8, 8, mixed=True)[16:24, 16:24]
    assert wiped.std() < 0.5 * kept.std()


@pytest.mark.parametrize("shape", [(1, 9), (2, 30), (4, 30), (30, 4), (3, 3)])
def test_too_small_patches_are_refused(shape):
    assert seamless_clone(noise(0, shape), noise(1), 3, 3) is None


def test_nothing_to_blend_is_refused():
    assert seamless_clone(noise(0, (9, 9)), noise(1), 3, 3, np.zeros((9, 9), bool)) is None
