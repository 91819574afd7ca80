"""What differs from JAX is found, and what only rounding moved is not."""

import numpy as np
import pytest

from flowad_jax.bundle import checks
from flowad_jax.bundle.checks import Agreement, Mismatch, Scales
from flowad_jax.inference.prediction import Prediction
from flowad_jax.inference.regions import Region

SCALES = Scales(score=100.0, map=10.0)
MAP = np.arange(12, dtype=np.float32).reshape(3, 4)
REGION = Region(1, 2, 3, 4, 4, 11.0)


def prediction(**changes):
    given = {"score": 5.0, "p_value": 0.25, "anomalous": False, "map": MAP, "regions": (REGION,)}
    return Prediction(**{**given, **changes})


def compare(expected, found, limit=8.5):
    agreement = Agreement("onnxruntime", "1.0")
    checks.compare(agreement, "a\n.png", expected, found, SCALES, limit)
    return agreement


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score": 5.002}, r"its score differs by 2e-05 \(at most 1e-05\)"),
        ({"score": np.nan}, "its score differs by nan"),
        ({"map": MAP + 2e-3}, r"its map differs by 0.00018 \(at most 0.0001\)"),
        ({"map": np.where(MAP == 3, np.nan, MAP)}, "its map differs by nan"),
        ({"map": MAP[:2]}, r"its map has shape \(2, 4\)"),
        ({"p_value": 0.5}, "p_value is 0.5, must be 0.25"),
        ({"p_value": None}, "p_value is None, must be 0.25"),
        ({"anomalous": None}, "anomalous is None, must be False"),
        ({"anomalous": True}, "anomalous is True, must be False"),
        ({"regions": ()}, "regions are \\[\\], must be "),
        ({"regions": (REGION._replace(area=5),)}, "regions are "),
    ],
)
def test_differences_are_named(changes, message):
    start = r"^onnxruntime does not agree with JAX on 'a\\n.png': "
    with pytest.raises(Mismatch, match=start + message):
        compare(prediction(), prediction(**changes))


def test_what_is_equal_up_to_rounding_is_measured():
    agreement = compare(prediction(), prediction(score=5.0004, map=MAP + np.float32(1e-4)))
    assert agreement.images == 1
    assert agreement.score == pytest.approx(4e-6)
    assert agreement.map == pytest.approx(1e-4 / 11, rel=0.02)
    assert f"{agreement.record()['score']}" == "1e-05"
    agreement.exact = False
    assert agreement.record()["score"] == 4e-6
    assert compare(prediction(score=np.nan), prediction(score=np.nan)).score == 0


def test_a_pixel_on_the_limit_may_fall_on_either_side():
    other = prediction(map=MAP - np.float32(1e-6), regions=())
    assert compare(prediction(), other, limit=7.9999995).images == 1
    assert compare(prediction(regions=(REGION, REGION)), prediction(regions=(REGION,) * 2)).images


def test_the_first_stage_that_differs():
    expected = {"features0": np.ones(3), "likelihood0.0": 1e6 * np.ones(3), "score": np.ones(1)}
    assert checks.first_difference(expected, expected) is None
    found = expected | {"likelihood0.0": expected["likelihood0.0"] + 1}
    assert checks.first_difference(expected, found) is None
    found = expected | {"likelihood0.0": 1.01 * expected["likelihood0.0"], "score": np.zeros(1)}
    assert checks.first_difference(expected, found) == "likelihood0.0"
    assert checks.first_difference({"x": np.ones(2)}, {"x": np.array([1, np.nan])}) == "x"


def test_scales():
    about = {"calibration": {"image": [[1.0, -3.0], [2.0]], "peak": [[4.0], [5.0]]}}
    assert Scales.of(about, None) == Scales(3.0, 5.0)
