"""CaiT, "class-attention in image transformers", without its class-attention.

Touvron, Cord, Sablayrolles, Synnaeve, Jegou, "Going deeper with Image Transformers" (ICCV 2021):
patches of 16 x 16 px become tokens that keep their places through all blocks; only behind them
does a class token look at the patches, so that feature maps need none. A block has LayerScale on
both residual branches (section 2) and talking-heads attention (Shazeer et al.,
arXiv 2003.02436): heads are mixed linearly before the softmax and after it.

A tap is the output of one block, counted from 0. As in SSNF and in FastFlow (block 40 of M48) the
network's last LayerNorm is applied to it, though that was trained for the last block;
``final_norm=False`` gives the bare output, which the taps 15, 31 and 47 of CFLOW-AD's and
SANFlow's code are. Position codes are learned for one image size and interpolated for others.

Attention of M48 at 448 px has 16 x 784 x 784 entries per image and block, 39 MB. Queries are
taken in groups of at most 2^25 entries, 134 MB, whatever the number of images: a pass of M48 with
16 of them takes 0.5 GB beside 1.2 GB of weights.
"""

import functools
import re

import jax
import jax.numpy as jnp
from flax import linen as nn

from flowad_jax.convolution import Conv
from flowad_jax.encoders import position
from flowad_jax.encoders.attention import in_groups
from flowad_jax.types import EncoderSpec, Published

PATCH = 16  # pixels, in every published network
IGNORABLE = (r"cls_token", r"(blocks_token_only|head)\..*")

LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-6, use_fast_variance=False)


class HeadMixing(nn.Module):
    """The weights of a linear map over heads; `mixed` applies them, also within a loop."""

    @nn.compact
    def __call__(self, heads: int) -> tuple[jax.Array, jax.Array]:
        """Returns the kernel (heads in, heads out) and the bias (heads,)."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (heads, heads))
        return kernel, self.param("bias", nn.initializers.zeros, (heads,))


def mixed(attention: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
    """Maps (heads, B, Q, K) to the same shape: heads lead, so this is one matrix product."""
    return jnp.tensordot(kernel, attention, axes=(0, 0)) + bias[:, None, None, None]


class TalkingHeads(nn.Module):
    """Self-attention whose heads are mixed on both sides of the softmax.

    Attributes:
      heads: their number; a divisor of the channels.
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens (B, N, C) to the same shape."""
        batch, tokens, channels = x.shape
        parts = (batch, tokens, 3, self.heads, channels // self.heads)
        qkv = nn.Dense(3 * channels, name="qkv")(x).reshape(parts)
        q, k, v = jnp.moveaxis(qkv, 2, 0)
        before = HeadMixing(name="proj_l")(self.heads)
        after = HeadMixing(name="proj_w")(self.heads)

        def attend(queries: jax.Array) -> jax.Array:
            logits = jnp.einsum("bqhd,bkhd->hbqk", queries, k)
            weights = nn.softmax(mixed(logits, *before))
            return jnp.einsum("hbqk,bkhd->bqhd", mixed(weights, *after), v)

        heads = in_groups(attend, q * (channels // self.heads) ** -0.5)
        return nn.Dense(channels, name="proj")(heads.reshape(x.shape))


class Block(nn.Module):
    """Attention and a perceptron, each normalised before and scaled per channel behind.

    Attributes:
      heads: of the attention.
    """

    heads: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens (B, N, C) to the same shape."""
        channels = x.shape[-1]
        scale_1 = self.param("gamma_1", nn.initializers.ones, (channels,))
        scale_2 = self.param("gamma_2", nn.initializers.ones, (channels,))
        x = x + scale_1 * TalkingHeads(self.heads, name="attn")(LayerNorm(name="norm1")(x))
        y = nn.Dense(4 * channels, name="mlp_fc1")(LayerNorm(name="norm2")(x))
        y = nn.Dense(channels, name="mlp_fc2")(nn.gelu(y, approximate=False))
        return x + scale_2 * y


