"""CFLOW-AD as a method: fibre batches, likelihood maps and scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.methods import cflow
from flowad_jax.ops import arrays
from flowad_jax.types import Batch, Calibration
from flowad_jax.weights import freia
from tests import golden

SIZES = ((4, 4, 6), (2, 2, 10))  # (h, w, C) of two scales


def feature_maps(images=3, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(images, *size)).astype(np.float32) for size in SIZES)


def batch(weight, maps):
    return Batch(maps, weight=jnp.asarray(weight, jnp.float32))


def small(**options):
    return cflow.build(**{"condition": 8, "blocks": 2, "fibre_size": 8, **options})


def initial(method, maps):
    return jax.jit(method.init)(jax.random.key(0), Batch(maps))


def minibatches(method, buffers, maps, weight, seed):
    """Minibatches and activity of every phase."""

    @jax.jit
    def make(buffers, maps, weight, rng):
        phases = method.phases(buffers, batch(weight, maps), rng)
        return [(phase.minibatches, phase.active) for phase in phases]

    return make(buffers, maps, jnp.asarray(weight), jax.random.key(seed))


def test_scoring_agrees_with_the_reference():
    stored = golden.load("cflow_scoring")
    maps = [stored[f"log_prob_{scale}"] for scale in range(3)]
    scores = cflow.aggregate(maps, tuple(stored["out_size"]))
    np.testing.assert_allclose(scores.pixel, stored["anomaly_map"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scores.image, stored["image_score"], rtol=1e-9)


def test_calibration_on_the_test_set_is_the_transductive_form():
    maps = [np.random.default_rng(0).normal(size=(3, 4, 4))]
    fitted = cflow.calibrate(maps, (8, 8))
    expected = cflow.aggregate(maps, (8, 8))
    np.testing.assert_array_equal(cflow.aggregate(maps, (8, 8), fitted).pixel, expected.pixel)
    assert cflow.aggregate([maps[0][:1]], (8, 8)).image != expected.image[0]


def test_extremely_unlikely_pixels_do_not_tie():
    """Likelihoods of 1e-9 and 1e-10 of the largest must stay apart in the map."""
    maps = [np.log(np.array([1.0, 1e-9, 1e-10])).reshape(3, 1, 1)]
    score = cflow.aggregate(maps, (1, 1), Calibration(np.zeros(1), np.float64(1.0))).image
    assert score[0] < score[1] < score[2]


@pytest.mark.parametrize("condition", [8, 0])
def test_log_probs_follow_the_definition(condition):
    method, maps = small(condition=condition), feature_maps()
    variables = initial(method, maps)
    out = jax.jit(method.log_probs)(variables, Batch(maps))
    for scale, feature_map in enumerate(maps):
        images, height, width, channels = feature_map.shape
        code = cflow.position_code(8, height, width).reshape(-1, 8) if condition else None
        flow = cflow.cflow_decoder(channels, 2)
        own = {name: tree[f"scale{scale}"] for name, tree in variables.items()}
        for image in range(images):
            z, log_det = jax.jit(flow.apply)(own, feature_map[image].reshape(-1, channels), code)
            expected = (
                -0.5 * channels * np.log(2 * np.pi) - 0.5 * np.sum(z**2, -1) + log_det
            ) / channels
            got = out[scale][image].reshape(-1)
            np.testing.assert_allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_a_phase_visits_every_fibre_once_with_its_own_position():
    method, maps = small(), feature_maps(images=2)
    buffers = initial(method, maps)["buffers"]
    (minibatch, active), _ = minibatches(method, buffers, maps, [1, 1], seed=1)
    rows, position = minibatch["rows"], minibatch["position"]
    assert rows.shape == (4, 8, 6)
    assert active.all()
    expected = maps[0].reshape(-1, 6)
    order = [int(np.flatnonzero((expected == row).all(1))[0]) for row in rows.reshape(-1, 6)]
    assert sorted(order) == list(range(32))
    assert order != sorted(order)
    np.testing.assert_array_equal(position.reshape(-1), np.array(order) % 16)
    (other, _), _ = minibatches(method, buffers, maps, [1, 1], seed=2)
    assert not np.array_equal(other["position"], position)


def test_padding_images_never_train():
    """Chunks with rows of padding are not active; those before hold real rows only."""
    method, maps = small(), feature_maps(images=3)
    buffers = initial(method, maps)["buffers"]
    phases = method.phases(buffers, batch([1, 0, 0], maps), jax.random.key(1))
    assert [phase.param_groups for phase in phases] == [("scale0",), ("scale1",)]
    np.testing.assert_array_equal(phases[0].active, [True, True, False, False, False, False])
    assert float(phases[0].minibatches["weight"][:2].min()) == 1
    # The second scale has 4 real rows, fewer than a chunk: they train, the others do not count.
    np.testing.assert_array_equal(phases[1].active, [True])
    params = {"scale1": initial(method, maps)["params"]["scale1"]}
    minibatch = jax.tree.map(lambda leaf: leaf[0], phases[1].minibatches)
    spoiled = {
        **minibatch,
        "rows": jnp.where(minibatch["weight"][:, None] > 0, minibatch["rows"], 9),
    }
    loss_fn = jax.jit(phases[1].loss_fn)
    (loss, _), (same, _) = (loss_fn(params, {}, rows) for rows in (minibatch, spoiled))
    np.testing.assert_allclose(loss, same, rtol=1e-6)


@pytest.mark.parametrize(("images", "steps"), [(2, 4), (3, 5), (1, 9)])
def test_a_number_of_steps_instead_of_a_size(images, steps):
    """Every row is visited at most once, and all but a remainder of fewer rows than steps are."""
    method, maps = small(fibre_steps=steps), feature_maps(images)
    found = minibatches(method, initial(method, maps)["buffers"], maps, [1.0] * images, seed=1)
    for feature_map, (minibatch, active) in zip(maps, found, strict=True):
        rows = feature_map.reshape(-1, feature_map.shape[-1])
        made = min(steps, len(rows))  # the second scale of one image has 4 rows
        assert minibatch["rows"].shape == (made, len(rows) // made, rows.shape[1])
        assert active.all()
        assert (minibatch["weight"] == 1).all()
        visited = {
            row.tobytes() for row in np.asarray(minibatch["rows"]).reshape(-1, rows.shape[1])
        }
        assert len(visited) == len(rows) - len(rows) % made
        assert visited <= {row.tobytes() for row in rows}


def test_an_incomplete_batch_makes_all_steps_smaller():
    """One real image of three: its 16 and 4 rows are shared evenly, and padding does not count."""
    method, maps = small(fibre_steps=4), feature_maps(images=3)
    buffers = initial(method, maps)["buffers"]
    for scale, (minibatch, active) in enumerate(
        minibatches(method, buffers, maps, [1.0, 0.0, 0.0], seed=1)
    ):
        own = SIZES[scale][0] * SIZES[scale][1]
        assert active.all()
        np.testing.assert_array_equal(minibatch["weight"].sum(axis=1), own / 4)
        real = np.asarray(minibatch["rows"])[np.asarray(minibatch["weight"]) > 0]
        assert {row.tobytes() for row in real} == {
            row.tobytes() for row in maps[scale][0].reshape(own, -1)
        }
    nothing = minibatches(method, buffers, maps, [0.0, 0.0, 0.0], seed=1)
    assert not any(active.any() for _, active in nothing)


def test_steps_without_a_real_row_do_not_train():
    method, maps = small(fibre_steps=8), feature_maps(images=3)
    buffers = initial(method, maps)["buffers"]
    _, (minibatch, active) = minibatches(method, buffers, maps, [1.0, 0.0, 0.0], seed=1)
    np.testing.assert_array_equal(active, [True] * 4 + [False] * 4)
    np.testing.assert_array_equal(minibatch["weight"].sum(axis=1), active)


def test_log_likelihood_agrees_with_the_reference():
    stored = golden.load("cflow_decoder")
    variables = freia.chain(golden.state_dict(stored))
    z, log_det = jax.jit(cflow.cflow_decoder(16).apply)(variables, stored["x"], stored["cond"])
    log_prob = arrays.gaussian_log_prob_per_dim(z, log_det)[:64]
    loss = jnp.mean(cflow.OBJECTIVES["log_sigmoid"](log_prob))
    np.testing.assert_allclose(loss, stored["train_losses"][0], rtol=1e-5)
    np.testing.assert_array_equal(cflow.OBJECTIVES["nll"](log_prob), -log_prob)
