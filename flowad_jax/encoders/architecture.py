"""An encoder by its name: the module of its family, its factory, its promise, its variables."""

import importlib
import inspect
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from flowad_jax import lookup
from flowad_jax.errors import UserError
from flowad_jax.types import EncoderSpec, Tree

PACKAGE = "flowad_jax.encoders"
EXPORTS = ()  # nothing in here is the name of an encoder


class Architecture(NamedTuple):
    """What a name stands for.

    Attributes:
      family: the module: ``SPECS``, ``torch_key``, ``IGNORABLE``.
      factory: ``(taps=, **options) -> Flax module``.
      spec: its promise.
    """

    family: Any
    factory: Any
    spec: EncoderSpec


def find(name: str) -> Architecture:
    """Looks a name up, ``"resnet.resnet18"`` or ``"package.module:variant"``.

    Raises:
      UserError: nothing of that name exists.
    """
    factory = lookup.find(PACKAGE, name)
    external = ":" in name
    module_name, variant = name.split(":" if external else ".", 1)
    family = importlib.import_module(module_name if external else f"{PACKAGE}.{module_name}")
    if variant not in getattr(family, "SPECS", {}):
        raise UserError(f"encoder '{name}' has no entry in SPECS of {module_name}: add one")
    return Architecture(family, factory, family.SPECS[variant])


def shapes(module: nn.Module, spec: EncoderSpec) -> Tree:
    """The variables of a network as `jax.ShapeDtypeStruct`."""
    side = spec.size or 2 * max(spec.strides)
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    return jax.eval_shape(module.init, jax.random.key(0), image)


def complete_shapes(architecture: Architecture, deepest: int | None = None) -> Tree:
    """The same for all that any tap needs, which is what weight files hold.

    Args:
      architecture: of the network.
      deepest: for all up to this tap only.
    """
    last = len(architecture.spec.channels) - 1 if deepest is None else deepest
    # Files hold a transformer's last norm, whether or not taps go through it.
    options = known_options(architecture, final_norm=True)
    return shapes(architecture.factory(taps=(last,), **options), architecture.spec)


def known_options(architecture: Architecture, **options: Any) -> dict[str, Any]:
    """Those of the options that the factory takes."""
    known = inspect.signature(architecture.factory).parameters
    return {name: value for name, value in options.items() if name in known}
