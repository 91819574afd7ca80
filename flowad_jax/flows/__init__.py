"""Normalizing flows as Linen modules around distrax bijectors."""

from collections.abc import Sequence
from functools import partial

import jax.numpy as jnp

from flowad_jax.errors import UserError
from flowad_jax.flows.coupling import Clamp, CouplingBlock
from flowad_jax.flows.flow import Flow, NormalizedFlow, map_norm
from flowad_jax.flows.fusion import FusionFlow
from flowad_jax.flows.multiscale import MultiScaleFlow
from flowad_jax.flows.position import position_code
from flowad_jax.flows.residual_net import ResidualNet, block_layouts
from flowad_jax.flows.subnets import MLP, ConvNet, NormedConvNet, PlainConvNet
from flowad_jax.flows.u_shape import UShapedFlow


def cflow_decoder(
    channels: int, blocks: int = 8, clamp: Clamp | None = None, permutation: str = "soft"
) -> Flow:
    """Returns the decoder of CFLOW-AD: coupling blocks on rows; an MLP also sees a condition.

    Args:
      channels: C of the rows.
      blocks: length of the chain (published: 8).
      clamp: bound on the log-scale (published: 1.9 with FrEIA 0.2's convention).
      permutation: ``"soft"`` as published, or ``"hard"``.

    Example:
      >>> import jax
      >>> flow = cflow_decoder(channels=6, blocks=2)
      >>> x, cond = jnp.ones((5, 6)), jnp.ones((5, 4))
      >>> variables = flow.init(jax.random.key(0), x, cond)
      >>> z, log_det = flow.apply(variables, x, cond)
      >>> z.shape, log_det.shape
      ((5, 6), (5,))
      >>> flow.bind(variables).distribution((6,), cond).log_prob(x).shape
      (5,)
    """
    chain = (CouplingBlock(channels, MLP, clamp or Clamp(), permutation) for _ in range(blocks))
    return Flow(tuple(chain))


def fastflow_flow(
    channels: int,
    blocks: int = 8,
    ratio: float = 1.0,
    conv3x3_only: bool = False,
    clamp: Clamp | None = None,
) -> Flow:
    """Returns the flow of FastFlow: coupling blocks on maps, whose nets convolve.

    Args:
      channels: C of the maps.
      blocks: length of the chain (published: 8, for transformers 20).
      ratio: channels inside a net for one of its input (published: 1, for transformers 0.16).
      conv3x3_only: if not, every second net convolves 1 x 1 (published, but for ResNet-18).
      clamp: bound on the log-scale (published: 2.0 with FrEIA 0.2's convention).
    """
    sizes = [3 if conv3x3_only or index % 2 == 0 else 1 for index in range(blocks)]
    nets = (partial(PlainConvNet, size=size, ratio=ratio) for size in sizes)
    return Flow(tuple(CouplingBlock(channels, net, clamp or Clamp(2.0), "hard") for net in nets))


def patchflow_flow(
    channels: int = 128, hidden: int = 128, blocks: int = 1, clamp: Clamp | None = None
) -> Flow:
    """Returns the flow of PatchFlow: coupling blocks on maps, whose nets end with a BatchNorm.

    While it is trained, their condition is the weight of every image, see `NormedConvNet`.

    Args:
      channels: C of the maps.
      hidden: channels inside a net (published: 128).
      blocks: length of the chain (published: 1).
      clamp: bound on the log-scale (published: 2.0 with FrEIA 0.2's convention).
    """
    net = partial(NormedConvNet, hidden=hidden)
    chain = (CouplingBlock(channels, net, clamp or Clamp(2.0), "hard") for _ in range(blocks))
    return Flow(tuple(chain))


def ssnf_flow(
    channels: int,
    blocks: int = 10,
    hidden: int = 128,
    heads: int = 4,
    clamp: Clamp | None = None,
    drop: float = 0.2,
    layout: str | Sequence[str] = "conv+attn",
    compute: jnp.dtype | None = None,
) -> Flow:
    """Returns the flow of SSNF: coupling blocks on maps, whose nets convolve and attend.

    Args:
      channels: C of the maps.
      blocks: length of the chain (published: 10).
      hidden: channels inside the residual nets (published: 128).
      heads: heads of the attention (published: 4).
      clamp: bound on the log-scale (published: 2.0 with FrEIA 0.2's convention).
      drop: probability of dropping channels and attention weights where a random key ``dropout``
        is given (published: 0.2); see `ResidualNet`.
      layout: parts of the residual nets, one name for all blocks or a name for each (published:
        ``"conv+attn"`` everywhere).
      compute: dtype of the products; log-determinants stay in the dtype of the maps.

    Raises:
      UserError: an argument has a value that does not exist or does not fit the others.
    """
    if heads < 1 or hidden < 1 or hidden % heads:
        raise UserError(f"heads={heads}: must be a divisor of hidden={hidden}")
    if not 0 <= drop < 1:
        raise UserError(f"drop={drop}: a probability from 0 up to, but not including, 1")
    nets = (
        partial(ResidualNet, hidden=hidden, heads=heads, drop=drop, layout=name, compute=compute)
        for name in block_layouts(layout, blocks)
    )
    return Flow(tuple(CouplingBlock(channels, net, clamp or Clamp(2.0), "hard") for net in nets))


__all__ = [
    "MLP",
    "Clamp",
    "ConvNet",
    "CouplingBlock",
    "Flow",
    "FusionFlow",
    "MultiScaleFlow",
    "NormalizedFlow",
    "NormedConvNet",
    "PlainConvNet",
    "ResidualNet",
    "UShapedFlow",
    "cflow_decoder",
    "fastflow_flow",
    "map_norm",
    "patchflow_flow",
    "position_code",
    "ssnf_flow",
]
