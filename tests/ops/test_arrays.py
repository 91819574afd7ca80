import tracemalloc

import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.ops import arrays


@pytest.mark.parametrize(("size", "target"), [((3, 4), (7, 9)), ((2, 5), (4, 5)), ((4, 4), (2, 3))])
def test_resize_keeps_corners_and_ramps(size, target):
    """A bilinear ramp is resized without error, and corners stay where they are."""
    rows, columns = np.meshgrid(*(np.linspace(0, 1, n) for n in size), indexing="ij")
    wide_rows, wide_columns = np.meshgrid(*(np.linspace(0, 1, n) for n in target), indexing="ij")
    resized = arrays.resize_align_corners((2 * rows + 3 * columns)[None], target)[0]
    np.testing.assert_allclose(resized, 2 * wide_rows + 3 * wide_columns, atol=1e-12)


@pytest.mark.parametrize(
    ("values", "target", "expected"),
    [
        ([1, 5], 4, [1, 2, 4, 5]),  # the middles of the samples are at 1/4 and 3/4
        ([0, 3, 9], 6, [0, 0.75, 2.25, 4.5, 7.5, 9]),
        ([0, 1, 2, 3], 2, [0.5, 2.5]),
        ([0, 1, 2, 3, 4, 5, 6, 7], 2, [1.5, 5.5]),  # two neighbours, not the mean of four
        ([0, 1, 2], 2, [0.25, 1.75]),
        ([7], 3, [7, 7, 7]),
        ([2, 4, 8], 3, [2, 4, 8]),
    ],
)
def test_half_pixel_resize_lets_edges_coincide(values, target, expected):
    row = np.array([[values]], np.float64)
    np.testing.assert_allclose(arrays.resize_half_pixel(row, (1, target)), [[expected]], atol=1e-12)
    column = np.swapaxes(row, 1, 2)
    resized = arrays.resize_half_pixel(column, (target, 1))
    np.testing.assert_allclose(np.swapaxes(resized, 1, 2), [[expected]], atol=1e-12)


@pytest.mark.parametrize("target", [(16, 11), (5, 14), (3, 2), (1, 1)])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("resize", [arrays.resize_align_corners, arrays.resize_half_pixel])
def test_large_maps_are_resized_alike(monkeypatch, resize, count, target):
    maps = np.random.default_rng(0).normal(size=(count, 5, 7))
    expected = resize(maps, target)
    monkeypatch.setattr(arrays, "_DENSE", 0)
    np.testing.assert_allclose(resize(maps, target), expected, rtol=0, atol=1e-14)
    assert resize(maps.astype(np.float32), target).dtype == np.float32


@pytest.mark.parametrize("resize", [arrays.resize_align_corners, arrays.resize_half_pixel])
def test_a_long_map_needs_no_more_memory_than_it_has(resize):
    """A matrix for 40000 rows would take 1.6 GB, and with the square of the length more."""
    ramp = np.repeat(np.arange(5000.0)[None, :, None], 2, axis=2)
    tracemalloc.start()
    wide = resize(ramp, (40_000, 4))[0]
    assert tracemalloc.get_traced_memory()[1] < 2e7
    tracemalloc.stop()
    assert wide.shape == (40_000, 4)
    assert (np.diff(wide, axis=0) >= 0).all()
    assert (wide[0, 0], wide[-1, 0]) == (0, 4999)


@pytest.mark.live
@pytest.mark.parametrize("target", [(16, 11), (5, 14), (3, 2)])
@pytest.mark.parametrize("resize", [arrays.resize_align_corners, arrays.resize_half_pixel])
def test_resize_agrees_with_torch(resize, target):
    torch = pytest.importorskip("torch")
    maps = np.random.default_rng(0).normal(size=(2, 5, 7))
    expected = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[:, None],
        size=target,
        mode="bilinear",
        align_corners=resize is arrays.resize_align_corners,
    )[:, 0]
    np.testing.assert_allclose(resize(maps, target), expected, atol=1e-12)


@pytest.mark.parametrize("size", [(4, 6), (5, 7), (2, 3)])
def test_adaptive_pooling_averages_overlapping_windows(size):
    """Window i runs from floor(i n / m) to ceil((i + 1) n / m); here m = (2, 3)."""
    x = np.random.default_rng(0).normal(size=(2, *size, 3)).astype(np.float32)
    rows = {4: [(0, 2), (2, 4)], 5: [(0, 3), (2, 5)], 2: [(0, 1), (1, 2)]}[size[0]]
    columns = {
        6: [(0, 2), (2, 4), (4, 6)],
        7: [(0, 3), (2, 5), (4, 7)],
        3: [(0, 1), (1, 2), (2, 3)],
    }
    pooled = arrays.adaptive_average_pool(jnp.asarray(x), (2, 3))
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns[size[1]]):
            expected = x[:, top:bottom, left:right].mean((1, 2))
            np.testing.assert_allclose(pooled[:, i, j], expected, atol=1e-6)


def test_upsampling_maps_is_the_resize_of_scores():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32)
    expected = arrays.resize_align_corners(np.moveaxis(x, -1, 1).reshape(10, 3, 4), (7, 9))
    expected = np.moveaxis(expected.reshape(2, 5, 7, 9), 1, -1)
    np.testing.assert_allclose(arrays.upsample(jnp.asarray(x), (7, 9)), expected, atol=1e-5)


def test_softplus_turns_into_the_identity():
    x = jnp.array([-3.0, 0.0, 39.0, 41.0, 100.0])
    exact = np.log1p(np.exp(np.array([-1.5, 0.0, 19.5]))) * 2
    np.testing.assert_allclose(arrays.softplus(x, beta=0.5)[:3], exact, rtol=1e-6)
    np.testing.assert_array_equal(arrays.softplus(x, beta=0.5)[3:], [41.0, 100.0])


def test_fibres_are_image_major():
    rows = arrays.fibres(jnp.arange(24).reshape(2, 2, 3, 2))
    np.testing.assert_array_equal(rows, np.arange(24).reshape(12, 2))
