"""Where images lie on a canvas that is not square, by hand."""

import numpy as np
import pytest
from PIL import Image

from flowad_jax.canvas import Box, Canvas
from flowad_jax.data import images, transforms
from flowad_jax.data.augment import Augmentation
from flowad_jax.data.findings import findings
from flowad_jax.data.loader import Loader
from flowad_jax.data.sets import folder
from flowad_jax.errors import UserError
from flowad_jax.evaluation.mask_resolution import at_image
from flowad_jax.evaluation.padding import hide_padding, unpadded
from flowad_jax.inference import regions
from tests.conftest import write_category

FITS = ("stretch", "crop", "pad")
TALL, WIDE = (40, 30), (20, 50)
# (fit, image): what is seen of it, and where on a canvas of 12 x 18
BOXES = {
    ("stretch", TALL): (Box(0, 0, 40, 30), Box(0, 0, 12, 18)),
    ("crop", TALL): (Box(10, 0, 20, 30), Box(0, 0, 12, 18)),
    ("pad", TALL): (Box(0, 0, 40, 30), Box(0, 4, 12, 9)),
    ("stretch", WIDE): (Box(0, 0, 20, 50), Box(0, 0, 12, 18)),
    ("crop", WIDE): (Box(0, 10, 20, 30), Box(0, 0, 12, 18)),
    ("pad", WIDE): (Box(0, 0, 20, 50), Box(2, 0, 7, 18)),
}


def picture(size):
    """A slow gradient from the top left to the bottom right."""
    rows, columns = np.linspace(0, 120, size[0])[:, None], np.linspace(0, 100, size[1])
    return np.repeat((rows + columns)[..., None], 3, -1).astype(np.uint8)


@pytest.mark.parametrize(("fit", "size"), BOXES)
def test_an_image_comes_to_its_place_and_its_map_comes_back(fit, size, tmp_path):
    canvas, image = Canvas(12, 18, fit), picture(size)
    seen, place = BOXES[fit, size]
    assert (canvas.seen(size), canvas.place(size)) == (seen, place)
    part = Image.fromarray(image[seen.rows, seen.columns])
    expected = np.asarray(part.resize((place.width, place.height), Image.Resampling.LANCZOS))
    pads = [(place.top, 12 - place.top - place.height), (place.left, 18 - place.left - place.width)]
    expected = np.pad(expected, [*pads, (0, 0)], "reflect")
    found = transforms.resize_image(image, canvas)
    np.testing.assert_array_equal(found, expected)
    Image.fromarray(image).save(tmp_path / "a.png")
    pixels, shape = images.read_resized(tmp_path / "a.png", canvas)
    assert shape == size
    np.testing.assert_array_equal(pixels, expected)
    back = at_image(np.float64(found[..., 0]), canvas, size)
    assert back.shape == size
    inside = back[seen.rows, seen.columns]
    np.testing.assert_allclose(inside, image[seen.rows, seen.columns, 0], atol=12)
    outside = np.ones(size, bool)
    outside[seen.rows, seen.columns] = False
    assert np.all(back[outside] == inside.min())


@pytest.mark.parametrize("fit", FITS)
def test_masks_lie_as_their_images_do(fit):
    canvas = Canvas(12, 18, fit)
    for size in (TALL, WIDE):
        marked = np.zeros((*size, 3), np.uint8)
        marked[size[0] // 2 :, size[1] // 2 :] = 255
        found, place = transforms.resize_mask(marked[..., 0] > 0, canvas), canvas.place(size)
        image = transforms.resize_image(marked, canvas, "nearest")[..., 0] > 0
        inside = np.zeros(canvas.shape, bool)
        inside[place.rows, place.columns] = True
        np.testing.assert_array_equal(found, image & inside)


def test_a_loader_gives_batches_of_the_canvas(tmp_path):
    root = write_category(tmp_path)
    source = folder.build(root, "part", "test")
    for fit in FITS:
        canvas = Canvas(24, 60, fit)
        changed = Augmentation(rotation_degrees=5.0)
        loader = Loader(source, canvas, 3, (0,) * 3, (1,) * 3, augmentation=changed)
        batch = next(loader.epoch(0))
        assert (batch.image.shape, batch.mask.shape) == ((3, 24, 60, 3), (3, 24, 60))
        assert loader.padded_shapes == ([(40, 36)] * 6 if fit == "pad" else None)
        assert findings(source, canvas) == []
    assert "at 4 x 6 px nothing is left" not in str(findings(source, (4, 6)))
    (line, *_) = findings(source, (1, 2))
    assert "at 1 x 2 px nothing is left" in line


def test_padding_raises_no_score():
    """Of an image of two rows of three positions, the others are as likely as the likeliest."""
    canvas = Canvas(12, 18, "pad")  # 6 px of 9 x 12 in the middle
    values = -np.arange(12.0).reshape(1, 4, 3)
    (found,) = hide_padding([values], canvas, [(6, 18)])
    np.testing.assert_array_equal(found[0, 1:3], values[0, 1:3])
    assert np.all(found[0, [0, 3]] == -3)
    (same,) = hide_padding([values], Canvas(12, 18), [(6, 18)])
    assert same is values
    (cut,) = unpadded(np.arange(216).reshape(1, 12, 18), canvas, [(6, 18)])
    assert (cut.shape, cut[0, 0]) == ((6, 18), 3 * 18)
    assert unpadded(None, canvas, [(6, 18)]) is None


def test_no_region_lies_where_nothing_was_judged():
    """Not even where the whole map is above the threshold."""
    (found,) = regions.find(np.ones(WIDE, np.float32), 0.5, Canvas(12, 18, "crop").seen(WIDE))
    assert found == regions.Region(10, 0, 40, 20, 600, 1.0)
    (found,) = regions.find(np.ones(WIDE, np.float32), 0.5)
    assert found.area == 1000


def test_sizes_in_words_and_in_files():
    assert (str(Canvas.of(64)), Canvas.of(64).size) == ("64", 64)
    assert (str(Canvas.of((32, 64))), Canvas.of([32, 64]).size) == ("32 x 64", [32, 64])
    assert Canvas(10, 30, "pad").scaled(1.5) == Canvas(15, 45, "pad")
    with pytest.raises(UserError, match=r"data\.fit='padd': did you mean 'pad'"):
        Canvas.of(32, "padd")
