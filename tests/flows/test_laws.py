"""Laws that every flow obeys, in float64: a new flow is one line in FLOWS."""

from collections.abc import Callable
from functools import cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict
from jax.flatten_util import ravel_pytree
from scipy.stats import special_ortho_group

from flowad_jax.flows import (
    MLP,
    Clamp,
    CouplingBlock,
    Flow,
    FusionFlow,
    MultiScaleFlow,
    UShapedFlow,
    cflow_decoder,
    fastflow_flow,
    patchflow_flow,
    permutation,
    ssnf_flow,
)
from flowad_jax.flows.coupling import GLOBAL_SCALE_INIT

BATCH = 2
MAP = (2, 3)


class Case(NamedTuple):
    """A flow, the shapes of what it maps (a tuple of maps where there are several), and more."""

    make: Callable[[], Any]
    shapes: Any
    condition: int = 0
    dropout: int | None = None


def block(channels, permutation="soft", **options):
    return Flow((CouplingBlock(channels, MLP, permutation=permutation, **options),))


# Of the fusion's bottleneck, an eighth of the channels wide: a LayerNorm over one or two of them is
# constant. 3 -> 2 positions do not divide.
FLOWS = {
    "soft": Case(partial(block, 6), (6,), 4),
    "soft odd": Case(partial(block, 5), (5,)),
    "hard": Case(partial(block, 6, "hard"), (6,), 4),
    "two channels": Case(partial(block, 2), (2,), 4),
    "clamp ratio": Case(partial(block, 6, clamp=Clamp(2.0, "tanh_ratio")), (6,), 4),
    "clamp preserving": Case(partial(block, 6, clamp=Clamp(2.0, "volume_preserving")), (6,), 4),
    "maps hard odd": Case(partial(block, 5, "hard"), (*MAP, 5)),
    "chain": Case(partial(cflow_decoder, 6, blocks=3), (6,), 4),
    "chain hard odd": Case(partial(cflow_decoder, 5, blocks=3, permutation="hard"), (5,)),
    "mixed chain on maps": Case(
        lambda: Flow((*block(4).blocks, *block(4, "hard").blocks)), (*MAP, 4), 4
    ),
    "ssnf": Case(partial(ssnf_flow, 6, 2, hidden=8, heads=2), (*MAP, 6)),
    "ssnf odd, dropped": Case(
        partial(ssnf_flow, 5, 2, hidden=9, heads=3, drop=0.3, layout=("attn+conv", "conv")),
        (*MAP, 5),
        dropout=7,
    ),
    "ssnf attention, dropped": Case(
        partial(ssnf_flow, 4, 1, hidden=6, heads=1, layout="attn"), (*MAP, 4), dropout=8
    ),
    "fastflow": Case(partial(fastflow_flow, 6, 3), (*MAP, 6)),
    "fastflow odd, narrow": Case(
        partial(fastflow_flow, 5, 2, ratio=0.5, conv3x3_only=True), (*MAP, 5)
    ),
    "fusion odd": Case(
        partial(FusionFlow, (9, 11, 7), clamp=0.7), ((3, 2, 9), (2, 2, 11), (2, 1, 7))
    ),
    "fusion alone": Case(partial(FusionFlow, (24,)), ((1, 2, 24),)),
    "patchflow": Case(partial(patchflow_flow, 5, 4, 2), (*MAP, 5)),
    "u-shaped": Case(partial(UShapedFlow, (3, 5, 17), 2), ((4, 8, 3), (2, 4, 5), (1, 2, 17))),
    "u-shaped, soft": Case(
        partial(UShapedFlow, (3, 16), 1, permutation="soft"), ((2, 4, 3), (1, 2, 16))
    ),
    "multiscale": Case(partial(MultiScaleFlow, (11, 14), (2, 1), 4), ((3, 2, 11), (2, 2, 14))),
}
CHAINS = [name for name, case in FLOWS.items() if isinstance(case.make(), Flow)]


