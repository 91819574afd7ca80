"""CFLOW-AD as a method: fibre batches, likelihood maps and scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax import ops
from flowad_jax.errors import UserError
from flowad_jax.methods import cflow
from flowad_jax.types import Batch, Calibration
from flowad_jax.weights import freia
from tests import golden

SIZES = ((4, 4, 6), (2, 2, 10))  # (h, w, C) of two scales


def feature_maps(images=3, seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(images, *size)).astype(np.float32) for size in SIZES)


def batch(weight):
    return Batch(image=None, mask=None, label=None, weight=jnp.asarray(weight, jnp.float32))


def small(**options):
    return cflow.build(**{"condition": 8, "blocks": 2, "fibre_size": 8, **options})


def initial(method, maps):
    return jax.jit(method.init)(jax.random.key(0), maps)


def minibatches(method, constants, maps, weight, seed):
    """Minibatches and activity of every phase."""

    @jax.jit
    def make(constants, maps, weight, rng):
        phases = method.phases(constants, maps, batch(weight), rng)
        return [(phase.minibatches, phase.active) for phase in phases]

    return make(constants, maps, jnp.asarray(weight), jax.random.key(seed))


def test_scoring_agrees_with_the_reference():
    stored = golden.load("cflow_scoring")
    maps = [stored[f"log_prob_{scale}"] for scale in range(3)]
    scores = cflow.aggregate(maps, tuple(stored["out_size"]))
    np.testing.assert_allclose(scores.pixel, stored["anomaly_map"], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(scores.image, stored["image_score"], rtol=1e-9)


def test_calibrated_scores_depend_on_their_image_alone():
    rng = np.random.default_rng(0)
    normal, test = ([rng.normal(size=(n, 4, 4)), rng.normal(size=(n, 2, 2))] for n in (5, 4))
    fitted = cflow.calibrate(normal, (8, 8))
    together = cflow.aggregate(test, (8, 8), fitted)
    alone = [cflow.aggregate([m[i : i + 1] for m in test], (8, 8), fitted) for i in range(4)]
    np.testing.assert_array_equal(together.image, np.concatenate([s.image for s in alone]))
    np.testing.assert_array_equal(together.pixel, np.concatenate([s.pixel for s in alone]))
    transductive = cflow.aggregate([m[:1] for m in test], (8, 8))
    assert transductive.image != cflow.aggregate(test, (8, 8)).image[0]


def test_calibration_on_the_test_set_is_the_transductive_form():
    maps = [np.random.default_rng(0).normal(size=(3, 4, 4))]
    fitted = cflow.calibrate(maps, (8, 8))
    expected = cflow.aggregate(maps, (8, 8))
    np.testing.assert_array_equal(cflow.aggregate(maps, (8, 8), fitted).pixel, expected.pixel)


def test_extremely_unlikely_pixels_do_not_tie():
    """Likelihoods of 1e-9 and 1e-10 of the largest must stay apart in the map."""
    maps = [np.log(np.array([1.0, 1e-9, 1e-10])).reshape(3, 1, 1)]
    score = cflow.aggregate(maps, (1, 1), Calibration(np.zeros(1), np.float64(1.0))).image
    assert score[0] < score[1] < score[2]


@pytest.mark.parametrize("condition", [8, 0])
def test_log_probs_follow_the_definition(condition):
    method, maps = small(condition=condition), feature_maps()
    variables = initial(method, maps)
    out = jax.jit(method.log_probs)(variables, maps)
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
    variables = initial(method, maps)
    (minibatch, active), _ = minibatches(method, variables["constants"], maps, [1, 1], seed=1)
    rows, position = minibatch["rows"], minibatch["position"]
    assert rows.shape == (4, 8, 6)
    assert active.all()
    expected = maps[0].reshape(-1, 6)
    order = [int(np.flatnonzero((expected == row).all(1))[0]) for row in rows.reshape(-1, 6)]
    assert sorted(order) == list(range(32))
    assert order != sorted(order)
    np.testing.assert_array_equal(position.reshape(-1), np.array(order) % 16)


def test_another_key_shuffles_otherwise():
    method, maps = small(), feature_maps()
    constants = initial(method, maps)["constants"]
    one, two = (minibatches(method, constants, maps, [1, 1, 1], seed)[0][0] for seed in (1, 2))
    assert not np.array_equal(one["position"], two["position"])


def test_padding_images_never_train():
    """Chunks with rows of padding are not active; those before hold real rows only."""
    method, maps = small(), feature_maps(images=3)
    constants = initial(method, maps)["constants"]
    phases = method.phases(constants, maps, batch([1, 0, 0]), jax.random.key(1))
    assert [phase.trains for phase in phases] == [("scale0",), ("scale1",)]
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
    found = minibatches(method, initial(method, maps)["constants"], maps, [1.0] * images, seed=1)
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
    constants = initial(method, maps)["constants"]
    for scale, (minibatch, active) in enumerate(
        minibatches(method, constants, maps, [1.0, 0.0, 0.0], seed=1)
    ):
        own = SIZES[scale][0] * SIZES[scale][1]
        assert active.all()
        np.testing.assert_array_equal(minibatch["weight"].sum(axis=1), own / 4)
        real = np.asarray(minibatch["rows"])[np.asarray(minibatch["weight"]) > 0]
        assert {row.tobytes() for row in real} == {
            row.tobytes() for row in maps[scale][0].reshape(own, -1)
        }
    nothing = minibatches(method, constants, maps, [0.0, 0.0, 0.0], seed=1)
    assert not any(active.any() for _, active in nothing)


def test_steps_without_a_real_row_do_not_train():
    method, maps = small(fibre_steps=8), feature_maps(images=3)
    constants = initial(method, maps)["constants"]
    _, (minibatch, active) = minibatches(method, constants, maps, [1.0, 0.0, 0.0], seed=1)
    np.testing.assert_array_equal(active, [True] * 4 + [False] * 4)
    np.testing.assert_array_equal(minibatch["weight"].sum(axis=1), active)


def test_objectives():
    log_prob = np.linspace(-5, 5, 11)
    softplus = np.log1p(np.exp(-log_prob))
    np.testing.assert_allclose(cflow.OBJECTIVES["log_sigmoid"](log_prob), softplus, rtol=1e-5)
    np.testing.assert_array_equal(cflow.OBJECTIVES["nll"](log_prob), -log_prob)


def test_log_likelihood_agrees_with_the_reference():
    stored = golden.load("cflow_decoder")
    variables = freia.chain(golden.state_dict(stored))
    z, log_det = jax.jit(cflow.cflow_decoder(16).apply)(variables, stored["x"], stored["cond"])
    loss = jnp.mean(cflow.OBJECTIVES["log_sigmoid"](ops.gaussian_log_prob_per_dim(z, log_det))[:64])
    np.testing.assert_allclose(loss, stored["train_losses"][0], rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"objective": "log_sigmod"}, "did you mean 'log_sigmoid'"),
        ({"condition": 6}, "multiple of 4"),
        ({"clamp_kind": "tan"}, "clamp_kind='tan'"),
        ({"permutation": "sof"}, "permutation='sof'"),
        ({"blocks": 0}, "blocks=0"),
        ({"fibre_size": 0}, "fibre_size=0"),
        ({"fibre_steps": -1}, r"fibre_steps=-1: must be 0 \(as published\) or more"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        small(**options)
