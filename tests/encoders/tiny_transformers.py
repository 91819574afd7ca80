"""timm's networks with the measures of our tiny transformers, and the images they are seen on."""

import numpy as np

from flowad_jax.encoders import architecture
from peers import encoders as peers
from tests.encoders import maps

# (network, height, width, images)
CASES = [
    ("cait.cait_tiny", 64, 64, 2),
    ("vit.vit_tiny", 64, 64, 1),
    ("vit.vit_tiny", 48, 96, 1),
    ("vit.dinov2_tiny", 56, 56, 1),
    ("vit.dinov2_tiny", 84, 42, 1),
]


def keys(name, height, width):
    """Names of stored tensors: of four blocks behind the last norm, then of four bare ones."""
    variant = name.partition(".")[2]
    if variant == "cait_tiny":
        return [f"tap{tap}_{kind}" for kind in ("norm", "bare") for tap in range(4)]
    size = f"{variant}_{height}x{width}"
    return [f"{size}_{kind}_{tap}" for kind in ("norm", "bare") for tap in range(4)]


def peer(name):
    """The network of timm, with the tensors of `maps.torch_state`."""
    peers.torchvision()
    from timm.models.cait import Cait
    from timm.models.vision_transformer import VisionTransformer

    trunk = architecture.find(name).factory.keywords
    size = {"img_size": trunk["size"], "patch_size": trunk.get("patch", 16)}
    size |= {"embed_dim": trunk["dim"], "depth": trunk["depth"], "num_heads": trunk["heads"]}
    if name == "cait.cait_tiny":
        return peers.fill(Cait(**size, num_classes=10), maps.torch_state(name))
    registers = trunk.get("registers", 0)
    distilled = "dist_token" in trunk["coded"]
    model = VisionTransformer(
        **size,
        init_values=1.0 if "scale" in trunk else None,
        reg_tokens=registers or int(distilled),  # a second coded token is one register to timm
        no_embed_class=bool(registers),
        dynamic_img_size=True,
        num_classes=0,
    )
    return peers.fill(model, named_as_in_timm(name))


def named_as_in_timm(name):
    """The tensors of `maps.torch_state` under timm's names."""
    tensors = peers.named_as_in_timm(dict(maps.torch_state(name)))
    if "dist_token" in tensors:
        tensors["reg_token"] = tensors.pop("dist_token")
    return tensors


def peer_taps(model, image, final_norm, taps=(0, 1, 2, 3)):
    """The outputs of blocks of a transformer of timm, channels last."""
    import torch

    with torch.no_grad():
        found = model.forward_intermediates(
            peers.channels_first(image),
            indices=list(taps),
            norm=final_norm,
            intermediates_only=True,
        )
    return [np.asarray(tap.permute(0, 2, 3, 1)) for tap in found]
