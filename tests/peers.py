"""What tests and benchmarks need of the PyTorch peers; importing this module needs no torch."""

import zlib
from typing import Any, Literal

import numpy as np

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


def random_tensor(key: str, shape: tuple[int, ...]) -> np.ndarray:
    """A weight in torch's layout that depends on its torch name and shape alone.

    Statistics of BatchNorm are random too: with the initial 0 and 1 a swap of mean and bias, or
    of scale and variance, would go unseen.
    """
    rng = np.random.default_rng(zlib.crc32(key.encode()))
    leaf = key.rsplit(".", 1)[1]
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

    model = getattr(torchvision().models, variant)(weights=None)
    for module in model.modules():
        if isinstance(module, torch.nn.Conv2d) and module.padding != (0, 0):
            module.padding_mode = padding
    return model.eval()


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
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name(variant.replace("_lite", "-lite"), image_size=size).eval()


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
