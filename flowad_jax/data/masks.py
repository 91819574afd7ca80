"""How mask files become arrays, and what is remarkable about them.

A pixel is a defect where its largest colour exceeds a threshold. Where the threshold is 0, values
may be numbers of classes, so that each of them counts; but black and white with JPEG noise or soft
edges is split in the middle. Masks that may mean something else than what is read are remarked.
"""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import numpy as np

from flowad_jax.data.decoded_image import ORIENTATION, upright
from flowad_jax.data.image_file import decode, open_image, orientation_tag
from flowad_jax.data.images import WHITE, full_scale
from flowad_jax.errors import UserError

_MIDDLE = 127  # of 255: values above it are white
_CLASSES = 8  # different values above which a mask is not one of class numbers
_MOSTLY = 0.9  # share of defect pixels above which a mask looks inverted


class Remark(NamedTuple):
    """Something about a mask that its owner should know, and what to do about it."""

    what: str
    remedy: str


_SET = "set data.options.mask_threshold"
SPLIT = Remark(
    f"hold many grey values and are split above {_MIDDLE} of 255",
    f"save them in black and white without JPEG, or {_SET}",
)
GREY = Remark(
    "hold many grey values, and all above 0 mark defects",
    f"save them in black and white, or {_SET}",
)
LEVELS = Remark(
    "hold dark and bright values, and all above 0 mark defects",
    f"{_SET} if the dark ones mark none",
)
FILLED = Remark(
    "have a colour under full transparency, which marks no defect", "save them without transparency"
)
HIDDEN = Remark(
    "have colours under full transparency, which count as if they were seen",
    "save them without transparency",
)
INVERTED = Remark(
    "mark nearly the whole image or all of its border",
    "invert them if they are white where nothing is wrong",
)
TURNED = Remark(
    "have no orientation tag but their images have one, and fit these turned and unturned",
    "save the images upright and without the tag, as the masks are taken for upright",
)


class MaskReading(NamedTuple):
    """A mask, (H, W) bool, and what is remarkable about it."""

    mask: np.ndarray
    remarks: tuple[Remark, ...] = ()


def read_mask(path: str | Path, threshold: int = 0) -> np.ndarray:
    """Returns the mask of `inspect_mask`, (H, W) bool."""
    return inspect_mask(path, threshold).mask


def inspect_mask(path: str | Path, threshold: int = 0) -> MaskReading:
    """Reads a mask; the top of this module says what marks a defect.

    Binarised here, before any resize. Where all visible pixels have one colour, the mask is drawn
    in the alpha channel, and that counts.

    Args:
      path: the file.
      threshold: on the scale of 8-bit images. 0 is the rule of the CFLOW-AD reference (value is
        not zero), with the exception above.

    Raises:
      UserError: as `read_image`, or a value is negative or no number.
    """
    with decode(path) as decoded:
        pixels = decoded.read()
    full = 255.0 if pixels.dtype == np.uint8 else full_scale(pixels, WHITE)
    if decoded.inverted:
        pixels = (full - pixels).astype(pixels.dtype)
    values = pixels
    if pixels.ndim == 3:  # twenty times as fast as a maximum over an axis of three
        values = np.maximum(np.maximum(pixels[..., 0], pixels[..., 1]), pixels[..., 2])
    if not values.min() >= 0:
        raise UserError(
            f"mask '{path}' has values that are negative or no numbers: save it with 8 bits"
        )
    alpha, is_jpeg = _read_alpha(path)
    remarks = []
    if alpha is not None:
        hidden = alpha == 0
        if _is_one_colour(pixels[~hidden]):
            values, full = alpha, 255.0
        elif values[hidden].any():
            is_filled = _is_one_colour(pixels[hidden])
            values = np.where(hidden, 0, values) if is_filled else values
            remarks.append(FILLED if is_filled else HIDDEN)
    if not threshold:
        threshold, remark = _choose_threshold(values, full, is_jpeg)
        remarks += [remark] if remark else []
    mask = values > threshold / 255 * full
    border = (mask[0], mask[-1], mask[:, 0], mask[:, -1])
    if mask.mean() > _MOSTLY or all(side.all() for side in border):
        remarks.append(INVERTED)
    return MaskReading(mask, tuple(remarks))


def unturned(mask: np.ndarray, image: str | Path) -> np.ndarray:
    """Turns a mask (h, w) that was drawn on an image as it is stored, not as it is shown."""
    return np.ascontiguousarray(upright(mask, orientation(image)))


def orientation(path: str | Path) -> int:
    """Returns the orientation tag of an image file, 1 to 8; raises as `open_image`."""
    with open_image(path) as image:
        return orientation_tag(image)


def _read_alpha(path: str | Path) -> tuple[np.ndarray | None, bool]:
    """Returns alpha (H, W) uint8 if there is one that is not constant, and whether it is a JPEG."""
    with open_image(path) as image:
        is_jpeg = image.format in ("JPEG", "MPO")
        if not image.has_transparency_data:
            return None, is_jpeg
        stored = np.asarray(image.convert("RGBA").getchannel("A"))
        alpha = upright(stored, image.getexif().get(ORIENTATION, 1))
    return (alpha if alpha.min() < alpha.max() else None), is_jpeg


def _is_one_colour(pixels: np.ndarray) -> bool:
    """Whether pixels (N,) or (N, 3) are all equal."""
    return bool((pixels == pixels[0]).all())


def _choose_threshold(values: np.ndarray, full: float, is_jpeg: bool) -> tuple[int, Remark | None]:
    """Returns the threshold, of 255, for values (H, W) of a mask that nobody gave one for."""
    if values.dtype == np.uint8:  # much faster than sorting
        levels = np.flatnonzero(np.bincount(values.reshape(-1), minlength=256))
    else:
        levels = np.unique(values)
    shares: list[float] = (levels / full).tolist()
    low = [share for share in shares if 0 < share <= _MIDDLE / 255]
    high = [share for share in shares if share > _MIDDLE / 255]
    several = is_jpeg or len(levels) > _CLASSES
    if not low or not high:  # such as numbers of classes from 1 on, or from 255 down
        return 0, GREY if several and low else None
    is_noise = len(high) > 1 and low[-1] < 1 / 4 and high[0] > 3 / 4
    if not (several or is_noise or levels[0] > 0):
        return 0, LEVELS
    white = int(np.sum(values >= full * 3 / 4))
    middle = int(np.sum(values > full / 4)) - white
    if middle < max(0.05 * values.size, white):
        return _MIDDLE, SPLIT
    return 0, GREY
