"""Tells what is known of the data sets, and prepares them with TensorFlow Datasets.

flowad data
    names, licences, metrics and sources of all of them
flowad data --name=visa
    one of them, with the files that are expected
flowad data --name=mvtec --root=/path/to/mvtec --prepare=/path/to/prepared
    writes its categories as array_record files, which --config.data.name=tfds:mvtec
    --config.data.root=/path/to/prepared trains from; no TensorFlow is needed for either
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from flowad_jax import files
from flowad_jax.arguments import Parser, settings
from flowad_jax.data import sources
from flowad_jax.errors import UserError

_HEADER = ("`data.name`", "set", "licence", "metric of its authors", "where to get it")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints, writes the table, or prepares."""
    parser = make_parser()
    args = parser.parse_args(argv)
    try:
        if args.prepare is not None:
            if not args.name:
                raise UserError("--prepare: say which data set with --name")
            _prepare(args.name, args.root, args.category, args.prepare, settings(args.set))
        elif args.write is not None:
            files.write_text(args.write, page())
        else:
            print(describe(args.name) if args.name else table())
    except UserError as error:
        parser.fail(error)


def page() -> str:
    """The page docs/datasets.md."""
    sections = "\n\n".join(f"## {describe(name)}" for name in sources.names())
    head = (
        "# Data sets\n\nWritten by `flowad data --write=docs/datasets.md`. None of "
        "the sets comes with flowad_jax, but for the textures; mind their licences.\n\n"
    )
    return f"{head}{table()}\n\n{sections}\n"


def table() -> str:
    """All data sets as a table in Markdown."""
    lines = [_HEADER, ("---",) * len(_HEADER)]
    for name in sources.names():
        card = sources.dataset_card(name)
        assert card is not None
        lines.append((f"`{name}`", card.title, card.licence, card.metric, card.source))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def describe(name: str) -> str:
    """What is known of one data set.

    Raises:
      UserError: it is unknown, or someone else's without a description.
    """
    card = sources.dataset_card(name)
    if card is None:
        raise UserError(f"--name={name}: it has no description")
    lines = [
        f"{card.title}: `data.name={sources.plain(name)}`",
        "",
        f"- licence: {card.licence}",
        f"- metric of its authors: {card.metric}",
        f"- where to get it: {card.source}",
        f"- expected files: `{card.layout}`",
    ]
    if "validation" in card.splits:
        lines.append("- held out for thresholds: its own validation images, where it has them")
    return "\n".join(lines)


def _prepare(
    name: str, root: str, category: str | None, target: str, options: dict[str, object]
) -> None:
    from flowad_jax.data import tfds_builder

    logging.getLogger("absl").setLevel(logging.ERROR)
    known = sources.categories(name, root) if category is None else [category]
    if not known:
        raise UserError(f"'{root}' holds no category of {name}: see --name={name} for its files")
    for one in known:
        place = tfds_builder.prepare(name, root, one, target, options)
        size = sum(file.stat().st_size for file in place.iterdir())
        print(f"{one or name}: {place}, {size / 1e6:.1f} MB")


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("flowad data", __doc__)
    add = parser.add_argument
    add("--name", help=f"one data set: {', '.join(sources.names())}")
    add("--root", default="", metavar="FOLDER", help="where it lies, as data.root")
    add("--category", help="one of its categories [all that are there]")
    add("--prepare", metavar="FOLDER", help="write it there with TensorFlow Datasets")
    words = "an option of the layout as in data.options, e.g. --set=normal=ok; may be repeated"
    add("--set", action="append", default=[], metavar="OPTION=VALUE", help=words)
    add("--write", metavar="FILE", help="write the page docs/datasets.md")
    return parser


if __name__ == "__main__":
    main()
