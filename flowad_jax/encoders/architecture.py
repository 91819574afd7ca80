"""An encoder by its name: its family, its factory, its promise, the shapes of its variables."""

import importlib
import inspect
import re
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import linen as nn

from flowad_jax import lookup
from flowad_jax.errors import UserError
from flowad_jax.types import EncoderSpec, Tree
from flowad_jax.weights import layout

PACKAGE = "flowad_jax.encoders.families"


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
    """Returns the variables of a network as `jax.ShapeDtypeStruct`."""
    side = spec.size or 2 * max(spec.strides)
    image = jax.ShapeDtypeStruct((1, side, side, 3), np.float32)
    return jax.eval_shape(module.init, jax.random.key(0), image)


def complete_shapes(architecture: Architecture, deepest: int | None = None) -> Tree:
    """Returns the same for all that any tap up to ``deepest`` needs, as weight files hold it."""
    last = len(architecture.spec.channels) - 1 if deepest is None else deepest
    # Files hold a transformer's last norm, whether or not taps go through it.
    options = known_options(architecture, final_norm=True)
    return shapes(architecture.factory(taps=(last,), **options), architecture.spec)


def known_options(architecture: Architecture, **options: Any) -> dict[str, Any]:
    """Returns those of the options that the factory takes."""
    known = inspect.signature(architecture.factory).parameters
    return {name: value for name, value in options.items() if name in known}


def rules(architecture: Architecture, deepest: int | None = None) -> list[layout.Rule]:
    """Returns the table by which files of the network are converted."""
    return layout.rules(complete_shapes(architecture, deepest), architecture.family.torch_key)


def left_out(architecture: Architecture, key: str) -> bool:
    """Returns whether a torch key belongs to a part, such as the head, that no tap needs."""
    return any(re.fullmatch(pattern, key) for pattern in architecture.family.IGNORABLE)
