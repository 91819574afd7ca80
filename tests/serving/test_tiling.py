"""Tiles cover an image, and what is stitched from them shows no seams."""

import tracemalloc

import jax
import numpy as np
import pytest

from flowad_jax.encoders.load import load
from flowad_jax.errors import UserError
from flowad_jax.methods import cflow
from flowad_jax.serving import tiling

SIZES = ((1000, 1537), (256, 256), (100, 40), (257, 256), (1, 700), (300, 5000))


@pytest.fixture(scope="module")
def likelihoods():
    """Log-likelihood maps of images (B, H, W, 3), at strides 4 and 8, without a position code."""
    encoder = load("efficientnet_lite.efficientnet_lite_tiny", weights="random", taps=(1, 2))
    method = cflow.build(condition=0, blocks=1)
    fast = {"xla_backend_optimization_level": 0}
    shapes = jax.eval_shape(encoder.apply, encoder.variables, np.zeros((1, 64, 64, 3), np.float32))
    maps = [np.zeros(x.shape, np.float32) for x in shapes]
    variables = jax.jit(method.init, compiler_options=fast)(jax.random.key(0), maps)

    @jax.jit
    def forward(encoder_variables, variables, image):
        return method.log_probs(variables, encoder.apply(encoder_variables, image))

    def run(images):
        pixels = np.asarray(images, np.float32) / 128 - 1
        return [np.asarray(x) for x in forward(encoder.variables, variables, pixels)]

    return run


def stitched(likelihoods, image, tiles):
    """Maps of an image by way of its tiles."""
    stitcher = tiling.Stitcher(tiles)
    for index, piece in enumerate(tiling.cut(image, tiles)):
        stitcher.add(index, [scale[0] for scale in likelihoods(piece[None])])
    return stitcher.result()


def at_once(likelihoods, image):
    """Maps of an image (H, W, 3) that is passed whole, padded to multiples of 8."""
    padding = [(0, -side % 8) for side in image.shape[:2]]
    return [scale[0] for scale in likelihoods(np.pad(image, (*padding, (0, 0)), "reflect")[None])]


