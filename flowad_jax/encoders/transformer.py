"""Vision transformers whose patches keep their places through all blocks.

Attention over many tokens has a matrix of tokens x tokens: of CaiT-M48 at 448 px 16 x 784 x 784
entries per image and block, 39 MB. Queries are taken in groups of at most 2^25 entries, 134 MB,
whatever the number of images: a pass of M48 with 16 of them takes 0.5 GB beside 1.2 GB of weights.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax

from flowad_jax.encoders import conventions
from flowad_jax.errors import UserError
from flowad_jax.ops.convolution import Conv
from flowad_jax.types import EncoderSpec, Published

ENTRIES = 2**25  # of the attention matrix at a time

LayerNorm = functools.partial(nn.LayerNorm, epsilon=1e-6, use_fast_variance=False)


def in_groups(attend: Callable[[jax.Array], jax.Array], q: jax.Array) -> jax.Array:
    """Attends for as many of the queries (B, N, heads, d) at once as memory is meant for.

    Args:
      attend: maps queries (B, n, heads, d) to results of the same shape.
      q: all queries; each looks at N tokens.
    """
    batch, tokens, heads, _ = q.shape
    if not isinstance(batch, int):  # of unknown size, in an exported program
        return attend(q)
    most = max(1, ENTRIES // (batch * heads * tokens))
    rows = next(rows for rows in range(min(most, tokens), 0, -1) if tokens % rows == 0)
    if rows == tokens:
        return attend(q)

    def step(index: int, x: jax.Array) -> jax.Array:
        group = lax.dynamic_slice_in_dim(x, index * rows, rows, axis=1)
        return lax.dynamic_update_slice_in_dim(x, attend(group), index * rows, axis=1)

    # Results replace queries: XLA would make the empty results of all blocks at the very start.
    return lax.fori_loop(0, tokens // rows, step, q)


class HeadMixing(nn.Module):
    """The weights of a linear map over heads, which is applied within a loop."""

    @nn.compact
    def __call__(self, heads: int) -> tuple[jax.Array, jax.Array]:
        """Returns the kernel (heads in, heads out) and the bias (heads,)."""
        kernel = self.param("kernel", nn.initializers.lecun_normal(), (heads, heads))
        return kernel, self.param("bias", nn.initializers.zeros, (heads,))


class Attention(nn.Module):
    """Multi-head self-attention.

    Attributes:
      heads: their number; a divisor of the channels.
      talking: whether heads are mixed linearly on both sides of the softmax (Shazeer et al.,
        "Talking-Heads Attention", arXiv 2003.02436).
    """

    heads: int
    talking: bool = False

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens (B, N, C) to the same shape."""
        batch, tokens, channels = x.shape
        parts = (batch, tokens, 3, self.heads, channels // self.heads)
        q, k, v = jnp.moveaxis(nn.Dense(3 * channels, name="qkv")(x).reshape(parts), 2, 0)
        if self.talking:
            before, after = (
                HeadMixing(name="proj_l")(self.heads),
                HeadMixing(name="proj_w")(self.heads),
            )

        def mixed(weights: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
            return jnp.tensordot(kernel, weights, axes=(0, 0)) + bias[:, None, None, None]

        def attend(queries: jax.Array) -> jax.Array:
            if not self.talking:
                weights = nn.softmax(jnp.einsum("bqhd,bkhd->bhqk", queries, k))
                return jnp.einsum("bhqk,bkhd->bqhd", weights, v)
            # Heads lead, so that each mixing is one matrix product.
            weights = nn.softmax(mixed(jnp.einsum("bqhd,bkhd->hbqk", queries, k), *before))
            return jnp.einsum("hbqk,bkhd->bqhd", mixed(weights, *after), v)

        heads = in_groups(attend, q * (channels // self.heads) ** -0.5)
        return nn.Dense(channels, name="proj")(heads.reshape(x.shape))


class LayerScale(nn.Module):
    """A learned factor for every channel (Touvron et al., CaiT, section 2)."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens (B, N, C) to the same shape."""
        return x * self.param("gamma", nn.initializers.ones, (x.shape[-1],))


class Block(nn.Module):
    """Attention and a perceptron, each normalised before, scaled and added to what came in.

    Attributes:
      heads, talking: see `Attention`.
      scale: where the factors of LayerScale are: ``"module"``, ``"block"``, or None for no factors.
    """

    heads: int
    talking: bool = False
    scale: str | None = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Maps tokens (B, N, C) to the same shape."""
        channels = x.shape[-1]
        y = Attention(self.heads, self.talking, name="attn")(LayerNorm(name="norm1")(x))
        x = x + self._scaled(y, 1)
        y = nn.Dense(4 * channels, name="mlp_fc1")(LayerNorm(name="norm2")(x))
        y = nn.Dense(channels, name="mlp_fc2")(nn.gelu(y, approximate=False))
        return x + self._scaled(y, 2)

    def _scaled(self, y: jax.Array, branch: int) -> jax.Array:
        if self.scale == "module":
            return LayerScale(name=f"ls{branch}")(y)
        if self.scale == "block":
            return self.param(f"gamma_{branch}", nn.initializers.ones, (y.shape[-1],)) * y
        return y


class Transformer(nn.Module):
    """The patch blocks up to the deepest tap, in evaluation mode.

    Attributes:
      taps: blocks whose outputs are returned.
      depth: blocks of the complete network.
      dim: channels of a token.
      heads: of every attention.
      size: side of the images that position codes are learned for, a multiple of the patch.
      patch: side of a patch in pixels.
      coded: tokens in front of the patches that have position codes of their own.
      registers: further tokens, without position codes.
      talking, scale: see `Block`.
      final_norm: whether the network's last LayerNorm is applied to every tap.
    """

    taps: tuple[int, ...]
    depth: int
    dim: int
    heads: int
    size: int
    patch: int = 16
    coded: tuple[str, ...] = ()
    registers: int = 0
    talking: bool = False
    scale: str | None = None
    final_norm: bool = False

    @nn.compact
    def __call__(self, image: jax.Array) -> tuple[jax.Array, ...]:
        """Maps (B, H, W, 3) to the tapped (B, H / patch, W / patch, dim).

        Raises:
          UserError: a side is no multiple of the patch.
        """
        check_multiple(image.shape[1:3], self.patch)
        patch = (self.patch, self.patch)
        embed = Conv(self.dim, patch, patch, padding="VALID", use_bias=True, name="patch_embed")
        patches = embed(image)
        x = self._tokens(patches)
        first = x.shape[1] - patches.shape[1] * patches.shape[2]
        norm = LayerNorm(name="norm") if self.final_norm else lambda tokens: tokens
        maps = []
        for index in range(max(self.taps) + 1):
            x = Block(self.heads, self.talking, self.scale, name=f"blocks_{index}")(x)
            if index in self.taps:
                maps.append(norm(x)[:, first:].reshape(patches.shape))
        return tuple(maps)

    def _tokens(self, patches: jax.Array) -> jax.Array:
        """Puts the other tokens in front of patches (B, h, w, C) and adds position codes."""
        batch, height, width, channels = patches.shape
        normal, prefix = nn.initializers.normal(0.02), len(self.coded)
        codes = (1, prefix + (self.size // self.patch) ** 2, channels)
        code = self.param("pos_embed", normal, codes)
        x = patches.reshape(batch, -1, channels) + resized(code[:, prefix:], (height, width))
        front = [self.param(name, normal, (1, 1, channels)) for name in self.coded]
        tokens = [token + code[:, [row]] for row, token in enumerate(front)]
        if self.registers:
            rows = (1, self.registers, channels)
            tokens.append(self.param("register_tokens", normal, rows))
        return jnp.concatenate([*(jnp.repeat(t, batch, axis=0) for t in tokens), x], axis=1)


def resized(code: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Interpolates codes (1, n * n, C) of a square of patches to a grid of h x w: (1, h * w, C).

    Bicubic with the kernel of Keys (a = -0.5), antialiased and with the corners of pixels
    aligned, as in timm; the square itself stays what it is.
    """
    side = round(code.shape[1] ** 0.5)
    if grid == (side, side):
        return code
    square = code.reshape(1, side, side, -1)
    wide = jax.image.resize(square, (1, *grid, code.shape[-1]), "cubic", antialias=True)
    return jnp.asarray(wide.reshape(1, grid[0] * grid[1], -1))


def check_multiple(size: tuple[int, ...], patch: int) -> None:
    """Raises a `UserError` for an image that does not consist of whole patches."""
    if any(side % patch for side in size):
        near = " x ".join(str(max(1, round(side / patch)) * patch) for side in size)
        raise UserError(
            f"image of {size[0]} x {size[1]} px: this encoder sees patches of {patch} px; the next "
            f"size of whole patches is {near}, see data.image_size"
        )


def torch_key(path: tuple[str, ...]) -> str:
    """Returns the name that the authors' files, and timm but for registers, give to a variable.

    ``("params", "blocks_3", "mlp_fc1", "kernel")`` is ``"blocks.3.mlp.fc1.weight"``.
    """
    spelled = {"patch_embed": "patch_embed.proj", "mlp_fc1": "mlp.fc1", "mlp_fc2": "mlp.fc2"}
    return conventions.torch_key(tuple(spelled.get(part, part) for part in path))


def spec(
    name: str,
    factory: functools.partial[Transformer],
    weights: Published | None = None,
    peer: str = "",
    norm: conventions.Norm = conventions.IMAGENET,
) -> EncoderSpec:
    """Returns the promise of a variant; ``peer`` is its name in timm."""
    trunk, peer = factory.keywords, peer and f"timm.{peer}"
    depth, patch = trunk["depth"], trunk.get("patch", 16)
    channels, strides = (trunk["dim"],) * depth, (patch,) * depth
    return EncoderSpec(name, channels, strides, *norm, weights, peer, trunk["size"], patch)
