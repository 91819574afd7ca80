"""Finding defects in images with normalizing flows, in JAX."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from flowad_jax.version import __version__

if TYPE_CHECKING:
    from flowad_jax.api.detector import Detector, load
    from flowad_jax.api.fit import fit
    from flowad_jax.inference.prediction import Prediction

__all__ = ["Detector", "Prediction", "__version__", "fit", "load"]
_PLACES = {
    "Detector": "flowad_jax.api.detector",
    "Prediction": "flowad_jax.inference.prediction",
    "fit": "flowad_jax.api.fit",
    "load": "flowad_jax.api.detector",
}


def __getattr__(name: str) -> Any:
    """Imports what is asked for; JAX takes seconds, which `import flowad_jax` does not."""
    if name not in _PLACES:
        raise AttributeError(f"module 'flowad_jax' has no attribute '{name}'")
    return getattr(importlib.import_module(_PLACES[name]), name)
