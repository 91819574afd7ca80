"""SANFlow as a method: cells, steps, likelihood maps, options."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax import lookup
from flowad_jax.errors import UserError
from flowad_jax.flows import cflow_decoder, position_code
from flowad_jax.flows.coupling import Clamp
from flowad_jax.flows.variance import VarianceNet
from flowad_jax.methods import cflow, sanflow
from flowad_jax.methods._cells import Cells, corners
from flowad_jax.training import schedules
from flowad_jax.training.optim import Adam
from flowad_jax.training.step import init_state, make_maps_step
from flowad_jax.types import Batch

SIDE = 12
SIZES = ((4, 4, 6), (2, 2, 10))  # (h, w, C) of two scales


def inputs(images=3, seed=0):
    """Feature maps of two scales and the image that they would come from."""
    rng = np.random.default_rng(seed)
    shapes = (*SIZES, (SIDE, SIDE, 3))
    return tuple(rng.normal(size=(images, *shape)).astype(np.float32) for shape in shapes)


def batch(weight):
    """A third of every image is a defect."""
    mask = np.zeros((len(weight), SIDE, SIDE), bool)
    mask[:, :4] = True
    return Batch(image=None, mask=jnp.asarray(mask), label=None, weight=jnp.asarray(weight))


@functools.cache
def small(**options):
    return sanflow.build(**{"condition": 8, "blocks": 1, **options})


@functools.cache
def step_of(rate, **options):
    method = small(**options)
    step = make_maps_step(method, Adam("skip"), schedules.constant(rate, 1, 1))
    fast_to_compile = {"xla_backend_optimization_level": 0}
    return init_state(method, Adam("skip"), inputs(), 0), jax.jit(
        step, compiler_options=fast_to_compile
    )


def test_the_loss_falls():
    state, step = step_of(3e-3)
    losses = []
    for _ in range(8):
        state, metrics = step(state, inputs(), batch(np.ones(3)))
        losses.append(float(metrics["loss"]))
        assert metrics["finite"]
    assert losses[-1] < 0.5 * losses[0]
    reported = {name.split("/")[0] for name in metrics if name.endswith("/snet+scale0+scale1")}
    assert reported == {"loss", "kl", "cross_entropy", "variance"}


def test_padding_images_never_train():
    """Parameters, running statistics and metrics are those of the other images alone."""
    state, step = step_of(3e-3)
    real, padding = inputs(), inputs(seed=1)
    weight = np.array([1.0, 1.0, 0.0])
    other = tuple(np.concatenate([a[:2], 5 * b[2:]]) for a, b in zip(real, padding, strict=True))
    (one, metrics), (two, same) = (step(state, maps, batch(weight)) for maps in (real, other))
    for name in ("params", "constants"):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6),
            getattr(one, name),
            getattr(two, name),
        )
    for name in metrics:
        np.testing.assert_allclose(metrics[name], same[name], rtol=1e-5, err_msg=name)


def test_a_batch_of_padding_alone_changes_nothing():
    state, step = step_of(3e-3)
    after, metrics = step(state, inputs(), batch(np.zeros(3)))
    assert metrics["finite"]
    jax.tree.map(np.testing.assert_array_equal, after.params, state.params)
    jax.tree.map(np.testing.assert_array_equal, after.constants, state.constants)


def test_one_pass_per_batch_or_one_per_scale():
    """Every pass moves the running means a tenth towards those of the batch."""
    state, step = step_of(3e-3)
    once, _ = step(state, inputs(), batch(np.ones(3)))
    # A learning rate of 0: both passes see the same network.
    same, two_steps = step_of(0.0, joint_step=False)
    twice, _ = two_steps(same, inputs(), batch(np.ones(3)))
    after_one, after_two = (tree.constants["snet"]["norm1"]["mean"] for tree in (once, twice))
    assert np.abs(after_one).max() > 1e-3
    np.testing.assert_allclose(after_two, 1.9 * after_one, rtol=1e-4, atol=1e-6)
    for after in (once, twice):
        jax.tree.map(
            np.testing.assert_array_equal, after.constants["scale1"], state.constants["scale1"]
        )


def phases_of(method):
    constants = init_shapes(method)["constants"]
    phases = []

    def trace(maps):
        phases.extend(method.phases(constants, maps, batch(np.ones(3)), None))
        return ()

    jax.eval_shape(trace, inputs())
    return phases


def init_shapes(method):
    return jax.eval_shape(method.init, jax.random.key(0), inputs())


def test_groups_of_the_phases():
    (joint,) = phases_of(small())
    assert joint.trains == ("snet", "scale0", "scale1")
    assert joint.updates == ("snet",)
    one, two = phases_of(small(legacy=True))
    assert (one.trains, two.trains) == (("snet", "scale0"), ("snet", "scale1"))
    assert one.updates == two.updates == ("snet",)


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
    method, maps = small(per_scale=True), inputs(images=2)
    init = jax.jit(method.init, compiler_options={"xla_backend_optimization_level": 0})
    variables = init(jax.random.key(0), maps)
    out = jax.jit(method.log_probs)(variables, maps)
    own = {kind: tree["snet"] for kind, tree in variables.items()}
    net_out = jax.jit(VarianceNet(2).apply)(own, maps[-1])
    for scale, (height, width, channels) in enumerate(SIZES):
        flow = jax.jit(cflow_decoder(channels, 1, Clamp(), "hard").apply)
        own = {kind: tree[f"scale{scale}"] for kind, tree in variables.items()}
        code = position_code(8, height, width).reshape(-1, 8)
        cells = np.asarray(net_out).reshape(2, height, SIDE // height, width, SIDE // width, -1)
        logs = cells.mean((2, 4)).reshape(2, height * width, -1, 2)[:, :, scale]
        for image in range(2):
            z, log_det = flow(own, maps[scale][image].reshape(-1, channels), code)
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
    maps = [jax.ShapeDtypeStruct((1, n, n, channels), np.float32) for n, channels in widths]
    image = jax.ShapeDtypeStruct((1, 256, 256, 3), np.float32)
    variables = jax.eval_shape(sanflow.build().init, jax.random.key(0), (*maps, image))
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


def test_scores_are_those_of_cflow():
    method = small()
    assert (method.aggregate, method.calibrate) == (cflow.aggregate, cflow.calibrate)
    assert method.learns_from == "mixture"
    assert method.sees_images


def test_helpers_are_not_among_the_methods():
    names = lookup.choices("flowad_jax.methods")
    assert "sanflow" in names
    assert not [name for name in names if name.startswith("_")]


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
    cells = Cells(pool, share, "average", per_scale=False)
    np.testing.assert_array_equal(cells.anomalous(mask, (2, 2)).reshape(-1), expected)


@pytest.mark.parametrize("pool", ["average", "corner"])
@pytest.mark.parametrize("per_scale", [False, True])
def test_predictions_for_a_scale(pool, per_scale):
    net_out = np.random.default_rng(0).normal(size=(2, 8, 8, 4)).astype(np.float32)
    cells = Cells("area", 0.1, pool, per_scale)
    log_alpha, log_beta = cells.spread(net_out, 1, (2, 2))
    grouped = net_out.reshape(2, 2, 4, 2, 4, 4)
    picked = grouped.mean((2, 4)) if pool == "average" else grouped[:, :, 0, :, 0]
    first = 2 if per_scale else 0
    np.testing.assert_allclose(log_alpha, picked[..., first], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(log_beta, picked[..., first + 1], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior_p": 0}, "method.prior_p=0: must be above"),
        ({"prior_p": 1.4}, "method.prior_p=1.4"),
        ({"prior_level": 0.0}, "method.prior_level=0.0: must be above 0"),
        ({"anomalous_mean": float("nan")}, "method.anomalous_mean=nan: must be a finite number"),
        ({"variance_clip": -1.0}, "method.variance_clip=-1.0"),
        ({"variance_floor": 5.0}, "method.variance_floor=5.0: .* below variance_clip=5.0"),
        ({"log_alpha_clip": (0.0, 1.0)}, "method.log_alpha_clip=.0.0, 1.0.: must be two values"),
        ({"log_alpha_clip": (1.0,)}, "method.log_alpha_clip"),
        ({"cross_entropy_weight": -0.1}, "method.cross_entropy_weight=-0.1: must be at least 0"),
        ({"log_variance_weight": 0.0}, "method.log_variance_weight=0.0"),
        ({"cross_entropy": "double"}, "method.cross_entropy='double'"),
        ({"mask_pool": "corners"}, "did you mean 'corner'"),
        ({"mask_share": 0.0}, "method.mask_share=0.0"),
        ({"variance_pool": "max"}, "method.variance_pool='max'"),
        ({"condition": 6}, "multiple of 4"),
        ({"clamp_kind": "tan"}, "clamp_kind='tan'"),
        ({"permutation": "sof"}, "permutation='sof'"),
        ({"blocks": 0}, "method.blocks=0"),
        ({"mask_pool": "corners", "legacy": True}, "did you mean 'corner'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError, match=message) as caught:
        small(**options)
    assert "\n" not in str(caught.value)


def test_position_code_of_the_published_size():
    code = position_code(512, 3, 4)
    np.testing.assert_allclose(code[2, 3, [0, 256]], np.sin([3.0, 2.0]), rtol=1e-6)
