"""Training and prediction at a size that is not square, in every fit."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from flowad_jax import schema
from flowad_jax.canvas import FITS, Canvas
from flowad_jax.detector.workdir import load_config
from flowad_jax.inference import loading, predictor
from flowad_jax.training import rescore
from flowad_jax.training.experiment import build
from flowad_jax.training.loop import train
from tests.conftest import shared_recipe, write_image

pytestmark = pytest.mark.whole
SIZE = (48, 80)  # of images
PLACES = ((12, 16), (12, 64), (36, 16), (36, 64))  # middles of defects


@pytest.fixture(scope="module", name="run")
def _run(tmp_path_factory):
    """A finished run at 32 x 48, padded: images fill 29 of its rows."""
    root = tmp_path_factory.mktemp("not_square")
    for index in range(12):
        write_image(root / "images" / "train" / "good" / f"{index}.png", index, SIZE)
        write_image(root / "images" / "test" / "good" / f"{index}.png", 100 + index, SIZE)
    for index in range(2):
        write_image(root / "images" / "test" / "spot" / f"{index}.png", 200 + index, SIZE, True)
        mask = np.zeros(SIZE, np.uint8)
        mask[10:20, 8:20] = 255
        (root / "images" / "ground_truth" / "spot").mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(root / "images" / "ground_truth" / "spot" / f"{index}_mask.png")
    config = shared_recipe(root)
    config.data.image_size, config.data.fit = (32, 48), "pad"
    config.eval.report_images, config.eval.pictures_per_kind = 10, 1
    train(config, root / "run")
    return root / "run"


def defective(place, seed=7):
    """An image with a bright square around a place."""
    pixels = np.random.default_rng(seed).normal(110, 12, SIZE).clip(0, 255).astype(np.uint8)
    row, column = place
    pixels[row - 6 : row + 6, column - 6 : column + 6] = 250
    return np.repeat(pixels[..., None], 3, -1)


@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("tile", [False, True])
def test_a_defect_is_found_where_it_is(run, fit, tile):
    stored = loading.load(run)
    model = dataclasses.replace(stored.model, canvas=Canvas(32, 48, fit))
    detector = predictor.Predictor(model, stored.parts)
    found = detector.predict([defective(place) for place in PLACES], tile=tile)
    for index, prediction in enumerate(found):
        assert prediction.map.shape == SIZE
        assert np.isfinite(prediction.map).all()
        levels = [prediction.map[r - 6 : r + 6, c - 6 : c + 6].mean() for r, c in PLACES]
        assert np.argmax(levels) == index
        assert sorted(levels)[-2] < levels[index] - 0.2 * np.ptp(prediction.map)


def test_the_run_says_its_size_and_evaluates_alike(run):
    results = schema.read(run / "results.json", schema.ANYTHING, "")
    assert results["data"]["image_size"] == [32, 48]
    assert "32 × 48" in (run / "report.html").read_text()
    again = rescore.evaluate_workdir(run)
    last = results["columns"]["last"]
    assert again["columns"]["last"] == pytest.approx(last)
    assert last["image_auroc"] > 0.9


def test_reports_show_what_the_encoder_saw(run):
    for fit in FITS:
        config = load_config(run)
        config.data.fit = fit
        shown = build(config).shown_images
        shape = SIZE if fit == "stretch" else (32, 48)
        assert (shown[0].image.shape, shown[0].mask.shape) == ((*shape, 3), shape)
        assert len(shown.paths) == len(shown) == 14