def texture(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def stitch(tiles, strides, maps_at):
    """Stitches tiles whose maps ``maps_at(index, rows, columns)`` makes of positions' middles."""
    stitcher = tiling.Stitcher(tiles)
    corners = [(top, left) for top in tiles.rows for left in tiles.columns]
    for index, (top, left) in enumerate(corners):
        middles = [(np.arange(tiles.tile // stride) + 0.5) * stride for stride in strides]
        maps = [maps_at(index, (top + x)[:, None], (left + x)[None]) for x in middles]
        stitcher.add(index, maps)
    return stitcher.result()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 64, 224])
def test_tiles_cover_the_image_and_overlap(size, overlap):
    tiles = tiling.plan(size, 256, overlap, 32)
    for side, padded, offsets in zip(size, tiles.padded, (tiles.rows, tiles.columns), strict=True):
        assert side <= padded < max(side + 32, 257)
        assert offsets[0] == 0
        assert offsets[-1] == padded - 256
        assert not np.any(np.array(offsets) % 32)
        assert np.all(np.diff(offsets) > 0)
        assert np.all(256 - np.diff(offsets) >= overlap)


def test_no_tile_more_than_needed():
    assert tiling.plan((256, 448), 256, 64, 32).columns == (0, 192)
    assert tiling.plan((256, 449), 256, 64, 32).columns == (0, 96, 224)
    assert len(tiling.plan((256, 256), 256, 64, 32)) == 1


@pytest.mark.parametrize("size", [(40, 100), (1, 9), (64, 64), (2, 2)])
def test_beyond_its_borders_an_image_is_reflected(size):
    image = texture(size)
    tiles = tiling.plan(size, 32, 8, 8)
    below, right = np.subtract(tiles.padded, size)
    padded = np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")
    corners = [(top, left) for top in tiles.rows for left in tiles.columns]
    pieces = list(tiling.cut(image, tiles))
    assert len(pieces) == len(corners) == len(tiles)
    for piece, (top, left) in zip(pieces, corners, strict=True):
        np.testing.assert_array_equal(piece, padded[top : top + 32, left : left + 32])


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 64, 160])
def test_tiles_that_agree_are_stitched_without_a_trace(size, overlap):
    def field(index, rows, columns):
        return np.sin(rows / 70) + np.cos(columns / 90)

    tiles = tiling.plan(size, 256, overlap, 32)
    maps, stands_for = stitch(tiles, (8, 16, 32), field)
    assert stands_for == tiles.padded
    for stride, values in zip((8, 16, 32), maps, strict=True):
        assert values.dtype == np.float64
        assert values.shape == tuple(side // stride for side in stands_for)
        rows, columns = ((np.arange(n) + 0.5) * stride for n in values.shape)
        # Rounding only: the weights of a position sum to 1.
        np.testing.assert_allclose(values, field(0, rows[:, None], columns[None]), atol=1e-12)


def test_tiles_that_differ_pass_into_each_other():
    tiles = tiling.plan((256, 448), 256, 64, 32)
    (values,), _ = stitch(tiles, (8,), lambda index, rows, columns: index + 0 * rows * columns)
    profile = values[0]
    assert np.ptp(values, axis=0).max() < 1e-12
    assert np.all(profile[:24] == 0)
    assert np.all(profile[32:] == 1)
    jumps = np.diff(profile)
    # A squared sine over 8 positions is steepest in its middle: pi / 16 per position.
    assert 0 < jumps[24:30].min() < jumps.max() <= np.pi / 16
    assert profile[24] < 0.01


def test_tiles_do_not_fade_towards_borders_of_the_image():
    tiles = tiling.plan((64, 72), 64, 56, 8)
    (values,), _ = stitch(tiles, (8,), lambda index, rows, columns: index + 0 * rows * columns)
    # Next to the border, the tile that ends there against one that begins or ends 8 pixels off.
    assert values[0, 0] == 0
    assert 0 < values[0, 1] < 0.02
    assert 0.98 < values[0, -2] < 1
    assert values[0, -1] == 1


def test_stitched_maps_equal_those_of_the_whole_image(likelihoods):
    image, radius = texture((100, 157)), 14  # of the receptive field: 27 pixels at stride 8
    tiles = tiling.plan(image.shape[:2], 64, 40, 8)
    maps, stands_for = stitched(likelihoods, image, tiles)
    for values, expected in zip(maps, at_once(likelihoods, image), strict=True):
        assert values.shape == expected.shape
        stride = stands_for[0] // len(values)
        inside = np.outer(
            inner_tiles(tiles.rows, len(values), stride, radius),
            inner_tiles(tiles.columns, values.shape[1], stride, radius),
        )
        assert inside.max() > 1, "blended positions have to be among them"
        difference = np.abs(values - expected)
        # float32, computed for another shape.
        assert difference[inside > 0].max() < 1e-4
        assert difference[inside == 0].max() > 1e-2, "borders do matter"


def inner_tiles(offsets, count, stride, radius):
    """How many tiles have each position, if it is far from all their borders; else 0."""
    middles = (np.arange(count) + 0.5) * stride
    depth = np.array([np.minimum(middles - offset, offset + 64 - middles) for offset in offsets])
    near = np.any((depth > 0) & (depth < radius), axis=0)
    return np.where(near, 0, np.sum(depth > 0, axis=0))


def test_overlap_hides_the_seams(likelihoods):
    image = texture((100, 157))
    expected = at_once(likelihoods, image)

    def error(overlap):
        maps, _ = stitched(likelihoods, image, tiling.plan(image.shape[:2], 64, overlap, 8))
        return [np.sqrt(np.mean((x - y) ** 2)) for x, y in zip(maps, expected, strict=True)]

    # 32 pixels hold the receptive fields (11 at stride 4, 27 at stride 8), 16 the first alone.
    hard, narrow, wide = error(0), error(16), error(32)
    assert narrow[0] < 0.4 * hard[0]
    assert wide[0] < 0.2 * hard[0]
    assert wide[1] < 0.5 * hard[1]


def test_an_image_of_one_tile_is_scored_as_ever(likelihoods):
    image = texture((64, 64))
    maps, stands_for = stitched(likelihoods, image, tiling.plan((64, 64), 64, 16, 8))
    assert stands_for == (64, 64)
    for values, expected in zip(maps, likelihoods(image[None]), strict=True):
        np.testing.assert_array_equal(values, expected[0].astype(np.float64))


def test_memory_is_that_of_the_result():
    size, sides = (4000, 6000), (32, 16, 8)
    image = np.broadcast_to(np.uint8(7), (*size, 3))
    tiles = tiling.plan(size, 256, 64, 32)
    tracemalloc.start()
    try:
        stitcher = tiling.Stitcher(tiles)
        for index, piece in enumerate(tiling.cut(image, tiles)):
            stitcher.add(index, [piece[:side, :side, 0].astype(np.float32) for side in sides])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    maps, _ = stitcher.result()
    piece = 256 * 256 * 3
    assert peak < sum(x.nbytes for x in maps) + 4 * piece
    assert all(np.abs(x - 7).max() < 1e-9 for x in maps)


def test_tiles_are_added_once_and_all():
    stitcher = tiling.Stitcher(tiling.plan((64, 128), 64, 0, 8))
    stitcher.add(0, [np.ones((8, 8))])
    with pytest.raises(ValueError, match="tile 0 of 2"):
        stitcher.add(0, [np.ones((8, 8))])
    with pytest.raises(ValueError, match="1 of 2 tiles"):
        stitcher.result()


def test_maps_have_to_be_those_that_the_plan_was_made_for():
    stitcher = tiling.Stitcher(tiling.plan((64, 128), 64, 0, 8))
    with pytest.raises(ValueError, match="8 pixels apart, positions of a map 16"):
        stitcher.add(0, [np.ones((8, 8)), np.ones((4, 4))])


def test_step_is_that_of_the_coarsest_map():
    assert tiling.coarsest_stride(256, (32, 16, 8)) == 32
    assert tiling.coarsest_stride(448, (28, 448)) == 16
    assert tiling.default_overlap(256, 32) == 64
    assert tiling.default_overlap(192, 32) == 64
    assert tiling.default_overlap(32, 32) == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: tiling.coarsest_stride(40, (5, 2, 1, 3)), r"image_size=40.*3 x 3"),
        (lambda: tiling.coarsest_stride(48, (16, 8, 12)), r"image_size=48.*12 x 12"),
        (lambda: tiling.plan((99, 99), 40, 0, 32), r"image_size=40.*multiple of 32"),
        (lambda: tiling.plan((99, 99), 64, 64, 32), r"overlap=64: must be from 0 to 32"),
        (lambda: tiling.plan((99, 99), 64, -1, 32), r"overlap=-1"),
    ],
)
def test_what_cannot_be_tiled_is_said_in_one_line(call, message):
    with pytest.raises(UserError, match=message) as fault:
        call()
    assert "\n" not in str(fault.value)


