"""Tiles cover an image, and what is stitched from them shows no seams."""

import itertools
import tracemalloc

import jax
import numpy as np
import pytest

from flowad_jax.encoders.load import load
from flowad_jax.errors import UserError
from flowad_jax.inference import tiling
from flowad_jax.methods import cflow
from flowad_jax.types import Batch

SIZES = ((1000, 1537), (256, 256), (100, 40), (257, 256), (1, 700), (300, 5000))
SCALES = (32, 16, 8)  # sides of the maps of a tile of 256


@pytest.fixture(scope="module")
def likelihoods():
    """Log-likelihood maps of images (B, H, W, 3), at strides 4 and 8, without a position code."""
    encoder = load("efficientnet_lite.efficientnet_lite_tiny", weights="random", taps=(1, 2))
    method = cflow.build(condition=0, blocks=1)
    shapes = jax.eval_shape(encoder.apply, encoder.variables, np.zeros((1, 64, 64, 3), np.float32))
    maps = [np.zeros(x.shape, np.float32) for x in shapes]
    variables = jax.jit(method.init)(jax.random.key(0), Batch(maps))

    @jax.jit
    def forward(encoder_variables, variables, image):
        return method.log_probs(variables, Batch(encoder.apply(encoder_variables, image)))

    def run(images):
        pixels = np.asarray(images, np.float32) / 128 - 1
        return [np.asarray(x) for x in forward(encoder.variables, variables, pixels)]

    return run


def plan(size, side, sides, overlap=None):
    """Square tiles and maps."""
    return tiling.plan(size, (side, side), [(count, count) for count in sides], overlap)


def texture(size, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)


def corners(tiles):
    return list(itertools.product(tiles.rows, tiles.columns))


