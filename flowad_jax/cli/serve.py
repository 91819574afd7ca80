r"""Judges images over HTTP, with a live page for the people at the line.

  flowad serve screws.flowad
  flowad serve screws.flowad runs/tiles --port=8080 --watch=screws=camera/
  curl --data-binary @new/1.png http://127.0.0.1:8000/v1/detectors/screws/predict

Each detector is a folder that `flowad export` wrote or the workdir of a run, and is called by the
name of its folder. What it said and what operators say of that is kept beside it, in a file that
ends in .feedback.sqlite.
The page is at http://127.0.0.1:8000/, the description of all requests at /openapi.json. A newer
detector at the same path, or a link that leads to another one, is taken while the service runs.

It needs `pip install 'flowad_jax[serve]'`. Ctrl-C or SIGTERM ends it when running requests are
answered. Exit codes: 0 ended; 1 one line says what is wrong; 2 wrong usage.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from absl import flags

from flowad_jax.arguments import fail
from flowad_jax.cli import scripts
from flowad_jax.errors import UserError

TOKEN = "FLOWAD_TOKEN"


def define_flags() -> None:
    """Defines the flags of the command."""
    scripts.define_false_alarm_rate()
    flags.adopt_module_key_flags(scripts)
    add = flags.DEFINE_integer
    flags.DEFINE_multi_string("detector", [], "Folder of a detector; also without the flag's name.")
    flags.DEFINE_string("host", "127.0.0.1", "Address to listen at; others than this need a token.")
    add("port", 8000, "Port to listen at.", lower_bound=1, upper_bound=65535)
    flags.DEFINE_string(
        "token_file",
        None,
        "File whose first line clients have to send as 'Authorization: Bearer ...'; or the "
        f"environment variable {TOKEN}.",
    )
    add("queue", 64, "Images that may be on their way per detector; then 429.", lower_bound=1)
    flags.DEFINE_float(
        "batch_wait_ms", 2.0, "Milliseconds that an image waits for others.", lower_bound=0.0
    )
    add("max_bytes", 64 * 2**20, "Largest body of a request.", lower_bound=1)
    add("max_pixels", 100_000_000, "Most pixels of an image.", lower_bound=1)
    flags.DEFINE_float("timeout", 30.0, "Seconds for sending a body.", lower_bound=0.1)
    flags.DEFINE_enum(
        "backend", "onnxruntime", ("onnxruntime", "openvino"), "What computes exported detectors."
    )
    add("threads", 0, "Threads of the backend; 0 for all cores.", lower_bound=0)
    flags.DEFINE_multi_string(
        "watch", [], "NAME=FOLDER: also judge images that arrive in a folder, by that detector."
    )
    flags.DEFINE_boolean("feedback", True, "Keep judgements and verdicts beside the detector.")
    flags.DEFINE_float(
        "keep_images_days", 0.0, "Days for which image files are kept there, too.", lower_bound=0.0
    )
    flags.DEFINE_float(
        "drift_alpha",
        0.01,
        "Largest probability of ever raising a false alarm about drift.",
        lower_bound=1e-6,
        upper_bound=0.5,
    )


def check_flags() -> None:
    """Ends the process where no detector is named, or a folder to watch has none."""
    chosen = flags.FLAGS
    if not chosen.detector:
        fail(2, "name at least one detector, such as screws.flowad; see --help")
    if wrong := [item for item in chosen.watch if not all(item.partition("=")[::2])]:
        fail(2, f"--watch={wrong[0]}: write NAME=FOLDER; see --help")


def token() -> str | None:
    """The token of the file, or else of the environment; a `UserError` if it is empty."""
    if (name := flags.FLAGS.token_file) is None:
        return os.environ.get(TOKEN) or None
    try:
        lines = Path(name).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"--token_file: cannot read {name} ({error})") from None
    if not lines or not lines[0].strip():
        raise UserError(f"--token_file: the first line of {name} is empty: write a token into it")
    return lines[0].strip()


def job() -> None:
    """Serves until a signal comes."""
    try:
        from flowad_jax.serve import server
    except ImportError as error:
        raise UserError(f"{error.name} is not installed: pip install 'flowad_jax[serve]'") from None
    from flowad_jax.serve.judge import LoadOptions
    from flowad_jax.serve.served import ServeOptions

    chosen = flags.FLAGS
    served = ServeOptions(
        LoadOptions(chosen.backend, chosen.threads, chosen.false_alarm_rate),
        queue=chosen.queue,
        batch_wait=chosen.batch_wait_ms / 1000,
        max_pixels=chosen.max_pixels,
        feedback=chosen.feedback,
        keep_images_days=chosen.keep_images_days,
        drift_alpha=chosen.drift_alpha,
    )
    options = server.ServerOptions(
        chosen.host,
        chosen.port,
        token(),
        chosen.max_bytes,
        chosen.timeout,
        dict(item.partition("=")[::2] for item in chosen.watch),
    )
    server.run(chosen.detector, served, options)


def main() -> None:
    """Runs the command with the words of ``sys.argv``; words that are no flags are detectors."""
    sys.argv[1:] = [x if x.startswith("-") else f"--detector={x}" for x in sys.argv[1:]]
    scripts.run(__doc__, define_flags, job, check=check_flags)
