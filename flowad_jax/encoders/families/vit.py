"""Vision transformers whose patches keep their places: ViT, distilled DeiT and DINOv2.

Dosovitskiy et al., "An Image is Worth 16x16 Words" (ICLR 2021); Touvron et al., "Training
data-efficient image transformers & distillation through attention" (ICML 2021); Oquab et al.,
"DINOv2" (TMLR 2024), with LayerScale; Darcet et al., "Vision Transformers Need Registers"
(ICLR 2024). Tokens in front of the patches (class, distillation, registers) take part in attention
and are dropped from the maps.

A tap is the output of one block, counted from 0. CFLOW-AD reads the bare outputs of blocks 2, 6
and 10 of ViT, so ``final_norm`` is off there; FastFlow applies the last LayerNorm to DeiT's, and
DINOv2's authors to their intermediate layers, so there it is on.

Position codes are interpolated for other image sizes as in timm, antialiased. The code published
with DINOv2 does so only for the networks with registers; for the others it adds an offset of 0.1
patches, without antialiasing.
"""

from collections.abc import Mapping
from functools import partial

import numpy as np

from flowad_jax.encoders import conventions, transformer
from flowad_jax.types import EncoderSpec, Published

IGNORABLE = (r"mask_token", r"(head|head_dist|fc_norm|pre_logits)\..*")
torch_key = transformer.torch_key

_BASE = partial(transformer.Transformer, depth=12, dim=768, heads=12)
_SMALL = partial(transformer.Transformer, depth=12, dim=384, heads=6)
_TINY = partial(transformer.Transformer, depth=4, dim=24, heads=3)
_VIT = {"coded": ("cls_token",)}
_DEIT = {"coded": ("cls_token", "dist_token")}
_DINO = {**_VIT, "patch": 14, "scale": "module", "final_norm": True}

vit_base_patch16_224 = partial(_BASE, size=224, **_VIT)
vit_base_patch16_384 = partial(_BASE, size=384, **_VIT)
deit_base_distilled_patch16_384 = partial(_BASE, size=384, final_norm=True, **_DEIT)
dinov2_vits14 = partial(_SMALL, size=518, **_DINO)
dinov2_vitb14 = partial(_BASE, size=518, **_DINO)
dinov2_vits14_reg = partial(_SMALL, size=518, registers=4, **_DINO)
dinov2_vitb14_reg = partial(_BASE, size=518, registers=4, **_DINO)
# For tests: 40 thousand parameters each, no published weights.
vit_tiny = partial(_TINY, size=64, **_DEIT)
dinov2_tiny = partial(_TINY, size=56, registers=2, **_DINO)


def from_dialect(tensors: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Gives the authors' names and shapes to a DINOv2 with registers that is stored as in timm.

    There the class token's position code was added to the token, which leaves zeros for it.
    """
    renamed = dict(tensors)
    codes = renamed.get("pos_embed")
    if "reg_token" in renamed and codes is not None and codes.ndim == 3:
        renamed["register_tokens"] = renamed.pop("reg_token")
        renamed["pos_embed"] = np.concatenate([np.zeros_like(codes[:, :1]), codes], axis=1)
    return renamed


def _of_google(
    variant: str, factory: partial[transformer.Transformer], digest: str, megabytes: float
) -> EncoderSpec:
    file = f"jx_{variant.replace('patch', 'p')}-{digest}.pth"
    weights = conventions.of_timm(file, megabytes, "v0.1-vitjx")
    return transformer.spec(f"vit.{variant}", factory, weights, variant, conventions.HALF)


def _of_meta(
    variant: str,
    factory: partial[transformer.Transformer],
    peer: str,
    path: str,
    megabytes: float,
) -> EncoderSpec:
    url = f"https://dl.fbaipublicfiles.com/{path}"
    weights = Published(path.rpartition("/")[2], url, "Apache-2.0", megabytes)
    return transformer.spec(f"vit.{variant}", factory, weights, peer)


def _dino(variant: str, factory: partial[transformer.Transformer], megabytes: float) -> EncoderSpec:
    name, registers = variant.removesuffix("_reg"), "reg4_" * variant.endswith("_reg")
    peer = f"vit_{'small' if 'vits' in name else 'base'}_patch14_{registers}dinov2"
    path = f"dinov2/{name}/{name}_{registers}pretrain.pth"
    return _of_meta(variant, factory, peer, path, megabytes)


SPECS = {
    "vit_base_patch16_224": _of_google(
        "vit_base_patch16_224", vit_base_patch16_224, "80ecf9dd", 346.3
    ),
    "vit_base_patch16_384": _of_google(
        "vit_base_patch16_384", vit_base_patch16_384, "83fb41ba", 347.4
    ),
    "deit_base_distilled_patch16_384": _of_meta(
        "deit_base_distilled_patch16_384",
        deit_base_distilled_patch16_384,
        "deit_base_distilled_patch16_384",
        "deit/deit_base_distilled_patch16_384-d0272ac0.pth",
        350.5,
    ),
    "dinov2_vits14": _dino("dinov2_vits14", dinov2_vits14, 88.2),
    "dinov2_vitb14": _dino("dinov2_vitb14", dinov2_vitb14, 346.3),
    "dinov2_vits14_reg": _dino("dinov2_vits14_reg", dinov2_vits14_reg, 88.2),
    "dinov2_vitb14_reg": _dino("dinov2_vitb14_reg", dinov2_vitb14_reg, 346.3),
    "vit_tiny": transformer.spec("vit.vit_tiny", vit_tiny),
    "dinov2_tiny": transformer.spec("vit.dinov2_tiny", dinov2_tiny),
}
