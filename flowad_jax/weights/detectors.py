"""A trained detector in a PyTorch checkpoint: whose code wrote it, and what it holds."""

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from flowad_jax.errors import UserError
from flowad_jax.weights.foreign import shown
from flowad_jax.weights.state_dicts import Flat


class TorchDetector(NamedTuple):
    """A detector in a checkpoint.

    Attributes:
      dialect: name of the module in `flowad_jax.weights.dialects` that read it.
      method: its name in `flowad_jax.methods`.
      options: arguments of the method that the file settles.
      clamp_kinds: what the coupling blocks may have been trained with, likeliest first.
      channels: of the feature maps, in the order of the file.
      variables: ``params`` and ``buffers`` as the method has them, views of the file's tensors.
      size: bytes of the tensors that ``variables`` were made of.
      encoder: state dict of the encoder, or None where the file has none.
      about: what the file says beside, e.g. ``backbone`` and ``layers`` of anomalib.
      left_out: names of entries that are not converted.
    """

    dialect: str
    method: str
    options: dict[str, Any]
    clamp_kinds: tuple[str, ...]
    channels: tuple[int, ...]
    variables: dict[str, Any]
    size: int
    encoder: Flat | None = None
    about: Mapping[str, Any] = {}
    left_out: tuple[str, ...] = ()


@dataclass(frozen=True)
class Dialect:
    """How one code base stores and feeds its detectors.

    Attributes:
      known_by: the code base, and the entries by which its files are known.
      matches: whether a checkpoint is one of it.
      read: converts a checkpoint.
      write: ``(variables, encoder's state dict, indices) -> content`` of a checkpoint, scales in
        the authors' order; ``indices``: see `freia.state_dict`. None: nothing goes back.
      unseen: config keys whose values no tensor shows.
      encoder_settings: config values of the feature extraction, by the encoder's name.
      tap_order: blocks of an encoder in the order of so many decoders; None: shallow first.
    """

    known_by: str
    matches: Callable[[Mapping[str, Any]], bool]
    read: Callable[[Mapping[str, Any]], TorchDetector]
    write: Callable[[Mapping[str, Any], Flat | None, bool], dict[str, Any]] | None = None
    unseen: tuple[str, ...] = ("method.clamp",)
    encoder_settings: Callable[[str], dict[str, Any]] = lambda encoder: {}
    tap_order: Callable[[str, int], tuple[int, ...] | None] = lambda encoder, count: None


def resnet_padding(encoder: str) -> dict[str, Any]:
    """The config values of code whose ResNets pad with reflections."""
    return {"encoder.padding": "reflect"} if encoder.startswith("resnet.") else {}


def dialects() -> dict[str, Dialect]:
    """All dialects by name."""
    from flowad_jax.weights import dialects as package

    names = [module.name for module in pkgutil.iter_modules(package.__path__)]
    modules = {name: importlib.import_module(f"{package.__name__}.{name}") for name in names}
    return {name: module.DIALECT for name, module in modules.items()}


def detect_format(content: Any, source: str) -> TorchDetector:
    """Finds out which code wrote what `torch_file.read` returned, and converts its flows.

    Raises:
      UserError: no dialect matches, or something in the checkpoint is missing, unknown or
        inconsistent, or not finite. The message names the file, ``source``.
    """
    known = dialects().values()
    if isinstance(content, dict):
        try:
            for dialect in known:
                if dialect.matches(content):
                    return dialect.read(content)
        except UserError as error:
            raise UserError(f"{source}: {error}") from error
        except (ArithmeticError, AttributeError, LookupError, TypeError, ValueError) as error:
            # Tensors of other shapes reach NumPy at many places.
            what = f"{type(error).__name__}: {error}"[:200]
            raise UserError(
                f"{source}: its tensors have other shapes or types than those of a detector that "
                f"we know ({what})"
            ) from error
    kind = type(content).__name__
    keys = ", ".join(shown(key) for key in list(content)[:6]) if isinstance(content, dict) else kind
    raise UserError(
        f"{source}: not a supported detector checkpoint "
        f"({', '.join(dialect.known_by for dialect in known)}); it holds {keys or 'nothing'}"
    )