def drawn(flow, *inputs):
    """Variables away from their initial values, at the cost of tracing."""
    rng = np.random.default_rng(1)
    centres = {"global_scale": GLOBAL_SCALE_INIT, "scale": 1.0}

    def draw(path, leaf):
        if path[0] == "params":
            return centres.get(path[-1], 0.0) + 0.4 * rng.normal(size=leaf.shape)
        if path[-1] in ("mean", "var"):  # of a BatchNorm
            return rng.uniform(0.5, 2.0, leaf.shape)
        if leaf.ndim == 2:
            return special_ortho_group.rvs(leaf.shape[0], random_state=rng)
        return np.roll(rng.permutation(leaf.size), 1).astype(np.int32)

    shapes = flatten_dict(jax.eval_shape(flow.init, jax.random.key(0), *inputs))
    return unflatten_dict({path: draw(path, leaf) for path, leaf in shapes.items()})


def inputs(case):
    """Data and condition, in float64."""
    rng, shapes = np.random.default_rng(0), case.shapes
    several = isinstance(shapes[0], tuple)
    x = [rng.normal(size=(BATCH, *shape)) for shape in (shapes if several else (shapes,))]
    cond = [rng.normal(size=(BATCH, *shapes[:-1], case.condition))] if case.condition else []
    return (tuple(x) if several else x[0], *cond)


@cache
def outcome(name):
    """All that the laws speak of, from one program: its compilation is what takes the time."""
    case = FLOWS[name]
    flow, given = case.make(), inputs(case)
    rngs = None if case.dropout is None else {"dropout": jax.random.key(case.dropout)}

    def of_one_image(variables, x, *cond):
        vector, unravel = ravel_pytree(x)

        def flat(vector):
            one = jax.tree.map(lambda leaf: leaf[None], (unravel(vector), *cond))
            z, log_det = flow.apply(variables, *one, rngs=rngs)
            z = jax.tree.map(lambda leaf: leaf[0], z)
            return ravel_pytree(z)[0], (z, log_det[0])

        return jax.jacfwd(flat, has_aux=True)(vector)

    @jax.jit  # the weights are an argument: XLA takes minutes to fold convolutions of constants
    def run(variables, *given):
        z, log_det = flow.apply(variables, *given, rngs=rngs)
        back = flow.apply(variables, z, *given[1:], rngs=rngs, method="inverse")

        def negative_log_likelihood(params):
            z, log_det = flow.apply({**variables, "params": params}, *given, rngs=rngs)
            return sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(z)) / 2 - jnp.sum(log_det)

        found = {"z": z, "log_det": log_det, "back": back}
        found["alone"] = jax.vmap(partial(of_one_image, variables))(*given)
        found["gradients"] = jax.grad(negative_log_likelihood)(variables["params"])
        if name in CHAINS:
            found["unmixed"] = flow.apply(variables, *given, permute_last=False, rngs=rngs)
            last = flow.bind(variables, rngs=rngs).blocks[-1].mixing
            found["mixed"] = permutation.apply(last, found["unmixed"][0])
        return found

    with jax.enable_x64(True):
        return jax.device_get(run(drawn(flow, *given), *given))


@pytest.mark.parametrize("name", FLOWS)
def test_inverse_undoes_forward(name):
    found, (x, *_) = outcome(name), inputs(FLOWS[name])
    back, log_det_back = found["back"]
    for original, again, z in zip(*map(jax.tree.leaves, (x, back, found["z"])), strict=True):
        np.testing.assert_allclose(again, original, atol=1e-9)
        assert z.dtype == np.float64
        if z.shape == original.shape:
            assert np.abs(z - original).max() > 1e-3
    sizes = [sum(leaf.size for leaf in jax.tree.leaves(tree)) for tree in (x, found["z"])]
    assert sizes[0] == sizes[1]
    np.testing.assert_allclose(log_det_back, -found["log_det"], atol=1e-9)
    assert found["log_det"].shape == (BATCH,)
    assert np.abs(found["log_det"]).max() > 1e-2


@pytest.mark.parametrize("name", FLOWS)
def test_log_det_is_that_of_the_jacobian(name):
    matrices, (_, log_dets) = outcome(name)["alone"]
    np.testing.assert_allclose(log_dets, np.linalg.slogdet(matrices)[1], atol=1e-9)


