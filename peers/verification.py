"""PyTorch's side of ``convert_torch_weights.py --verify``; importing this needs no torch."""

import functools
import importlib.metadata
from collections.abc import Callable, Iterator, Mapping, Sequence
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


def detector(
    dialect: str, content: Any, channels: tuple[int, ...], method: Mapping[str, Any]
) -> Callable[[list[np.ndarray]], Sequence[np.ndarray]]:
    """Builds the flows of a checkpoint with FrEIA.

    Args:
      dialect: who wrote it, see `peers.detectors.DIALECTS` and `peers.lightning.KINDS`.
      content: what the file holds.
      channels: of the feature maps, in the order of the file.
      method: options of the method, with ``clamp_kind``.

    Returns:
      Feature maps (B, h, w, C) to log-likelihood maps (B, h, w).

    Raises:
      UserError: FrEIA is not installed, or its modules do not take the tensors.
    """
    try:
        from peers import detectors, lightning

        made: Any
        if dialect in lightning.KINDS:
            made = lightning.Detector(dialect, content, method)
        else:
            version = _freia(content, method["clamp_kind"])
            made = detectors.load(dialect, content, channels, freia=version, **method)
    except ImportError as error:
        raise UserError(
            f"--verify needs PyTorch and FrEIA ({error}): pip install torch FrEIA==0.2 timm"
        ) from error
    except RuntimeError as error:  # how load_state_dict reports names and shapes
        reason = " ".join(str(error).split())[:200]
        raise UserError(f"--verify: PyTorch's modules do not take the file: {reason}") from error
    log_probs: Callable[[list[np.ndarray]], Sequence[np.ndarray]] = made.log_probs
    return log_probs


def _freia(content: Any, clamp_kind: str) -> str:
    """The version of FrEIA whose blocks hold such tensors and such a clamp."""
    stored = dict(_permutations(content))
    if any(name.endswith(".w") for name in stored):
        return "tag_v0.2"
    if clamp_kind == "tanh_ratio":
        return "2023-08"
    return "2023-06" if any(tensor.ndim == 1 for tensor in stored.values()) else "0.2"


def _permutations(content: Any) -> Iterator[tuple[str, np.ndarray]]:
    nested = ("decoder_state_dict", "parallel_flows", "state_dict")
    entries = content.items() if isinstance(content, dict) else enumerate(content)
    for key, value in entries:
        if isinstance(value, np.ndarray) and str(key).endswith((".w_perm", ".w")):
            yield str(key), value
        elif isinstance(value, dict | list) and (key in nested or type(key) is int):
            yield from _permutations(value)


def described(peer: str) -> dict[str, Any]:
    """What the card says about the other side."""
    return {"peer": peer, "torch": importlib.metadata.version("torch")}
