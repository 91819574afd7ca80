r"""Says what is wrong with an installation, a data folder or a run, and what to do about it.

flowad doctor
    versions, devices, free memory and disk, embedded weights
flowad doctor --data=/path/to/images --category=screws
    counts, unreadable files, masks, mixed modes, duplicates between train and test
flowad doctor --data=/path/to/images --set=normal=ok --set=masks=none
    the same for all categories, with options of the layout as in data.options
flowad doctor --data=/path/to/magnetic_tile --name=magnetic_tile
    another layout
flowad doctor --workdir=runs/screws
    checkpoints, finished or not, results, whether config, data and weights still fit

A problem is two lines: what is wrong, and behind -> what to do. Everything is only read,
but --name=stc decodes videos that have no frames yet.
Exit code: 0 nothing is wrong, 1 there are problems, 2 wrong usage.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NoReturn

from flowad_jax.arguments import Parser, settings
from flowad_jax.doctor.findings import Section
from flowad_jax.errors import UserError

_LAYOUTS = "folder, mvtec, visa, btad, dagm, magnetic_tile, textures"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Looks at what is asked for, prints what it finds, and exits."""
    parser = make_parser()
    args = parser.parse_args(argv)
    stray = [f"--{k}" for k in ("name", "category", "set") if getattr(args, k) is not None]
    if stray and args.data is None:
        parser.error(f"{stray[0]} needs --data=FOLDER")
    if len(args.image_size) > 2 or min(args.image_size) < 1:
        given = ",".join(map(str, args.image_size))
        parser.error(f"--image_size={given}: must be 1 or more, or HEIGHT,WIDTH")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    if isinstance(sys.stdout, io.TextIOWrapper):  # names of files need not be text
        sys.stdout.reconfigure(errors="backslashreplace")
    problems = 0
    try:
        for section in _sections(args):
            print(section, flush=True)
            problems += len(section.problems)
    except UserError as error:
        parser.error(str(error))
    except ImportError as error:
        parser.fail(f"{error}; run 'flowad doctor' without flags")
    except OSError as error:
        parser.fail(f"{error}; check the permissions")
    except KeyboardInterrupt:
        print("interrupted; nothing was changed", file=sys.stderr)
        raise SystemExit(130) from None
    print(f"{problems} problem{'s' * (problems != 1)} found" if problems else "nothing is wrong")
    raise SystemExit(1 if problems else 0)


def _sections(args: argparse.Namespace) -> Iterator[Section]:
    """What the flags ask for; imports are late, as the installation may be what is broken."""
    if args.data is None and args.workdir is None:
        from flowad_jax.doctor import machine

        yield machine.examine(Path.cwd())
    if args.data is not None:
        from flowad_jax.doctor import data

        name, options = "folder" if args.name is None else args.name, settings(args.set or [])
        size = args.image_size * (3 - len(args.image_size))  # one number for both sides
        yield from data.examine(args.data, name, args.category, options, size)
    if args.workdir is not None:
        from flowad_jax.doctor import workdir

        yield workdir.examine(args.workdir, args.allow_import)


def pixels(text: str) -> tuple[int, ...]:
    """Reads ``256``, ``160,400`` or ``(160, 400)``."""
    return tuple(int(number) for number in text.strip("()").split(","))


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("flowad doctor", __doc__)
    add = parser.add_argument
    add("--data", metavar="FOLDER", help="data folder to look at, as data.root")
    add("--name", help=f"its layout, as data.name: {_LAYOUTS} [folder]")
    add("--category", help="one of its categories [all that are there]")
    words = "an option of the layout, e.g. --set=normal=ok; may be repeated"
    add("--set", action="append", metavar="OPTION=VALUE", help=words)
    words = "size of images in training, as data.image_size: do defects vanish? [256]"
    add("--image_size", type=pixels, default=(256,), metavar="N or HEIGHT,WIDTH", help=words)
    add("--workdir", metavar="FOLDER", help="folder of a run of flowad train")
    words = "package whose functions the run's config may name; may be repeated"
    add("--allow_import", action="append", default=[], metavar="PACKAGE", help=words)
    return parser


if __name__ == "__main__":
    main()
