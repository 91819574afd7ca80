"""Flows against FrEIA 0.2 itself, for random shapes and weights."""

import numpy as np
import pytest

from flowad_jax.flows import MLP, Clamp, CouplingBlock, cflow_decoder
from flowad_jax.weights import freia

pytestmark = pytest.mark.live
SHAPES = [(4, 0, "soft"), (5, 8, "soft"), (24, 4, "hard"), (33, 0, "hard"), (64, 128, "soft")]


def libraries(seed):
    """PyTorch and FrEIA, with fixed draws."""
    torch = pytest.importorskip("torch")
    framework = pytest.importorskip("FrEIA.framework")
    modules = pytest.importorskip("FrEIA.modules")
    torch.manual_seed(seed)
    np.random.seed(seed)
    return torch, framework, modules


def options(torch, layer, clamp, permutation):
    """Of FrEIA's block, with two layers of a kind as its sub-network."""

    def subnet(wide, out):
        relu = torch.nn.ReLU()
        return torch.nn.Sequential(layer(wide, 2 * wide), relu, layer(2 * wide, out))

    return {
        "subnet_constructor": subnet,
        "affine_clamping": clamp,
        "global_affine_type": "SOFTPLUS",
        "permute_soft": permutation == "soft",
    }


@pytest.mark.parametrize(("channels", "condition", "permutation"), SHAPES)
@pytest.mark.parametrize("blocks", [1, 4])
def test_chain_agrees_with_freia(channels, condition, permutation, blocks):
    torch, framework, modules = libraries(seed=channels)
    chain = framework.SequenceINN(channels)
    own = options(torch, torch.nn.Linear, 1.9, permutation)
    own |= {"cond": 0, "cond_shape": (condition,)} if condition else {}
    for _ in range(blocks):
        chain.append(modules.AllInOneBlock, **own)
    rng = np.random.default_rng(channels)
    x = rng.normal(size=(7, channels)).astype(np.float32)
    cond = rng.normal(size=(7, condition)).astype(np.float32) if condition else None
    with torch.no_grad():
        for name, tensor in chain.named_parameters():  # away from their initial values
            if "w_perm" not in name:
                tensor.add_(0.2 * torch.randn_like(tensor))
        inputs = [torch.from_numpy(x)] + ([[torch.from_numpy(cond)]] if condition else [])
        expected, expected_log_det = chain(*inputs)
    variables = freia.chain({key: value.numpy() for key, value in chain.state_dict().items()})
    flow = cflow_decoder(channels, blocks, Clamp(1.9), permutation)
    z, log_det = flow.apply(variables, x, cond)
    scale = np.abs(expected.numpy()).max()
    np.testing.assert_allclose(z, expected.numpy(), rtol=1e-4, atol=1e-5 * scale)
    np.testing.assert_allclose(log_det, expected_log_det.numpy(), rtol=1e-4, atol=1e-4)


def test_block_on_maps_agrees_with_freia():
    torch, _, modules = libraries(seed=0)
    own = options(torch, lambda wide, out: torch.nn.Conv2d(wide, out, 1), 2.0, "hard")
    block = modules.AllInOneBlock([(6, 3, 4)], dims_c=[(8, 3, 4)], **own)
    x, cond = torch.randn(2, 6, 3, 4), torch.randn(2, 8, 3, 4)
    with torch.no_grad():
        block.global_scale.add_(torch.randn_like(block.global_scale))
        (expected,), expected_log_det = block([x], c=[cond])
    # A 1x1 convolution is a linear layer at every position.
    tensors = {key: value.numpy() for key, value in block.state_dict().items()}
    tensors = {
        k: v[:, :, 0, 0] if k.startswith("subnet") and v.ndim == 4 else v
        for k, v in tensors.items()
    }
    params, buffers = freia.block(tensors)
    x, cond = (np.moveaxis(tensor.numpy(), 1, -1) for tensor in (x, cond))
    ours = CouplingBlock(6, MLP, Clamp(2.0), "hard")
    z, log_det = ours.apply({"params": params, "buffers": buffers}, x, cond)
    np.testing.assert_allclose(z, np.moveaxis(expected.numpy(), 1, -1), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(log_det, expected_log_det.numpy(), rtol=1e-4, atol=1e-4)
