"""The evaluator: likelihoods of batches in order, and what the score of an image can be."""

from dataclasses import replace

import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax import lookup
from flowad_jax.errors import UserError
from flowad_jax.evaluation.scores import Evaluator, extreme_ties
from flowad_jax.methods import cflow
from flowad_jax.ops import arrays
from flowad_jax.types import Batch, Calibration, Scores

SIZE = (8, 8)


def tiny_method():
    """Likelihood is minus the distance to a centre; the score of an image is its map's mean."""

    def log_probs(variables, batch):
        return tuple(-jnp.abs(x[..., 0] - variables["params"]["centre"]) for x in batch.maps)

    def calibrate(values, image_size):
        del image_size
        return Calibration(np.array([scale.max() for scale in values]), np.float64(0.0))

    def aggregate(values, image_size, calibration=None):
        highest = (
            [scale.max() for scale in values] if calibration is None else calibration.scale_max
        )
        wide = [
            arrays.resize_align_corners(np.float64(top) - scale, image_size)
            for top, scale in zip(highest, values, strict=True)
        ]
        pixel = np.sum(wide, axis=0)
        return Scores(pixel.mean(axis=(1, 2)), pixel)

    return replace(cflow.build(), log_probs=log_probs, calibrate=calibrate, aggregate=aggregate)


def batches():
    """Two batches of two and one images; the last row of the second is padding."""
    rng = np.random.default_rng(0)
    for weight in ([1, 1], [1, 0]):
        maps = tuple(rng.normal(size=(2, n, n, 1)).astype(np.float32) for n in (4, 2))
        mask = rng.random((2, *SIZE)) > 0.5
        yield Batch(maps, None, mask, np.zeros(2, np.int32), np.array(weight, np.float32))


def scored(**options):
    evaluator = Evaluator(tiny_method(), SIZE, **options)
    seen = evaluator.likelihoods({"params": {"centre": 0.25}}, batches(), 3, "test")
    return evaluator.scores(seen.maps, evaluator.calibrate(seen.maps))


def log_probs(count=5):
    """Likelihood maps of three scales, as drawn by a fixed seed."""
    rng = np.random.default_rng(1)
    return [-np.abs(rng.normal(size=(count, n, n))).astype(np.float32) for n in (4, 2, 1)]


def test_likelihoods_leave_padding_out_and_keep_the_order():
    evaluator = Evaluator(tiny_method(), SIZE)
    seen = evaluator.likelihoods({"params": {"centre": 0.25}}, batches(), 3, "test")
    one, two = batches()
    for scale, left, right in zip(seen.maps, one.maps, two.maps, strict=True):
        together = np.concatenate([left, right[:1]])[..., 0]
        np.testing.assert_array_equal(scale, -np.abs(together - np.float32(0.25)))
    np.testing.assert_array_equal(seen.masks, np.concatenate([one.mask, two.mask[:1]]))


def test_the_score_of_an_image_is_the_methods_the_maximum_or_the_mean_of_the_top():
    own = scored()
    assert own.pixel.shape == (3, *SIZE)
    np.testing.assert_array_equal(own.image, own.pixel.mean(axis=(1, 2)))
    ranked = np.sort(own.pixel.reshape(3, -1))
    expected = {
        "max": ranked[:, -1],
        "0.1": ranked[:, -6:].mean(axis=1),  # of 64 pixels
        "0.001": ranked[:, -1],
        "1": own.image,
    }
    for image_score, image in expected.items():
        found = scored(image_score=image_score)
        np.testing.assert_allclose(found.image, image, rtol=1e-14)
        np.testing.assert_array_equal(found.pixel, own.pixel)


@pytest.mark.parametrize("name", lookup.choices("flowad_jax.methods"))
def test_every_method_takes_other_image_scores(name):
    method, values = lookup.find("flowad_jax.methods", name)(), log_probs()
    own = Evaluator(method, SIZE)
    calibration = method.calibrate(values, SIZE)
    plain = method.aggregate(values, SIZE, calibration)
    for found in (own.scores(values, calibration), own.scores(values, calibration, SIZE)):
        for one, other in zip(found, plain, strict=True):
            np.testing.assert_array_equal(one, other)
    assert own.scores(values, calibration, (12, 20)).pixel.shape == (5, 12, 20)
    top = Evaluator(method, SIZE, "0.25").scores(values, calibration)
    largest = np.sort(plain.pixel.reshape(5, -1))[:, -16:]
    np.testing.assert_allclose(top.image, largest.mean(axis=1), rtol=1e-12)
    highest = Evaluator(method, SIZE, "max").scores(values, calibration)
    np.testing.assert_array_equal(highest.image, largest[:, -1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_score": "mean"}, r"eval\.image_score='mean': choices are 0\.03, max, method"),
        ({"image_score": "maxx"}, r"eval\.image_score='maxx': did you mean 'max'\?"),
        ({"image_score": "0.0"}, r"eval\.image_score='0\.0': a share"),
        ({"image_score": "3"}, r"eval\.image_score='3': a share"),
        ({"image_score": "nan"}, r"eval\.image_score='nan': a share"),
    ],
)
def test_wrong_options_are_named_in_one_line(options, message):
    with pytest.raises(UserError, match=message) as caught:
        Evaluator(tiny_method(), SIZE, **options)
    assert "\n" not in str(caught.value)


def test_mean_of_top_takes_maps_of_any_size():
    maps = [np.arange(6.0).reshape(2, 3), np.arange(20.0)[::-1].reshape(4, 5)]
    np.testing.assert_array_equal(arrays.mean_of_top(maps, 0.5), [4.0, 14.5])
    np.testing.assert_array_equal(arrays.mean_of_top(maps, 0.0), [5.0, 19.0])
    np.testing.assert_array_equal(arrays.mean_of_top(maps, 1.0), [2.5, 9.5])


@pytest.mark.parametrize(
    ("scores", "said"),
    [
        ([], []),
        ([1.0, 1.0], []),
        ([0.1, 0.2, 1.0, 1.0], []),
        ([0.1, 1.0, 1.0, 1.0], ["3 of 4 share the highest score, 1"]),
        ([0.5, 0.5, 0.5, 2.0], ["3 of 4 share the lowest score, 0.5"]),
        ([0.1, 0.5, 0.5, 0.5, 2.0], []),
        ([1.0] * 12, ["12 of 12 share the highest score, 1"]),
        ([0.0, 0.0, 0.0, 1.0], ["3 of 4 share the lowest score, 0"]),
        ([np.nan] * 4, []),
    ],
)  # fmt: skip
def test_scores_that_tie_at_an_extreme_are_counted(scores, said):
    assert extreme_ties(np.array(scores)) == said
