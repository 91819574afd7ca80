r"""Runs the recipe of a paper on your copy of its data, and compares with what was published.

flowad reproduce msflow_mvtec --category=screw --data=/path/to/mvtec --workdir=runs/screw
    checks weights and data, says how long it will take here, trains, and prints the published
    figures beside ours: the last epoch, the one that a held-out loss would choose, and the best on
    the test set, which is how some papers chose theirs
flowad reproduce msflow_mvtec --category=screw --data=/path/to/mvtec --check
    all of that but the training
flowad reproduce
    the recipes with published figures

The weights of the encoder lie in the current folder under the name that the error says, or where
--weights says. Ctrl-C saves; the same command goes on. Whatever differs from the paper beside the
device stands in the recipe's text, which is printed.

Exit codes: 0 done; 1 one line says what is wrong; 2 wrong usage; 130 or 143 stopped.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowad_jax import files
from flowad_jax.arguments import Parser, fail
from flowad_jax.cli import recipe as recipe_file
from flowad_jax.cli import recipes, scripts
from flowad_jax.errors import UserError

if TYPE_CHECKING:
    import argparse

    from ml_collections import config_dict

COMPARED = "reproduction"  # stem of what is written beside the results


def main() -> None:
    """Runs the command with the words of ``sys.argv``."""
    args = make_parser().parse_args()
    if args.recipe and not (args.workdir or args.check):
        fail(2, "give --workdir or --check; see --help")
    scripts.set_up_logging()
    scripts.guard(lambda: _list(args.published) if args.recipe is None else _reproduce(args))


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("flowad reproduce", __doc__)
    parser.add_argument("recipe", nargs="?", help="of a paper; the start of its name suffices")
    parser.add_argument("--category", help="of the data set; default: the recipe's")
    parser.add_argument("--data", help="root of the data set")
    parser.add_argument("--workdir", help="folder of the run")
    parser.add_argument("--weights", help="of the encoder; default: as the recipe names it")
    parser.add_argument("--seed", type=int, help="default: the recipe's")
    parser.add_argument("--check", action="store_true", help="do not train")
    parser.add_argument("--published", type=Path, help="file of figures in the place of ours")
    return parser


def _list(path: Path | None) -> None:
    """Prints what has published figures."""
    from flowad_jax.reproduction import published

    found: dict[str, list[str]] = {}
    for row in published.read(path):
        found.setdefault(row["recipe"], []).append(f"{row['source']}, {row['selection']}")
    for name, sources in found.items():
        print(name, *(f"    {line}" for line in sources), sep="\n")


def _reproduce(args: argparse.Namespace) -> None:
    from flowad_jax import jax_config
    from flowad_jax.reproduction import published
    from flowad_jax.training.loop import train

    jax_config.enable_compilation_cache()
    rows, known = published.read(args.published), recipes.packaged()
    name = published.find_recipe(_of_paper(args.recipe, known), rows, known)
    config = _config(name, args)
    print(f"{name}: {ast.get_docstring(ast.parse(known[name].read_text(encoding='utf-8')))}\n")
    category = config.data.category or published.MEAN
    if not published.compare(rows, name, category, {}):
        raise UserError(f"nothing is published for {name} and category '{category}'")
    _check(config)
    if args.check:
        print(published.markdown(published.compare(rows, name, category, {})))
        return
    found = train(config, args.workdir)
    compared = published.compare(rows, name, category, found["columns"])
    table = published.markdown(compared)
    target = Path(args.workdir) / COMPARED
    files.write_text(target.with_suffix(".md"), f"# {name}, {category}\n\nPercent.\n\n{table}\n")
    files.write_text(target.with_suffix(".json"), published.as_json(compared))
    print(f"{name}, {category}, percent:\n{table}\nkept in {target}.md and {target}.json")


def _of_paper(name: str, known: Mapping[str, Path]) -> str:
    """The paper's recipe that one of ours mends, if it does, such as ``msflow_mvtec``."""
    text = known[name].read_text(encoding="utf-8") if name in known else ""
    match = re.search(r"\brecipe (papers/\w+)\.", text)
    return match[1] if match else name


def _config(name: str, args: argparse.Namespace) -> config_dict.ConfigDict:
    """The recipe with what the user knows."""
    config: Any = recipe_file.load(name)
    with config.unlocked():
        if args.data is not None:
            config.data.root = args.data
        if args.category is not None:
            config.data.category = args.category
        if args.weights is not None:
            config.encoder.weights = args.weights
        if args.seed is not None:
            config.seed = args.seed
    return config.lock()


def _check(config: config_dict.ConfigDict) -> None:
    """Reads weights and data, and says what a training takes.

    Raises:
      UserError: something is missing or does not fit; the message says what to do.
    """
    from flowad_jax.reproduction import duration
    from flowad_jax.training.experiment import build

    experiment = build(config)
    _ = experiment.variable_shapes
    source = experiment.encoder.source
    print(f"weights: {source['weights']}, sha256 {source['sha256'][:12]}...")
    print(f"data: {len(experiment.train)} images to train, {len(experiment.test)} to test")
    found = duration.expected(experiment)
    print(
        f"time on {found.device}: about {duration.text(found.seconds)} for {config.train.epochs} "
        f"epochs of {len(experiment.train_loader)} steps, {found.per_step:.2g} s each; "
        "less where features are computed once"
    )
