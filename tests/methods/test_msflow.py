"""MSFlow as a method: latents and loss of the reference, likelihood maps and scores."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.detector.calibration import Fitted, from_json, to_json
from flowad_jax.errors import UserError
from flowad_jax.flows import MultiScaleFlow
from flowad_jax.methods import msflow
from flowad_jax.ops import arrays
from flowad_jax.types import Batch
from flowad_jax.weights.dialects import msflow as converter
from tests import golden

SIZES = ((8, 8, 6), (4, 4, 8), (2, 2, 12))  # (h, w, C) of three scales


@pytest.fixture(name="stored", scope="module")
def _stored():
    return golden.load("msflow")


@pytest.fixture(name="reference", scope="module")
def _reference(stored):
    """Method, variables and feature maps (channels last) of the reference's stored pass."""
    parallel, fusion = state_dicts(stored)
    method = msflow.build(
        condition=int(stored["c_conds"][0]), blocks=tuple(stored["parallel_blocks"])
    )
    maps = tuple(channels_last(stored[f"y{scale}"]) for scale in range(3))
    return method, converter.flows(parallel, fusion), maps


def state_dicts(stored):
    flat = golden.state_dict(stored)
    parts = ("parallel_flows/0/", "parallel_flows/1/", "parallel_flows/2/", "fusion_flow/")
    *parallel, fusion = (
        {key.removeprefix(part): value for key, value in flat.items() if key.startswith(part)}
        for part in parts
    )
    return parallel, fusion


def channels_last(array):
    return np.moveaxis(array, 1, -1)


def feature_maps(images=3, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(images, *size)).astype(np.float32) for size in SIZES)


def batch(weight, maps):
    return Batch(maps, weight=jnp.asarray(weight, jnp.float32))


def small(**options):
    return msflow.build(**{"condition": 8, "blocks": (1, 2, 1), **options})


def initial(method, maps):
    quick = {"xla_backend_optimization_level": 0}  # the numbers are the same
    return jax.jit(method.init, compiler_options=quick)(jax.random.key(0), Batch(maps))


@functools.cache
def compiled_loss(method):
    """The loss and its gradients as the training step computes them."""

    def compute(variables, maps, weight):
        (phase,) = method.phases(variables["buffers"], batch(weight, maps), None)
        minibatch = jax.tree.map(lambda leaf: leaf[0], phase.minibatches)
        gradient = jax.value_and_grad(phase.loss_fn, has_aux=True)
        (loss, _), grads = gradient(variables["params"], {}, minibatch)
        return loss, grads

    return jax.jit(compute)


def loss(method, variables, maps, weight):
    return compiled_loss(method)(variables, maps, jnp.asarray(weight, jnp.float32))


def network(stored, maps):
    """The flow of the stored pass."""
    channels = tuple(x.shape[-1] for x in maps)
    return MultiScaleFlow(channels, tuple(stored["parallel_blocks"]), int(stored["c_conds"][0]))


def test_latents_agree_with_the_reference(stored, reference):
    _, variables, maps = reference
    flow = network(stored, maps)
    latents, log_det = jax.jit(flow.apply)(variables, maps)
    for scale, z in enumerate(latents):
        expected = channels_last(stored[f"z{scale}"])
        np.testing.assert_allclose(z, expected, atol=1e-5 * np.abs(expected).max())
    # The two parts nearly cancel; the tolerance is relative to one of them.
    largest = np.abs(stored["log_det_fusion"]).max()
    np.testing.assert_allclose(log_det, stored["log_det"], atol=1e-5 * largest)


def test_parallel_flows_agree_with_the_reference(stored, reference):
    _, variables, maps = reference
    flow = network(stored, maps).bind(variables)
    for scale, x in enumerate(maps):
        z, log_det = flow.scales[scale](x, flow.code(x[:1]))
        expected = channels_last(stored[f"z_parallel{scale}"])
        np.testing.assert_allclose(z, expected, atol=1e-5 * np.abs(expected).max())
        np.testing.assert_allclose(log_det, stored[f"log_det_parallel{scale}"], rtol=1e-5)


def test_loss_agrees_with_the_reference(stored, reference):
    method, variables, maps = reference
    value, _ = loss(method, variables, maps, [1, 1])
    np.testing.assert_allclose(value, stored["loss_mean"], rtol=1e-5)
    for image in range(2):
        weight = np.eye(2)[image]
        value, _ = loss(method, variables, maps, weight)
        np.testing.assert_allclose(value, stored["loss_per_image"][image], rtol=1e-5)


