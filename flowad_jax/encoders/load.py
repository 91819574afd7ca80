"""A frozen encoder with its weights: embedded, from a file of PyTorch's or ours, or random."""

import hashlib
import inspect
import math
import zlib
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax.traverse_util import flatten_dict, unflatten_dict

from flowad_jax.encoders import weight_files
from flowad_jax.encoders.architecture import find, shapes
from flowad_jax.encoders.precision import COMPUTE, in_precision, rounded
from flowad_jax.encoders.taps import at_sizes, choose_taps, normalised, pooled
from flowad_jax.errors import UserError
from flowad_jax.lookup import check_choice
from flowad_jax.types import Encoder, Published, Tree
from flowad_jax.weights import store


def load(
    name: str = "efficientnet_lite.efficientnet_lite0",
    weights: str = "embedded",
    taps: tuple[int, ...] | None = None,
    strides: tuple[int, ...] = (8, 16, 32),
    padding: str | None = None,
    pool: str | None = None,
    layer_norm: bool = False,
    final_norm: bool | None = None,
    tap_at: str | None = None,
    compute: str = "float32",
    pyramid: int = 1,
    seed: int = 0,
) -> Encoder:
    """Returns an encoder with the variables that its taps need, on the default device.

    Args:
      name: e.g. ``"resnet.wide_resnet50_2"``, or ``"package.module:variant"``.
      weights: ``"embedded"`` (in an installed package), ``"random"``, or the path of a ``.pth``,
        ``.pt``, ``.safetensors`` or ``.npz`` file; a name that ends in a hash has to be true.
      taps: increasing indices into the spec's channels; None for those of the strides.
      strides: increasing strides; the deepest map of each is a tap where ``taps`` is None.
      padding: a mode that the architecture knows; None for its default.
      pool: 3x3 pooling at stride 2 behind every tap, ``"avg"`` or ``"max"``; None for none.
      layer_norm: whether every position of what comes out is normalised over its channels.
      final_norm: whether a transformer's last normalisation is applied to every tap; None for
        its default.
      tap_at: where in its block a tap of a convolutional network lies; None for its default.
      compute: ``"bfloat16"`` for a forward pass in half precision; maps are float32 either way.
      pyramid: image sizes that the network sees, each half as large as the one before, rounded
        down to what it takes; the maps of the largest come first. 1 for the image alone.
      seed: of random weights.

    Raises:
      UserError: the name, the pyramid, a tap or stride, the padding, the pooling, the precision or
        the weights are not what they should be, or the architecture has no such option.

    Example:
      >>> encoder = load("resnet.resnet_tiny", weights="random", strides=(4, 8))
      >>> maps = jax.jit(encoder.apply)(encoder.variables, np.zeros((1, 32, 48, 3), np.float32))
      >>> [tap.shape for tap in maps]
      [(1, 8, 12, 8), (1, 4, 6, 16)]
    """
    check_choice("encoder.compute", compute, COMPUTE)
    architecture = find(name)
    spec = architecture.spec
    taps = choose_taps(spec, taps, strides)
    given = {"padding": padding, "final_norm": final_norm, "tap_at": tap_at}
    options = {key: value for key, value in given.items() if value is not None}
    for key, value in options.items():
        try:
            inspect.signature(architecture.factory).bind_partial(**{key: value})
        except TypeError as error:
            raise UserError(f"encoder.{key}={value!r}: '{spec.name}' has no such option") from error
    module = architecture.factory(taps=taps, **options)
    apply = pooled(in_precision(module.apply, compute), pool)
    if layer_norm:
        apply = normalised(apply)
    apply = at_sizes(apply, pyramid, spec.multiple)
    target = shapes(module, spec)
    if weights == "random":
        variables = random_variables(target, seed)
        source = {"weights": f"random, seed {seed}", "sha256": _digest(variables)}
    else:
        path = _weight_file(name, spec.weights, weights)
        variables = weight_files.pruned(weight_files.read(architecture, path), target, path.name)
        source = {"weights": path.name, "sha256": store.sha256(path)}
    source = {"name": spec.name, **source, "compute": compute}
    return Encoder(apply, jax.device_put(rounded(variables, compute)), spec, taps, source)


def convert_checkpoint(arch: str, checkpoint_path: str | Path) -> tuple[Tree, dict[str, Any]]:
    """Converts a ``.pth``, ``.pt`` or ``.safetensors`` file of PyTorch, all that any tap needs.

    Returns:
      Variables as NumPy arrays and the card for `store.save`.

    Raises:
      UserError: the name is unknown, the file is damaged or of another architecture.
    """
    architecture, path = find(arch), Path(checkpoint_path)
    variables = weight_files.converted(architecture, path)
    return variables, store.describe(architecture.spec, path, variables)


def in_package(published: Published) -> bool:
    """Returns whether a pip package brings a weight file; others have an address."""
    return published.source.startswith("pip install ")


def random_variables(target: Tree, seed: int) -> Tree:
    """Draws kernels as He et al. (ICCV 2015) for ReLU, other variables as PyTorch starts them.

    Each kernel is drawn from the seed and its own name: one tap more changes no other weight,
    and NumPy's streams are the same in every version of jax.
    """

    def draw(path: tuple[str, ...], shape: tuple[int, ...]) -> np.ndarray:
        if path[-1] in ("bias", "mean"):
            return np.zeros(shape, np.float32)
        if path[-1] in ("scale", "var") or path[-1].startswith("gamma"):
            return np.ones(shape, np.float32)
        rng = np.random.default_rng((seed, zlib.crc32("/".join(path).encode())))
        std = math.sqrt(2.0 / math.prod(shape[:-1])) if path[-1] == "kernel" else 0.02
        return rng.standard_normal(shape, np.float32) * np.float32(std)

    flat = flatten_dict(target)
    return unflatten_dict({path: draw(path, leaf.shape) for path, leaf in flat.items()})


def _weight_file(name: str, published: Published | None, weights: str) -> Path:
    if weights != "embedded":
        if (path := Path(weights)).is_file():
            return path
        raise UserError(
            f"encoder.weights '{weights}': give an existing file, 'embedded' or 'random'"
        )
    if (installed := store.embedded(name)) is not None:
        return installed
    if published is None:
        remedy = "none are published; set encoder.weights to a weight file, or to 'random'"
    elif in_package(published):
        remedy = f"run '{published.source}', or set encoder.weights to a weight file or to 'random'"
    else:
        remedy = (
            f"set encoder.weights to {published.file} ({published.megabytes:.0f} MB), which "
            f"'flowad fetch --arch={name}' downloads from "
            f"{published.source}, or to another weight file or 'random'"
        )
    raise UserError(f"no installed package brings weights for encoder '{name}': {remedy}")


def _digest(variables: Tree) -> str:
    digest = hashlib.sha256()
    for path, leaf in sorted(flatten_dict(variables).items()):
        digest.update("/".join(path).encode())
        digest.update(leaf.tobytes())
    return digest.hexdigest()
