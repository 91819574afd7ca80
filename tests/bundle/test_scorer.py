"""The traced function of an exported detector against the predictor."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax import lookup
from flowad_jax.bundle.scorer import Scorer
from flowad_jax.canvas import FITS
from flowad_jax.evaluation.mask_resolution import at_image
from tests.bundle import untrained

METHODS = lookup.choices("flowad_jax.methods")


def compare(predictor, images):
    loaded = [predictor.load_image(image) for image in images]
    places = [predictor.canvas.place(one.size) for one in loaded]
    given = {"image": np.stack([one.resized for one in loaded]), "place": np.int32(places)}
    scorer = Scorer(predictor.model, predictor.parts)
    score, maps = jax.jit(scorer)(*(given[name] for name in scorer.inputs))
    largest = max(np.abs(part.fitted.image).max() for part in predictor.parts)
    assert score.shape == (len(images), len(predictor.parts))
    for row, found in enumerate(predictor.predict(images)):
        np.testing.assert_allclose(np.mean(score[row]), found.score, atol=1e-6 * largest)
        ours = at_image(np.asarray(maps[row]), predictor.canvas, loaded[row].size)
        np.testing.assert_allclose(ours, found.map, atol=1e-5 * np.abs(found.map).max())


@pytest.mark.parametrize("method", METHODS)
def test_it_says_what_the_predictor_says(method):
    compare(untrained.predictor(method), untrained.images(3))


@pytest.mark.parametrize("fit", FITS)
def test_every_fit(fit):
    """What is padded raises no score; narrow images are padded at their sides, wide ones below."""
    predictor = untrained.predictor("msflow", fit)
    compare(predictor, untrained.images(2) + untrained.images(2, size=(70, 30)))


@pytest.mark.parametrize("image_score", ["max", "0.03"])
def test_scores_of_images_by_their_maps(image_score):
    compare(untrained.predictor("ssnf", image_score=image_score), untrained.images(2))


def test_several_parts_share_their_map():
    compare(untrained.predictor("cflow", parts=3), untrained.images(2))


def test_stages_come_in_order():
    predictor = untrained.predictor("cflow", parts=2)
    scorer = Scorer(predictor.model, predictor.parts)
    shapes = jax.eval_shape(scorer.trace, *scorer.inputs.values())
    assert {name: x.shape for name, x in zip(scorer.stages, shapes, strict=True)} == {
        "features 0": (1, 8, 12, 8),
        "features 1": (1, 4, 6, 16),
        "likelihoods 0.0": (1, 8, 12),
        "likelihoods 0.1": (1, 4, 6),
        "likelihoods 1.0": (1, 8, 12),
        "likelihoods 1.1": (1, 4, 6),
        "score": (1, 2),
        "map": (1, 32, 48),
    }


@pytest.mark.parametrize("method", METHODS)
def test_the_number_of_images_may_stay_open(method):
    predictor = untrained.predictor(method, "pad")
    scorer = Scorer(predictor.model, predictor.parts)
    (count,) = jax.export.symbolic_shape("B")
    open_ = [jax.ShapeDtypeStruct((count, *x.shape[1:]), x.dtype) for x in scorer.inputs.values()]
    score, maps = jax.eval_shape(scorer, *open_)
    assert score.shape == (count, 1)
    assert maps.shape == (count, *untrained.SIZE)
    assert maps.dtype == jnp.float32
