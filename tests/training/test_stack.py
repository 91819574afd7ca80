"""Detectors trained in one program: each ends as it would alone, whatever becomes of the others."""

import shutil

import jax
import numpy as np
import pytest

from flowad_jax.training import logging as metrics_log
from flowad_jax.training import loop, stack, sweep
from tests.conftest import write_image
from tests.training.test_loop import final_state

pytestmark = pytest.mark.whole


@pytest.fixture
def config(tiny_config, image_root):
    """Three categories with 6, 6 and 9 training images: epochs of 2, 2 and 3 batches."""
    for name in ("bolt", "nut"):
        shutil.copytree(image_root / "part", image_root / name)
    for index in range(6):
        write_image(image_root / "bolt" / "train" / "good" / f"{index}.png", 50 + index)
    for index in range(6, 9):
        write_image(image_root / "nut" / "train" / "good" / f"{index}.png", index)
    tiny_config.data.holdout = 0.2
    tiny_config.train.stack = ("part", "nut", "bolt")
    return tiny_config


@pytest.fixture(params=[True, False], ids=["at once", "in turn"])
def at_once(request, monkeypatch):
    """Both forms of the step: the processor would choose the second."""
    make = stack.make_stack_step

    def chosen(*args, **kwargs):
        return make(*args, **(kwargs | {"at_once": request.param}))

    monkeypatch.setattr(stack, "make_stack_step", chosen)


def alone(config, category, path):
    with config.unlocked():
        config.train.stack, config.data.category = (), category
    loop.train(config, path)
    return config


def assert_same_end(config, one, other):
    """Rounding differs where sums are of other shapes, and Adam divides small by small."""
    (first, *_), (second, *_) = (final_state(config, path) for path in (one, other))
    for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True):
        if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = map(jax.random.key_data, (a, b))
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        np.testing.assert_allclose(a, b, 0, 1e-5 * np.max(np.abs(a), initial=1e-3))
    rows = [metrics_log.read(path) for path in (one, other)]
    for mine, single in zip(*rows, strict=True):
        assert mine.keys() == single.keys()
        for key in (key for key in mine if key.startswith(("loss", "learning", "holdout"))):
            np.testing.assert_allclose(mine[key], single[key], rtol=1e-5, err_msg=key)


@pytest.mark.usefixtures("at_once")
def test_every_member_ends_as_it_would_alone(config, tmp_path):
    config.data.rotation_degrees = 5.0  # images pass the encoder together
    found = sweep.run(config, tmp_path / "all")
    sweep.require_all(found)
    assert [run["folder"] for run in found["runs"]] == ["part", "nut", "bolt"]
    for category in ("nut", "bolt"):
        config = alone(config, category, tmp_path / category)
        assert_same_end(config, tmp_path / "all" / category, tmp_path / category)
