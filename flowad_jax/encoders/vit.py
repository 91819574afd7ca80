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

import functools
import re
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from flowad_jax.convolution import Conv
from flowad_jax.encoders import position
from flowad_jax.encoders.attention import in_groups
from flowad_jax.types import EncoderSpec, Published

IGNORABLE = (r"mask_token", r"(head|head_dist|fc_norm|pre_logits)\..*")

LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-6, use_fast_variance=False)


class Attention(nn.Module):
    """Multi-head self-attention.

    Attributes:
      heads: their number; a divisor of the channels.
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens (B, N, C) to the same shape."""
        batch, tokens, channels = x.shape
        parts = (batch, tokens, 3, self.heads, channels // self.heads)
        q, k, v = jnp.moveaxis(nn.Dense(3 * channels, name="qkv")(x).reshape(parts), 2, 0)

        def attend(queries: jax.Array) -> jax.Array:
            weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", queries, k))
            return jnp.einsum("bhqk,bkhd->bqhd", weights, v)

        heads = in_groups(attend, q * (channels // self.heads) ** -0.5)
        return nn.Dense(channels, name="proj")(heads.reshape(x.shape))


class LayerScale(nn.Module):
    """A learned factor for every channel."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens (B, N, C) to the same shape."""
        return x * self.param("gamma", nn.initializers.ones, (x.shape[-1],))


class Block(nn.Module):
    """Attention and a perceptron, each normalised before and added to what came in.

    Attributes:
      heads: of the attention.
      layer_scale: whether both are scaled per channel before they are added.
    """

    heads: int
    layer_scale: bool

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens (B, N, C) to the same shape."""
        channels = x.shape[-1]
        y = Attention(self.heads, name="attn")(LayerNorm(name="norm1")(x))
        x = x + (LayerScale(name="ls1")(y) if self.layer_scale else y)
        y = nn.Dense(4 * channels, name="mlp_fc1")(LayerNorm(name="norm2")(x))
        y = nn.Dense(channels, name="mlp_fc2")(nn.gelu(y, approximate=False))
        return x + (LayerScale(name="ls2")(y) if self.layer_scale else y)


class ViT(nn.Module):
    """The blocks up to the deepest tap, in evaluation mode.

    Attributes:
      taps: blocks whose outputs are returned.
      depth: blocks of the complete network.
      dim: channels of a token.
      heads: of every attention.
      size: side of the images that position codes are learned for, a multiple of the patch.
      patch: side of a patch in pixels.
      coded: tokens in front of the patches that have position codes of their own.
      registers: further tokens, without position codes.
      layer_scale: whether blocks have LayerScale.
      final_norm: whether the network's last LayerNorm is applied to every tap.
    """

    taps: tuple[int, ...]
    depth: int
    dim: int
    heads: int
    size: int
    patch: int = 16
    coded: tuple[str, ...] = ("cls_token",)
    registers: int = 0
    layer_scale: bool = False
    final_norm: bool = False

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        """Maps (B, H, W, 3) to the tapped (B, H / patch, W / patch, dim).

        Raises:
          UserError: a side is no multiple of the patch.
        """
        position.check_multiple(image.shape[1:3], self.patch)
        x = Conv(
            self.dim,
            (self.patch, self.patch),
            strides=self.patch,
            padding="VALID",
            use_bias=True,
            name="patch_embed",
        )(image)
        shape = x.shape
        x = self._tokens(x)
        first = x.shape[1] - shape[1] * shape[2]
        norm = LayerNorm(name="norm") if self.final_norm else lambda tokens: tokens
        maps = []
        for index in range(max(self.taps) + 1):
            x = Block(self.heads, self.layer_scale, name=f"blocks_{index}")(x)
            if index in self.taps:
                maps.append(norm(x)[:, first:].reshape(shape))
        return tuple(maps)

    def _tokens(self, patches: jax.Array) -> jax.Array:
        """Puts the other tokens in front of patches (B, h, w, C) and adds position codes."""
        batch, height, width, channels = patches.shape
        normal, prefix = nn.initializers.normal(0.02), len(self.coded)
        codes = (1, prefix + (self.size // self.patch) ** 2, channels)
        code = self.param("pos_embed", normal, codes)
        x = patches.reshape(batch, -1, channels)
        x = x + position.resized(code[:, prefix:], (height, width))
        front = [self.param(name, normal, (1, 1, channels)) for name in self.coded]
        tokens = [token + code[:, [row]] for row, token in enumerate(front)]
        if self.registers:
            rows = (1, self.registers, channels)
            tokens.append(self.param("register_tokens", normal, rows))
        return jnp.concatenate([*(jnp.repeat(t, batch, axis=0) for t in tokens), x], axis=1)


def torch_key(path: tuple[str, ...]) -> str:
    """Returns the name that the authors' files, and timm but for registers, give to a variable.

    ``("params", "blocks_3", "mlp_fc1", "kernel")`` is ``"blocks.3.mlp.fc1.weight"``.
    """
    leaf = {"kernel": "weight", "scale": "weight"}
    *modules, name = path[1:]
    modules = [re.sub(r"^(blocks|mlp)_", r"\1.", module) for module in modules]
    modules = ["patch_embed.proj" if module == "patch_embed" else module for module in modules]
    return ".".join([*modules, leaf.get(name, name)])


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


_BASE = functools.partial(ViT, depth=12, dim=768, heads=12)
_SMALL = functools.partial(ViT, depth=12, dim=384, heads=6)
_DINO = {"size": 518, "patch": 14, "layer_scale": True, "final_norm": True}

vit_base_patch16_224 = functools.partial(_BASE, size=224)
vit_base_patch16_384 = functools.partial(_BASE, size=384)
deit_base_distilled_patch16_384 = functools.partial(
    _BASE, size=384, coded=("cls_token", "dist_token"), final_norm=True
)
dinov2_vits14 = functools.partial(_SMALL, **_DINO)
dinov2_vitb14 = functools.partial(_BASE, **_DINO)
dinov2_vits14_reg = functools.partial(_SMALL, registers=4, **_DINO)
dinov2_vitb14_reg = functools.partial(_BASE, registers=4, **_DINO)
# For tests: 40 thousand parameters each, no published weights.
vit_tiny = functools.partial(
    ViT, depth=4, dim=24, heads=3, size=64, coded=("cls_token", "dist_token")
)
dinov2_tiny = functools.partial(
    ViT, depth=4, dim=24, heads=3, size=56, patch=14, registers=2, layer_scale=True, final_norm=True
)

_IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
_HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_OF_TIMM = "https://github.com/rwightman/pytorch-image-models/releases/download/v0.1-vitjx"
_OF_META = "https://dl.fbaipublicfiles.com"


def _spec(
    variant: str,
    factory: functools.partial[ViT],
    norm: tuple[tuple[float, float, float], ...] = _IMAGENET,
    peer: str = "",
    source: str = "",
    megabytes: float = 0.0,
) -> EncoderSpec:
    trunk = factory.keywords
    patch = trunk.get("patch", 16)
    file = source.rsplit("/", 1)[-1]
    return EncoderSpec(
        name=f"vit.{variant}",
        channels=(trunk["dim"],) * trunk["depth"],
        strides=(patch,) * trunk["depth"],
        mean=norm[0],
        std=norm[1],
        weights=Published(file, source, "Apache-2.0", megabytes) if source else None,
        peer=peer and f"timm.{peer}",
        size=trunk["size"],
        multiple=patch,
    )


def _dino(variant: str, factory: functools.partial[ViT], megabytes: float) -> EncoderSpec:
    name, registers = variant.removesuffix("_reg"), "reg4_" * variant.endswith("_reg")
    size = "small" if "vits" in name else "base"
    peer = f"vit_{size}_patch14_{registers}dinov2"
    source = f"{_OF_META}/dinov2/{name}/{name}_{registers}pretrain.pth"
    return _spec(variant, factory, _IMAGENET, peer, source, megabytes)


SPECS = {
    "vit_base_patch16_224": _spec(
        "vit_base_patch16_224",
        vit_base_patch16_224,
        _HALF,
        "vit_base_patch16_224",
        f"{_OF_TIMM}/jx_vit_base_p16_224-80ecf9dd.pth",
        346.3,
    ),
    "vit_base_patch16_384": _spec(
        "vit_base_patch16_384",
        vit_base_patch16_384,
        _HALF,
        "vit_base_patch16_384",
        f"{_OF_TIMM}/jx_vit_base_p16_384-83fb41ba.pth",
        347.4,
    ),
    "deit_base_distilled_patch16_384": _spec(
        "deit_base_distilled_patch16_384",
        deit_base_distilled_patch16_384,
        _IMAGENET,
        "deit_base_distilled_patch16_384",
        f"{_OF_META}/deit/deit_base_distilled_patch16_384-d0272ac0.pth",
        350.5,
    ),
    "dinov2_vits14": _dino("dinov2_vits14", dinov2_vits14, 88.2),
    "dinov2_vitb14": _dino("dinov2_vitb14", dinov2_vitb14, 346.3),
    "dinov2_vits14_reg": _dino("dinov2_vits14_reg", dinov2_vits14_reg, 88.2),
    "dinov2_vitb14_reg": _dino("dinov2_vitb14_reg", dinov2_vitb14_reg, 346.3),
    "vit_tiny": _spec("vit_tiny", vit_tiny),
    "dinov2_tiny": _spec("dinov2_tiny", dinov2_tiny),
}
EXPORTS = tuple(SPECS)
