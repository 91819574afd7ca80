"""What holds for every method; those found in `flowad_jax.methods` are tested without being named.

``python -m tests.methods.test_laws OUTPUT`` writes how a step on all devices ends.
"""

import functools
import importlib
import itertools
import os
import subprocess
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import center_of_mass

from flowad_jax import lookup, parallel
from flowad_jax.training import schedules
from flowad_jax.training.optimizer import Adam, init_state
from flowad_jax.training.step import make_loss, make_step
from flowad_jax.types import Batch, Method, TrainState
from tests.onnx import backends

PACKAGE = "flowad_jax.methods"
METHODS = lookup.choices(PACKAGE)
SIZE = (12, 18)
SHAPES = ((4, 6, 6), (2, 3, 10))  # (h, w, C) of two scales
RATE = 3e-3
UNSURE = {"patchflow[0]['flow']['blocks_0']['net']['out']['bias']"}  # a BatchNorm follows


class Case(NamedTuple):
    method: Method
    batch: Batch
    state: TrainState
    step: object
    log_probs: object


def make_batch(seed=0, images=4):
    """Normal images and below them anomalous ones, with defects in the upper third."""
    rng = np.random.default_rng(seed)
    *maps, image = (
        rng.normal(size=(images, *shape)).astype(np.float32) for shape in (*SHAPES, (*SIZE, 3))
    )
    label = np.repeat([0, 1], images // 2).astype(np.int32)
    mask = np.zeros((images, *SIZE), bool)
    mask[label == 1, :4] = True
    maps = tuple(np.where((label == 1)[:, None, None, None], 0.5 * x, x) for x in maps)
    return Batch(maps, image, mask, label, np.ones(images, np.float32))


@functools.cache
def case(name, devices=parallel.ALONE):
    """A tiny variant, away from its first parameters, where offsets and some nets do nothing."""
    method = lookup.find(PACKAGE, name)(**importlib.import_module(f"{PACKAGE}.{name}").TINY)
    batch = make_batch()
    if not method.needs_image:
        batch = batch._replace(image=None)
    state = init_state(method, Adam(), batch, seed=0)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda p: p + 0.03 * rng.normal(size=p.shape).astype(np.float32), state.params
    )
    step = make_step(method, Adam(), schedules.constant(RATE, 1, 1), devices=devices)
    state = state._replace(params=params)
    return Case(method, batch, state, jax.jit(step), jax.jit(method.log_probs))


@pytest.fixture(params=METHODS)
def tiny(request):
    return case(request.param)


def seen(tiny, batch, rows=slice(None)):
    """Likelihood maps of some rows on the host, as scores are made of them."""
    given = jax.tree.map(lambda x: x[rows], Batch(batch.maps, batch.image))
    variables = {"params": tiny.state.params, "buffers": tiny.state.buffers}
    return [np.asarray(scale) for scale in tiny.log_probs(variables, given)]


def flat(tree):
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same(one, other, **tolerance):
    for name, value in flat(one).items():
        np.testing.assert_allclose(value, flat(other)[name], **tolerance, err_msg=name)


def test_a_step_is_finite_and_reaches_every_parameter(tiny):
    after, metrics = tiny.step(tiny.state, tiny.batch)
    assert metrics["finite"]
    assert {name for name in metrics if name.startswith("loss/")}
    assert after.step == 1
    before, moved = flat(tiny.state.params), flat(after.params)
    assert not [name for name in before if np.array_equal(before[name], moved[name])]


def test_training_lowers_the_loss(tiny):
    if not tiny.state.params:
        pytest.skip("no gradient steps")
    state, losses = tiny.state, []
    for _ in range(12):
        state, metrics = tiny.step(state, tiny.batch)
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 1e-3


def test_padding_changes_nothing(tiny):
    """What images of weight 0 hold does not matter; with nothing but them no step is taken."""
    other = jax.tree.map(lambda x: 5 * x[::-1], Batch(tiny.batch.maps, tiny.batch.image))
    given = tiny.batch._replace(weight=np.array([1, 0, 1, 0], np.float32))
    wild = jax.tree.map(
        lambda x, y: np.stack([x[0], y[1], x[2], y[3]]), Batch(given.maps, given.image), other
    )
    one, metrics = tiny.step(tiny.state, given)
    two, same = tiny.step(tiny.state, given._replace(maps=wild.maps, image=wild.image))
    assert_same(one.buffers, two.buffers, rtol=1e-5, atol=1e-6)
    for name in metrics:
        np.testing.assert_allclose(metrics[name], same[name], rtol=2e-4, err_msg=name)
    empty = tiny.batch._replace(weight=np.zeros(4, np.float32))
    phases = tiny.method.phases(tiny.state.buffers, empty, jax.random.key(0))
    if any(np.any(phase.active) for phase in phases):
        return  # it steps on every batch; no loader gives one without an image
    after, metrics = tiny.step(tiny.state, empty)
    assert metrics["loss"] == 0
    assert_same(after.params, tiny.state.params)
    assert_same(after.buffers, tiny.state.buffers)


