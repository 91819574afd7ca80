"""U-Flow's number of false alarms: by its definition, on noise, and against PyTorch's resizing."""

import numpy as np
import pytest
from scipy import stats

from flowad_jax.evaluation import a_contrario


def direct(z, half, quantile):
    """The tail of one image by plain loops."""
    bound, (height, width, channels) = stats.chi2(1).ppf(quantile), z.shape
    padded = np.pad(z**2, ((half, half), (half, half), (0, 0)), mode="reflect")
    side, found = 2 * half + 1, np.zeros((height, width))
    for y, x in np.ndindex(height, width):
        count = np.sum(padded[y : y + side, x : x + side] > bound) / channels
        found[y, x] = stats.binom.logsf(count, side**2, 1 - quantile) / np.log(10)
    return found


@pytest.mark.parametrize(("half", "quantile"), [(1, 0.5), (3, 0.5), (2, 0.9)])
def test_the_tail_is_that_of_its_definition(half, quantile):
    z = np.random.default_rng(0).normal(size=(2, 9, 7, 5))
    z[0, 4, 3] *= 6
    found = a_contrario.log_tail(z, half, quantile)
    for one, image in zip(found, z, strict=True):
        np.testing.assert_allclose(one, direct(image, half, quantile), rtol=1e-9)


def test_noise_has_the_false_alarms_that_are_expected_and_a_defect_is_found():
    """One channel, so that its candidates are those of the model, away from mirrored borders."""
    rng = np.random.default_rng(0)
    z = rng.normal(size=(200, 16, 16, 1))
    found = a_contrario.detections(a_contrario.log_nfa([z], (16, 16)))
    per_position = found[:, 3:-3, 3:-3].mean()
    assert 0.6 < per_position * 16**2 < 1.6
    z[0, 5:9, 5:9] = 4.0
    found = a_contrario.log_nfa([z], (16, 16))
    assert a_contrario.detections(found)[0, 6, 6]
    strict = a_contrario.detections(found, expected=1e-6)
    assert strict.sum() < a_contrario.detections(found).sum()


def test_scales_have_windows_of_their_own_and_add_up():
    rng = np.random.default_rng(0)
    fine, coarse = rng.normal(size=(1, 8, 8, 3)), rng.normal(size=(1, 4, 4, 2))
    together = a_contrario.log_nfa([fine, coarse], (8, 8))
    up = a_contrario.cubic_matrix(4, 8)
    expected = a_contrario.log_tail(fine, 3, 0.5) + up @ a_contrario.log_tail(coarse, 1, 0.5) @ up.T
    np.testing.assert_allclose(together, expected + np.log10(64 + 16))


@pytest.mark.live
@pytest.mark.parametrize(("size", "target"), [(4, 9), (5, 5), (7, 30)])
def test_resizing_is_pytorchs(size, target):
    torch = pytest.importorskip("torch")
    x = torch.from_numpy(np.random.default_rng(0).normal(size=(1, 1, size, size)))
    theirs = torch.nn.functional.interpolate(
        x, size=(target, target), mode="bicubic", align_corners=True
    )
    matrix = a_contrario.cubic_matrix(size, target)
    np.testing.assert_allclose(matrix @ x[0, 0].numpy() @ matrix.T, theirs[0, 0], atol=1e-9)