def test_scoring_agrees_with_the_reference():
    stored = golden.load("msflow_scoring")
    maps = [stored[f"log_prob_{scale}"] for scale in range(3)]
    method = msflow.build(top=float(stored["top_k"]))
    scores = method.aggregate(maps, tuple(stored["out_size"]))
    np.testing.assert_allclose(scores.pixel, stored["anomaly_map_add"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores.overlap, stored["anomaly_map_mul"], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(scores.image, stored["image_score"], rtol=1e-6)


def test_losses_are_reported_per_dimension_of_all_scales():
    maps = feature_maps()
    (phase,) = small().phases({"all": {}}, batch([1, 1, 1], maps), None)
    assert phase.dimensions == 8 * 8 * 6 + 4 * 4 * 8 + 2 * 2 * 12


def test_half_precision_barely_changes_the_loss():
    """The convolutions round to 8 bits; sums and log-determinants must not."""
    maps = tuple(50 * x for x in feature_maps())
    methods = {name: small(compute=name) for name in ("float32", "bfloat16")}
    variables = initial(methods["float32"], maps)
    losses = {n: float(loss(m, variables, maps, [1, 1, 1])[0]) for n, m in methods.items()}
    assert losses["bfloat16"] != losses["float32"]
    np.testing.assert_allclose(losses["bfloat16"], losses["float32"], rtol=2e-3)
    _, grads = loss(methods["bfloat16"], variables, maps, [1, 1, 1])
    assert {leaf.dtype for leaf in jax.tree.leaves(grads)} == {jnp.dtype("float32")}
    maps_out = jax.jit(methods["bfloat16"].log_probs)(variables, Batch(maps))
    assert {m.dtype for m in maps_out} == {jnp.dtype("float32")}


def test_likelihood_maps_are_mean_squares():
    method, maps = small(), feature_maps()
    variables = initial(method, maps)
    flow = MultiScaleFlow((6, 8, 12), (1, 2, 1), 8)
    latents, _ = jax.jit(flow.apply)(variables, maps)
    for got, z in zip(method.log_probs(variables, Batch(maps)), latents, strict=True):
        np.testing.assert_allclose(got, -0.5 * (z**2).mean(-1), rtol=1e-5)


@pytest.fixture(name="likelihoods")
def _likelihoods():
    rng = np.random.default_rng(0)
    return {n: [-rng.random((n, 4, 4)), -rng.random((n, 2, 2))] for n in (5, 4)}


def test_only_the_calibrated_form_sees_an_evenly_unlikely_image(likelihoods):
    """The paper's form measures an image by its own maximum, which hides such an image."""
    method = small()
    normal = likelihoods[5]
    fitted = method.calibrate(normal, (8, 8))
    shifted = [m - 3.0 for m in normal]
    paper, paper_shifted = method.aggregate(normal, (8, 8)), method.aggregate(shifted, (8, 8))
    np.testing.assert_allclose(paper_shifted.image, paper.image, rtol=1e-9)
    ours = method.aggregate(normal, (8, 8), fitted)
    ours_shifted = method.aggregate(shifted, (8, 8), fitted)
    assert ours_shifted.image.min() > ours.image.max()
    assert (ours.pixel >= 0).all()
    assert (ours.overlap >= 0).all()


def test_the_score_is_the_mean_of_the_top():
    values = np.linspace(-4.0, 0.0, 64).reshape(1, 8, 8)
    anomaly = 1 - np.exp(np.sort(values.ravel()))[:6]
    score = small(top=0.1).aggregate([values], (8, 8)).image[0]
    np.testing.assert_allclose(score, anomaly.mean())
    assert small(top=1e-9).aggregate([values], (8, 8)).image[0] == anomaly[0]


def test_blocks_for_another_number_of_scales():
    with pytest.raises(UserError, match=r"method\.blocks=\(1, 2, 1\) is for 3 scales.* gives 2"):
        small().init(jax.random.key(0), Batch(feature_maps()[:2]))


def test_calibrated_scores_neither_saturate_nor_rank_otherwise(likelihoods):
    """The mean of ``1 - exp(-b)`` ties where all b are large; its logarithm does not."""
    method = small(top=0.1)
    fitted = method.calibrate(likelihoods[5], (8, 8))
    before = fitted._replace(form=0)
    far = [np.concatenate([m - shift for shift in (0, 1, 30, 60, 5000)]) for m in likelihoods[4]]
    new, old = (method.aggregate(far, (8, 8), it) for it in (fitted, before))
    assert np.sum(old.image == 1.0) >= 8
    assert len(np.unique(new.image)) == 20
    assert np.isfinite(new.image).all()
    apart = old.image < 1 - 1e-9
    np.testing.assert_allclose(new.image[apart], -np.log(1 - old.image[apart]), rtol=1e-5)
    np.testing.assert_array_equal(new.pixel, old.pixel)
    assert new.image.astype(np.float32).max() > new.image.astype(np.float32)[:-4].max()


def test_what_an_older_version_calibrated_keeps_its_scores(likelihoods):
    """Its checkpoint names no form; thresholds in probabilities never meet scores in nats."""
    method = small()
    fitted = method.calibrate(likelihoods[5], (8, 8))
    scores = method.aggregate(likelihoods[5], (8, 8), fitted._replace(form=0))
    stored = to_json(Fitted(fitted, scores.image, scores.pixel.max(axis=(1, 2))))
    assert from_json(stored).calibration.form == msflow.IN_NATS
    del stored["form"]
    restored = from_json(stored)
    again = method.aggregate(likelihoods[5], (8, 8), restored.calibration)
    np.testing.assert_array_equal(again.image, restored.image)
    expected = 1 - np.exp(np.sort((likelihoods_sum(likelihoods[5]) - fitted.map_max[1]), axis=1))
    np.testing.assert_allclose(again.image, expected[:, :1].mean(axis=1))


def likelihoods_sum(maps):
    """The multiplied map of every image (N, 64)."""
    return sum(arrays.resize_align_corners(m, (8, 8)) for m in maps).reshape(len(maps[0]), -1)
