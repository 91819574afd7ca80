"""The Gaussian baseline against scikit-learn's covariances and SciPy's density."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.stats import multivariate_normal
from sklearn.covariance import OAS, EmpiricalCovariance, ShrunkCovariance

from flowad_jax.errors import UserError
from flowad_jax.methods import gaussian
from flowad_jax.ops import arrays, feature_maps
from flowad_jax.types import Batch

SHAPE = (3, 2, 4)  # h, w, C
SIZE = (12, 8)


def normal(images=60, seed=0, shapes=(SHAPE,)):
    """Maps of normal images, whose channels depend on each other, far from zero."""
    rng = np.random.default_rng(seed)
    maps = []
    for shape in shapes:
        mixing = rng.normal(size=(shape[-1], shape[-1]))
        offsets = 100 + rng.normal(size=shape)
        maps.append((rng.normal(size=(images, *shape)) @ mixing + offsets).astype(np.float32))
    return Batch(tuple(maps), weight=np.ones(images, np.float32), label=np.zeros(images, np.int32))


def fitted(batch, parts=7, **options):
    method = gaussian.build(**{"covariance": "shared", **options})
    variables = method.init(jax.random.key(0), batch)
    rows = np.array_split(np.arange(len(batch.weight)), parts)
    batches = [jax.tree.map(lambda x, rows=rows: x[rows], batch) for rows in rows]
    return method, {"params": {}, "buffers": method.fit(variables, batches)}


def squared_distances(method, variables, maps):
    """Of every position, in float64 accuracy as far as float32 goes."""
    (found,) = jax.jit(method.log_probs)(variables, Batch(maps))
    return -2 * np.asarray(found, np.float64) * maps[0].shape[-1]


@pytest.mark.parametrize(
    ("shrinkage", "peer"),
    [
        (0.0, EmpiricalCovariance()),
        (0.3, ShrunkCovariance(shrinkage=0.3)),
        (None, OAS()),
    ],
)
@pytest.mark.parametrize("covariance", ["shared", "position"])
def test_distances_are_those_of_scikit_learn(covariance, shrinkage, peer):
    batch, new = normal(), normal(5, seed=0)
    method, variables = fitted(batch, covariance=covariance, shrinkage=shrinkage)
    seen = squared_distances(method, variables, new.maps)
    if covariance == "shared":
        peer.fit(batch.maps[0].reshape(-1, 4).astype(np.float64))
        expected = peer.mahalanobis(new.maps[0].reshape(-1, 4)).reshape(seen.shape)
        np.testing.assert_allclose(seen, expected, rtol=1e-4)
        return
    for place in np.ndindex(*SHAPE[:2]):
        rows, own = (one.maps[0][:, *place].astype(np.float64) for one in (batch, new))
        np.testing.assert_allclose(seen[:, *place], peer.fit(rows).mahalanobis(own), rtol=2e-4)


@pytest.mark.parametrize("covariance", ["shared", "position"])
def test_the_density_is_exact(covariance):
    """Even far from zero, where float32 moments would have cancelled."""
    batch = normal()
    options = {"covariance": covariance, "shrinkage": 0.0, "ridge": 0.01, "score": "density"}
    method, variables = fitted(batch, **options)
    (found,) = method.log_probs(variables, batch)
    rows = batch.maps[0].astype(np.float64)
    for place in np.ndindex(*SHAPE[:2]):
        own = rows[:, *place] if covariance == "position" else rows.reshape(-1, 4)
        spread = np.cov(own.T, bias=True) + 0.01 * np.eye(4)
        expected = multivariate_normal(own.mean(0), spread).logpdf(rows[:, *place]) / 4
        np.testing.assert_allclose(found[:, *place], expected, rtol=2e-4, atol=2e-4)


def test_the_loss_is_the_mean_of_minus_the_likelihoods():
    batch = normal(shapes=(SHAPE, (2, 2, 3)))
    method, variables = fitted(batch, score="density")
    half = batch._replace(weight=(np.arange(60) < 30).astype(np.float32))
    (phase,) = method.phases(variables["buffers"], half, jax.random.key(0))
    minibatch = jax.tree.map(lambda x: x[0], phase.minibatches)
    loss, _ = phase.loss_fn({}, {}, minibatch)
    maps = method.log_probs(variables, Batch(tuple(x[:30] for x in batch.maps)))
    assert loss == pytest.approx(-float(np.mean([x.mean() for x in maps])), rel=1e-5)
    assert phase.param_groups == ()


def test_few_images_are_enough_with_shrinkage_and_refused_without():
    """The covariance of 3 images is singular for 4 channels."""
    few = normal(3)
    method, variables = fitted(few, parts=1, covariance="position")
    assert np.isfinite(squared_distances(method, variables, few.maps)).all()
    with pytest.raises(UserError, match=r"scale 0 do not vary enough over 3 rows: use more images"):
        fitted(few, parts=1, covariance="position", shrinkage=0.0)
    constant = few._replace(maps=tuple(np.ones_like(x) for x in few.maps))
    with pytest.raises(UserError, match=r"do not vary enough"):
        fitted(constant, parts=1)


def test_covariances_without_room_are_refused_before_anything_is_computed():
    batch = Batch((jax.ShapeDtypeStruct((1, 128, 128, 2000), jnp.float32),))
    message = r"covariances of 16384 positions with 2000 channels take .* keep fewer, such as 100"
    with pytest.raises(UserError, match=message):
        jax.eval_shape(gaussian.build("position").init, jax.random.key(0), batch)
    jax.eval_shape(gaussian.build("position", channels=20).init, jax.random.key(0), batch)


def test_the_map_is_the_distance_resized_and_smoothed():
    """Scales count alike; without calibration as with it, as a distance needs none."""
    rng = np.random.default_rng(0)
    log_probs = [-rng.gamma(2.0, size=(3, *shape)) for shape in ((3, 2), (6, 4))]
    plain = gaussian.aggregate(log_probs, SIZE)
    expected = np.mean([arrays.resize_half_pixel(np.sqrt(-2 * x), SIZE) for x in log_probs], axis=0)
    np.testing.assert_allclose(plain.pixel, expected)
    smooth = gaussian.aggregate(log_probs, SIZE, gaussian.calibrate(log_probs, SIZE), smoothing=1.5)
    for one, image in zip(smooth.pixel, expected, strict=True):
        np.testing.assert_allclose(one, gaussian_filter(image, 1.5, mode="mirror"), rtol=1e-9)
    np.testing.assert_array_equal(smooth.image, smooth.pixel.max((1, 2)))


def test_a_density_counts_from_its_highest_value():
    log_probs = [np.array([[[3.0, 1.0]]])]
    calibration = gaussian.calibrate(log_probs, (1, 2))
    found = gaussian.aggregate(log_probs, (1, 2), calibration, of_density=True)
    np.testing.assert_allclose(found.pixel, [[[0.0, 2.0]]])


def test_chosen_channels_are_drawn_once_and_fused_maps_hold_all():
    batch = normal(shapes=(SHAPE, (2, 1, 3)))
    method, variables = fitted(batch, channels=2)
    chosen = variables["buffers"]["scale0"]["channels"]
    assert len(set(np.asarray(chosen).tolist())) == 2
    alone, own = fitted(batch._replace(maps=(batch.maps[0][..., chosen],)))
    expected = squared_distances(alone, own, (batch.maps[0][..., chosen],))
    (found, _) = method.log_probs(variables, batch)
    np.testing.assert_allclose(-4 * found, expected, rtol=1e-5)
    fused, joined = fitted(batch, fuse=True)
    (one,) = fused.log_probs(joined, batch)
    assert one.shape == (60, 3, 2)
    assert joined["buffers"]["scale0"]["mean"].shape == (7,)
    with pytest.raises(UserError, match=r"method.channels=9: a map has 4"):
        fitted(batch, channels=9)


def test_a_fused_map_averages_windows_and_meets_the_finest():
    """By the definition, in plain loops."""
    rng = np.random.default_rng(0)
    fine, coarse = (rng.normal(size=(1, *shape)) for shape in ((4, 5, 1), (2, 3, 2)))
    found = np.asarray(feature_maps.fused([jnp.asarray(fine), jnp.asarray(coarse)]))
    padded = np.pad(fine, ((0, 0), (1, 1), (1, 1), (0, 0)))
    for y, x in np.ndindex(4, 5):
        mean = padded[0, y : y + 3, x : x + 3].sum((0, 1)) / 9
        np.testing.assert_allclose(found[0, y, x, :1], mean, rtol=1e-5)
    assert found.shape == (1, 4, 5, 3)
    flat = np.asarray(feature_maps.fused([jnp.ones((1, 4, 4, 1)), jnp.ones((1, 2, 2, 1))], pool=1))
    np.testing.assert_allclose(flat, 1.0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"covariance": "both"}, "method.covariance"),
        ({"score": "both"}, "method.score"),
        ({"shrinkage": 1.5}, "method.shrinkage=1.5"),
        ({"ridge": -1.0}, "method.ridge=-1.0"),
        ({"smoothing": -1.0}, "method.smoothing=-1.0"),
        ({"channels": 0}, "method.channels=0"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        gaussian.build(**options)
