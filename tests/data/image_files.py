"""Small image files of every format, mode, compression and orientation that Pillow can write.

For images and for masks alike: a case writes the picture it is given, a test compares what is read
with ``case.expected(picture)``, which does not use Pillow.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from PIL import Image

GREY_8 = ("L", "LA")
GREY_16 = ("I;16", "I;16B", "I")
COLOUR = ("RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "LAB", "P", "PA")
MODES = ("1", *GREY_8, *GREY_16, "F", *COLOUR)
_FAX = ("group3", "group4", "tiff_ccitt")
_TIFF = ("raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", *_FAX, "jpeg", "zstd", "lzma")
# Where Pillow stores another mode than it is given, it cuts off values; that is no reader's doing.
STORED = {"gif": ("1", "L", "P", "RGB"), "webp": ("L", "RGB", "RGBA"), "pfm": ("F",)}
OPTIONS: dict[str, tuple[dict[str, Any], ...]] = {
    "png": ({}, {"compress_level": 0}),
    "jpg": ({"quality": 95}, {"quality": 95, "progressive": True, "subsampling": 0}),
    "tif": tuple({"compression": name} for name in _TIFF),
    "bmp": ({},),
    "gif": ({}, {"interlace": False}),
    "webp": ({"lossless": True, "exact": True}, {"quality": 95}),
    "jp2": ({}, {"irreversible": True, "quality_mode": "dB", "quality_layers": [50]}),
    "ppm": ({},),
    "pfm": ({},),
}
TURNABLE = ("png", "jpg", "tif", "webp")  # formats with an orientation tag


@dataclass(frozen=True)
class ImageCase:
    """One way to write a picture: Pillow's pixel mode, orientation tag, options of `save`."""

    suffix: str
    mode: str
    orientation: int = 1
    options: dict[str, Any] = field(default_factory=dict)

    @property
    def tolerance(self) -> int:
        """By how much an 8-bit value may differ."""
        if self.mode == "LAB":
            return 26  # 8 bits of lightness and colour are coarse where it is dark
        lossy = self.suffix == "jpg" or self.options.get("compression") == "jpeg"
        lossy |= "quality" in self.options or "irreversible" in self.options
        return 12 if lossy else 3 if self.mode == "YCbCr" else 0

    def write(self, path: Any, picture: np.ndarray) -> bool:
        """Writes (H, W, 3) uint8, not turned; returns false if Pillow cannot write such a file."""
        options = dict(self.options)
        if self.orientation != 1:
            options["exif"] = Image.Exif()
            options["exif"][0x0112] = self.orientation
        try:
            to_mode(picture, self.mode).save(path, **options)
        except (OSError, ValueError, KeyError, SystemError, TypeError):
            return False
        return True

    def expected(self, picture: np.ndarray) -> np.ndarray:
        """What the written file shows, upright, (H, W, 3) uint8."""
        return upright(shown(picture, self.mode), self.orientation)


def cases(suffix: str) -> Iterator[ImageCase]:
    """All cases of a format; some of them Pillow cannot write."""
    for mode in STORED.get(suffix, MODES):
        for options in OPTIONS[suffix]:
            compression = options.get("compression")
            if (compression in _FAX and mode != "1") or (compression == "jpeg" and mode == "LAB"):
                continue
            for turn in range(1, 9 if suffix in TURNABLE else 2):
                yield ImageCase(suffix, mode, turn, options)


def picture(height: int = 22, width: int = 34) -> np.ndarray:
    """A smooth picture of less than 256 colours that has no symmetry, (H, W, 3) uint8."""
    rows, columns = np.mgrid[:height, :width]
    grey = (4 * rows + 3 * columns).astype(np.uint8)
    return np.stack([grey, 255 - grey, grey // 2 + 40], axis=-1)


def to_mode(picture: np.ndarray, mode: str) -> Image.Image:
    """Stores (H, W, 3) uint8 in a mode; what is transparent varies and must not matter."""
    grey = np.ascontiguousarray(picture[..., 0])
    alpha = Image.fromarray(np.roll(grey, 5, axis=1))
    if mode == "1":
        return Image.fromarray(grey).convert("L").point(lambda v: 255 * (v > 99)).convert("1")
    if mode in ("L", "F"):
        return Image.fromarray(grey if mode == "L" else np.float32(grey / 255))
    if mode in GREY_16:
        deep = Image.fromarray(grey.astype({"I": np.int32, "I;16B": ">u2"}.get(mode, "<u2")) * 257)
        return deep if deep.mode == mode else Image.fromarray((grey * np.uint16(257)).astype(">u2"))
    if mode == "LA":
        return Image.merge("LA", [Image.fromarray(grey), alpha])
    if mode in ("P", "PA"):
        colours, index = np.unique(picture.reshape(-1, 3), axis=0, return_inverse=True)
        image = Image.fromarray(index.reshape(grey.shape).astype(np.uint8)).convert("P")
        image.putdata(index.ravel().tolist())
        image.putpalette(colours.tobytes())
        return image if mode == "P" else image.convert("PA")
    image = Image.fromarray(picture)
    if mode == "RGBA":
        image.putalpha(alpha)
        return image
    return image.convert(mode)


def shown(picture: np.ndarray, mode: str) -> np.ndarray:
    """The colours that a mode keeps of a picture."""
    if mode in COLOUR:
        return picture
    grey = picture[..., 0]
    return np.repeat((255 * np.uint8(grey > 99) if mode == "1" else grey)[..., None], 3, axis=-1)


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turns stored pixels (H, W, ...) as the orientation tag says."""
    # Where row 0 and column 0 of the file are when it is shown, by the TIFF and EXIF standards.
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels[::-1] if orientation in (3, 4, 7, 8) else pixels
