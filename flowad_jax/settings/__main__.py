"""Prints docs/configuration.md: every key of a config with its default and its meaning.

python -m flowad_jax.settings
python -m flowad_jax.settings --write=docs/configuration.md
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence

from flowad_jax import files, lookup
from flowad_jax.arguments import Parser
from flowad_jax.settings import keys, sections

_ABOUT = """\
# Configuration

Every key of a recipe, its default and its meaning. `python -m flowad_jax.settings` writes this page
from the functions that a config calls and from [keys.py](../flowad_jax/settings/keys.py); recipes
set only what differs.

Each key can be set on the command line, `--config.train.epochs=20`. What is not set is `None`; on a
command line an empty value (`--config.synthesis.name=`), `0` or `"()"` says so. A name brings the
options that belong to it: `--config.data.name=csv` works with any recipe, and so do
`--config.synthesis.name=nsa`, `--config.train.schedule.name=schedules.constant` and
`--config.method.name=msflow`, which takes nothing else of that method's published recipe. A name
with a colon, `package.module:attribute`, is imported from elsewhere.
"""
_ORDER = (
    *("", "data", "data.options", "encoder", "synthesis", "method", "train", "train.schedule"),
    *("cache", "eval", "sweep"),
)


def page() -> str:
    """Returns docs/configuration.md."""
    return "\n".join([_ABOUT, *(line for key in _ORDER for line in _section(key))])


def _section(key: str) -> Iterator[str]:
    yield f"## {f'`{key}`' if key else 'Without a section'}\n"
    if key in keys.SECTIONS:
        about = inspect.getdoc(keys.SECTIONS[key]) or ""
        yield _plain(about.partition("Attributes:")[0]) + "\n"
    own = sections.parameters(key)
    if own:
        yield from _table(key, own)
    if key in sections.CALLS:
        call = sections.CALLS[key]
        for choice in lookup.choices(call.plugins):
            found = sections.parameters(key, choice)
            yield f"### `{call.name}={choice}`\n"
            yield from _table(key, {word: found[word] for word in found if word not in own})


def _table(key: str, found: dict[str, sections.Parameter]) -> Iterator[str]:
    if not found:
        yield "No options.\n"
        return
    yield "| key | default | meaning |\n| --- | --- | --- |"
    for word, (default, _, meaning) in found.items():
        dotted = f"{key}.{word}".removeprefix(".")
        yield f"| `{dotted}` | `{default!r}` | {_plain(meaning)} |"
    yield ""


def _plain(text: str) -> str:
    """A docstring's words as Markdown."""
    return " ".join(text.split()).replace("``", "`").replace("|", r"\|")


def main(argv: Sequence[str] | None = None) -> None:
    """Prints or writes the page."""
    parser = Parser("python -m flowad_jax.settings", __doc__)
    parser.add_argument("--write", metavar="FILE", help="writes it there")
    file = parser.parse_args(argv).write
    if file is None:
        print(page(), end="")
    else:
        files.write_text(file, page())


if __name__ == "__main__":
    main()