class CaiT(nn.Module):
    """The patch blocks up to the deepest tap, in evaluation mode.

    Attributes:
      taps: blocks whose outputs are returned.
      depth: blocks of the complete network.
      dim: channels of a token.
      heads: of every attention.
      size: side of the images that position codes are learned for, a multiple of 16.
      final_norm: whether the network's last LayerNorm is applied to every tap.
    """

    taps: tuple[int, ...]
    depth: int
    dim: int
    heads: int
    size: int
    final_norm: bool = True

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        """Maps (B, H, W, 3) to the tapped (B, H / 16, W / 16, dim).

        Raises:
          UserError: a side is no multiple of 16.
        """
        position.check_multiple(image.shape[1:3], PATCH)
        x = Conv(
            self.dim,
            (PATCH, PATCH),
            strides=PATCH,
            padding="VALID",
            use_bias=True,
            name="patch_embed",
        )(image)
        shape = x.shape
        codes = (1, (self.size // PATCH) ** 2, self.dim)
        code = self.param("pos_embed", nn.initializers.normal(0.02), codes)
        x = x.reshape(shape[0], -1, self.dim) + position.resized(code, (shape[1], shape[2]))
        norm = LayerNorm(name="norm") if self.final_norm else lambda tokens: tokens
        maps = []
        for index in range(max(self.taps) + 1):
            x = Block(self.heads, name=f"blocks_{index}")(x)
            if index in self.taps:
                maps.append(norm(x).reshape(shape))
        return tuple(maps)


def torch_key(path: tuple[str, ...]) -> str:
    """Returns the name that the authors' files and timm give to a variable.

    ``("params", "blocks_3", "mlp_fc1", "kernel")`` is ``"blocks.3.mlp.fc1.weight"``.
    """
    leaf = {"kernel": "weight", "scale": "weight"}
    *modules, name = path[1:]
    modules = [re.sub(r"^(blocks|mlp)_", r"\1.", module) for module in modules]
    modules = ["patch_embed.proj" if module == "patch_embed" else module for module in modules]
    return ".".join([*modules, leaf.get(name, name)])


cait_xxs24_224 = functools.partial(CaiT, depth=24, dim=192, heads=4, size=224)
cait_xxs24_384 = functools.partial(CaiT, depth=24, dim=192, heads=4, size=384)
cait_xxs36_224 = functools.partial(CaiT, depth=36, dim=192, heads=4, size=224)
cait_xxs36_384 = functools.partial(CaiT, depth=36, dim=192, heads=4, size=384)
cait_xs24_384 = functools.partial(CaiT, depth=24, dim=288, heads=6, size=384)
cait_s24_224 = functools.partial(CaiT, depth=24, dim=384, heads=8, size=224)
cait_s24_384 = functools.partial(CaiT, depth=24, dim=384, heads=8, size=384)
cait_s36_384 = functools.partial(CaiT, depth=36, dim=384, heads=8, size=384)
cait_m36_384 = functools.partial(CaiT, depth=36, dim=768, heads=16, size=384)
cait_m48_448 = functools.partial(CaiT, depth=48, dim=768, heads=16, size=448)
# For tests: 48 thousand parameters, no published weights.
cait_tiny = functools.partial(CaiT, depth=4, dim=24, heads=3, size=64)


def _spec(variant: str, factory: functools.partial[CaiT]) -> EncoderSpec:
    trunk = factory.keywords
    return EncoderSpec(
        name=f"cait.{variant}",
        channels=(trunk["dim"],) * trunk["depth"],
        strides=(PATCH,) * trunk["depth"],
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        weights=_published(variant) if variant in _MEGABYTES else None,
        peer=f"timm.{variant}" if variant in _MEGABYTES else "",
        size=trunk["size"],
        multiple=PATCH,
    )


def _published(variant: str) -> Published:
    file = f"{variant.removeprefix('cait_').upper()}.pth"
    url = f"https://dl.fbaipublicfiles.com/deit/{file}"
    return Published(file, url, "Apache-2.0", _MEGABYTES[variant])


_MEGABYTES = {
    "cait_xxs24_224": 47.8,
    "cait_xxs24_384": 48.1,
    "cait_xxs36_224": 69.2,
    "cait_xxs36_384": 69.5,
    "cait_xs24_384": 106.7,
    "cait_s24_224": 187.7,
    "cait_s24_384": 188.2,
    "cait_s36_384": 273.5,
    "cait_m36_384": 1084.9,
    "cait_m48_448": 1425.8,
}
SPECS = {
    variant: _spec(variant, factory)
    for variant, factory in {
        "cait_xxs24_224": cait_xxs24_224,
        "cait_xxs24_384": cait_xxs24_384,
        "cait_xxs36_224": cait_xxs36_224,
        "cait_xxs36_384": cait_xxs36_384,
        "cait_xs24_384": cait_xs24_384,
        "cait_s24_224": cait_s24_224,
        "cait_s24_384": cait_s24_384,
        "cait_s36_384": cait_s36_384,
        "cait_m36_384": cait_m36_384,
        "cait_m48_448": cait_m48_448,
        "cait_tiny": cait_tiny,
    }.items()
}
EXPORTS = tuple(SPECS)
