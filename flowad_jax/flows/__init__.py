"""Normalizing flows as Linen modules around distrax bijectors."""

from flowad_jax.flows.coupling import Clamp, CouplingBlock
from flowad_jax.flows.flow import Flow
from flowad_jax.flows.fusion import FusionFlow
from flowad_jax.flows.multiscale import MultiScaleFlow
from flowad_jax.flows.position import PositionalEncoding, position_code
from flowad_jax.flows.subnets import MLP, ConvNet


def cflow_decoder(
    channels: int,
    blocks: int = 8,
    clamp: Clamp | None = None,
    permutation: str = "soft",
) -> Flow:
    """The decoder of CFLOW-AD: coupling blocks on rows, with an MLP that also sees a condition.

    Args:
      channels: C of the rows.
      blocks: length of the chain (published: 8).
      clamp: bound on the log-scale (published: 1.9 with FrEIA 0.2's convention).
      permutation: ``"soft"`` as published, or ``"hard"``.
    """
    chain = (CouplingBlock(channels, MLP, clamp or Clamp(), permutation) for _ in range(blocks))
    return Flow(tuple(chain))


__all__ = [
    "MLP",
    "Clamp",
    "ConvNet",
    "CouplingBlock",
    "Flow",
    "FusionFlow",
    "MultiScaleFlow",
    "PositionalEncoding",
    "cflow_decoder",
    "position_code",
]
