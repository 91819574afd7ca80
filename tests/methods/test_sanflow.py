"""SANFlow as a method: cells, steps, likelihood maps, options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.flows import cflow_decoder, position_code
from flowad_jax.flows.coupling import Clamp
from flowad_jax.flows.variance import VarianceNet
from flowad_jax.methods import sanflow
from flowad_jax.ops.pixel_pooling import anomalous_positions, corners
from flowad_jax.training import schedules
from flowad_jax.training.optimizer import Adam, init_state
from flowad_jax.training.step import make_step
from flowad_jax.types import Batch

SIDE = 12
SIZES = ((4, 4, 6), (2, 2, 10))  # (h, w, C) of two scales


def inputs(images=3, seed=0):
    """Feature maps of two scales and the image that they would come from."""
    rng = np.random.default_rng(seed)
    shapes = (*SIZES, (SIDE, SIDE, 3))
    *maps, image = (rng.normal(size=(images, *shape)).astype(np.float32) for shape in shapes)
    return Batch(tuple(maps), image)


def batch(weight, given=None):
    """A third of every image is a defect."""
    mask = np.zeros((len(weight), SIDE, SIDE), bool)
    mask[:, :4] = True
    given = given or inputs(len(weight))
    return given._replace(mask=jnp.asarray(mask), weight=jnp.asarray(weight))


@functools.cache
def small(**options):
    return sanflow.build(**{"condition": 8, "blocks": 1, **options})


@functools.cache
def step_of(rate, **options):
    method = small(**options)
    step = make_step(method, Adam("skip"), schedules.constant(rate, 1, 1))
    fast_to_compile = {"xla_backend_optimization_level": 0}
    return init_state(method, Adam("skip"), inputs(), 0), jax.jit(
        step, compiler_options=fast_to_compile
    )


def test_one_pass_per_batch_or_one_per_scale():
    """Every pass moves the running means a tenth towards those of the batch."""
    state, step = step_of(3e-3)
    once, metrics = step(state, batch(np.ones(3)))
    reported = {name.split("/")[0] for name in metrics if name.endswith("/snet+scale0+scale1")}
    assert reported == {"loss", "kl", "cross_entropy", "variance"}
    # A learning rate of 0: both passes see the same network.
    same, two_steps = step_of(0.0, joint_step=False)
    twice, _ = two_steps(same, batch(np.ones(3)))
    after_one, after_two = (tree.buffers["snet"]["norm1"]["mean"] for tree in (once, twice))
    assert np.abs(after_one).max() > 1e-3
    np.testing.assert_allclose(after_two, 1.9 * after_one, rtol=1e-4, atol=1e-6)
    for after in (once, twice):
        jax.tree.map(
            np.testing.assert_array_equal, after.buffers["scale1"], state.buffers["scale1"]
        )


def phases_of(method):
    buffers = init_shapes(method)["buffers"]
    phases = []

    def trace(given):
        phases.extend(method.phases(buffers, given, None))
        return ()

    jax.eval_shape(trace, batch(np.ones(3)))
    return phases


def init_shapes(method):
    return jax.eval_shape(method.init, jax.random.key(0), inputs())


def test_groups_of_the_phases():
    (joint,) = phases_of(small())
    assert joint.param_groups == ("snet", "scale0", "scale1")
    assert joint.mutable == ("snet",)
    one, two = phases_of(small(legacy=True))
    assert (one.param_groups, two.param_groups) == (("snet", "scale0"), ("snet", "scale1"))
    assert one.mutable == two.mutable == ("snet",)


def test_legacy_is_every_released_form():
    released = {
        "log_variance_weight": 1.0,
        "stop_alpha": False,
        "cross_entropy": "double_softmax",
        "variance_floor": 0.0,
        "mask_pool": "corner",
        "variance_pool": "corner",
        "per_scale": False,
        "joint_step": False,
    }
    systems = [
        method.phases.__self__
        for method in (small(legacy=True), small(legacy=True, per_scale=True), small(**released))
    ]
    assert systems[0] == systems[1] == systems[2]
    assert systems[0] != small().phases.__self__


def test_log_probs_follow_the_definition():
    """Of the general form, in which every scale has a head."""
    method, given = small(per_scale=True), inputs(images=2)
    init = jax.jit(method.init, compiler_options={"xla_backend_optimization_level": 0})
    variables = init(jax.random.key(0), given)
    out = jax.jit(method.log_probs)(variables, given)
    own = {kind: tree["snet"] for kind, tree in variables.items()}
    net_out = jax.jit(VarianceNet(2).apply)(own, given.image)
    for scale, (height, width, channels) in enumerate(SIZES):
        flow = jax.jit(cflow_decoder(channels, 1, Clamp(), "hard").apply)
        own = {kind: tree[f"scale{scale}"] for kind, tree in variables.items()}
        code = position_code(8, height, width).reshape(-1, 8)
        cells = np.asarray(net_out).reshape(2, height, SIDE // height, width, SIDE // width, -1)
        logs = cells.mean((2, 4)).reshape(2, height * width, -1, 2)[:, :, scale]
        for image in range(2):
            z, log_det = flow(own, given.maps[scale][image].reshape(-1, channels), code)
            alpha, beta = np.exp(logs[image]).T
            variance = beta / (alpha + 1)
            squares = np.sum(np.asarray(z) ** 2, axis=-1) / variance
            gauss = -0.5 * (channels * np.log(2 * np.pi * variance) + squares)
            expected = (gauss + np.asarray(log_det)) / channels
            got = out[scale][image].reshape(-1)
            np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_size_of_the_published_system():
    """WRN-50-2 with three scales; the count of the decoders and that of the network."""
    widths = ((32, 512), (16, 1024), (8, 2048))
    maps = tuple(jax.ShapeDtypeStruct((1, n, n, c), np.float32) for n, c in widths)
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), np.float32)
    variables = jax.eval_shape(sanflow.build().init, jax.random.key(0), Batch(maps, image))
    sizes = {
        name: sum(leaf.size for leaf in jax.tree.leaves(tree))
        for name, tree in variables["params"].items()
    }
    assert sizes == {
        "scale0": 15_753_216,
        "scale1": 33_595_392,
        "scale2": 88_154_112,
        "snet": 113_856,
    }


@pytest.mark.parametrize(("source", "goal", "first"), [(256, 32, 8), (320, 40, 8), (20, 6, 3)])
def test_corners_are_the_nearest_pixels_of_the_reference(source, goal, first):
    index = np.arange(source**2).reshape(1, source, source)
    expected = np.array([i * source // goal for i in range(goal)])
    np.testing.assert_array_equal(
        corners(index, (goal, goal))[0], expected[:, None] * source + expected
    )
    assert expected[1] == first


@pytest.mark.parametrize(
    ("pool", "share", "expected"),
    [
        ("corner", 0.1, [1, 0, 0, 0]),
        ("max", 0.1, [1, 1, 1, 0]),
        ("area", 0.1, [0, 0, 1, 0]),
        ("area", 0.04, [1, 1, 1, 0]),
        ("area", 0.2, [0, 0, 1, 0]),
        ("area", 0.21, [0, 0, 0, 0]),
    ],
)
def test_when_a_position_is_anomalous(pool, share, expected):
    """Cells of 5 x 5: one pixel in the corner, one elsewhere, a fifth of all, none."""
    mask = np.zeros((1, 10, 10), bool)
    mask[0, 0, 0] = mask[0, 2, 8] = True
    mask[0, 7, :5] = True
    found = anomalous_positions(mask, (2, 2), pool, share)
    np.testing.assert_array_equal(found.reshape(-1), expected)


@pytest.mark.parametrize("pool", ["average", "corner"])
@pytest.mark.parametrize("per_scale", [False, True])
def test_predictions_for_a_scale(pool, per_scale):
    net_out = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    system = small(variance_pool=pool, per_scale=per_scale).phases.__self__
    log_alpha, log_beta = system._predicted(net_out, 1, (2, 2))
    grouped = net_out.reshape(2, 2, 4, 2, 4, 4)
    picked = grouped.mean((2, 4)) if pool == "average" else grouped[:, :, 0, :, 0]
    first = 2 if per_scale else 0
    np.testing.assert_allclose(log_alpha, picked[..., first], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_beta, picked[..., first + 1], rtol=1e-5, atol=1e-6)
