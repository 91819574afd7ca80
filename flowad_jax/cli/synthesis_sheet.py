r"""Draws a sheet of synthetic anomalies: original, synthetic, mask and difference.

flowad synthesize --kind=nsa --output=nsa.png
flowad synthesize --kind=mixture.scar --input=grass --count=6 --output=scars.png
flowad synthesize --kind=nsa --input=screw/train/good --dataset=mvtec \
    --category=screw --set=blend=by_class --set=label=logistic-intensity --output=screws.png

--input is a folder of normal images, or one of the embedded textures brick, grass and gravel.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from flowad_jax.arguments import Parser, settings
from flowad_jax.data import layout
from flowad_jax.data.images import read_image, read_resized
from flowad_jax.data.sets import textures
from flowad_jax.data.transforms import resize_image
from flowad_jax.errors import UserError
from flowad_jax.files import atomic_write
from flowad_jax.lookup import check_choice
from flowad_jax.synthesis import (
    CATEGORY_CONSTANTS,
    KINDS,
    Synthetic,
    draw_source,
    make,
    source_scale,
)

_MOST_IMAGES = 64  # read from a folder, evenly spread
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")
_ROWS = ("original", "synthetic", "mask", "difference x4")
_GAIN = 4  # of the difference
_GAP, _LEFT, _TOP, _LETTERS = 6, 92, 22, 12  # pixels
_INK, _PAPER = (32, 33, 36), (255, 255, 255)

Sample = tuple[np.ndarray, Synthetic]  # a normal image and what became of it


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the images, makes the samples, writes the sheet and says what is on it."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        if Path(args.output).suffix.lower() not in _SUFFIXES:
            raise UserError(
                f"--output={args.output}: end the name in one of {', '.join(_SUFFIXES)}"
            )
        samples = _samples(args)
        with atomic_write(args.output) as temporary:
            draw(samples, args.cell).save(temporary)
    except UserError as error:
        parser.fail(error)
    changed = [synthetic for _, synthetic in samples if synthetic.changed]
    share = np.mean([synthetic.mask.mean() for synthetic in changed]) if changed else 0.0
    print(f"{args.output}: {len(changed)} of {len(samples)} images changed, mask mean {share:.1%}")


def draw(samples: Sequence[Sample], cell: int) -> Image.Image:
    """Draws a column per sample; the difference is the largest of RGB, brightened.

    Args:
      samples: images of any sizes.
      cell: pixels of the longer side of a picture.
    """
    step = cell + _GAP
    sheet = Image.new("RGB", (_LEFT + len(samples) * step, _TOP + len(_ROWS) * step), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(_LETTERS)
    for row, name in enumerate(_ROWS):
        pen.text((_GAP, _TOP + row * step + cell // 2), name, _INK, font, anchor="lm")
    for column, (original, synthetic) in enumerate(samples):
        left = _LEFT + column * step
        name = synthetic.kind if synthetic.changed else f"{synthetic.kind} (unchanged)"
        pen.text((left + cell // 2, _TOP // 2), name, _INK, font, anchor="mm")
        mask = np.rint(synthetic.mask * 255).astype(np.uint8)
        change = np.abs(synthetic.image.astype(np.int16) - original).max(axis=-1)
        brightened = np.minimum(change * _GAIN, 255).astype(np.uint8)
        for row, pixels in enumerate((original, synthetic.image, mask, brightened)):
            small = _fit(pixels, cell)
            top = _TOP + row * step + (cell - small.height) // 2
            sheet.paste(small, (left + (cell - small.width) // 2, top))
    return sheet


def _fit(pixels: np.ndarray, cell: int) -> Image.Image:
    """Scales to the cell, keeping the aspect ratio."""
    height, width = pixels.shape[:2]
    scale = cell / max(height, width)
    size = (max(round(width * scale), 1), max(round(height * scale), 1))
    return Image.fromarray(pixels).convert("RGB").resize(size, Image.Resampling.BOX)


def _samples(args: argparse.Namespace) -> list[Sample]:
    """Makes anomalies from normal images, taken in turn; every one has its own generator."""
    synthesise = make(args.kind, **_options(args))
    images = _images(args.input, args.size)
    sources = _images(args.input, int(source_scale(synthesise) * args.size))
    samples = []
    for number in range(args.count):
        rng = np.random.default_rng([args.seed, number])
        target = number % len(images)
        source = sources[draw_source(target, len(images), rng)]
        samples.append((images[target], synthesise(images[target], source, rng)))
    return samples


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of ``make``; values are Python literals or plain words."""
    options = {k: getattr(args, k) for k in ("dataset", "category") if getattr(args, k)}
    if options and args.kind != "nsa":
        raise UserError(f"--dataset and --category are for --kind=nsa, not {args.kind}")
    if args.dataset:
        check_choice("--dataset", args.dataset, CATEGORY_CONSTANTS)
    return options | settings(args.set)


def _images(name: str, side: int) -> list[np.ndarray]:
    """Images at a side in pixels, or at their own size if it is 0."""
    known, folder = textures.CARD.categories, Path(name)
    if name in known and not folder.exists():
        source = textures.build("", name, "train")
        images = [source[index].image for index in range(len(source))]
        return [resize_image(image, side) for image in images] if side else images
    if not folder.is_dir():
        where = f"there is no such folder, nor is it one of {', '.join(known)}"
        raise UserError(f"--input={name}: {where}")
    if not (files := layout.images(folder)):
        raise UserError(f"--input={name}: no images in this folder: {layout.hint('good', folder)}")
    spread = np.linspace(0, len(files) - 1, min(len(files), _MOST_IMAGES)).round().astype(int)
    paths = [files[index] for index in spread]
    return [read_resized(path, side)[0] if side else read_image(path) for path in paths]


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("flowad synthesize", __doc__)
    add, number = parser.add_argument, _whole_number
    add("--kind", default="nsa", choices=KINDS, metavar="KIND", help=f"{', '.join(KINDS)} [nsa]")
    add("--input", default="brick", help="folder of normal images, or a texture [brick]")
    add("--output", default="synthesis.png", help="the sheet [synthesis.png]")
    add("--count", type=number(1, 200), default=8, help="samples [8]")
    size = "scale images to this side; 0: do not [256]"
    add("--size", type=number(0, 4096), default=256, help=size)
    add("--cell", type=number(8, 1024), default=160, help="pixels of a picture on the sheet [160]")
    seed = "another seed gives other anomalies [0]"
    add("--seed", type=number(0, 2**32 - 1), default=0, help=seed)
    papers = ", ".join(sorted(CATEGORY_CONSTANTS))
    add("--dataset", default="", help=f"NSA: whose published constants, {papers} [none]")
    add("--category", default="", help="NSA: category of that data set")
    words = "an option of the kind, e.g. --set=blend=mixed; may be repeated"
    add("--set", action="append", default=[], metavar="OPTION=VALUE", help=words)
    return parser


def _whole_number(low: int, high: int) -> Callable[[str], int]:
    """A type of argument that must lie in a range."""

    def parse(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{word}' is not a whole number") from None
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{number} is out of range: use {low} to {high}")
        return number

    return parse


if __name__ == "__main__":
    main()
