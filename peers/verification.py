"""PyTorch's side of ``convert_torch_weights.py --verify``; importing this needs no torch."""

import functools
import importlib.metadata
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from flowad_jax.errors import UserError
from peers import encoders

INSTALL = {
    "torchvision": "pip install torch torchvision",
    "timm": "pip install torch torchvision timm",
    "efficientnet_lite_pytorch": "pip install torch efficientnet-lite-pytorch",
}


class Network(Protocol):
    """Gives the outputs of those of the named modules that there are, maps channels last."""

    def __call__(self, names: Sequence[str], image: np.ndarray) -> Mapping[str, np.ndarray]:
        """Runs the network on an image (1, H, W, 3)."""


def require(peer: str) -> None:
    """Makes sure that PyTorch and the library of a network can be imported.

    Raises:
      UserError: there is no such network in PyTorch, or its library is not installed.
    """
    library = peer.partition(".")[0]
    if library not in INSTALL:
        named = f" '{peer}'" if peer else ""
        raise UserError(
            f"--verify: there is no PyTorch network{named} to compare with; leave it out"
        )
    try:
        if library != "efficientnet_lite_pytorch":
            encoders.torchvision()  # timm imports it
        importlib.import_module(library)
    except ImportError as error:
        raise UserError(
            f"a comparison needs PyTorch and {library} ({error}): {INSTALL[library]}"
        ) from error


def file_state(peer: str, path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a file as PyTorch reads it.

    Raises:
      UserError: as of `require`.
    """
    require(peer)
    return encoders.file_state(path)


def network(peer: str, side: int, state: dict[str, np.ndarray]) -> Network:
    """Builds a network with the weights of a file.

    Args:
      peer: as ``EncoderSpec.peer`` names it.
      side: of the image that it will see.
      state: tensors under the names of the network's authors; the head may be missing.

    Raises:
      UserError: the library has no such network, or it does not take the tensors.
    """
    lite = peer.startswith("efficientnet_lite_pytorch.")
    options = {"image_size": (side, side)} if lite else {}  # it pads for the size it is built for
    try:
        model = encoders.build(peer, **options)
        encoders.fill(model, encoders.named_as_in_timm(state) if "timm." in peer else state)
    except (AttributeError, AssertionError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--verify: '{peer}' cannot be built from the file: {reason}") from error
    return functools.partial(encoders.outputs, model)


def described(peer: str) -> dict[str, Any]:
    """What the card says about the other side."""
    return {"peer": peer, "torch": importlib.metadata.version("torch")}
