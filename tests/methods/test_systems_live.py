"""The PyTorch sides of the benchmark against our methods: the same weights, losses and maps."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax import lookup
from flowad_jax.settings.sections import section
from flowad_jax.types import Batch
from flowad_jax.weights import freia
from flowad_jax.weights.dialects import msflow, sanflow, ssnf

pytestmark = pytest.mark.live
CHANNELS, SIDE, IMAGES = (8, 12), 16, 4
SMALL = {
    "cflow": {"condition": 16, "blocks": 2, "fibre_size": 16},
    "sanflow": {"condition": 16, "blocks": 2},
    "msflow": {"condition": 16, "blocks": (1, 2)},
    "ssnf": {"blocks": 2, "hidden": 16, "drop": 0.0, "negative_cap": 1e9},
}
# The programs run once.
jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
RELATIVE = 1e-4  # float32 on both sides; sums run in another order


@pytest.fixture(autouse=True)
def _one_thread():
    torch = pytest.importorskip("torch")
    pytest.importorskip("FrEIA")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batch():
    """Maps and an image batch; its second half is anomalous, in a corner of every image."""
    rng = np.random.default_rng(0)
    shapes = [(IMAGES, SIDE // stride, SIDE // stride) for stride in (4, 8)]
    maps = [
        rng.normal(size=(*shape, channels)).astype(np.float32)
        for shape, channels in zip(shapes, CHANNELS, strict=True)
    ]
    image = rng.normal(size=(IMAGES, SIDE, SIDE, 3)).astype(np.float32)
    label = np.repeat([0, 1], IMAGES // 2).astype(np.int32)
    mask = np.zeros((IMAGES, SIDE, SIDE), bool)
    mask[label == 1, :5, :7] = True
    maps[0][-1] *= 0.1  # likelier than the normal ones: an example for SSNF to learn from
    maps[1][-1] *= 0.1
    return Batch(tuple(maps), image, mask, label, np.ones(IMAGES, np.float32))


def theirs(name, options):
    """The peer with weights moved away from where they start."""
    import torch

    from peers import systems

    torch.manual_seed(0)
    np.random.seed(0)
    made = systems.build(CHANNELS, options)
    with torch.no_grad():
        for tensor in made.module.parameters():
            if tensor.requires_grad:
                tensor.add_(0.05 * torch.randn_like(tensor))
    return made


def converted(name, peer):
    """The peer's weights as our variables."""
    if name == "msflow":
        flow = peer.module
        return msflow.flows([state(f) for f in flow.parallel_flows], state(flow.fusion_flow))
    if name == "sanflow":
        return sanflow.detector([state(flow) for flow in peer.flows], state(peer.net))
    convert = ssnf.flow if name == "ssnf" else freia.chain
    flows = [convert(state(flow)) for flow in peer.module]
    kinds = ("params", "buffers")
    return {kind: {f"scale{i}": flow[kind] for i, flow in enumerate(flows)} for kind in kinds}


def state(module):
    return {key: value.numpy().copy() for key, value in module.state_dict().items()}


def on_torch(rows):
    import torch

    from peers.steps import Rows

    def first(x):
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))

    mask, label = torch.from_numpy(rows.mask), torch.from_numpy(rows.label)
    return [first(x) for x in rows.maps], Rows(first(rows.image), mask, label)


@pytest.fixture(params=SMALL)
def pair(request):
    """Our method, its variables, the peer, and what both are given."""
    name = request.param
    options = section("method", name).to_dict() | SMALL[name]
    peer = theirs(name, options)
    variables = jax.tree.map(jnp.asarray, converted(name, peer))
    arguments = {key: value for key, value in options.items() if key != "name"}
    return name, lookup.find("flowad_jax.methods", name)(**arguments), variables, peer


def test_losses_agree(pair):
    name, method, variables, peer = pair
    given = jax.tree.map(jnp.asarray, batch())
    ours = [
        float(loss)
        for phase in method.phases(variables["buffers"], given, jax.random.key(0))
        for loss in our_losses(phase, variables)
    ]
    peer.module.train()
    expected = [loss.item() for loss in peer.losses(*on_torch(batch()))]
    assert len(ours) == len(expected) == (5 if name == "cflow" else 1)
    # Rows are shuffled, and nothing trains in between: whatever the chunks, their mean is the same.
    np.testing.assert_allclose(np.mean(ours), np.mean(expected), rtol=RELATIVE)


def our_losses(phase, variables):
    params = {group: variables["params"][group] for group in phase.param_groups}
    updated = {group: variables["buffers"][group] for group in phase.mutable}
    loss_fn = jit(phase.loss_fn)
    for step in range(len(phase.active)):
        minibatch = jax.tree.map(lambda leaf, step=step: leaf[step], phase.minibatches)
        yield loss_fn(params, updated, minibatch)[0]


def test_likelihood_maps_agree(pair):
    import torch

    _, method, variables, peer = pair
    ours = jit(method.log_probs)(variables, jax.tree.map(jnp.asarray, batch()))
    peer.module.eval()
    with torch.no_grad():
        their_maps, their_rows = on_torch(batch())
        expected = peer.log_probs(their_maps, their_rows.image)
    for values, other in zip(ours, expected, strict=True):
        assert values.shape == other.shape
        largest = other.abs().max().item()
        np.testing.assert_allclose(values, other.numpy(), rtol=0, atol=RELATIVE * largest)


def test_a_synthetic_image_that_looks_normal_trains():
    """The batch of these tests has one, so that both halves of SSNF's loss are compared."""
    options = section("method", "ssnf").to_dict() | SMALL["ssnf"]
    peer = theirs("ssnf", options)
    maps, rows = on_torch(batch())
    with_it = next(peer.losses(maps, rows)).item()
    peer = theirs("ssnf", options | {"negative_weight": 0.0})
    assert abs(with_it - next(peer.losses(maps, rows)).item()) > 1.0


def test_an_option_without_a_peer_is_named():
    from peers import systems

    options = section("method", "sanflow").to_dict() | {"legacy": True}
    with pytest.raises(LookupError, match="legacy=True"):
        systems.build(CHANNELS, options)
