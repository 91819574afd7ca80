"""What tests and benchmarks need of the PyTorch peers; importing this module needs no torch."""

import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import numpy as np

from flowad_jax.weights.torch_file import STATE_DICT_KEYS

_library: Any = None  # torch forgets the operators when the object goes


def torchvision() -> Any:
    """Imports torchvision beside a torch build that lacks its compiled operators.

    torchvision registers shape rules for two operators at import and fails where its own
    extension did not declare them; models do not use either.
    """
    global _library
    import torch

    if _library is None:
        _library = torch.library.Library("torchvision", "FRAGMENT")
        for schema in (
            "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
            "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
        ):
            if not hasattr(torch.ops.torchvision, schema.split("(")[0]):
                _library.define(schema)
    import torchvision

    return torchvision


def build(peer: str, **options: Any) -> Any:
    """The network that ``EncoderSpec.peer`` names, in evaluation mode, with random weights.

    Args:
      peer: ``"torchvision.resnet18"``, ``"timm.cait_m48_448"`` or
        ``"efficientnet_lite_pytorch.efficientnet-lite0"``.
      **options: of the library's own builder.

    Raises:
      ImportError: the library is not installed.
    """
    library, _, name = peer.partition(".")
    if library == "torchvision":
        return getattr(torchvision().models, name)(weights=None, **options).eval()
    if library == "timm":
        torchvision()  # timm imports it
        import timm

        return timm.create_model(name, pretrained=False, **options).eval()
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name(name, **options).eval()


def activations(model: Any, image: Any, names: Iterable[str]) -> dict[str, np.ndarray]:
    """Outputs of the named modules of a model in one forward pass, maps channels last.

    Args:
      model: any torch module.
      image: see `channels_first`.
      names: as in ``model.named_modules()``; one that is called repeatedly gives its last output.
    """
    import torch

    found: dict[str, np.ndarray] = {}

    def keep(name: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            del module, inputs
            output = output.permute(0, 2, 3, 1) if output.ndim == 4 else output
            found[name] = output.numpy().copy()  # some networks add to it in place later

        return hook

    modules = dict(model.named_modules())
    hooks = [modules[name].register_forward_hook(keep(name)) for name in names]
    with torch.no_grad():
        model(channels_first(image))
    for hook in hooks:
        hook.remove()
    return found


def file_state(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a checkpoint as PyTorch reads it, in float32."""
    import torch

    content: Any
    if str(path).endswith(".safetensors"):
        from safetensors.torch import load_file

        content = load_file(path)
    else:
        content = torch.load(path, map_location="cpu", weights_only=True)
    for key in STATE_DICT_KEYS:
        if isinstance(content.get(key), dict):
            content = content[key]
    return {key: tensor.detach().float().numpy() for key, tensor in content.items()}


def named_as_in_timm(state: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives timm's names and shapes to a DINOv2 with registers that is named as by its authors.

    There the class token has its position code added to it, and registers have another name.
    """
    if "register_tokens" not in state:
        return state
    tensors = dict(state)
    code = tensors["pos_embed"]
    tensors["cls_token"] = tensors["cls_token"] + code[:, :1]
    tensors["pos_embed"] = code[:, 1:]
    tensors["reg_token"] = tensors.pop("register_tokens")
    return tensors


def outputs(model: Any, names: Iterable[str], image: Any) -> dict[str, np.ndarray]:
    """What modules compute, as `activations`, of those names that the model has.

    timm's BatchNorm also applies what follows it; its output is taken before.
    """
    modules = dict(model.named_modules())
    places = {
        name: f"{name}.drop" if type(modules[name]).__name__ == "BatchNormAct2d" else name
        for name in names
        if name in modules
    }
    found = activations(model, image, places.values())
    return {name: found[place] for name, place in places.items()}


def random_tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight in torch's layout that depends on its torch name and shape alone.

    Statistics of BatchNorm are random too: with the initial 0 and 1 a swap of mean and bias, or
    of scale and variance, would go unseen.
    """
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    leaf = key.rsplit(".", 1)[-1]
    if len(shape) > 1:
        fan_in = np.prod(shape[1:])
        return rng.standard_normal(shape, np.float32) * np.float32(np.sqrt(2 / fan_in))
    if leaf in ("running_mean", "bias"):
        return rng.standard_normal(shape, np.float32) * np.float32(0.1)
    return rng.uniform(0.5, 1.0, shape).astype(np.float32)


def random_state(model: Any) -> dict[str, np.ndarray]:
    """`random_tensor` for every floating-point entry of a torch model's state."""
    return {
        key: random_tensor(key, tuple(value.shape))
        for key, value in model.state_dict().items()
        if value.is_floating_point()
    }


def fill(model: Any, state: dict[str, np.ndarray]) -> Any:
    """Puts arrays into a torch model and returns it in evaluation mode."""
    import torch

    tensors = {key: torch.from_numpy(value) for key, value in state.items()}
    _, extra = model.load_state_dict(tensors, strict=False)
    assert not extra
    return model.eval()


def resnet(variant: str, padding: Literal["zeros", "reflect"] = "zeros") -> Any:
    """A model of torchvision; "reflect" mirrors at the border of every convolution that pads."""
    import torch

    model = build(f"torchvision.{variant}")
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.padding != (0, 0):
            module.padding_mode = padding
    return model


def channels_first(image: Any) -> Any:
    """An array (B, H, W, 3) as torch wants it; a tensor stays what it is."""
    import torch

    if isinstance(image, torch.Tensor):
        return image
    return torch.from_numpy(np.ascontiguousarray(image.transpose(0, 3, 1, 2)))


def resnet_taps(model: Any, image: Any) -> list[np.ndarray]:
    """The outputs of the four stages, channels last; see `channels_first` for the image."""
    import torch

    x = channels_first(image)
    maps = []
    with torch.no_grad():
        x = model.maxpool(model.relu(model.bn1(model.conv1(x))))
        for stage in (model.layer1, model.layer2, model.layer3, model.layer4):
            x = stage(x)
            maps.append(x.permute(0, 2, 3, 1).numpy())
    return maps


def efficientnet_lite(variant: str, size: tuple[int, int]) -> Any:
    """The peer's model; it pads for the size that it is built for."""
    name = variant.replace("_lite", "-lite")
    return build(f"efficientnet_lite_pytorch.{name}", image_size=size)


def efficientnet_lite_taps(model: Any, image: Any) -> list[np.ndarray]:
    """The outputs of the seven stages, channels last; see `channels_first` for the image."""
    import torch

    x = channels_first(image)
    maps: list[np.ndarray] = []
    with torch.no_grad():
        x = model._swish(model._bn0(model._conv_stem(x)))
        for block in model._blocks:
            first_of_stage = block._block_args.input_filters != block._block_args.output_filters
            if first_of_stage and block is not model._blocks[0]:
                maps.append(x.permute(0, 2, 3, 1).numpy())
            x = block(x)
    return [*maps, x.permute(0, 2, 3, 1).numpy()]
