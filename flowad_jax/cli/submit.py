r"""Writes what the server of MVTec AD 2 evaluates, checks it and packs it.

flowad submit runs/all --output=submission
    judges the private test images of every category with the run of that category; runs/all is the
    folder of a training with --config.data.category=all, or name the folders of eight runs
flowad submit runs/all --output=submission --check
    only checks what is there

Pixels are called anomalous above the detector's own threshold, which held-out normal images set
(--config.eval.false_alarm_rate of the training); the server's SegF1 depends on it. A folder without
faults is packed as submission.tar.gz.

Exit codes: 0 done; 1 one line says what is wrong, or a fault was found; 2 wrong usage.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from flowad_jax.arguments import Parser, fail
from flowad_jax.cli import scripts
from flowad_jax.errors import UserError

if TYPE_CHECKING:
    import argparse

SHOWN = 20  # faults


def main() -> None:
    """Runs the command with the words of ``sys.argv``."""
    args = make_parser().parse_args()
    if not args.folders or not args.output:
        fail(2, "name the folders of runs and --output; see --help")
    scripts.set_up_logging()
    scripts.guard(lambda: _submit(args))


def make_parser() -> Parser:
    """Returns the parser of the command line."""
    parser = Parser("flowad submit", __doc__)
    parser.add_argument("folders", nargs="*", help="of runs, or of a sweep over categories")
    parser.add_argument("--output", help="folder to write")
    parser.add_argument("--data", help="root of MVTec AD 2; default: as the runs have it")
    parser.add_argument("--check", action="store_true", help="judge nothing")
    return parser


def _submit(args: argparse.Namespace) -> None:
    from flowad_jax.detector import workdir
    from flowad_jax.submission import mvtec_ad2

    output, runs = Path(args.output), mvtec_ad2.find(args.folders)
    roots = {
        category: args.data or workdir.load_config(path).data.root
        for category, path in runs.items()
    }
    if not args.check:
        count = sum(mvtec_ad2.write(path, output, args.data) for path in runs.values())
        print(f"{count} images of {len(runs)} categories judged")
    faults = mvtec_ad2.problems(output, roots)
    for line in faults[:SHOWN]:
        print(line)
    if faults:
        more = f", of which the first {SHOWN} are above" * (len(faults) > SHOWN)
        raise UserError(f"{output} has {len(faults)} faults{more}: it is not packed")
    print(f"complete: {mvtec_ad2.pack(output)}")
