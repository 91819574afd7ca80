"""Laws of the flows over several maps, in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.flatten_util import ravel_pytree

from flowad_jax.flows import FusionFlow, MultiScaleFlow

IMAGES = 2
# name -> (flow, shapes (h, w, C) of its maps); 5 -> 2 positions do not divide. The bottleneck of
# the fusion is an eighth of the channels wide, and a LayerNorm over one or two of them is constant.
FLOWS = {
    "fusion": (FusionFlow((10, 14)), ((4, 4, 10), (2, 2, 14))),
    "fusion odd": (FusionFlow((9, 11, 7), clamp=0.7), ((5, 3, 9), (3, 3, 11), (2, 2, 7))),
    "fusion alone": (FusionFlow((24,)), ((2, 2, 24),)),
    "multiscale": (MultiScaleFlow((10, 14), (1, 2), 4), ((4, 4, 10), (2, 2, 14))),
    "multiscale odd": (MultiScaleFlow((11, 15), (2, 1), 8), ((3, 4, 11), (2, 2, 15))),
}


@pytest.fixture(params=FLOWS, name="case", scope="module")
def _case(request):
    """A flow with weights away from their initial values, and maps for it, in float64."""
    flow, shapes = FLOWS[request.param]
    noise = np.random.default_rng(0)
    with jax.enable_x64(True):
        maps = tuple(jnp.asarray(noise.normal(size=(IMAGES, *shape))) for shape in shapes)
        init = jax.jit(flow.init, compiler_options={"xla_backend_optimization_level": 0})
        variables = init(jax.random.key(0), maps)
        params = jax.tree.map(
            lambda p: jnp.asarray(p + 0.2 * noise.normal(size=p.shape)), variables["params"]
        )
        yield flow, {**variables, "params": params}, maps


def test_inverse_undoes_forward(case):
    flow, variables, maps = case
    latents, log_det = jax.jit(flow.apply)(variables, maps)
    back, log_det_back = jax.jit(partial(flow.apply, method="inverse"))(variables, latents)
    for x, again, z in zip(maps, back, latents, strict=True):
        np.testing.assert_allclose(again, x, atol=1e-9)
        assert z.shape == x.shape
    np.testing.assert_allclose(log_det_back, -log_det, atol=1e-9)
    assert log_det.shape == (IMAGES,)
    assert np.abs(log_det).min() > 1e-2


def test_parts_one_after_the_other_are_the_whole(case):
    """The order that closes a chain and the one that opens the fusion are done at once."""
    flow, variables, maps = case
    if not isinstance(flow, MultiScaleFlow):
        pytest.skip("has no chains in front of the fusion")

    def parts(bound, maps):
        pairs = [chain(x, bound.code(x[:1])) for chain, x in zip(bound.scales, maps, strict=True)]
        latents, log_dets = zip(*pairs, strict=True)
        fused, log_det = bound.fusion(latents)
        return fused, log_det + sum(log_dets)

    expected = jax.jit(partial(flow.apply, method=parts))(variables, maps)
    ours = jax.jit(flow.apply)(variables, maps)
    for got, wanted in zip(jax.tree.leaves(ours), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-12, atol=1e-12)


def test_log_det_is_that_of_the_jacobian(case):
    flow, variables, maps = case
    _, log_det = jax.jit(flow.apply)(variables, maps)

    @jax.jit  # the weights are an argument: XLA takes minutes to fold convolutions of constants
    def jacobian(variables, image):
        vector, unravel = ravel_pytree(image)
        return jax.jacfwd(lambda v: ravel_pytree(flow.apply(variables, unravel(v))[0])[0])(vector)

    for image in range(IMAGES):
        _, expected = np.linalg.slogdet(
            jacobian(variables, tuple(x[image : image + 1] for x in maps))
        )
        np.testing.assert_allclose(log_det[image], expected, atol=1e-9)


def test_every_parameter_receives_a_gradient(case):
    flow, variables, maps = case

    def negative_log_likelihood(params):
        latents, log_det = flow.apply({**variables, "params": params}, maps)
        return sum(jnp.sum(z**2) for z in latents) / 2 - jnp.sum(log_det)

    grads = jax.jit(jax.grad(negative_log_likelihood))(variables["params"])
    for path, grad in jax.tree.leaves_with_path(grads):
        assert np.abs(grad).max() > 0, f"no gradient reaches {jax.tree_util.keystr(path)}"


def test_images_do_not_see_each_other(case):
    flow, variables, maps = case
    apply = jax.jit(flow.apply)
    latents, log_det = apply(variables, maps)
    alone, log_det_alone = apply(variables, tuple(x[:1] for x in maps))
    np.testing.assert_allclose(log_det_alone, log_det[:1], rtol=1e-12)
    for one, all_ in zip(alone, latents, strict=True):
        np.testing.assert_allclose(one, all_[:1], atol=1e-12)


def test_wild_latents_are_cut():
    flow = FusionFlow((2,))
    maps = (jnp.full((1, 1, 1, 2), 1e9),)
    (z,), _ = flow.apply(flow.init(jax.random.key(0), maps), maps)
    assert np.abs(z).max() == 1e6


def test_one_channel_cannot_be_coupled():
    with pytest.raises(ValueError, match="at least 2 channels"):
        FusionFlow((4, 1)).init(jax.random.key(0), (jnp.ones((1, 2, 2, 4)), jnp.ones((1, 1, 1, 1))))