def test_p_value_of_an_image_counts_its_tiles():
    assert tiling.family_wise([0.02, 0.5, 0.9]) == pytest.approx(0.06)
    assert tiling.family_wise([0.4, 0.5, 0.9]) == 1.0
    assert tiling.family_wise(np.array([0.3])) == 0.3


@pytest.mark.parametrize(
    ("tiles", "images", "rate"), [(3, 9, 0.3), (6, 9, 0.6), (7, 9, 0.7), (1, 6, 1 / 7)]
)
def test_as_many_tiles_as_the_rate_allows_can_be_decided(tiles, images, rate):
    card = {"images": images, "promised": rate}
    assert tiling.family_wise([1 / (images + 1)] * tiles) == rate  # 3 x 0.1 exceeds 0.3
    assert tiling.indecision(tiles, card) is None
    assert f"{tiles + 1} tiles" in tiling.indecision(tiles + 1, card)


def test_family_wise_rate_holds_for_tiles_that_resemble_each_other():
    rng = np.random.default_rng(0)
    shared, own = rng.uniform(size=(4000, 1)), rng.uniform(size=(4000, 12))
    p_values = np.where(rng.uniform(size=own.shape) < 0.5, shared, own)
    alarms = np.mean([tiling.family_wise(image) <= 0.1 for image in p_values])
    assert 0.02 < alarms <= 0.1
