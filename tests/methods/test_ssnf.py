"""SSNF as a method: stored tensors of the reference, training on pairs, maps and scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.methods import ssnf
from flowad_jax.training import schedules
from flowad_jax.training.optimizer import Adam
from flowad_jax.training.step import make_step
from flowad_jax.types import Batch, TrainState
from flowad_jax.weights.dialects import ssnf as converter
from tests import golden

FAST = {"xla_backend_optimization_level": 0}
KEYS = [jax.random.key(seed) for seed in range(2)]
PAIRS = [0, 0, 1, 1]


@pytest.fixture(name="stored", scope="module")
def _stored():
    return golden.load("ssnf")


@functools.cache
def reference(**options):
    """The method of the stored pass with some options, its variables and its map."""
    stored = golden.load("ssnf")
    made = converter.flow(golden.state_dict(stored))
    variables = {collection: {"scale0": tree} for collection, tree in made.items()}
    shape = {"blocks": 4, "hidden": 16, "heads": int(stored["num_heads"]), "drop": 0.0}
    maps = (np.moveaxis(stored["x_nchw"], 1, -1),)
    return ssnf.build(**shape, **options), variables, maps


@functools.cache
def small(**options):
    return ssnf.build(
        **{"blocks": 1, "hidden": 4, "heads": 2, "cap_dimensions": 1, "drop": 0.0, **options}
    )


@functools.cache
def feature_maps(scales=1):
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=(4, 2, 3, 4)).astype(np.float32) for _ in range(scales))


@functools.cache
def drawn():
    """First variables of two scales."""
    init = jax.jit(small().init, compiler_options=FAST)
    return jax.device_get(init(KEYS[0], Batch(feature_maps(2))))


def initial(scale=0):
    """The drawn variables of one of the scales, as those of a method that has no other."""
    return {name: {"scale0": trees[f"scale{scale}"]} for name, trees in drawn().items()}


def batch(maps, label, weight=None):
    weight = np.ones(len(label)) if weight is None else weight
    return Batch(maps, label=jnp.asarray(label), weight=jnp.asarray(weight, jnp.float32))


@functools.cache
def compiled(method):
    """Loss, metrics and gradients as the training step computes them, and whether it would."""

    def compute(variables, rows, rng):
        (phase,) = method.phases(variables["buffers"], rows, rng)
        minibatch = jax.tree.map(lambda leaf: leaf[0], phase.minibatches)
        gradient = jax.value_and_grad(phase.loss_fn, has_aux=True)
        (loss, aux), grads = gradient(variables["params"], {}, minibatch)
        assert aux.buffers == {}
        return loss, aux.metrics, grads, phase.active

    return jax.jit(compute, compiler_options=FAST)


def run(method, variables, maps, label, weight=None, rng=KEYS[0]):
    return jax.device_get(compiled(method)(variables, batch(maps, label, weight), rng))


def assert_trees_close(ours, expected, atol=1e-5):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=atol)
    jax.tree.map(close, ours, expected)


def test_likelihoods_agree_with_the_reference(stored):
    """With one normal image that counts, the loss is its negative log-likelihood."""
    for image, expected in enumerate(stored["neg_log_likelihood"]):
        loss, metrics, _, _ = run(*reference(), [0] * 6, np.eye(6)[image])
        np.testing.assert_allclose(loss, expected, rtol=1e-5)
        np.testing.assert_allclose(metrics["nll"], expected / 360, rtol=1e-5)


def test_loss_agrees_with_the_reference(stored):
    """All six images are likelier than the cap, that of the reference not being scaled."""
    loss, metrics, _, active = run(*reference(cap_dimensions=360), [0, 0, 0, 1, 1, 1])
    # The loss is the difference of two numbers that are 300 times as large.
    np.testing.assert_allclose(loss, stored["loss"], atol=1e-5 * stored["neg_log_likelihood"][0])
    nll = stored["neg_log_likelihood"] / 360
    np.testing.assert_allclose(metrics["nll"], nll[:3].mean(), rtol=1e-5)
    np.testing.assert_allclose(metrics["nll_synthetic"], nll[3:].mean(), rtol=1e-5)
    assert metrics["kept"] == 1
    assert active.tolist() == [True]


def test_the_cap_is_scaled_to_the_dimensions(stored):
    """1e5 nats for 602,112 dimensions are 60 for these 360, and no image is below that."""
    loss, metrics, _, _ = run(*reference(), [0, 0, 0, 1, 1, 1])
    np.testing.assert_allclose(loss, stored["neg_log_likelihood"][:3].mean(), rtol=1e-5)
    assert metrics["kept"] == 0
    assert metrics["nll_synthetic"] > 1


def test_scores_agree_with_the_reference(stored):
    method, variables, maps = reference()
    size = stored["anomaly_map"].shape[1:]
    values = jax.jit(method.log_probs, compiler_options=FAST)(variables, Batch(maps))
    scores = method.aggregate(values, size)
    np.testing.assert_allclose(scores.pixel, stored["anomaly_map"], atol=1e-6)
    np.testing.assert_allclose(scores.image, stored["image_score"], atol=1e-6)
    assert scores.pixel.dtype == np.float64
    assert scores.overlap is None
    squeezed = ssnf.build(sigmoid=True).aggregate(values, size)
    np.testing.assert_allclose(squeezed.pixel, 1 / (1 + np.exp(-scores.pixel)), rtol=1e-12)
    np.testing.assert_array_equal(np.argsort(squeezed.image), np.argsort(scores.image))


def test_large_maps_are_scored_image_by_image(monkeypatch):
    method, maps = small(), feature_maps()
    score = jax.jit(lambda *args: method.log_probs(*args), compiler_options=FAST)
    together = score(initial(), Batch(maps))
    monkeypatch.setattr(ssnf, "ATTENTION_WEIGHTS", 4 * 2 * 6**2 - 1)
    score.clear_cache()
    program = score.lower(initial(), Batch(maps)).as_text()
    assert "4x2x6x6" not in program  # (B, heads, h * w, h * w)
    np.testing.assert_allclose(score(initial(), Batch(maps)), together, rtol=1e-5)


def test_the_other_score_is_the_mean_square():
    density, variables, maps = reference()
    other, _, _ = reference(score="nll")
    (values,) = jax.jit(other.log_probs, compiler_options=FAST)(variables, Batch(maps))
    assert values.shape == (6, 6, 5)
    z = np.moveaxis(golden.load("ssnf")["z"], 1, -1)
    np.testing.assert_allclose(values, -(z**2).mean(-1) / 2, rtol=1e-4)
    assert density.aggregate([values], (6, 5)).pixel.max() > 0.4  # no density goes that far


def test_gradients_are_those_of_the_branch():
    """With all negatives in: half the gradients of either mean, as if there were no filter."""
    args = reference(cap_dimensions=360)
    rows = np.arange(6)
    _, metrics, grads, _ = run(*args, [0, 0, 0, 1, 1, 1])
    assert metrics["kept"] == 1
    normal, synthetic = (run(*args, [0] * 6, part)[2] for part in (rows < 3, rows > 2))
    expected = jax.tree.map(lambda p, q: 0.5 * p - 0.5 * q, normal, synthetic)
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(normal))
    assert max(np.abs(leaf).max() for leaf in jax.tree.leaves(grads)) > 0.1 * largest
    assert_trees_close(grads, expected, atol=1e-5 * largest)  # of which either is a difference


def test_without_negatives_it_is_maximum_likelihood():
    method = small(negative_cap=-9.0)
    loss, metrics, grads, _ = run(method, initial(), feature_maps(), PAIRS)
    plain = run(method, initial(), feature_maps(), [0, 0, 0, 0], [1, 1, 0, 0])
    np.testing.assert_allclose(loss, plain[0], rtol=1e-6)
    assert_trees_close(grads, plain[2])
    assert metrics["kept"] == plain[1]["kept"] == plain[1]["nll_synthetic"] == 0
    assert metrics["nll_synthetic"] > 0


def test_a_batch_without_normal_images_takes_no_step():
    loss, metrics, grads, active = run(small(), initial(), feature_maps(), PAIRS, [0, 0, 1, 1])
    assert loss == metrics["nll"] == metrics["kept"] == 0
    assert active.tolist() == [False]
    assert all(np.all(leaf == 0) for leaf in jax.tree.leaves(grads))


def test_dropout_follows_the_key():
    method, calm = small(drop=0.5), small()
    first, again, other = (
        run(method, initial(), feature_maps(), PAIRS, rng=KEYS[i])[0] for i in (0, 0, 1)
    )
    without = run(calm, initial(), feature_maps(), PAIRS)[0]
    assert first == again
    assert len({float(first), float(other), float(without)}) == 3
    scores = (jax.jit(m.log_probs, compiler_options=FAST) for m in (method, calm))
    np.testing.assert_array_equal(*(score(initial(), Batch(feature_maps()))[0] for score in scores))


def test_scales_have_flows_of_their_own_and_add_up():
    method, maps, variables = small(), feature_maps(2), drawn()
    (phase,) = method.phases(variables["buffers"], batch(maps, PAIRS), KEYS[0])
    assert set(phase.param_groups) == set(variables["params"]) == {"scale0", "scale1"}
    assert phase.dimensions == 2 * (2 * 3 * 4)
    assert phase.mutable == ()
    together, *_ = run(method, variables, maps, PAIRS, [1, 1, 0, 0])
    alone = [
        run(method, initial(scale), maps[scale : scale + 1], PAIRS, [1, 1, 0, 0])[0]
        for scale in range(2)
    ]
    assert abs(alone[0] - alone[1]) > 1
    np.testing.assert_allclose(together, sum(alone), rtol=1e-5)


def test_training_drives_negatives_out():
    """All through the training step, with dropout; likelihood alone would draw them in."""
    maps = tuple(np.concatenate([x[:2], x[:2] + 0.3]) for x in feature_maps())
    method, optimizer = small(drop=0.1), Adam(eps=1e-4, weight_decay=1e-5)
    params = jax.tree.map(jnp.asarray, initial()["params"])
    moments = {"scale0": optimizer.init(params["scale0"])}
    state = TrainState(jnp.array(0), params, moments, initial()["buffers"], KEYS[0])
    step = make_step(method, optimizer, schedules.constant(1e-2, 1, 1))
    step = jax.jit(step, compiler_options=FAST)
    seen = []
    for _ in range(30):
        state, metrics = step(state, batch(maps, PAIRS))
        assert metrics["finite"]
        seen.append({name: float(value) for name, value in metrics.items()})
    assert seen[0]["kept/scale0"] == 0.5
    assert seen[2]["nll_synthetic/scale0"] > seen[0]["nll_synthetic/scale0"] + 0.005
    assert seen[-1]["kept/scale0"] == 0
    assert seen[-1]["nll/scale0"] < seen[0]["nll/scale0"] - 0.1


@pytest.fixture(name="values")
def _values():
    rng = np.random.default_rng(0)
    return {n: [0.4 * rng.random((n, 4, 4)), 0.4 * rng.random((n, 2, 2))] for n in (5, 3)}


def test_calibrated_scores_are_measured_against_normal_images(values):
    method, normal = small(), values[5]
    fitted = method.calibrate(normal, (8, 8))
    np.testing.assert_array_equal(fitted.scale_max, [m.max() for m in normal])
    ours, published = (method.aggregate(values[3], (8, 8), c) for c in (fitted, None))
    np.testing.assert_allclose(ours.pixel, published.pixel + fitted.scale_max.mean(), atol=1e-12)
    np.testing.assert_array_equal(np.argsort(ours.image), np.argsort(published.image))
    best = [np.full((1, 4, 4), normal[0].max()), np.full((1, 2, 2), normal[1].max())]
    np.testing.assert_allclose(method.aggregate(best, (8, 8), fitted).pixel, 0, atol=1e-12)
    assert (method.aggregate(normal, (8, 8), fitted).pixel >= 0).all()


@pytest.mark.parametrize(("top", "count"), [(0.0, 1), (0.1, 1), (0.25, 4), (1.0, 16)])
def test_the_score_is_the_mean_of_the_top(top, count):
    normality = np.random.default_rng(0).random((1, 4, 4))
    expected = -np.sort(normality.ravel())[:count].mean()
    np.testing.assert_allclose(small(top=top).aggregate([normality], (4, 4)).image, [expected])


def test_half_precision_barely_changes_the_loss():
    losses = [
        float(run(small(**options), initial(), feature_maps(), [0] * 4)[0])
        for options in ({}, {"compute": "bfloat16"})
    ]
    assert losses[0] != losses[1]
    np.testing.assert_allclose(*losses, rtol=5e-3)
