"""From images to a detector, in one call."""

from __future__ import annotations

import importlib
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import config_dict

from flowad_jax import lookup
from flowad_jax.api import keywords
from flowad_jax.api.detector import Detector, load
from flowad_jax.data import kept_images, sources
from flowad_jax.data.pixels import describe, is_pixels
from flowad_jax.errors import UserError
from flowad_jax.interrupt import Interrupted
from flowad_jax.settings import sections
from flowad_jax.sweep import cross

IMAGES = "training_images"  # folder in the workdir
_PLACES = (
    "a folder, a pattern such as 'photographs/*.jpg', a csv table, a data set such as "
    "'textures:brick'"
)


def fit(
    images: Any,
    method: str = "msflow",
    encoder: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    false_alarm_rate: float | None = None,
    workdir: str | Path | None = None,
    **settings: Any,
) -> Detector:
    """Trains a detector on images of normal parts, and writes its report.

    A call that was interrupted goes on where it stopped if it is repeated with the same workdir.

    Args:
      images: a folder; a pattern such as ``"photographs/*.jpg"``; a csv table; a data set and its
        category, ``"textures:brick"``; a list or iterator of paths; or one of PIL images or arrays
        (H, W), (H, W, 3) or (H, W, 4) of uint8, uint16 or floats from 0 to 1, which are kept in
        ``workdir/training_images``.
      method: ``"msflow"``, ``"cflow"``, ``"sanflow"`` or ``"ssnf"``, with the settings of its short
        recipe.
      encoder: such as ``"resnet.resnet18=resnet18.safetensors"``, a network and its weights; None
        for EfficientNet-Lite0, whose weights are installed.
      image_size: pixels of what the network sees of an image; None for those of the recipe.
      false_alarm_rate: largest probability of calling a normal image anomalous; None for that of
        the recipe.
      workdir: folder of the run, with its ``report.html``; None for one that goes with the
        detector.
      **settings: keys of the config (docs/configuration.md), by their last word, ``epochs=20``, or,
        where several end with it, in full, ``train__batch_size=4``; ``white=4095`` for 12-bit
        cameras.

    Raises:
      UserError: images, an argument or the workdir cannot be used; the message says what can.
      Interrupted: a signal asked to stop; the workdir keeps the state.
    """
    given = {
        **{"encoder": encoder, "data.image_size": image_size},
        **{"eval.false_alarm_rate": false_alarm_rate},
    }
    given = {key: value for key, value in given.items() if value is not None} | settings
    config = _recipe(method)
    if workdir is not None:
        return _train(config, images, given, Path(workdir).expanduser().absolute())
    path = Path(tempfile.mkdtemp(prefix="flowad_jax_"))
    try:
        detector = _train(config, images, given, path)
    except BaseException as error:
        shutil.rmtree(path, ignore_errors=True)
        if isinstance(error, Interrupted):
            raise KeyboardInterrupt from None  # there is nothing left to resume
        raise
    weakref.finalize(detector, shutil.rmtree, path, ignore_errors=True)
    return detector


def _train(
    config: config_dict.ConfigDict, images: Any, settings: dict[str, Any], path: Path
) -> Detector:
    is_named = isinstance(images, str | os.PathLike)
    if is_named:
        _name_images(config, os.fspath(images))
    else:
        _check_images(images)
    if "encoder" in settings:
        settings["encoder.name"], equals, weights = str(settings.pop("encoder")).partition("=")
        settings |= {"encoder.weights": weights} if equals else {}
    keywords.assign(config, settings)
    if not is_named:
        kept_images.keep(images, path / IMAGES, config.data.options.white)
        config.data.root = str(path / IMAGES)
    cross.train(config, path)
    return load(path)


def _recipe(method: str) -> config_dict.ConfigDict:
    """The short recipe of a method."""
    lookup.check_choice("method", str(method), lookup.choices("flowad_jax.methods"))
    return importlib.import_module(f"flowad_jax.recipes.{method}_folder").get_config()


def _check_images(images: Any) -> None:
    """Raises a UserError if these are not several images."""
    if is_pixels(images):
        several = getattr(images, "ndim", 3) == 4
    else:
        several = isinstance(images, Iterable) and not isinstance(images, Mapping | bytes)
    if not several:
        raise UserError(f"images are {describe(images)}: give {_PLACES}, or a list of images")


def _name_images(config: config_dict.ConfigDict, images: str) -> None:
    """Sets in a config where images lie that are named."""
    path, (name, _, category) = Path(images).expanduser(), images.partition(":")
    root = str(path.absolute()) if path.exists() else images
    if path.is_file() and path.suffix.lower() != ".csv":
        raise UserError(f"images are one file, '{images}': give {_PLACES}")
    if path.exists():
        name, category = "csv" if path.is_file() else "folder", ""
    elif name in sources.names():
        root = ""
    else:  # a pattern, or several folders
        name, category = "folder", ""
    sections.choose(config, "data.options", name)
    with config.unlocked():
        config.data.root, config.data.category = root or None, category or None