@pytest.mark.parametrize("name", [name for name in FLOWS if FLOWS[name].dropout is None])
def test_images_do_not_see_each_other(name):
    found = outcome(name)
    pairs = zip(found["alone"][1], (found["z"], found["log_det"]), strict=True)
    for pair in pairs:
        for one, whole in zip(*map(jax.tree.leaves, pair), strict=True):
            np.testing.assert_allclose(one, whole, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", FLOWS)
def test_every_parameter_receives_a_gradient(name):
    for path, grad in flatten_dict(outcome(name)["gradients"]).items():
        assert np.abs(grad).max() > 0, f"no gradient reaches {'/'.join(path)}"


@pytest.mark.parametrize("name", CHAINS)
def test_the_last_permutation_can_be_left_out(name):
    found = outcome(name)
    before, same = found["unmixed"]
    np.testing.assert_allclose(found["mixed"], found["z"], rtol=1e-12)
    np.testing.assert_allclose(same, found["log_det"], rtol=1e-12)
    assert np.abs(found["z"] - before).max() > 1e-3


def test_a_volume_preserving_clamp_leaves_the_global_scale_alone():
    """The log-determinant is the same for all data."""
    log_det = outcome("clamp preserving")["log_det"]
    np.testing.assert_allclose(log_det, log_det[0], rtol=1e-12)
    assert np.ptp(outcome("clamp ratio")["log_det"]) > 1e-3


def test_parts_of_a_multiscale_flow_one_after_the_other_are_the_whole():
    """The order that closes a chain and the one that opens the fusion are done at once."""
    name = "multiscale"
    flow, (maps,) = FLOWS[name].make(), inputs(FLOWS[name])

    @jax.jit
    def parts(variables, maps):
        bound = flow.bind(variables)
        pairs = [chain(x, bound.code(x)) for chain, x in zip(bound.scales, maps, strict=True)]
        latents, log_dets = zip(*pairs, strict=True)
        fused, log_det = bound.fusion(latents)
        return fused, log_det + sum(log_dets)

    with jax.enable_x64(True):
        expected = jax.device_get(parts(drawn(flow, maps), maps))
    ours = outcome(name)["z"], outcome(name)["log_det"]
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-11, atol=1e-11), ours, expected)


@pytest.mark.parametrize("name", ["soft", "chain hard odd", "maps hard odd", "mixed chain on maps"])
def test_distribution_and_bijector_are_the_change_of_variables(name):
    flow, (x, *cond) = FLOWS[name].make(), inputs(FLOWS[name])
    cond = cond[0] if cond else None
    z, log_det = outcome(name)["z"], outcome(name)["log_det"]
    expected = log_det - 0.5 * np.sum(z**2 + np.log(2 * np.pi), axis=tuple(range(1, x.ndim)))

    @jax.jit
    def use(variables, x, z):
        bound = flow.bind(variables)
        bijector = bound.bijector(cond, event_ndims=x.ndim - 1)
        distribution = bound.distribution(x.shape[1:], cond)
        sample, log_prob = distribution.sample_and_log_prob(
            seed=jax.random.key(3), sample_shape=(2,) if cond is not None else (2, BATCH)
        )
        back = distribution.log_prob(sample)
        there = bijector.forward_and_log_det(x), bijector.inverse(z)
        return distribution.log_prob(x), sample, log_prob, back, *there

    with jax.enable_x64(True):
        found = jax.device_get(use(drawn(flow, x, *([] if cond is None else [cond])), x, z))
    log_prob_x, sample, log_prob, log_prob_sample, there, back = found
    np.testing.assert_allclose(log_prob_x, expected, atol=1e-9)
    assert sample.shape == (2, *x.shape)
    np.testing.assert_allclose(log_prob_sample, log_prob, atol=1e-8)
    np.testing.assert_allclose(there[0], z, atol=1e-12)
    np.testing.assert_allclose(there[1], log_det, atol=1e-12)
    np.testing.assert_allclose(back, x, atol=1e-9)


def test_wild_latents_are_cut():
    flow = FusionFlow((2,))
    maps = (jnp.full((1, 1, 1, 2), 1e9),)
    (z,), _ = flow.apply(flow.init(jax.random.key(0), maps), maps)
    assert np.abs(z).max() == 1e6


@pytest.mark.parametrize(
    ("flow", "x"),
    [
        (CouplingBlock(1, MLP), np.zeros((1, 1))),
        (FusionFlow((4, 1)), (np.ones((1, 2, 2, 4)), np.ones((1, 1, 1, 1)))),
    ],
)
def test_one_channel_cannot_be_coupled(flow, x):
    with pytest.raises(ValueError, match="at least 2 channels"):
        jax.eval_shape(flow.init, jax.random.key(0), x)
