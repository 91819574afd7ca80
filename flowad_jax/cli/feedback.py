r"""Shows what `flowad serve` kept of a detector: judgements, verdicts, measured error rates.

  flowad feedback --bundle=screws.flowad
  flowad feedback --bundle=screws.flowad --export=feedback.csv

False alarms and misses are counted among the images with a verdict, with exact intervals (95 %).

Exit codes: 0 done; 1 one line says what is wrong; 2 wrong usage.
"""

from absl import flags

from flowad_jax.arguments import fail
from flowad_jax.cli import scripts


def define_flags() -> None:
    """Defines the flags of the command."""
    flags.DEFINE_string("bundle", None, "Folder that `flowad export` wrote, as it is served.")
    flags.DEFINE_string("workdir", None, "Or the folder of a run of `flowad train`.")
    flags.DEFINE_string("export", None, "CSV file to write: a line for every judged image.")


def check_flags() -> None:
    """Ends the process unless one detector is named."""
    if (flags.FLAGS.bundle is None) == (flags.FLAGS.workdir is None):
        fail(2, "give --bundle or --workdir; see --help")


def job() -> None:
    """Prints the table, and writes the other one."""
    from flowad_jax import files
    from flowad_jax.feedback import rates, table
    from flowad_jax.feedback.store import FeedbackStore, beside

    chosen = flags.FLAGS
    store = FeedbackStore(beside(chosen.bundle or chosen.workdir), create=False)
    try:
        rows = store.rows()
    finally:
        store.close()
    if chosen.export:
        with files.writing(chosen.export):
            files.write_text(chosen.export, table.csv_text(rows))
    print(rates.shown(rates.measure(rows)))


def main() -> None:
    """Runs the command with the words of ``sys.argv``."""
    scripts.run(__doc__, define_flags, job, check=check_flags)
