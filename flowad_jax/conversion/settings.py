"""What a checkpoint of a detector settles of a recipe, and what it leaves to it."""

from __future__ import annotations

from typing import Any, NamedTuple

from ml_collections import config_dict

from flowad_jax.detector import config_schema
from flowad_jax.encoders import architecture
from flowad_jax.errors import UserError, one_line
from flowad_jax.types import EncoderSpec
from flowad_jax.weights.detectors import TorchDetector, dialects

_OF_IMAGES = ("data.image_size", "data.norm", "data.filter", "encoder.name", "encoder.weights")


class MergedSettings(NamedTuple):
    """A recipe that a checkpoint has filled in.

    Attributes:
      config: the result.
      replaced: key to (value of the recipe, value of the checkpoint), where they differ.
      order: for every scale of ours, shallow first, the scale of the file.
    """

    config: config_dict.ConfigDict
    replaced: dict[str, tuple[Any, Any]]
    order: tuple[int, ...]


def merge_settings(found: TorchDetector, recipe: config_dict.ConfigDict) -> MergedSettings:
    """Overrides the recipe's values with those that the checkpoint settles.

    Raises:
      UserError: the recipe is of another method, or its encoder has no such maps.
    """
    if recipe.method.name != found.method:
        raise UserError(
            f"--config is a recipe of {recipe.method.name}, but the checkpoint holds a detector of "
            f"{found.method}: take one such as --config={found.method}_mvtec"
        )
    name, backbone = recipe.encoder.name, found.about.get("backbone")
    if isinstance(backbone, str):
        if not backbone.isidentifier():  # never a name that would be imported from elsewhere
            raise UserError(f"the checkpoint names the encoder '{backbone}', which is none")
        name = f"resnet.{backbone}"
    values = {f"method.{option}": value for option, value in found.options.items()}
    values["encoder.compute"] = "float32"  # what its flows were trained on
    values |= dialects()[found.dialect].encoder_settings(name)
    spec = architecture.find(name).spec
    if taps := _taps(found, spec):
        values["encoder.taps"] = taps
    if found.encoder is not None:
        values["encoder.weights"] = "encoder.safetensors"
    before = config_schema.flatten(recipe.to_dict())
    replaced = {key: (before[key], new) for key, new in values.items() if before[key] != new}
    order = scale_order(found.dialect, spec, len(found.channels))
    return MergedSettings(changed(recipe, **values), replaced, order)


def changed(config: config_dict.ConfigDict, **values: Any) -> config_dict.ConfigDict:
    """A copy of a config with other values, by dotted key."""
    copy = config.copy_and_resolve_references()
    with copy.unlocked():
        copy.update_from_flattened_dict(values)
    return copy.lock()


def described(found: TorchDetector, merged: MergedSettings) -> str:
    """What the checkpoint settles, and what it leaves to the recipe, as lines."""
    settled = {f"method.{name}": value for name, value in found.options.items()}
    flat = config_schema.flatten(merged.config.to_dict())
    lines = [f"a detector of {found.method}, dialect {found.dialect}; from the file:"]
    for key, value in sorted(
        (settled | {k: new for k, (_, new) in merged.replaced.items()}).items()
    ):
        old = f" (the recipe says {merged.replaced[key][0]})" if key in merged.replaced else ""
        lines.append(f"  {key} = {value}{old}")
    lines.append("not in the file, so from the recipe:")
    own_size = f"data.category_sizes.{merged.config.data.category}"
    for key in (*dialects()[found.dialect].unseen, *_OF_IMAGES):
        if key == "data.image_size" and own_size in flat:
            key = own_size
        if key not in settled and key not in merged.replaced:
            lines.append(f"  {key} = {flat[key]}")
    if found.left_out:
        lines.append(f"left out: {', '.join(found.left_out)}")
    return "\n".join(map(one_line, lines))


def rename_scales(variables: dict[str, Any], numbers: dict[int, int]) -> dict[str, Any]:
    """The same variables with scales renumbered, old to new; other groups stay as they are."""
    names = {f"scale{old}": f"scale{new}" for old, new in numbers.items()}
    return {
        kind: {names.get(group, group): tree for group, tree in groups.items()}
        for kind, groups in variables.items()
    }


def scale_order(dialect: str, spec: EncoderSpec, count: int) -> tuple[int, ...]:
    """For every scale of ours, shallow first, the scale of the authors' code."""
    blocks = dialects()[dialect].tap_order(spec.name, count) or range(count)
    return tuple(sorted(range(count), key=blocks.__getitem__))


def _taps(found: TorchDetector, spec: EncoderSpec) -> tuple[int, ...] | None:
    """The feature maps that the flows are for; None: those of the recipe."""
    if blocks := dialects()[found.dialect].tap_order(spec.name, len(found.channels)):
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
