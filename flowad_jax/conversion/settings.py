"""What a checkpoint of a detector settles of a recipe, and what it leaves to it."""

from __future__ import annotations

from typing import Any, NamedTuple

from ml_collections import config_dict

from flowad_jax.encoders import architecture
from flowad_jax.errors import UserError
from flowad_jax.training import config_schema
from flowad_jax.types import EncoderSpec
from flowad_jax.weights.detectors import Found

# The authors' CFLOW-AD takes the blocks of a ViT in this order, the last ones for fewer decoders.
_CFLOW_VIT = (10, 2, 6)
# Settings that no tensor shows, where a file was not trained with the published values.
UNSEEN = {
    "cflow": ("method.clamp",),
    "sanflow": ("method.clamp", "method.variance_clip"),
    "msflow": ("method.clamp", "encoder.pool"),
    "ssnf": ("method.clamp", "method.heads", "encoder.taps", "encoder.final_norm"),
    "anomalib": ("method.clamp",),
}
_OF_IMAGES = ("data.image_size", "data.norm", "data.filter", "encoder.name", "encoder.weights")


class Settled(NamedTuple):
    """A recipe that a checkpoint has filled in.

    Attributes:
      config: the result.
      replaced: key to (value of the recipe, value of the checkpoint), where they differ.
      order: for every scale of ours, shallow first, the scale of the file.
    """

    config: config_dict.ConfigDict
    replaced: dict[str, tuple[Any, Any]]
    order: tuple[int, ...]


def settle(found: Found, recipe: config_dict.ConfigDict) -> Settled:
    """Puts what a checkpoint settles in the place of what a recipe says.

    Args:
      found: the checkpoint.
      recipe: of the same method; it says what images there are and how they are prepared.

    Raises:
      UserError: the recipe is of another method, or its encoder has no such maps.
    """
    if recipe.method.name != found.method:
        raise UserError(
            f"--config is a recipe of {recipe.method.name}, but the checkpoint holds a detector of "
            f"{found.method}: take one such as configs/{found.method}_mvtec.py"
        )
    values = {f"method.{name}": value for name, value in found.options.items()}
    values["encoder.compute"] = "float32"  # what its flows were trained on
    name = _encoder_name(found) or recipe.encoder.name
    values |= _prepared(found, name, recipe)
    spec = architecture.find(name).spec
    if taps := _taps(found, spec):
        values["encoder.taps"] = taps
    if found.encoder is not None:
        values["encoder.weights"] = "encoder.safetensors"
    before = config_schema.flatten(recipe.to_dict())
    replaced = {key: (before[key], new) for key, new in values.items() if before[key] != new}
    order = scale_order(found.dialect, spec, len(found.channels))
    return Settled(changed(recipe, **values), replaced, order)


def changed(config: config_dict.ConfigDict, **values: Any) -> config_dict.ConfigDict:
    """A copy of a config with other values, by dotted key."""
    copy = config.copy_and_resolve_references()
    with copy.unlocked():
        copy.update_from_flattened_dict(values)
    return copy.lock()


def left_to_recipe(found: Found, config: config_dict.ConfigDict) -> dict[str, Any]:
    """What the checkpoint does not show and the recipe decides, by key."""
    flat = config_schema.flatten(config.to_dict())
    settled = {f"method.{name}" for name in found.options}
    own = f"data.category_sizes.{config.data.category}"
    keys = (*UNSEEN[found.dialect], *_OF_IMAGES)
    if own in flat:
        keys = tuple(own if key == "data.image_size" else key for key in keys)
    return {key: flat[key] for key in keys if key not in settled}


def reordered(found: Found, order: tuple[int, ...]) -> dict[str, Any]:
    """The variables with the scales in our order; other groups stay as they are."""
    renamed = {f"scale{theirs}": f"scale{ours}" for ours, theirs in enumerate(order)}
    return {
        kind: {renamed.get(group, group): tree for group, tree in groups.items()}
        for kind, groups in found.variables.items()
    }


def _encoder_name(found: Found) -> str | None:
    backbone = found.about.get("backbone")
    if not isinstance(backbone, str):
        return None
    if not backbone.isidentifier():  # never a name that would be imported from elsewhere
        raise UserError(f"the checkpoint names the encoder '{backbone}', which is no name of one")
    return f"resnet.{backbone}"


def _prepared(found: Found, name: str, recipe: config_dict.ConfigDict) -> dict[str, Any]:
    """How each code base feeds its encoder."""
    family = name.split(".")[0]
    if found.dialect == "anomalib":
        return {"encoder.name": name, "encoder.padding": "zeros", "data.filter": "bilinear"}
    values: dict[str, Any] = {}
    if family == "resnet" and found.dialect in ("cflow", "sanflow", "msflow"):
        values["encoder.padding"] = "reflect"
    if family in ("vit", "efficientnet") and found.dialect == "cflow":
        values["data.norm"] = "mean_as_std"
    return values


def scale_order(dialect: str, spec: EncoderSpec, count: int) -> tuple[int, ...]:
    """For every scale of ours, shallow first, the scale of the authors' code."""
    blocks = _blocks(dialect, spec, count) or range(count)
    return tuple(sorted(range(count), key=blocks.__getitem__))


def _blocks(dialect: str, spec: EncoderSpec, count: int) -> tuple[int, ...] | None:
    known = dialect == "cflow" and spec.name.startswith("vit.vit_")
    return _CFLOW_VIT[-count:] if known and count <= len(_CFLOW_VIT) else None


def _taps(found: Found, spec: EncoderSpec) -> tuple[int, ...] | None:
    """The feature maps that the flows are for; None: those of the recipe."""
    count = len(found.channels)
    if blocks := _blocks(found.dialect, spec, count):
        return tuple(sorted(blocks))
    if len(set(spec.channels)) == 1:  # a transformer: nothing tells its maps apart
        return None
    deepest = {channels: tap for tap, channels in enumerate(spec.channels)}
    taps = tuple(deepest.get(channels, -1) for channels in found.channels)
    if -1 in taps or list(taps) != sorted(set(taps)):
        raise UserError(
            f"the checkpoint's flows are for maps of {found.channels} channels, but encoder "
            f"'{spec.name}' has {tuple(dict.fromkeys(spec.channels))}: name the encoder that it "
            "was trained with, --config.encoder.name=..."
        )
    return taps
