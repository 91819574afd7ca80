r"""Draws a sheet of synthetic anomalies: original, synthetic, mask and difference.

python -m flowad_jax.synthesis --kind=nsa --output=nsa.png
python -m flowad_jax.synthesis --kind=mixture.scar --input=grass --count=6 --output=scars.png
python -m flowad_jax.synthesis --kind=nsa --input=screw/train/good --dataset=mvtec \
    --category=screw --set=blend=by_class --set=label=logistic-intensity --output=screws.png

--input is a folder of normal images, or one of the embedded textures brick, grass and gravel.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from flowad_jax.arguments import Parser, settings
from flowad_jax.data import _files, textures
from flowad_jax.data.images import read_image, read_resized
from flowad_jax.data.transforms import resize_image
from flowad_jax.errors import UserError
from flowad_jax.files import replacing
from flowad_jax.lookup import nearest
from flowad_jax.synthesis import KINDS, PUBLISHED, lender_scale, make, sheet

_MOST_IMAGES = 64  # read from a folder, evenly spread
_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff")


def main(argv: Sequence[str] | None = None) -> None:
    """Reads the images, makes the samples, writes the sheet and says what is on it."""
    parser = _parser()
    args = parser.parse_args(argv)
    try:
        if Path(args.output).suffix.lower() not in _SUFFIXES:
            raise UserError(
                f"--output={args.output}: end the name in one of {', '.join(_SUFFIXES)}"
            )
        synthesise = make(args.kind, **_options(args))
        images = _images(args.input, args.size)
        lenders = _images(args.input, int(lender_scale(synthesise) * args.size))
        made = sheet.samples(images, lenders, synthesise, args.count, args.seed)
        with replacing(args.output) as temporary:
            sheet.draw(made, args.cell).save(temporary)
    except UserError as error:
        parser.fail(error)
    changed = [synthetic for _, synthetic in made if synthetic.changed]
    share = np.mean([synthetic.mask.mean() for synthetic in changed]) if changed else 0.0
    print(f"{args.output}: {len(changed)} of {len(made)} images changed, mask mean {share:.1%}")


def _parser() -> Parser:
    parser = Parser("python -m flowad_jax.synthesis", __doc__)
    add = parser.add_argument
    add("--kind", default="nsa", choices=KINDS, metavar="KIND", help=f"{', '.join(KINDS)} [nsa]")
    add("--input", default="brick", help="folder of normal images, or a texture [brick]")
    add("--output", default="synthesis.png", help="the sheet [synthesis.png]")
    add("--count", type=_between(1, 200), default=8, help="samples [8]")
    add(
        "--size",
        type=_between(0, 4096),
        default=256,
        help="scale images to this side; 0: do not [256]",
    )
    add(
        "--cell", type=_between(8, 1024), default=160, help="pixels of a picture on the sheet [160]"
    )
    add(
        "--seed",
        type=_between(0, 2**32 - 1),
        default=0,
        help="another seed gives other anomalies [0]",
    )
    published = ", ".join(sorted(PUBLISHED))
    add("--dataset", default="", help=f"NSA: whose published constants, {published} [none]")
    add("--category", default="", help="NSA: category of that data set")
    add(
        "--set",
        action="append",
        default=[],
        metavar="OPTION=VALUE",
        help="an option of the kind, e.g. --set=blend=mixed; may be repeated",
    )
    return parser


def _between(low: int, high: int) -> Callable[[str], int]:
    """A type of argument that must lie in a range."""

    def whole_number(word: str) -> int:
        try:
            number = int(word)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{word}' is not a whole number") from None
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"{number} is out of range: use {low} to {high}")
        return number

    return whole_number


def _options(args: argparse.Namespace) -> dict[str, Any]:
    """Options of ``make``; values are Python literals or plain words."""
    options = {k: getattr(args, k) for k in ("dataset", "category") if getattr(args, k)}
    if options and args.kind != "nsa":
        raise UserError(f"--dataset and --category are for --kind=nsa, not {args.kind}")
    if args.dataset and args.dataset not in PUBLISHED:
        raise UserError(f"--dataset={args.dataset}: {nearest(args.dataset, PUBLISHED)}")
    return options | settings(args.set)


def _images(name: str, side: int) -> list[np.ndarray]:
    """Images at a side in pixels, or at their own size if it is 0."""
    if name in textures.CATEGORIES and not Path(name).exists():
        source = textures.build("", name, "train")
        images = [source[index].image for index in range(len(source))]
        return [resize_image(image, side) for image in images] if side else images
    paths = _spread(_folder(name))
    return [read_resized(path, side)[0] if side else read_image(path) for path in paths]


def _folder(name: str) -> list[Path]:
    folder = Path(name)
    if not folder.is_dir():
        known = ", ".join(textures.CATEGORIES)
        raise UserError(f"--input={name}: there is no such folder, nor is it one of {known}")
    if not (files := _files.images(folder)):
        raise UserError(f"--input={name}: no images in this folder: {_files.hint('good', folder)}")
    return files


def _spread(files: list[Path]) -> list[Path]:
    chosen = np.linspace(0, len(files) - 1, min(len(files), _MOST_IMAGES)).round().astype(int)
    return [files[index] for index in chosen]


if __name__ == "__main__":
    main()
