"""Weights, images and tolerances that the encoder tests share."""

import functools
from types import ModuleType
from typing import Any

import jax
import numpy as np

from flowad_jax.encoders import efficientnet, efficientnet_lite, mobilenet_v3, resnet
from flowad_jax.types import Tree
from peers import encoders as peers

FAMILIES: dict[str, Any] = {
    "resnet": resnet,
    "efficientnet_lite": efficientnet_lite,
    "efficientnet": efficientnet,
    "mobilenet_v3": mobilenet_v3,
}
NAMES = [f"{family}.{variant}" for family in FAMILIES for variant in FAMILIES[family].SPECS]
TOLERANCE = 1e-4  # of the largest absolute value of a map


def image(height: int, width: int, batch: int = 1) -> np.ndarray:
    """Random pixels, already normalised."""
    rng = np.random.default_rng(height * 1000 + width)
    return rng.standard_normal((batch, height, width, 3), np.float32)


def every_tap(name: str, **kwargs: Any) -> tuple[Any, ModuleType]:
    """The complete network of ``"family.variant"``, and its family's module."""
    family_name, variant = name.split(".")
    family = FAMILIES[family_name]
    taps = tuple(range(len(family.SPECS[variant].channels)))
    return getattr(family, variant)(taps=taps, **kwargs), family


def abstract_variables(module: Any) -> Tree:
    """Shapes of the variables, at the cost of tracing."""
    pixels = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    return jax.eval_shape(module.init, jax.random.key(0), pixels)


def variables_from(module: Any, family: ModuleType, tensor: Any) -> Tree:
    """Fills a network; ``tensor(torch key, torch shape)`` gives each weight in torch's layout."""

    def leaf(path: tuple[Any, ...], like: Any) -> np.ndarray:
        key = family.torch_key(tuple(part.key for part in path))
        if len(like.shape) == 1:
            return tensor(key, like.shape)
        kh, kw, inputs, outputs = like.shape
        return tensor(key, (outputs, inputs, kh, kw)).transpose(2, 3, 1, 0)

    return jax.tree_util.tree_map_with_path(leaf, abstract_variables(module))


@functools.cache
def random_variables(name: str) -> Tree:
    """The weights that `peers.random_state` gives to the torch model of the same shapes."""
    return variables_from(*every_tap(name), peers.random_tensor)


def sample(tap: np.ndarray) -> np.ndarray:
    """A spread of positions and channels that is small enough to be stored."""
    _, h, w, c = tap.shape
    return np.asarray(tap)[:, :: max(1, h // 8), :: max(1, w // 8), :: max(1, c // 16)]


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
