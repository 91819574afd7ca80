"""Material for synthetic anomalies comes from the originals, at the size that is asked for."""

import cv2
import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import textures
from flowad_jax.data.augment import Synthesis
from flowad_jax.data.pipeline import Loader
from flowad_jax.data.record import GOOD, Record, count
from flowad_jax.synthesis import Synthetic, lender_scale, make

SIDE = 128
ZERO, ONE = (0.0, 0.0, 0.0), (1 / 255, 1 / 255, 1 / 255)  # pixels keep their values


class Photographs:
    """A photograph of 512 pixels as it is and mirrored, which is as sharp."""

    has_masks = False

    def __init__(self, name):
        grey = textures._photograph(name)
        self.images = [np.repeat(view[..., None], 3, -1) for view in (grey, grey[:, ::-1])]
        self.labels, self.kinds = np.zeros(2, np.int32), [GOOD] * 2
        self.paths = [f"{name}/{index}.png" for index in range(2)]

    def __len__(self):
        return 2

    def __getitem__(self, index):
        image = self.images[index]
        return Record(image, np.zeros(image.shape[:2], bool), 0, GOOD, self.paths[index])

    describe = count


def batch_of(source, synthesis, **options):
    plain = {"rotation_degrees": 0, "workers": 0, "filter": "bilinear"}
    size = 2 * options.get("repeat", 1)
    loader = Loader(source, SIDE, size, ZERO, ONE, synthesis=synthesis, **plain, **options)
    (batch,) = loader.epoch(0)
    return batch._replace(image=np.rint(batch.image))


def detail(image):
    return np.abs(cv2.Laplacian(image.mean(axis=-1).astype(np.float32), cv2.CV_32F))


def resized(image, side):
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(("name", "level"), [("brick", 0.76), ("grass", 1.03), ("gravel", 0.87)])
def test_what_sanflow_pastes_is_as_sharp_as_the_reference_has_it(name, level):
    """The reference enlarges the original once; enlarging the small image leaves 0.35 to 0.41."""
    source, cores, clean = Photographs(name), [], []
    synthesis = Synthesis(make("mixture.rectangle", jitter=0.0), "pairs", mask_threshold=0.99)
    batch = batch_of(source, synthesis, repeat=60)
    rows = zip(batch.image[:120], batch.image[120:], batch.mask[120:], strict=True)
    for before, after, mask in rows:
        inside = cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0
        cores += detail(after)[inside].tolist()
        clean.append(detail(before).mean())
    assert len(cores) > 10_000
    enlarged, small = (detail(resized(source.images[0], s)).mean() for s in (SIDE * 3 // 2, SIDE))
    assert enlarged / small == pytest.approx(level, abs=0.01)
    assert np.mean(cores) / np.mean(clean) == pytest.approx(level, rel=0.08)


class Shown:
    """Shows the middle of a lender of a size of its own."""

    def __init__(self, scale):
        self.lender_scale = scale

    def __call__(self, target, source, rng):
        assert source.shape == (int(self.lender_scale * SIDE),) * 2 + (3,)
        start = (len(source) - SIDE) // 2
        image = source[start : start + SIDE, start : start + SIDE].copy()
        return Synthetic(image, np.ones(target.shape[:2], np.float32), "shown", True)


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.6])
@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_a_lender_has_the_size_that_its_synthesiser_wants(scale, cache_bytes, tmp_path):
    source, synthesise = Photographs("gravel"), Shown(scale)
    assert lender_scale(synthesise) == scale
    side = int(scale * SIDE)
    start = (side - SIDE) // 2
    views = [
        resized(image, side)[start : start + SIDE, start : start + SIDE] for image in source.images
    ]
    batch = batch_of(source, Synthesis(synthesise, "mixture"), cache_bytes=cache_bytes)
    plain = batch_of(source, None, cache_bytes=cache_bytes)
    assert sorted(x.tobytes() for x in batch.image) == sorted(
        view.astype(np.float32).tobytes() for view in views
    )
    assert (batch.image != plain.image).any()
    Image.fromarray(source.images[0]).save(tmp_path / "a.png")
    lent = Synthesis(synthesise, "mixture", lenders=[tmp_path / "a.png"])
    for image in batch_of(source, lent, cache_bytes=cache_bytes).image:
        np.testing.assert_array_equal(image, views[0])


def test_a_source_that_is_not_of_that_size_is_scaled_once():
    """So the library takes originals of any size, and gives what the loader gives."""
    original = Photographs("gravel").images[0]
    target = resized(original, SIDE)
    for seed in range(8):
        made = [
            make("mixture")(target, source, np.random.default_rng(seed)).image
            for source in (original, resized(original, SIDE * 3 // 2))
        ]
        np.testing.assert_array_equal(*made)
    assert lender_scale(make("nsa")) == lender_scale(make("cutpaste")) == 1
