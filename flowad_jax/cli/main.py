"""The command ``flowad``: names its commands and hands the words over to one of them."""

from __future__ import annotations

import importlib
import os
import select
import signal
import sys

from flowad_jax.arguments import fail
from flowad_jax.version import __version__

# What a command is called, the module whose main() it is, and what the help says of it. Modules are
# imported when they are asked for: the help does not wait for jax.
COMMANDS = {
    "train": ("flowad_jax.cli.train", "learn what normal images look like; writes a report"),
    "predict": ("flowad_jax.cli.predict", "judge new images: anomalous or not, and where"),
    "eval": ("flowad_jax.cli.eval", "score a trained run again on its test images"),
    "compare": ("flowad_jax.cli.compare", "is one run better than another, or is it chance?"),
    "export": ("flowad_jax.cli.export", "write a detector that runs without JAX; check one"),
    "serve": ("flowad_jax.cli.serve", "judge images over HTTP, with a live page"),
    "feedback": ("flowad_jax.cli.feedback", "what operators said of a served detector"),
    "recalibrate": ("flowad_jax.cli.recalibrate", "new thresholds from confirmed good images"),
    "reproduce": ("flowad_jax.cli.reproduce", "run a paper's recipe beside its published figures"),
    "submit": ("flowad_jax.cli.submit", "write, check and pack results for MVTec AD 2's server"),
    "recipes": ("flowad_jax.cli.recipes", "list the recipes that come along, or copy one out"),
    "doctor": ("flowad_jax.doctor.__main__", "say what is wrong with installation, data or a run"),
    "data": ("flowad_jax.data.__main__", "list data sets; prepare one with TFDS"),
    "synthesize": ("flowad_jax.cli.synthesis_sheet", "draw a sheet of synthetic anomalies"),
    "convert": ("flowad_jax.cli.convert", "read weights or detectors of PyTorch, write them back"),
    "fetch": ("flowad_jax.encoders.fetch", "download the published weights of an encoder"),
    "completion": ("flowad_jax.cli.completion", "print what lets bash or zsh complete all this"),
}
HELP = f"""flowad finds defects in images, having seen normal ones only.
Try it:            flowad train --config=quickstart --workdir=runs/quickstart
Your own images:   flowad train --config=msflow_folder --workdir=runs/mine \\
                       --config.data.root=FOLDER
then judge some:   flowad predict --workdir=runs/mine --input=NEW --output=found
Commands:
{chr(10).join(f"  {name:<12}{line}" for name, (_, line) in COMMANDS.items())}
flowad COMMAND --help explains a command, flowad --version says the version.
"""


def main() -> None:
    """Runs the command that the first word names, with the others in ``sys.argv``."""
    try:
        try:
            _run(*(sys.argv[1:] or ["--help"]))
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        reader = select.poll()
        reader.register(sys.stdout, 0)
        if not reader.poll(0):  # it was another pipe
            raise
        # `flowad recipes | head` has read enough: end as other programs do, without a word
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(128 + signal.SIGPIPE) from None


def _run(first: str, *others: str) -> None:
    if first == "help" and others:
        first, others = others[0], ("--help",)
    if first in ("--help", "-h", "help"):
        print(HELP, end="")
    elif first == "--version":
        print(f"flowad {__version__}")
    elif first in COMMANDS:
        sys.argv = [f"flowad {first}", *others]
        importlib.import_module(COMMANDS[first][0]).main()
    elif first.startswith("-"):
        fail(2, f"name a command before {first}, such as 'flowad train {first}'; see --help")
    else:
        from flowad_jax.lookup import nearest

        fail(2, f"unknown command '{first}': {nearest(first, COMMANDS)}")
