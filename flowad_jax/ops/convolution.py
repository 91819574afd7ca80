"""2-D convolution in the form that is fast on the backend at hand.

XLA on CPU runs a convolution with ``feature_group_count`` on one thread, which makes depthwise
layers 4 to 15 times and grouped layers 3 times slower than the same sums written differently; and
one without padding up to 2.8 times slower than one with. GPU and TPU libraries have kernels for
all of them. The choice is made here, when the program is lowered for a platform, and nowhere
else; every form returns the same numbers to rounding, and so do its derivatives.

Gradients are a matter of layout. XLA on CPU has a fast convolution for NHWC, HWIO -> NHWC alone
and brings other layouts into this one, but not in the body of a loop or of a branch: with the
gradients that JAX derives, a training step within `jax.lax.scan` spends its time in scalar loops
of 2 GFLOP/s instead of 100. `trainable` states derivatives whose transposes have the fast layout.
On maps of 6 x 6 to 32 x 32 with 56 to 1024 channels this is level with or ahead of gradients as
nine shifted matrix products or as one product with patches, within a tenth, and takes a fifth to
three fifths of their memory.

Layout: images (B, H, W, C), kernels (kh, kw, C / groups, O).
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax import lax
from jax.custom_derivatives import SymbolicZero
from jaxtyping import Array, Float

Pads = Sequence[tuple[int, int]]

_CACHE_BYTES = 5 * 2**19  # of patches that are multiplied at once
_MERGED_CHANNELS = 32  # measured optimum of input channels per dense convolution on CPU


def direct(x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Pads) -> jax.Array:
    """One library call; the number of groups follows from the shapes."""
    layout, groups = ("NHWC", "HWIO", "NHWC"), x.shape[-1] // kernel.shape[2]
    return lax.conv_general_dilated(
        x, kernel, strides, pads, dimension_numbers=layout, feature_group_count=groups
    )


@functools.partial(jax.custom_jvp, nondiff_argnums=(2, 3))
def trainable(x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Pads) -> jax.Array:
    """The library call for a dense convolution, with gradients that are calls in the same layout.

    Forward-mode tangents have the other layouts: right, but slow on CPU within a loop.
    """
    return direct(x, kernel, strides, pads)


def _trainable_jvp(
    strides: Sequence[int], pads: Pads, primals: Any, tangents: Any
) -> tuple[jax.Array, jax.Array]:
    (x, kernel), (x_dot, kernel_dot) = primals, tangents
    terms = []
    if not isinstance(x_dot, SymbolicZero):
        # Its transpose convolves the cotangent with the swapped kernel, whose axes are HWIO then.
        swapped, layout = kernel.swapaxes(2, 3), ("NHWC", "HWOI", "NHWC")
        terms.append(
            lax.conv_general_dilated(x_dot, swapped, strides, pads, dimension_numbers=layout)
        )
    if not isinstance(kernel_dot, SymbolicZero):
        terms.append(_of_kernel(x, kernel_dot, strides, pads))
    return trainable(x, kernel, strides, pads), sum(terms[1:], terms[0])


trainable.defjvp(_trainable_jvp, symbolic_zeros=True)


def _of_kernel(x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Pads) -> jax.Array:
    """The convolution as a linear function of ``kernel``.

    Its transpose convolves the input, batch and channels exchanged, with the cotangent as kernel;
    large maps of few channels go another way.
    """
    batch, height, width, _ = x.shape
    few = kernel.shape[2] <= 128 and batch >= 4
    if few and height * width >= 32**2 and kernel.shape[3] >= 16 and set(strides) == {1}:
        return _of_kernel_in_blocks(x, kernel, pads)
    if batch > 1:  # an odd batch is up to 18 times slower with jaxlib 0.10: a blank image is added
        x = jnp.pad(x, ((0, batch % 2), (0, 0), (0, 0), (0, 0)))
    y = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        kernel.transpose(2, 0, 1, 3),
        strides,
        pads,
        dimension_numbers=("CHWN", "IHWO", "HWNC"),
    )
    return y.transpose(2, 0, 1, 3)[:batch]


def _of_kernel_in_blocks(x: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """The same for large maps: patches of some rows times the kernel, one block after the other.

    The transpose adds up the products of the blocks' patches with the cotangent, which is up to
    eight times faster there than the library's call: a block of patches stays in the cache. Rows
    are chosen for it, and patches are made anew where the transpose needs them.
    """
    kh, kw, inputs, outputs = kernel.shape
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    images, height, width = x.shape[0], x.shape[1] - kh + 1, x.shape[2] - kw + 1
    fitting = _CACHE_BYTES // (kernel[..., 0].size * width * x.dtype.itemsize)
    rows = next(n for n in range(max(1, min(fitting, height)), 0, -1) if height % n == 0)

    @jax.checkpoint
    def product(image: jax.Array, top: jax.Array, x: jax.Array, flat: jax.Array) -> jax.Array:
        size = (1, rows + kh - 1, width + kw - 1, inputs)
        part = lax.dynamic_slice(x, (image, top, 0, 0), size)[0]
        windows = [part[i : i + rows, j : j + width] for i in range(kh) for j in range(kw)]
        patches = jnp.concatenate([window.reshape(-1, inputs) for window in windows], axis=1)
        return (patches @ flat).reshape(rows, width, outputs)

    def block(_: None, index: jax.Array) -> tuple[None, jax.Array]:
        image, number = jnp.divmod(index, height // rows)
        return None, product(image, number * rows, x, kernel.reshape(-1, outputs))

    _, y = lax.scan(block, None, jnp.arange(images * (height // rows)))
    return y.reshape(images, height, width, outputs)


def overhanging(x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Pads) -> jax.Array:
    """The library call with one more row of zeros below, and its result cut to size.

    Without any padding XLA on CPU leaves its fast path, as after a border was mirrored.
    """
    (top, bottom), sides = pads
    height = (x.shape[1] + top + bottom - kernel.shape[0]) // strides[0] + 1
    return trainable(x, kernel, strides, ((top, bottom + 1), sides))[:, :height]


def pointwise(x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Pads) -> jax.Array:
    """A 1x1 convolution as one matrix product over the channels."""
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))[:, :: strides[0], :: strides[1]]
    return lax.dot_general(x, kernel[0, 0], (((3,), (0,)), ((), ())))


def shifted(x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Pads) -> jax.Array:
    """A depthwise convolution as kh * kw shifted multiply-adds, which XLA fuses into one loop.

    Sums of half precision are made in float32, as libraries make them.
    """
    narrow, wide = x.dtype, jnp.promote_types(x.dtype, jnp.float32)
    x, kernel = x.astype(wide), kernel.astype(wide)
    x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
    kh, kw = kernel.shape[:2]
    height = (x.shape[1] - kh) // strides[0] + 1
    width = (x.shape[2] - kw) // strides[1] + 1
    last_row, last_column = (height - 1) * strides[0] + 1, (width - 1) * strides[1] + 1
    total = jnp.zeros((x.shape[0], height, width, x.shape[3]), x.dtype)
    for i in range(kh):
        for j in range(kw):
            view = x[:, i : i + last_row : strides[0], j : j + last_column : strides[1]]
            total += view * kernel[i, j, 0]
    return total.astype(narrow)


def merged(x: jax.Array, kernel: jax.Array, strides: Sequence[int], pads: Pads) -> jax.Array:
    """A grouped convolution as a few dense ones whose kernels are block-diagonal.

    Neighbouring groups are joined until a dense convolution reads about 32 channels: the zeros
    multiplied in vain cost less than many small convolutions.
    """
    kh, kw, width, outputs = kernel.shape
    groups = x.shape[-1] // width
    joined = next(n for n in range(max(1, _MERGED_CHANNELS // width), 0, -1) if groups % n == 0)
    kernel = kernel.reshape(kh, kw, width, groups // joined, joined, outputs // groups)
    dense = jnp.einsum("hwigjo,kj->hwgkijo", kernel, jnp.eye(joined, dtype=kernel.dtype))
    dense = dense.reshape(kh, kw, groups // joined, joined * width, -1)
    parts = jnp.split(x, groups // joined, axis=-1)
    return jnp.concatenate(
        [trainable(part, dense[:, :, g], strides, pads) for g, part in enumerate(parts)], axis=-1
    )


def convolve(
    x: Float[Array, "B H W C"],
    kernel: Float[Array, "kh kw width O"],
    strides: Sequence[int],
    padding: str | Pads,
) -> Float[Array, "B h w O"]:
    """Convolves.

    Args:
      x: the input.
      kernel: the weights; its width, C / groups, tells the number of groups.
      strides: vertical and horizontal stride.
      padding: zeros before and after each spatial axis, or ``"SAME"`` or ``"VALID"``.
    """
    pads = (
        lax.padtype_to_pads(x.shape[1:3], kernel.shape[:2], strides, padding)
        if isinstance(padding, str)
        else padding
    )
    channels, (width, outputs) = x.shape[-1], kernel.shape[2:]
    if kernel.shape[:2] == (1, 1) and width == channels:
        return pointwise(x, kernel, strides, pads)
    on_cpu: Callable[..., jax.Array]
    if width == 1 and channels == outputs > 1:
        on_cpu = shifted
    elif width < channels:
        on_cpu = merged if width < _MERGED_CHANNELS else direct
    else:
        on_cpu = trainable if any(map(any, pads)) else overhanging
    forms = {"cpu": on_cpu, "default": direct}
    fixed = {name: functools.partial(f, strides=strides, pads=pads) for name, f in forms.items()}
    return lax.platform_dependent(x, kernel, **fixed)


def _as_flax_calls_it(
    x: jax.Array, kernel: jax.Array, strides: Sequence[int], padding: str | Pads, **others: Any
) -> jax.Array:
    if any(size != 1 for size in (*others["lhs_dilation"], *others["rhs_dilation"])):
        raise NotImplementedError("no encoder here has dilated convolutions")
    return convolve(x, kernel, strides, padding)


# A Linen convolution that computes with `convolve`; without bias, because a BatchNorm follows.
Conv = functools.partial(
    nn.Conv, use_bias=False, conv_general_dilated_cls=lambda: _as_flax_calls_it
)
