"""U-Flow against anomalib's graph of flows, its maps and its optimizer in PyTorch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flowad_jax.evaluation import a_contrario
from flowad_jax.methods import uflow
from flowad_jax.training import schedules
from flowad_jax.training.optimizer import Adam
from flowad_jax.training.step import make_step
from flowad_jax.types import Batch, TrainState
from flowad_jax.weights.dialects import uflow as dialect
from tests.methods import anomalib_files
from tests.methods.anomalib_files import RELATIVE, assert_close

pytestmark = pytest.mark.live
CHANNELS, FINEST = (6, 9, 17), (8, 12)
SHAPES = [(c, *(side >> scale for side in FINEST)) for scale, c in enumerate(CHANNELS)]
SIZE = (32, 48)
STEPS, RATIO = 2, 0.8


def extractor_class(torch):
    """Stands for the peer's encoder: what is left of it are channels, strides and LayerNorms."""

    class Extractor(torch.nn.Module):
        channels, scale_factors, scales = list(CHANNELS), [4, 8, 16], range(3)

        def __init__(self):
            super().__init__()
            norms = (torch.nn.LayerNorm([*shape]) for shape in SHAPES)
            self.feature_normalizations = torch.nn.ModuleList(norms)

        def forward(self, maps):
            return [norm(x) for norm, x in zip(self.feature_normalizations, maps, strict=True)]

    return Extractor


@pytest.fixture(params=[False, True], ids=["hard", "soft"])
def peer(request, monkeypatch):
    """The peer's model, every weight away from its start."""
    torch = pytest.importorskip("torch")
    for package in ("FrEIA", "anomalib"):
        pytest.importorskip(package)
    extractor = extractor_class(torch)
    _, model = anomalib_files.load(
        "uflow",
        monkeypatch,
        others={
            "anomalib.models.image.uflow.feature_extraction": {
                "get_feature_extractor": lambda backbone, size: extractor()
            }
        },
    )
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    np.random.seed(0)
    made = model.UflowModel(
        SIZE, STEPS, "", affine_subnet_channels_ratio=RATIO, permute_soft=request.param
    )
    with torch.no_grad():
        for tensor in made.parameters():
            if tensor.requires_grad:
                tensor.add_(0.05 * torch.randn_like(tensor))
    yield made, "soft" if request.param else "hard"
    torch.set_num_threads(threads)


def features(seed=0, images=3):
    rng = np.random.default_rng(seed)
    return [rng.normal(0.4, 2, (images, *shape)).astype(np.float32) for shape in SHAPES]


def encode(model, maps):
    import torch

    return model.encode(model.feature_extractor([torch.from_numpy(x) for x in maps]))


def loss_of(found):
    latents, log_det = found
    return (0.5 * sum((z**2).sum((1, 2, 3)) for z in latents) - log_det).mean()


def converted(model):
    """The peer's weights as our variables, by way of the converter."""
    state = {f"model.{k}": v.detach().numpy().copy() for k, v in model.state_dict().items()}
    return dialect.read({"state_dict": state}).variables


def ours_of(peer):
    model, permutation = peer
    method = uflow.build(STEPS, RATIO, permutation=permutation)
    return method, jax.tree.map(jnp.array, converted(model))


def batch(maps, weight):
    return Batch(tuple(x.transpose(0, 2, 3, 1) for x in maps), weight=jnp.array(weight))


def test_the_variables_are_those_of_the_method(peer):
    method, variables = ours_of(peer)
    fresh = jax.eval_shape(method.init, jax.random.key(0), batch(features(), [1.0] * 3))
    assert jax.tree.map(jnp.shape, variables) == jax.tree.map(jnp.shape, fresh)


def test_likelihoods_maps_and_scores_agree(peer):
    method, variables = ours_of(peer)
    maps = features()
    found, _ = encode(peer[0], maps)
    log_probs = method.log_probs(variables, batch(maps, [1.0] * 3))
    for one, z in zip(log_probs, found, strict=True):
        assert_close(one, -0.5 * (z**2).mean(1).detach())
    scores = method.aggregate([np.asarray(x) for x in log_probs], SIZE)
    theirs = peer[0].anomaly_map_generator(found).detach()[:, 0]
    assert_close(scores.pixel + 1, theirs)
    assert_close(scores.image + 1, theirs.amax((1, 2)))


def test_five_training_steps_agree(peer):
    """Loss, log-determinants, Adam and the schedule; a row of padding must not count."""
    torch = pytest.importorskip("torch")
    method, variables = ours_of(peer)
    adam = torch.optim.Adam(peer[0].parameters(), lr=1e-3, weight_decay=1e-5)
    decay = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.4, total_iters=4)
    optimizer = Adam(weight_decay=1e-5, decay="l2")
    step = jax.jit(make_step(method, optimizer, schedules.linear(1e-3, 1, 1, steps=4)))
    moments = {group: optimizer.init(tree) for group, tree in variables["params"].items()}
    state = TrainState(jnp.array(0), opt_state=moments, rng=jax.random.key(0), **variables)
    dimensions = sum(np.prod(shape) for shape in SHAPES)
    for number in range(5):
        maps = features(number)
        rate = adam.param_groups[0]["lr"]
        state, metrics = step(state, batch(maps, [1.0, 1.0, 0.0]))
        loss = loss_of(encode(peer[0], [x[:2] for x in maps]))
        adam.zero_grad()
        loss.backward()
        adam.step()
        decay.step()
        np.testing.assert_allclose(float(metrics["loss"]), loss.item() / dimensions, rtol=RELATIVE)
        np.testing.assert_allclose(float(metrics["learning_rate"]), rate, rtol=1e-6)
    theirs, start = converted(peer[0])["params"], variables["params"]
    leaves = zip(*map(jax.tree.leaves, (state.params, theirs, start)), strict=True)
    for value, expected, first in leaves:
        moved = np.linalg.norm(expected - first)
        assert moved > 0
        assert np.linalg.norm(value - expected) <= 0.02 * moved


def test_the_way_back_is_what_the_peer_loads(peer):
    import torch

    model, _ = peer
    variables = converted(model)
    content = dialect.write(variables, None, indices=False)
    state = {k.removeprefix("model."): torch.tensor(v) for k, v in content["state_dict"].items()}
    for tensor in model.parameters():
        tensor.data.zero_()
    model.load_state_dict(state)
    again = converted(model)
    jax.tree.map(np.testing.assert_array_equal, again, variables)


def test_the_number_of_false_alarms_agrees(peer):
    """But for the side of the comparison, which the peer has the wrong way round."""
    maps = features()
    found, _ = encode(peer[0], maps)
    found = [z.detach() for z in found]
    found[0][:, :, 2:6, 3:9] *= 9  # a defect
    latents = [z.numpy().transpose(0, 2, 3, 1).astype(np.float64) for z in found]
    ours = a_contrario.log_nfa(latents, SIZE)
    generator = peer[0].anomaly_map_generator
    theirs = generator.compute_anomaly_mask(found, high_precision=True)[:, 0].numpy()
    assert 0.02 < theirs.mean() < 0.98
    near = np.abs(ours) < 1e-4
    np.testing.assert_array_equal((ours > 0)[~near], theirs[~near])
