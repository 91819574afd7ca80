r"""Says whether one run is better than another, or whether chance explains the difference.

flowad compare runs/msflow runs/cflow
    runs that judged the same test images: every metric with the difference, its 95 % interval and
    a p-value (DeLong for image AUROC, bootstrap over the images for the others), and the decisions
    that only one of them gets right; of more runs each is compared with the first
flowad compare runs/all_msflow runs/all_cflow runs/all_fastflow --plot=ranks.png
    sweeps over many categories: ranks, Friedman's test, and which methods differ (Nemenyi)

--output=NAME.html writes a page with tables and curves, NAME.md the tables, NAME.json the figures.
Runs of an earlier version lack what is compared: flowad eval --workdir=RUN adds it.

Exit codes: 0 done; 1 one line says what is wrong; 2 wrong usage.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowad_jax import files
from flowad_jax.arguments import Parser, fail
from flowad_jax.cli import scripts
from flowad_jax.errors import UserError
from flowad_jax.lookup import check_choice

if TYPE_CHECKING:
    import argparse


def main() -> None:
    """Runs the command with the words of ``sys.argv``."""
    args = make_parser().parse_args()
    if len(args.folders) < 2:
        fail(2, "name two folders or more; see --help")
    suffixes = {args.output: (".json", ".md", ".html"), args.plot: (".png", ".svg", ".pdf")}
    for path, known in suffixes.items():
        if path and Path(path).suffix not in known:
            fail(2, f"{path}: the name has to end in {' or '.join(known)}")
    scripts.guard(lambda: _compare(args))


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("flowad compare", __doc__)
    parser.add_argument("folders", nargs="*", help="of runs, or of sweeps; the first one leads")
    parser.add_argument("--metric", default="image_auroc", help="that ranks sweeps; [image_auroc]")
    parser.add_argument("--plot", help="picture of the ranks of three methods or more")
    parser.add_argument("--output", help=".html page, .md or .json file to write")
    return parser


def _compare(args: argparse.Namespace) -> None:
    from flowad_jax.comparison import page, runs, sweeps

    suffix = Path(args.output or "").suffix
    kinds = {sweeps.is_sweep(folder) for folder in args.folders}
    if len(kinds) > 1:
        raise UserError(f"{', '.join(args.folders)}: runs and sweeps: compare like with like")
    if kinds == {True} and suffix == ".html":
        raise UserError(f"{args.output}: pages are of runs; of sweeps write .md or .json")
    if kinds == {True}:
        table, found = _ranked(args)
    elif args.plot:
        raise UserError("--plot draws the ranks of sweeps: leave it out for single runs")
    else:
        read = [runs.read(folder) for folder in args.folders]
        pairs = runs.compare(read)
        table = runs.markdown(args.folders[0], pairs)
        found = runs.as_json(args.folders[0], pairs)
    print(table, end="")
    if suffix == ".html":
        page.write(args.output, read, pairs)
    elif suffix:
        plain = json.dumps(found, indent=2, ensure_ascii=False) + "\n"
        files.write_text(args.output, table if suffix == ".md" else plain)


def _ranked(args: argparse.Namespace) -> tuple[str, dict[str, Any]]:
    from flowad_jax.comparison import diagram, sweeps
    from flowad_jax.evaluation.metrics import METRICS

    check_choice("--metric", args.metric, METRICS)
    ranking = sweeps.rank(args.folders, args.metric)
    if args.plot and ranking.critical is None:
        raise UserError("--plot draws the ranks of three methods or more: there are two")
    if args.plot:
        diagram.save(args.plot, ranking)
    return sweeps.markdown(ranking), sweeps.as_json(ranking)