def stitch(tiles, strides, maps_at):
    """Stitches tiles whose maps ``maps_at(index, rows, columns)`` makes of positions' middles."""

    def maps():
        for index, (top, left) in enumerate(corners(tiles)):
            middles = [(np.arange(tiles.tile[0] // stride) + 0.5) * stride for stride in strides]
            yield [maps_at(index, (top + x)[:, None], (left + x)[None]) for x in middles]

    return tiling.stitch(tiles, maps())


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("overlap", [0, 64, 160, 224])
def test_tiles_cover_the_image_and_agree_without_a_trace(size, overlap):
    tiles = plan(size, 256, SCALES, overlap)
    for side, padded, offsets in zip(size, tiles.padded, (tiles.rows, tiles.columns), strict=True):
        assert side <= padded < max(side + 32, 257)
        assert (offsets[0], offsets[-1]) == (0, padded - 256)
        assert not np.any(np.array(offsets) % 32)
        assert np.all(np.diff(offsets) > 0)
        assert np.all(256 - np.diff(offsets) >= overlap)

    def field(index, rows, columns):
        return np.sin(rows / 70) + np.cos(columns / 90)

    for stride, values in zip((8, 16, 32), stitch(tiles, (8, 16, 32), field), strict=True):
        assert values.dtype == np.float64
        assert values.shape == tuple(side // stride for side in tiles.padded)
        rows, columns = ((np.arange(n) + 0.5) * stride for n in values.shape)
        # Rounding only: the weights of a position sum to 1.
        np.testing.assert_allclose(values, field(0, rows[:, None], columns[None]), atol=1e-12)


def test_no_tile_more_than_needed():
    assert plan((256, 448), 256, SCALES, 64).columns == (0, 192)
    assert plan((256, 449), 256, SCALES, 64).columns == (0, 96, 224)
    assert len(plan((256, 256), 256, SCALES, 64)) == 1


@pytest.mark.parametrize("size", [(40, 100), (1, 9), (64, 64), (2, 2)])
def test_beyond_its_borders_an_image_is_reflected(size):
    image = texture(size)
    tiles = plan(size, 32, (8, 4), 8)
    below, right = np.subtract(tiles.padded, size)
    padded = np.pad(image, ((0, below), (0, right), (0, 0)), mode="reflect")
    pieces = list(tiling.cut(image, tiles))
    assert len(pieces) == len(tiles)
    for piece, (top, left) in zip(pieces, corners(tiles), strict=True):
        np.testing.assert_array_equal(piece, padded[top : top + 32, left : left + 32])


def test_tiles_that_differ_pass_into_each_other():
    tiles = plan((256, 448), 256, SCALES, 64)
    (values,) = stitch(tiles, (8,), lambda index, rows, columns: index + 0 * rows * columns)
    profile = values[0]
    assert np.ptp(values, axis=0).max() < 1e-12
    assert np.all(profile[:24] == 0)
    assert np.all(profile[32:] == 1)
    jumps = np.diff(profile)
    # A squared sine over 8 positions is steepest in its middle: pi / 16 per position.
    assert 0 < jumps[24:30].min() < jumps.max() <= np.pi / 16
    assert profile[24] < 0.01


def test_tiles_do_not_fade_towards_borders_of_the_image():
    tiles = plan((64, 72), 64, (8,), 56)
    (values,) = stitch(tiles, (8,), lambda index, rows, columns: index + 0 * rows * columns)
    # Next to the border, the tile that ends there against one that begins or ends 8 pixels off.
    assert values[0, 0] == 0
    assert 0 < values[0, 1] < 0.02
    assert 0.98 < values[0, -2] < 1
    assert values[0, -1] == 1


def test_stitched_maps_are_those_of_the_whole_image(likelihoods):
    """Far from the borders of tiles; near them an overlap hides the seams."""
    image, radius = texture((100, 157)), 14  # of the receptive field: 27 pixels at stride 8
    padding = [(0, -side % 8) for side in image.shape[:2]]
    whole = [x[0] for x in likelihoods(np.pad(image, (*padding, (0, 0)), "reflect")[None])]

    def stitched(overlap):
        tiles = plan(image.shape[:2], 64, (16, 8), overlap)
        pieces = tiling.cut(image, tiles)
        return tiles, tiling.stitch(tiles, ([x[0] for x in likelihoods(p[None])] for p in pieces))

    tiles, maps = stitched(40)
    for values, expected in zip(maps, whole, strict=True):
        assert values.shape == expected.shape
        stride = tiles.padded[0] // len(values)
        inside = np.outer(
            inner_tiles(tiles.rows, len(values), stride, radius),
            inner_tiles(tiles.columns, values.shape[1], stride, radius),
        )
        assert inside.max() > 1, "blended positions have to be among them"
        difference = np.abs(values - expected)
        # float32, computed for another shape.
        assert difference[inside > 0].max() < 1e-4
        assert difference[inside == 0].max() > 1e-2, "borders do matter"
    # 32 pixels hold the receptive fields (11 at stride 4, 27 at stride 8), 16 the first alone.
    hard, narrow, wide = (
        [np.sqrt(np.mean((x - y) ** 2)) for x, y in zip(stitched(overlap)[1], whole, strict=True)]
        for overlap in (0, 16, 32)
    )
    assert narrow[0] < 0.4 * hard[0]
    assert wide[0] < 0.2 * hard[0]
    assert wide[1] < 0.5 * hard[1]
    # An image of one tile is scored as ever.
    image = image[:64, :64]
    for values, expected in zip(stitched(16)[1], likelihoods(image[None]), strict=True):
        np.testing.assert_array_equal(values, expected[0].astype(np.float64))


def inner_tiles(offsets, count, stride, radius):
    """How many tiles have each position, if it is far from all their borders; else 0."""
    middles = (np.arange(count) + 0.5) * stride
    depth = np.array([np.minimum(middles - offset, offset + 64 - middles) for offset in offsets])
    near = np.any((depth > 0) & (depth < radius), axis=0)
    return np.where(near, 0, np.sum(depth > 0, axis=0))


def test_memory_is_that_of_the_result():
    image = np.broadcast_to(np.uint8(7), (2000, 3000, 3))
    tiles = plan(image.shape[:2], 256, SCALES, 64)
    tracemalloc.start()
    try:
        pieces = tiling.cut(image, tiles)
        maps = tiling.stitch(
            tiles, ([p[:s, :s, 0].astype(np.float32) for s in SCALES] for p in pieces)
        )
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < sum(x.nbytes for x in maps) + 4 * 256 * 256 * 3
    assert all(np.abs(x - 7).max() < 1e-9 for x in maps)


def test_step_is_that_of_the_coarsest_map():
    assert plan((300, 300), 256, SCALES).rows == (0, 64)
    assert plan((450, 450), 448, (28, 448)).rows == (0, 16)
    assert [plan((s, s), s, (s // 32,)).overlap[0] for s in (256, 192, 32)] == [64, 64, 0]
    for side, maps, message in (
        (40, (5, 2, 1, 3), r"image_size=40.*3 x 3"),
        (48, (16, 8, 12), r"image_size=48.*12 x 12"),
    ):
        with pytest.raises(UserError, match=message):
            plan((99, 99), side, maps)


def test_tiles_that_are_not_square_have_the_sides_of_their_axes():
    image = texture((100, 157))
    for turned in (False, True):
        given, size, shapes = image, (32, 48), [(8, 12), (4, 6)]
        if turned:
            given, size, shapes = image.swapaxes(0, 1), size[::-1], [x[::-1] for x in shapes]
        tiles = tiling.plan(given.shape[:2], size, shapes)
        pieces = list(tiling.cut(given, tiles))
        assert {piece.shape for piece in pieces} == {(*size, 3)}
        maps = ([p[:: size[0] // h, :: size[0] // h, 0] for h, _ in shapes] for p in pieces)
        found = tiling.stitch(tiles, maps)
        below, right = np.subtract(tiles.padded, given.shape[:2])
        whole = np.pad(given, ((0, below), (0, right), (0, 0)), "reflect")
        for values, step in zip(found, (4, 8), strict=True):
            np.testing.assert_allclose(values, whole[::step, ::step, 0], atol=1e-9)
    with pytest.raises(UserError, match=r"image_size=\[32, 40\].*4 x 6"):
        tiling.plan((99, 99), (32, 40), [(4, 6)])


def test_p_value_of_an_image_counts_its_tiles():
    assert tiling.family_wise([0.02, 0.5, 0.9]) == pytest.approx(0.06)
    assert tiling.family_wise([0.4, 0.5, 0.9]) == 1.0
    assert tiling.family_wise(np.array([0.3])) == 0.3


@pytest.mark.parametrize(
    ("tiles", "images", "rate"), [(3, 9, 0.3), (6, 9, 0.6), (7, 9, 0.7), (1, 6, 1 / 7)]
)
def test_as_many_tiles_as_the_rate_allows_can_be_decided(tiles, images, rate):
    card = {"images": images, "level": rate}
    assert tiling.family_wise([1 / (images + 1)] * tiles) == rate  # 3 x 0.1 exceeds 0.3
    assert tiling.indecision(tiles, card) is None
    assert f"{tiles + 1} tiles" in tiling.indecision(tiles + 1, card)


def test_family_wise_rate_holds_for_tiles_that_resemble_each_other():
    rng = np.random.default_rng(0)
    shared, own = rng.uniform(size=(2000, 1)), rng.uniform(size=(2000, 12))
    p_values = np.where(rng.uniform(size=own.shape) < 0.5, shared, own)
    alarms = np.mean([tiling.family_wise(image) <= 0.1 for image in p_values])
    assert 0.02 < alarms <= 0.1
