"""Flows against FrEIA 0.2 itself, for random shapes and weights."""

import numpy as np
import pytest

from flowad_jax.flows import MLP, Clamp, CouplingBlock, cflow_decoder
from flowad_jax.weights import freia

pytestmark = pytest.mark.live
SHAPES = [(4, 0, "soft"), (5, 8, "soft"), (24, 4, "hard"), (33, 0, "hard"), (64, 128, "soft")]


def _freia_chain(channels, condition, permutation, blocks, seed):
    """A FrEIA chain with every weight moved away from its initial value."""
    torch = pytest.importorskip("torch")
    framework = pytest.importorskip("FrEIA.framework")
    modules = pytest.importorskip("FrEIA.modules")
    torch.manual_seed(seed)
    np.random.seed(seed)

    def subnet(wide, out):
        layers = torch.nn
        return layers.Sequential(
            layers.Linear(wide, 2 * wide), layers.ReLU(), layers.Linear(2 * wide, out)
        )

    chain = framework.SequenceINN(channels)
    cond = {"cond": 0, "cond_shape": (condition,)} if condition else {}
    for _ in range(blocks):
        chain.append(
            modules.AllInOneBlock,
            subnet_constructor=subnet,
            affine_clamping=1.9,
            global_affine_type="SOFTPLUS",
            permute_soft=permutation == "soft",
            **cond,
        )
    with torch.no_grad():
        for name, tensor in chain.named_parameters():
            if "w_perm" not in name:
                tensor.add_(0.2 * torch.randn_like(tensor))
    return torch, chain


@pytest.mark.parametrize(("channels", "condition", "permutation"), SHAPES)
@pytest.mark.parametrize("blocks", [1, 4])
def test_chain_agrees_with_freia(channels, condition, permutation, blocks):
    torch, chain = _freia_chain(channels, condition, permutation, blocks, seed=channels)
    rng = np.random.default_rng(channels)
    x = rng.normal(size=(7, channels)).astype(np.float32)
    cond = rng.normal(size=(7, condition)).astype(np.float32) if condition else None
    with torch.no_grad():
        inputs = [torch.from_numpy(x)] + ([[torch.from_numpy(cond)]] if condition else [])
        expected, expected_log_det = chain(*inputs)
    state_dict = {key: value.numpy() for key, value in chain.state_dict().items()}
    variables = freia.chain(state_dict)
    flow = cflow_decoder(channels, blocks, Clamp(1.9), permutation)
    z, log_det = flow.apply(variables, x, cond)
    scale = np.abs(expected.numpy()).max()
    np.testing.assert_allclose(z, expected.numpy(), rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(log_det, expected_log_det.numpy(), rtol=1e-4, atol=1e-4)


def test_block_on_maps_agrees_with_freia():
    torch = pytest.importorskip("torch")
    modules = pytest.importorskip("FrEIA.modules")
    torch.manual_seed(0)

    def subnet(wide, out):
        layers = torch.nn
        return layers.Sequential(
            layers.Conv2d(wide, 2 * wide, 1), layers.ReLU(), layers.Conv2d(2 * wide, out, 1)
        )

    block = modules.AllInOneBlock(
        [(6, 3, 4)],
        dims_c=[(8, 3, 4)],
        subnet_constructor=subnet,
        affine_clamping=2.0,
        global_affine_type="SOFTPLUS",
        permute_soft=False,
    )
    x, cond = torch.randn(2, 6, 3, 4), torch.randn(2, 8, 3, 4)
    with torch.no_grad():
        block.global_scale.add_(torch.randn_like(block.global_scale))
        (expected,), expected_log_det = block([x], c=[cond])
    tensors = {key: value.numpy() for key, value in block.state_dict().items()}
    # A 1x1 convolution is a linear layer at every position.
    tensors = {
        k: v[:, :, 0, 0] if k.startswith("subnet") and v.ndim == 4 else v
        for k, v in tensors.items()
    }
    params, constants = freia.block(tensors)
    ours = CouplingBlock(6, MLP, Clamp(2.0), "hard")
    z, log_det = ours.apply(
        {"params": params, "constants": constants},
        x.numpy().transpose(0, 2, 3, 1),
        cond.numpy().transpose(0, 2, 3, 1),
    )
    np.testing.assert_allclose(z, expected.numpy().transpose(0, 2, 3, 1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, expected_log_det.numpy(), rtol=1e-4, atol=1e-4)
