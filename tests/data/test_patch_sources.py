"""Patches of synthetic anomalies come from the originals, at the size that is asked for."""

import cv2
import numpy as np
import pytest
from PIL import Image

from flowad_jax.data.augment import Synthesis, find_source_files
from flowad_jax.data.sets import textures
from flowad_jax.errors import UserError
from flowad_jax.synthesis import Synthetic, make, source_scale
from tests.data.test_augment import Normal, batches_of, loader, show_source, stacked

LARGE = 128


def test_patches_come_from_files_instead_of_records(tmp_path):
    for name, grey in (("a.png", 200), ("deep/b.jpg", 250), ("deep/.hidden.png", 5)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("L", (50, 40), grey).save(tmp_path / name)
    (tmp_path / "deep/notes.txt").write_text("not an image")
    files = find_source_files(tmp_path)
    assert [path.name for path in files] == ["a.png", "b.jpg"]
    data = loader(Synthesis(show_source, "mixture", source_files=files), repeat=4)
    image = stacked(data)[0]
    assert set(np.unique(image)) == {200, 250}
    assert 0.2 < np.mean(image == 200) < 0.8


def test_source_files_that_cannot_be_read_are_named(tmp_path):
    for folder in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UserError, match=r"synthesis\.lenders='.*give"):
            find_source_files(folder)
    (tmp_path / "broken.png").write_bytes(b"no image")
    data = loader(Synthesis(show_source, "mixture", source_files=find_source_files(tmp_path)))
    with pytest.raises(UserError, match=r"broken\.png"):
        next(data.epoch(0))


def photographs(name):
    """A photograph of 512 pixels as it is and mirrored, which is as sharp."""
    grey = textures._photograph(name)
    return [np.repeat(view[..., None], 3, -1) for view in (grey, grey[:, ::-1])]


def batch_of(images, synthesis, batch_size=2, **options):
    options |= {"filter": "bilinear", "source": Normal(2, images), "size": LARGE}
    (batch,) = batches_of(loader(synthesis, batch_size=batch_size, **options))
    return batch


def detail(image):
    return np.abs(cv2.Laplacian(image.mean(axis=-1).astype(np.float32), cv2.CV_32F))


def resized(image, side):
    return np.asarray(Image.fromarray(image).resize((side, side), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(("name", "level"), [("brick", 0.76), ("grass", 1.03), ("gravel", 0.87)])
def test_what_sanflow_pastes_is_as_sharp_as_the_reference_has_it(name, level):
    """The reference enlarges the original once; enlarging the small image leaves 0.35 to 0.41."""
    images, cores, details = photographs(name), [], []
    synthesis = Synthesis(make("mixture.rectangle", jitter=0.0), "pairs", mask_threshold=0.99)
    batch = batch_of(images, synthesis, batch_size=120, repeat=60)
    rows = zip(batch.image[:120], batch.image[120:], batch.mask[120:], strict=True)
    for before, after, mask in rows:
        inside = cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0
        cores += detail(after)[inside].tolist()
        details.append(detail(before).mean())
    assert len(cores) > 10_000
    enlarged, small = (detail(resized(images[0], s)).mean() for s in (LARGE * 3 // 2, LARGE))
    assert enlarged / small == pytest.approx(level, abs=0.01)
    assert np.mean(cores) / np.mean(details) == pytest.approx(level, rel=0.08)


class Middle:
    """Shows the middle of a source of a size of its own."""

    def __init__(self, scale):
        self.source_scale = scale

    def __call__(self, target, source, rng):
        assert source.shape == (int(self.source_scale * LARGE),) * 2 + (3,)
        start = (len(source) - LARGE) // 2
        image = source[start : start + LARGE, start : start + LARGE].copy()
        return Synthetic(image, np.ones(target.shape[:2], np.float32), "shown", True)


@pytest.mark.parametrize("scale", [1.0, 1.5, 2.6])
@pytest.mark.parametrize("cache_bytes", [0, 2**30])
def test_a_source_has_the_size_that_its_synthesiser_wants(scale, cache_bytes, tmp_path):
    images, side = photographs("gravel"), int(scale * LARGE)
    middle = slice((side - LARGE) // 2, (side - LARGE) // 2 + LARGE)
    views = [np.float32(resized(image, side)[middle, middle]) for image in images]
    batch = batch_of(images, Synthesis(Middle(scale), "mixture"), cache_bytes=cache_bytes)
    assert sorted(x.tobytes() for x in batch.image) == sorted(x.tobytes() for x in views)
    Image.fromarray(images[0]).save(tmp_path / "a.png")
    synthesis = Synthesis(Middle(scale), "mixture", source_files=[tmp_path / "a.png"])
    for image in batch_of(images, synthesis, cache_bytes=cache_bytes).image:
        np.testing.assert_array_equal(image, views[0])


def test_a_source_that_is_not_of_that_size_is_scaled_once():
    """So the library takes originals of any size, and gives what the loader gives."""
    original = photographs("gravel")[0]
    target = resized(original, LARGE)
    for seed in range(8):
        made = [
            make("mixture")(target, source, np.random.default_rng(seed)).image
            for source in (original, resized(original, LARGE * 3 // 2))
        ]
        np.testing.assert_array_equal(*made)
    assert source_scale(make("mixture")) == 1.5
    assert source_scale(make("nsa")) == source_scale(make("cutpaste")) == 1