def test_a_restored_state_goes_on_as_if_nothing_had_happened(tiny):
    state, _ = tiny.step(tiny.state, tiny.batch)
    restored = TrainState(*jax.tree.map(lambda x: jnp.array(np.asarray(x)), state[:-1]), state.rng)
    (one, metrics), (two, same) = (tiny.step(s, tiny.batch) for s in (state, restored))
    assert_same((one[:-1], metrics), (two[:-1], same))


def test_another_seed_is_another_run(tiny):
    if not tiny.state.params:
        pytest.skip("nothing is drawn but what options ask for")
    states = [init_state(tiny.method, Adam(), tiny.batch, seed) for seed in (0, 0, 1)]
    (one, _), (again, _), (other, _) = (tiny.step(state, tiny.batch) for state in states)
    assert_same(one.params, again.params)
    leaves = zip(*(flat(state.params).values() for state in (one, other)), strict=True)
    assert any(not np.array_equal(a, b) for a, b in leaves)


def test_a_fit_does_not_depend_on_the_batches(tiny):
    """Nor on padding, nor on anomalous images."""
    if tiny.method.fit is None:
        pytest.skip("it has none")
    batch, (_, params, _, buffers, _) = make_batch(images=8), tiny.state
    variables = {"params": params, "buffers": buffers}
    parts = [jax.tree.map(lambda x, rows=rows: x[rows], batch) for rows in ([0, 1, 5], [2, 6, 3])]
    padded = parts[0]._replace(weight=np.array([1, 1, 0], np.float32))
    one = tiny.method.fit(variables, [batch])
    assert_same(tiny.method.fit(variables, [padded, parts[1]]), one, rtol=1e-5, atol=1e-6)
    moved, old = flat(one), flat(variables["buffers"])
    assert any(not np.array_equal(value, old[name]) for name, value in moved.items())
    assert jax.tree.map(jnp.shape, one) == jax.tree.map(jnp.shape, variables["buffers"])


def test_the_loss_without_a_step_is_finite_and_without_change(tiny):
    one, two = (make_loss(tiny.method)(tiny.state, tiny.batch) for _ in range(2))
    assert np.isfinite(one)
    assert one == two


def test_likelihoods_have_the_sizes_of_the_maps_and_depend_on_their_image_alone(tiny):
    together = seen(tiny, tiny.batch)
    sizes = [shape[:2] for shape in SHAPES]
    assert [x.shape[1:] for x in together] in (sizes, sizes[:1])  # some join all scales
    assert {x.dtype for x in together} == {np.dtype("float32")}
    for row in range(4):
        for scale, alone in zip(together, seen(tiny, tiny.batch, [row]), strict=True):
            np.testing.assert_allclose(alone[0], scale[row], rtol=1e-5, atol=1e-5)


def test_calibrated_scores_depend_on_their_image_alone(tiny):
    """Without calibration only the forms that say so, which are not the transductive ones."""
    maps = seen(tiny, tiny.batch)
    fitted = tiny.method.calibrate([x[:2] for x in maps], SIZE)
    assert fitted.scale_max.shape == (len(maps),)
    forms = (fitted,) if tiny.method.published == "transductive" else (fitted, None)
    for calibration in forms:
        together = tiny.method.aggregate(maps, SIZE, calibration)
        assert together.image.shape == (4,)
        assert together.pixel.shape == (4, *SIZE)
        assert together.pixel.dtype == np.float64
        for row in range(4):
            alone = tiny.method.aggregate([x[row : row + 1] for x in maps], SIZE, calibration)
            for one, all_ in zip(alone, together, strict=True):
                if all_ is not None:
                    np.testing.assert_array_equal(one[0], all_[row])


