"""Synthetic anomalies for normal images; works without the rest of the package and without JAX.

    import numpy as np
    from flowad_jax.synthesis import draw_source, make

    synthesise = make("nsa", dataset="mvtec", category="screw", blend="by_class")
    rng = np.random.default_rng([seed, epoch, index])
    image, mask, kind, changed = synthesise(images[index], images[draw_source(index, n, rng)], rng)

``flowad synthesize --help`` says how to draw a sheet of samples.
"""

from __future__ import annotations

from typing import Any

from flowad_jax.lookup import check_choice
from flowad_jax.synthesis import cutpaste, mixture, nsa
from flowad_jax.synthesis.nsa_constants import CATEGORY_CONSTANTS, Constants, constants
from flowad_jax.synthesis.poisson import seamless_clone
from flowad_jax.synthesis.types import Synthesiser, Synthetic, draw_source, source_scale

__all__ = [
    "CATEGORY_CONSTANTS",
    "KINDS",
    "Constants",
    "Synthesiser",
    "Synthetic",
    "constants",
    "draw_source",
    "make",
    "seamless_clone",
    "source_scale",
]

_BUILDERS = {"nsa": nsa.build, "cutpaste": cutpaste.build, "mixture": mixture.build}
KINDS = (
    *_BUILDERS,
    *(f"cutpaste.{kind}" for kind in cutpaste.KINDS),
    *(f"mixture.{kind}" for kind in mixture.KINDS),
)


def make(name: str, **options: Any) -> Synthesiser:
    """Makes a synthesiser by its name.

    Args:
      name: one of ``KINDS``; the part after a dot restricts CutPaste or the mixture to one kind.
      **options: those of the module's ``build``.

    Raises:
      UserError: unknown name or option, or a value out of range.
    """
    check_choice("synthesis.name", name, KINDS)
    family, _, kind = name.partition(".")
    return _BUILDERS[family](**(options | {"kinds": (kind,)} if kind else options))
