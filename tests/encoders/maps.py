"""Weights, images and tolerances that the encoder tests share."""

import functools
from typing import Any

import jax
import numpy as np

from flowad_jax import lookup
from flowad_jax.encoders import architecture, weight_files
from flowad_jax.types import Tree
from peers import encoders as peers

NAMES = lookup.choices(architecture.PACKAGE)
TINY = [name for name in NAMES if name.endswith("_tiny")]
TOLERANCE = 1e-4  # of the largest absolute value of a map


def image(height: int, width: int, batch: int = 1) -> np.ndarray:
    """Random pixels, already normalised."""
    rng = np.random.default_rng(height * 1000 + width)
    return rng.standard_normal((batch, height, width, 3), np.float32)


def every_tap(name: str, **options: Any) -> Any:
    """The complete network of ``"family.variant"``."""
    encoder = architecture.find(name)
    return encoder.factory(taps=tuple(range(len(encoder.spec.channels))), **options)


@functools.cache
def torch_state(name: str) -> dict[str, np.ndarray]:
    """Random tensors under torch's names, as `peers.random_state` gives them to its networks."""
    family = name.partition(".")[0]
    prefix = f"{family}." if family in ("cait", "vit") else ""
    rules = architecture.rules(architecture.find(name))
    return {rule.key: peers.random_tensor(prefix + rule.key, rule.torch_shape) for rule in rules}


def converted(name: str, tensors: dict[str, np.ndarray]) -> Tree:
    """Tensors of a torch network as our variables."""
    encoder = architecture.find(name)
    return weight_files.convert_tensors(encoder, weight_files.renamed(encoder, tensors), name)


@functools.cache
def random_variables(name: str) -> Tree:
    """The tensors of `torch_state`."""
    return converted(name, torch_state(name))


def sample(tap: np.ndarray) -> np.ndarray:
    """A spread of positions and channels that is small enough to be stored."""
    _, h, w, c = tap.shape
    return np.asarray(tap)[:, :: max(1, h // 8), :: max(1, w // 8), :: max(1, c // 16)]


def assert_same(a: Tree, b: Tree) -> None:
    """Compares two trees leaf by leaf, to the bit."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


def assert_close(ours: Any, theirs: Any) -> None:
    """Compares tap by tap, relative to the largest value of the map."""
    assert len(ours) == len(theirs)
    for tap, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        a, b = np.asarray(a), np.asarray(b)
        assert a.shape == b.shape
        scale = np.abs(b).max()
        assert np.isfinite(scale)
        assert scale > 1e-3
        error = np.abs(a - b).max() / scale
        assert error <= TOLERANCE, f"tap {tap}: relative error {error:.1e}"