@pytest.mark.parametrize("corner", [*itertools.product((0, 1), (0, 1))])
def test_a_defect_is_found_where_it_is(tiny, corner):
    """In no corner is one axis taken for the other, as maps are not square."""
    batch = make_batch() if tiny.method.needs_image else make_batch()._replace(image=None)
    before = seen(tiny, batch)
    for values in batch.maps:
        values[3, -corner[0], -corner[1]] = 6.0
    after = seen(tiny, batch)
    fitted = tiny.method.calibrate([x[:2] for x in before], SIZE)
    without, pixel = (tiny.method.aggregate(x, SIZE, fitted).pixel[3] for x in (before, after))
    middle = center_of_mass(np.maximum(pixel - without, 0))
    assert [x >= (side - 1) / 2 for x, side in zip(middle, SIZE, strict=True)] == [*corner]


def test_calibration_measures_against_normal_images(tiny):
    """On them anomaly maps are not negative, and an image that is unlikelier evenly scores more."""
    maps = seen(tiny, tiny.batch)
    fitted = tiny.method.calibrate(maps, SIZE)
    normal = tiny.method.aggregate(maps, SIZE, fitted)
    assert (normal.pixel >= 0).all()
    unlikely = tiny.method.aggregate([x - 1 for x in maps], SIZE, fitted)
    assert (unlikely.image > normal.image).all()
    assert (unlikely.pixel > normal.pixel).all()
    assert tiny.method.published in ("transductive", "per_image")


def test_likelihoods_can_be_exported(tiny):
    """As one program, which also lowers for accelerators."""
    variables = {"params": tiny.state.params, "buffers": tiny.state.buffers}
    given = Batch(tiny.batch.maps, tiny.batch.image)
    exported = jax.export.export(tiny.log_probs, platforms=("cpu", "cuda"))(variables, given)
    for one, other in zip(
        exported.call(variables, given), tiny.log_probs(variables, given), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-5)


def test_scores_and_maps_are_those_of_an_exported_graph(tiny):
    """ONNX Runtime, in float32, says what JAX and NumPy say, of any number of images."""
    variables = {"params": tiny.state.params, "buffers": tiny.state.buffers}
    fitted = tiny.method.calibrate(seen(tiny, tiny.batch, slice(2)), SIZE)

    def one_image(*maps):
        found = tiny.method.aggregate([x[None] for x in maps], SIZE, fitted)
        return found.image[0], found.pixel[0]

    def scores(first, second, *image):
        given = Batch((first, second), *image)
        return jax.vmap(one_image)(*tiny.method.log_probs(variables, given))

    arrays = [x for x in (*tiny.batch.maps, tiny.batch.image) if x is not None]
    model = backends.converted(scores, arrays, dynamic=True)
    expected = tiny.method.aggregate(seen(tiny, tiny.batch), SIZE, fitted)
    for rows in (slice(4), slice(2, 3)):
        given = {f"in{index}": values[rows] for index, values in enumerate(arrays)}
        for found, wanted in zip(
            backends.by_onnxruntime(model, given), (expected.image, expected.pixel), strict=True
        ):
            largest = np.abs(wanted).max()
            np.testing.assert_allclose(found, wanted[rows], rtol=0, atol=1e-5 * largest)


@pytest.mark.whole
def test_two_devices_take_the_same_step(tmp_path):
    """Shuffles, statistics of the batch and filters see the batch of all devices."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.methods.test_laws", str(tmp_path / "ends.npz")],
        env=os.environ | {"JAX_NUM_CPU_DEVICES": "2"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    with np.load(tmp_path / "ends.npz") as found:
        for name in METHODS:
            for key, value in flat(one_step(name, parallel.ALONE)).items():
                bound = 2 * RATE if name + key in UNSURE else 2e-4 * np.abs(value).max()
                np.testing.assert_allclose(
                    found[name + key], value, rtol=0, atol=bound, err_msg=name + key
                )


def one_step(name, devices):
    """Parameters, buffers and metrics after one step."""
    tiny = case(name, devices)
    state, batch = devices.replicate(tiny.state), devices.shard_batch(tiny.batch, 4)
    after, metrics = tiny.step(state, batch)
    return after.params, after.buffers, metrics


def main(path):
    devices = parallel.devices(4)
    assert devices.count == 2
    ends = {name: flat(one_step(name, devices)) for name in METHODS}
    np.savez(path, **{name + key: x for name, end in ends.items() for key, x in end.items()})


if __name__ == "__main__":
    main(sys.argv[1])
