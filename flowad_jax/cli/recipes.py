r"""Lists the recipes of the package, or copies one out to be changed.

flowad recipes
    all recipes, with a line each; --config=NAME of `flowad train` takes their names
flowad recipes --copy cflow_folder .
    writes ./cflow_folder.py, which works alone: flowad train --config=cflow_folder.py ...
flowad recipes --copy papers/cflow_mvtec_resnet18 mine.py
    the same under another name

A file that exists is never overwritten.
Exit code: 0 done, 1 the file could not be written, 2 wrong usage or no such recipe.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from flowad_jax import files
from flowad_jax import recipes as package
from flowad_jax.arguments import Parser
from flowad_jax.errors import UserError
from flowad_jax.lookup import nearest

_FUNCTION = re.compile(r"^def get_config\b", re.MULTILINE)


def packaged() -> dict[str, Path]:
    """Returns the recipes of the package by name, such as ``papers/cflow_mvtec_resnet18``."""
    folder = Path(package.__file__).parent
    found = sorted(folder.rglob("*.py"), key=lambda path: (len(path.parts), path))
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in found
        if _FUNCTION.search(path.read_text(encoding="utf-8"))
    }


def summary(recipe: Path) -> str:
    """Returns the first sentence of a recipe's docstring, on one line."""
    doc = ast.get_docstring(ast.parse(recipe.read_text(encoding="utf-8"))) or ""
    return re.split(r"\.\s", " ".join(doc.split()) + " ", maxsplit=1)[0]


def copy(name: str, target: Path) -> Path:
    """Copies a recipe into a folder, or to a file that does not exist; returns the file.

    Raises:
      UserError: the file exists or cannot be written.
    """
    source = packaged()[name]
    if not target.is_dir() and target.suffix != ".py":
        raise UserError(f"{target} is no folder: make it first, or name a file that ends in .py")
    path = target / source.name if target.is_dir() else target
    with files.writing(path):
        try:
            with path.open("x", encoding="utf-8") as file:
                file.write(source.read_text(encoding="utf-8"))
        except FileExistsError:
            raise UserError(f"{path} exists: remove it, or name another file") from None
    return path


def main() -> None:
    """Lists, or copies, with the words of ``sys.argv``."""
    parser = make_parser()
    args = parser.parse_args()
    known = packaged()
    if args.copy is None:
        width = max(map(len, known))
        for name, path in known.items():
            print(f"{name:{width}}  {summary(path)}")
        return
    name, target = args.copy
    if name not in known:
        parser.error(f"--copy: there is no recipe {name}: {nearest(name, known)}")
    try:
        path = copy(name, Path(target))
    except UserError as error:
        parser.fail(error)
    print(f"{path}: change it, then run: flowad train --config={path} --workdir=runs/{path.stem}")


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("flowad recipes", __doc__)
    words = "copy a recipe into a folder, or to a file"
    parser.add_argument("--copy", nargs=2, metavar=("NAME", "PLACE"), help=words)
    return parser
