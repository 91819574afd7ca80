"""PatchFlow against anomalib's fusion, adaptor, flow, maps and optimizer in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from flowad_jax.encoders.taps import at_sizes
from flowad_jax.methods import patchflow
from flowad_jax.training import schedules
from flowad_jax.training.optimizer import Adam
from flowad_jax.training.step import make_step
from flowad_jax.types import Batch, TrainState
from flowad_jax.weights.dialects import patchflow as dialect
from tests.methods import anomalib_files
from tests.methods.anomalib_files import RELATIVE, assert_close

pytestmark = pytest.mark.live
STRIDES, CHANNELS, SIZE, LEVELS = (4, 8), (5, 7), (32, 48), 3
DIMENSIONS, HIDDEN = 8, 6


def extractor_class(torch):
    """Stands for the peer's encoder: averages of the image, mixed to more channels."""

    class Extractor(torch.nn.Module):
        out_dims, reductions = list(CHANNELS), list(STRIDES)

        def __init__(self, **options):
            super().__init__()
            mixes = (torch.nn.Linear(3, channels) for channels in CHANNELS)
            self.feature_extractor = torch.nn.ModuleList(mixes)

        def forward(self, image):
            pooled = [torch.nn.functional.avg_pool2d(image, s, s) for s in STRIDES]
            maps = zip(self.feature_extractor, pooled, strict=True)
            return {i: mix(x.movedim(1, -1)).movedim(-1, 1) for i, (mix, x) in enumerate(maps)}

    return Extractor


@pytest.fixture(params=[1, 2], ids=["one block", "two blocks"])
def peer(request, monkeypatch):
    """The peer's model, every weight away from its start."""
    torch = pytest.importorskip("torch")
    for package in ("FrEIA", "anomalib"):
        pytest.importorskip(package)
    name = "anomalib.models.components.feature_extractors"
    others = {name: {"TimmFeatureExtractor": extractor_class(torch)}}
    _, model = anomalib_files.load("patchflow", monkeypatch, others=others)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    made = model.PatchflowModel(
        SIZE, "", True, request.param, DIMENSIONS, LEVELS, flow_hidden_dim=HIDDEN
    )
    with torch.no_grad():
        for name, tensor in made.state_dict().items():
            if tensor.is_floating_point() and "perm" not in name:
                tensor.add_(0.05 * torch.rand_like(tensor))
    yield made.train()
    torch.set_num_threads(threads)


def images(seed=0, count=3):
    return np.random.default_rng(seed).normal(0.4, 2, (count, 3, *SIZE)).astype(np.float32)


def features(model, image):
    """The maps of the peer's encoder on its image pyramid, as ours come."""
    import torch

    with torch.no_grad():
        found = model._extract_cnn_features(torch.from_numpy(image))
    return tuple(x.numpy().transpose(0, 2, 3, 1) for x in found)


def converted(model):
    state = {f"model.{k}": v.detach().numpy().copy() for k, v in model.state_dict().items()}
    return dialect.read({"state_dict": state}).variables


def ours_of(model):
    blocks = len(model.flow.module_list)
    method = patchflow.build(DIMENSIONS, HIDDEN, blocks)
    return method, jax.tree.map(jnp.array, converted(model))


def test_the_variables_are_those_of_the_method(peer):
    method, variables = ours_of(peer)
    batch = Batch(features(peer, images()))
    fresh = jax.eval_shape(method.init, jax.random.key(0), batch)
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, fresh)


def test_the_image_pyramid_agrees(peer):
    """Maps of all sizes, the largest first."""
    import torch

    def apply(variables, image):
        with torch.no_grad():
            given = torch.from_numpy(np.array(image).transpose(0, 3, 1, 2))
            found = peer.feature_extractor(given)
        return tuple(jnp.asarray(x.numpy().transpose(0, 2, 3, 1)) for x in found.values())

    image = images()
    found = at_sizes(apply, LEVELS)({}, image.transpose(0, 2, 3, 1))
    for ours, theirs in zip(found, features(peer, image), strict=True):
        assert_close(ours, theirs)


def test_likelihoods_maps_and_scores_agree(peer):
    import torch

    method, variables = ours_of(peer)
    image = images()
    peer.eval()
    with torch.no_grad():
        theirs = peer(torch.from_numpy(image))
    log_probs = method.log_probs(variables, Batch(features(peer, image)))
    scores = method.aggregate([np.asarray(x) for x in log_probs], SIZE)
    assert_close(scores.pixel, theirs.anomaly_map[:, 0])
    assert_close(scores.image, theirs.pred_score[:, 0])


def test_five_training_steps_agree(peer):
    """Loss, statistics of batches and Adam with weight decay; a row of padding must not count."""
    import torch

    method, variables = ours_of(peer)
    trained = [tensor for tensor in peer.parameters() if tensor.requires_grad]
    adam = torch.optim.Adam(trained, lr=1e-3, weight_decay=1e-4)
    optimizer = Adam(weight_decay=1e-4, decay="l2")
    step = jax.jit(make_step(method, optimizer, schedules.constant(1e-3, 1, 1)))
    moments = {group: optimizer.init(tree) for group, tree in variables["params"].items()}
    state = TrainState(jnp.array(0), opt_state=moments, rng=jax.random.key(0), **variables)
    for number in range(5):
        image = images(number)
        batch = Batch(features(peer, image), weight=jnp.array([1.0, 1.0, 0.0]))
        state, metrics = step(state, batch)
        z, log_det = peer(torch.from_numpy(image[:2]))
        loss = (0.5 * (z**2).flatten(1).sum(1) - log_det).mean() / z[0].numel()
        adam.zero_grad()
        loss.backward()
        adam.step()
        np.testing.assert_allclose(float(metrics["loss"]), loss.item(), rtol=RELATIVE)
    theirs, start = converted(peer), variables
    for kind in ("params", "buffers"):
        mine = getattr(state, kind)
        flat = (flatten_dict(tree) for tree in (mine, theirs[kind], start[kind]))
        values, wanted, firsts = flat
        for path, first in firsts.items():
            if np.issubdtype(first.dtype, np.integer):
                np.testing.assert_array_equal(values[path], first)
            elif path[-2:] != ("out", "bias"):  # before a BatchNorm its gradient is rounding
                moved = np.linalg.norm(wanted[path] - first)
                assert moved > 0
                assert np.linalg.norm(values[path] - wanted[path]) <= 0.02 * moved, path


def test_the_way_back_is_what_the_peer_loads(peer):
    import torch

    variables = converted(peer)
    content = dialect.write(variables, None, indices=False)
    state = {k.removeprefix("model."): torch.tensor(v) for k, v in content["state_dict"].items()}
    encoder = {k: v for k, v in peer.state_dict().items() if k.startswith("feature_extractor.")}
    for tensor in peer.parameters():
        tensor.data.zero_()
    peer.load_state_dict({**encoder, **state})
    jax.tree.map(np.testing.assert_array_equal, converted(peer), variables)
