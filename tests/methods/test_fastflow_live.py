"""FastFlow against anomalib's flow, LayerNorm, maps and optimizer in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.methods import fastflow
from flowad_jax.training import schedules
from flowad_jax.training.optimizer import Adam
from flowad_jax.training.step import make_step
from flowad_jax.types import Batch, TrainState
from flowad_jax.weights import freia
from tests.methods import anomalib_files
from tests.methods.anomalib_files import RELATIVE, assert_close

pytestmark = pytest.mark.live
SHAPES = ((6, 8, 6), (9, 4, 3))  # (C, h, w) of two scales; odd channels are split unevenly
SIZE = (16, 12)
BLOCKS, RATIO = 3, 0.8


@pytest.fixture(params=[False, True], ids=["alternating", "3x3 only"])
def peer(request, monkeypatch):
    """The peer's flows and LayerNorms, every weight away from its start, and its maker of maps."""
    torch = pytest.importorskip("torch")
    for package in ("FrEIA", "anomalib"):
        pytest.importorskip(package)
    maps, model = anomalib_files.load("fastflow", monkeypatch)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    flows = torch.nn.ModuleList(
        model.create_fast_flow_block([*shape], request.param, RATIO, BLOCKS) for shape in SHAPES
    )
    norms = torch.nn.ModuleList(torch.nn.LayerNorm([*shape]) for shape in SHAPES)
    both = torch.nn.ModuleDict({"flows": flows, "norms": norms})
    with torch.no_grad():
        for tensor in both.parameters():
            if tensor.requires_grad:
                tensor.add_(0.05 * torch.randn_like(tensor))
    yield both, maps.AnomalyMapGenerator(SIZE), request.param
    torch.set_num_threads(threads)


def features(seed=0, images=3):
    rng = np.random.default_rng(seed)
    return [rng.normal(0.4, 2, (images, *shape)).astype(np.float32) for shape in SHAPES]


def latents(both, maps):
    import torch

    given = map(torch.from_numpy, maps)
    return [
        flow(norm(x)) for flow, norm, x in zip(both["flows"], both["norms"], given, strict=True)
    ]


def loss_of(found):
    """The mean over images, summed over scales and dimensions."""
    return sum((0.5 * (z**2).sum((1, 2, 3)) - log_det).mean() for z, log_det in found)


def converted(both):
    """The peer's weights as our variables."""
    flows = []
    for flow, norm in zip(both["flows"], both["norms"], strict=True):
        found = freia.chain({k: v.numpy().copy() for k, v in flow.state_dict().items()})
        scale, bias = (x.detach().numpy().transpose(1, 2, 0).copy() for x in norm.parameters())
        params = {"flow": found["params"], "norm": {"scale": scale, "bias": bias}}
        flows.append({"params": params, "buffers": {"flow": found["buffers"]}})
    return freia.join_scales(flows)


def ours_of(peer):
    both, _, conv3x3_only = peer
    method = fastflow.build(BLOCKS, RATIO, conv3x3_only)
    return method, jax.tree.map(jnp.array, converted(both))


def batch(maps, weight):
    return Batch(tuple(x.transpose(0, 2, 3, 1) for x in maps), weight=jnp.array(weight))


def test_likelihoods_maps_and_scores_agree(peer):
    method, variables = ours_of(peer)
    maps = features()
    found = [z for z, _ in latents(peer[0], maps)]
    log_probs = method.log_probs(variables, batch(maps, [1.0] * 3))
    for one, z in zip(log_probs, found, strict=True):
        assert_close(one, -0.5 * (z**2).mean(1).detach())
    scores = method.aggregate([np.asarray(x) for x in log_probs], SIZE)
    theirs = peer[1](found).detach()[:, 0]
    assert_close(scores.pixel, theirs)
    assert_close(scores.image, theirs.amax((1, 2)))
    calibrated = method.aggregate(
        [np.asarray(x) for x in log_probs],
        SIZE,
        method.calibrate([np.asarray(x[:1]) for x in log_probs], SIZE),
    )
    np.testing.assert_array_equal(np.argsort(calibrated.image), np.argsort(scores.image))


def test_five_training_steps_agree(peer):
    """Loss, log-determinants and Adam with weight decay; a row of padding must not count."""
    torch = pytest.importorskip("torch")
    method, variables = ours_of(peer)
    adam = torch.optim.Adam(peer[0].parameters(), lr=1e-3, weight_decay=1e-5)
    optimizer = Adam(weight_decay=1e-5, decay="l2")
    step = jax.jit(make_step(method, optimizer, schedules.constant(1e-3, 1, 1)))
    moments = {group: optimizer.init(tree) for group, tree in variables["params"].items()}
    state = TrainState(jnp.array(0), opt_state=moments, rng=jax.random.key(0), **variables)
    dimensions = sum(np.prod(shape) for shape in SHAPES)
    for number in range(5):
        maps = features(number)
        state, metrics = step(state, batch(maps, [1.0, 1.0, 0.0]))
        loss = loss_of(latents(peer[0], [x[:2] for x in maps]))
        adam.zero_grad()
        loss.backward()
        adam.step()
        np.testing.assert_allclose(float(metrics["loss"]), loss.item() / dimensions, rtol=RELATIVE)
    theirs, start = converted(peer[0])["params"], variables["params"]
    leaves = zip(*map(jax.tree.leaves, (state.params, theirs, start)), strict=True)
    for value, expected, first in leaves:
        moved = np.linalg.norm(expected - first)
        assert moved > 0
        assert np.linalg.norm(value - expected) <= 0.02 * moved
