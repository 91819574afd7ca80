"""Names of tensors as they are in the network itself, without those of what was put around it."""

import re
from collections.abc import Mapping
from typing import TypeVar

from flowad_jax.errors import UserError
from flowad_jax.weights.unpickler import shown

T = TypeVar("T")

# Of torch.compile, fully sharded training and activation checkpointing, around any module.
_ANYWHERE = re.compile(
    r"(?<![^.])(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.", re.ASCII
)
# Of DataParallel, DistributedDataParallel and AveragedModel, around the whole network; the last of
# them counts, too.
_OUTSIDE = re.compile(r"(?:module\.)*")
_COUNTER = "n_averaged"


def unwrapped(tensors: Mapping[str, T]) -> dict[str, T]:
    """The same tensors by their names in the network, whatever wrappers there are in any order.

    Raises:
      UserError: two tensors would have the same name.
    """
    plain: dict[str, T] = {}
    for name, tensor in tensors.items():
        inside = _ANYWHERE.sub("", name)
        if inside in plain:
            raise UserError(f"has the tensor {shown(inside)} twice, with and without a wrapper")
        plain[inside] = tensor
    plain.pop(_COUNTER, None)
    common = min((match.end() for match in map(_OUTSIDE.match, plain) if match), default=0)
    return {name[common:]: tensor for name, tensor in plain.items()}
