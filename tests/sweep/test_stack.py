"""Detectors trained in one program: each ends as it would alone, whatever becomes of the others."""

import shutil
from contextlib import closing
from dataclasses import replace

import jax
import numpy as np
import pytest

from flowad_jax.canvas import Canvas
from flowad_jax.detector.model import build_model, sibling
from flowad_jax.errors import UserError
from flowad_jax.interrupt import Interrupted
from flowad_jax.sweep import plan, runner, stack
from flowad_jax.sweep.stacked_run import check_alike
from flowad_jax.training import loop, metrics_log, schedules
from flowad_jax.training.experiment import build
from flowad_jax.training.optimizer import init_state
from flowad_jax.training.run import TrainingRun
from flowad_jax.training.step import make_step
from tests.conftest import write_image
from tests.training.test_layouts import METHODS, tiny
from tests.training.test_loop import final_state, stop_after_steps

pytestmark = pytest.mark.whole


@pytest.fixture
def config(tiny_config, image_root):
    """Three categories, of which one has epochs of 3 batches instead of 2."""
    for name in ("bolt", "nut"):
        shutil.copytree(image_root / "part", image_root / name)
    for index in range(6, 12):
        write_image(image_root / "nut" / "train" / "good" / f"{index}.png", index)
    tiny_config.data.holdout = 0.2
    tiny_config.train.epochs = 2
    tiny_config.train.stack = ("part", "nut", "bolt")
    return tiny_config


def at_once(monkeypatch):
    """Lets all detectors take part in the same operations, as on an accelerator."""
    make = stack.make_stack_step

    def chosen(*args, **kwargs):
        return make(*args, **(kwargs | {"at_once": True}))

    monkeypatch.setattr(stack, "make_stack_step", chosen)


def assert_same_end(config, one, other):
    """Rounding differs where sums are of other shapes, and Adam divides small by small."""
    (first, *_), (second, *_) = (final_state(config, path) for path in (one, other))
    for a, b in zip(*map(jax.tree.leaves, (first, second)), strict=True):
        assert_close(a, b)
    for mine, single in zip(*map(metrics_log.read, (one, other)), strict=True):
        assert mine.keys() == single.keys()
        for key in (key for key in mine if key.startswith(("loss", "learning", "holdout"))):
            np.testing.assert_allclose(mine[key], single[key], rtol=1e-5, err_msg=key)


def assert_close(a, b):
    if jax.dtypes.issubdtype(a.dtype, jax.dtypes.prng_key):
        a, b = map(jax.random.key_data, (a, b))
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    np.testing.assert_allclose(a, b, 0, 1e-5 * np.max(np.abs(a), initial=1e-3))


def test_every_detector_ends_as_it_would_alone(config, tmp_path, image_root, monkeypatch):
    """Also with a damaged category beside it, and after a signal in the middle of an epoch."""
    for file in (image_root / "bolt" / "train" / "good").iterdir():
        file.write_bytes(b"no image")
    with monkeypatch.context() as patch:
        at_once(patch)
        stop_after_steps(patch, 5)
        with pytest.raises(Interrupted, match=r"SIGTERM: saved at epoch 1, batch 1 in .*part"):
            runner.run(config, tmp_path / "all")
    found = runner.run(config, tmp_path / "all")  # the rest one after the other
    status = {run["folder"]: run["status"] for run in found["runs"]}
    assert status == {"part": "done", "nut": "done", "bolt": "failed"}
    assert "cannot read" in found["runs"][2]["fault"]
    with config.unlocked():
        config.train.stack, config.data.category = (), "nut"
    loop.train(config, tmp_path / "alone")
    assert_same_end(config, tmp_path / "all" / "nut", tmp_path / "alone")


class Descent:
    """Plain gradient descent in the place of Adam, which would make much of rounding."""

    def init(self, params):
        return ()

    def update(self, grads, state, params, learning_rate):
        return jax.tree.map(lambda p, g: p - learning_rate * g, params, grads), state

    def idle_step(self, params, state, steps, learning_rate):
        return params, state


@pytest.mark.parametrize("method", METHODS)
def test_a_step_of_many_is_the_step_of_each(method):
    """Two detectors whose learning rates and batches differ, and one that sits it out."""
    config = tiny(method, "textures", "", "brick")
    with config.unlocked():
        config.encoder.taps = (4,)
        if method == "msflow":
            config.method.blocks = (1,)
    system = build(config)
    parts, clip = (system.method, Descent()), config.train.clip_norm
    with closing(system.features.train.epoch(0)) as batches:
        given = [next(batches), next(batches), next(batches)]
    fresh = [init_state(*parts, given[0], seed) for seed in (1, 2, 3)]
    rates = (0.1, 0.2, 0.3)
    alone = jax.jit(
        lambda state, batch, rate: make_step(*parts, lambda _: rate, clip)(state, batch)
    )
    states, batches = (jax.tree.map(stacked, *trees) for trees in (fresh, given))
    schedule = [schedules.constant(rate, 1, 1) for rate in rates]
    step = stack.make_stack_step(*parts, schedule, clip)
    after, metrics = step(states, batches, np.array([True, True, False]))
    for m, before in enumerate(fresh):
        expected, reported = alone(before, given[m], rates[m])
        expected = before if m == 2 else expected
        mine = jax.tree.map(lambda leaf, m=m: leaf[m], after)
        jax.tree.map(assert_moved_alike, before.params, expected.params, mine.params)
        assert mine.step == expected.step
        np.testing.assert_allclose(metrics["loss"][m], reported["loss"], rtol=1e-5)


def assert_moved_alike(before, expected, found):
    """What a step adds is small beside a parameter, so only the difference is compared."""
    way, other = np.asarray(expected - before), np.asarray(found - before)
    np.testing.assert_allclose(other, way, 0, 2e-4 * np.max(np.abs(way), initial=1e-6))


def stacked(*leaves):
    return jax.numpy.stack(leaves)


def test_a_detector_that_diverges_is_left_behind(config, tmp_path, monkeypatch):
    record = TrainingRun.record_step

    def diverging(run, metrics):
        finite = run.title != "nut" or run.position.epoch == 0
        record(run, metrics | {"finite": metrics["finite"] and finite})

    monkeypatch.setattr(TrainingRun, "record_step", diverging)
    config.train.stack, config.data.rotation_degrees = ("part", "nut"), 0.0  # features are kept
    found = runner.run(config, tmp_path / "all")
    assert [run["status"] for run in found["runs"]] == ["done", "failed"]
    assert "training became NaN or infinite in step 4" in found["runs"][1]["fault"]


def test_what_cannot_share_a_program(config):
    """Images of another size, smaller batches, and random weights, which follow the seed."""
    config.data.category_sizes = {"nut": 64}
    config.data.rotation_degrees, config.train.batch_size = 0.0, 8
    part, nut = (trial.config for trial in plan.trials(config)[:2])
    model = build_model(part)
    first, other = build(part, model), build(nut, sibling(model, nut))
    with pytest.raises(UserError, match=r"data\.image_size is 32 for one and 64 for another"):
        check_alike(first, other)
    other = replace(other, canvas=Canvas.of(32))
    with pytest.raises(UserError, match=r"train\.batch_size is 5 for one and 8 for another"):
        check_alike(first, other)
    with nut.unlocked():
        nut.seed = 1
    with pytest.raises(UserError, match="random weights are others for each seed"):
        sibling(model, nut)
