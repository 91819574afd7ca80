"""PatchFlow's projections: the same as of joined maps, and those that are fitted."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.decomposition import PCA

from flowad_jax.errors import UserError
from flowad_jax.methods import patchflow
from flowad_jax.ops import feature_maps
from flowad_jax.types import Batch

SHAPES = ((4, 6, 5), (2, 3, 4), (3, 4, 3))  # the third is of a smaller image


def batch_of(images=30, seed=0):
    rng = np.random.default_rng(seed)
    mixing = [rng.normal(size=(shape[-1], shape[-1])) for shape in SHAPES]
    maps = tuple(
        (rng.normal(size=(images, *shape)) @ mix + 3).astype(np.float32)
        for shape, mix in zip(SHAPES, mixing, strict=True)
    )
    return Batch(maps, label=np.zeros(images, np.int32), weight=np.ones(images, np.float32))


@pytest.mark.parametrize("pool", [1, 3])
def test_projecting_first_is_projecting_joined_maps(pool):
    batch, rng = batch_of(), np.random.default_rng(1)
    kernel = rng.normal(size=(12, 7)).astype(np.float32)
    expected = feature_maps.fused(batch.maps, pool) @ kernel
    found = feature_maps.projected(batch.maps, kernel, pool)
    assert found.shape == (30, 4, 6, 7)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("whitened", [False, True])
def test_principal_components_are_those_of_scikit_learn(whitened):
    """Up to their sign, over batches, with a row of padding that must not count."""
    batch = batch_of()
    method = patchflow.build(4, 3, projection="pca_whitened" if whitened else "pca")
    variables = method.init(jax.random.key(0), batch)
    assert "projection" not in variables["params"]
    padded = jax.tree.map(lambda x: np.concatenate([x[20:], 100 * x[:1]]), batch)
    padded = padded._replace(weight=np.array([1.0] * 10 + [0.0]))
    parts = [jax.tree.map(lambda x: x[:20], batch), padded]
    buffers = method.fit(variables, parts)
    assert jax.tree.map(jnp.shape, buffers) == jax.tree.map(jnp.shape, variables["buffers"])
    own, rows = buffers["projection"], np.asarray(feature_maps.fused(batch.maps)).reshape(-1, 12)
    expected = PCA(4, whiten=whitened).fit_transform(rows.astype(np.float64))
    found = rows @ np.asarray(own["kernel"]) + np.asarray(own["bias"])
    signs = np.sign(np.sum(found * expected, axis=0))
    np.testing.assert_allclose(found * signs, expected, rtol=1e-3, atol=2e-3)


def test_frozen_projections_do_not_move_and_trained_ones_do():
    batch = batch_of(4)
    for projection in patchflow.PROJECTIONS:
        method = patchflow.build(4, 3, projection=projection)
        variables = method.init(jax.random.key(0), batch)
        (phase,) = method.phases(variables["buffers"], batch, jax.random.key(0))
        trained = projection == "trained"
        assert ("projection" in phase.param_groups) == trained
        assert ("projection" in variables["params"]) == trained
        assert (method.fit is not None) == projection.startswith("pca")
        kernel = variables["params" if trained else "buffers"]["projection"]["kernel"]
        if projection != "trained":
            np.testing.assert_allclose(kernel.T @ kernel, np.eye(4), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"projection": "none"}, "method.projection"),
        ({"pool": 2}, r"method\.pool=2: must be odd"),
        ({"channels": 1}, r"method\.channels=1"),
        ({"blocks": 0}, r"method\.blocks=0"),
        ({"hidden": 0}, r"method\.hidden=0"),
        ({"clamp_kind": "no"}, r"method\.clamp_kind"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(UserError, match=message):
        patchflow.build(**options)


def test_a_frozen_projection_cannot_have_more_channels_than_there_are():
    with pytest.raises(UserError, match=r"method\.channels=13: there are 12 to project"):
        patchflow.build(13, projection="orthogonal").init(jax.random.key(0), batch_of(1))
    patchflow.build(13).init(jax.random.key(0), batch_of(1))
