"""Weights of 16 bits: half the size, thresholds of the rounded detector."""

import numpy as np
import onnx
import pytest

from flowad_jax.bundle import card, export, half, reference
from flowad_jax.data.record import Record
from flowad_jax.errors import UserError
from tests.bundle import untrained
from tests.bundle.test_export import moved


@pytest.fixture(name="small")
def _small(monkeypatch):
    """Tiny detectors have small tensors."""
    monkeypatch.setattr(half, "_LEAST", 16)


def test_a_bundle_of_half_the_size_has_thresholds_of_its_own(
    small, exported, run, trained, tmp_path
):
    """All test images get the scores and decisions of the rounded detector, as JAX has them."""
    found = export.export(run, str(tmp_path / "a.flowad"), card.GraphOptions("float16"))
    about = card.read(found.place)
    assert about["dtype"] == "float16"
    assert found.agreements[0].images == 6
    ours, theirs = (x["calibration"]["image"][0] for x in (about, card.read(exported.place)))
    largest = np.abs(theirs).max()
    assert 1e-5 < np.abs(np.subtract(ours, theirs)).max() / largest < 1e-2
    assert sorted(ours) != sorted(theirs)
    model = onnx.load(found.place / card.ONNX)
    kinds = {x.data_type for x in model.graph.initializer if np.prod(x.dims) >= 100}
    assert onnx.TensorProto.FLOAT16 in kinds
    (exact,) = [part.fitted.image for part in half.rounded(trained).parts]
    np.testing.assert_allclose(ours, exact, rtol=1e-6)
    for name in (card.ONNX, card.STABLEHLO):
        assert found.sizes[name] < 0.9 * exported.sizes[name]


def test_every_fold_judges_its_own_images(small):
    predictor = untrained.predictor("msflow", parts=2)
    images = [untrained.images(4, seed) for seed in (1, 2)]
    folds = [Listed(one) for one in images]
    predictor.held_out = Folds(folds)
    parts = half.rounded(predictor).parts
    assert [len(part.fitted.image) for part in parts] == [4, 4]
    for number, part in enumerate(parts):
        alone = untrained.predictor("msflow", parts=2)
        alone.parts = [alone.parts[number]]
        (expected,) = reference.scores(alone, [*map(alone.load_image, images[number])])
        np.testing.assert_allclose(part.fitted.image, expected.image, atol=0.02)
        np.testing.assert_allclose(part.fitted.peak, expected.pixel.max(axis=(1, 2)), atol=0.02)


class Listed:
    """A source of images that are no files."""

    def __init__(self, images):
        self.paths = [f"made up {index}" for index in range(len(images))]
        self._images = images

    def __len__(self):
        return len(self._images)

    def __getitem__(self, index):
        return Record(self._images[index], None, 0, "good", self.paths[index])


class Folds:
    def __init__(self, folds):
        self.sources = lambda: folds


def test_without_held_out_images_it_is_refused(run, tmp_path):
    copied = moved(run, tmp_path / "run", tmp_path / "gone")
    place = tmp_path / "a.flowad"
    with pytest.raises(UserError, match=r"--dtype=float16 has to judge the images again.*gone"):
        export.export(copied, str(place), card.GraphOptions("float16"))
    assert not place.exists()


def test_what_does_not_fit_into_16_bits_stays(small):
    big = np.full(16, 1e5, np.float32)
    assert not half._is_large(big)
    assert half._is_large(np.ones(16, np.float32))
    assert not half._is_large(np.ones(16, np.int32))
