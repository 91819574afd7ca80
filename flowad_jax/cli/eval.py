"""Scores the newest checkpoint of a run on its test images and rewrites its report.

flowad eval --workdir=runs/quickstart
flowad eval --workdir=runs/cflow --scoring=transductive   # a run of CFLOW-AD
flowad eval --workdir=runs/screws --scoring=per_image          # a run of MSFlow
flowad eval --workdir=runs/all                                 # all runs of a sweep
flowad eval --workdir=runs/screws --data=new_images            # other images, labelled or not
"""

from pathlib import Path

from absl import flags

from flowad_jax.cli import scripts
from flowad_jax.errors import UserError


def define_flags() -> None:
    """Defines the flags of the command."""
    scripts.define_allow_import()
    scripts.define_hosts()
    scripts.define_false_alarm_rate()
    flags.adopt_module_key_flags(scripts)
    flags.DEFINE_string("workdir", None, "Folder of a run made by `flowad train`.")
    flags.DEFINE_string(
        "data",
        None,
        "Other images than those of the run: a folder with test/good and test/KIND, a table, or "
        "any images, whose labels are then unknown. Their report is in WORKDIR/eval/NAME.",
    )
    flags.DEFINE_string(
        "scoring",
        None,
        "calibrated: a score depends on its image alone, measured against normal images. Or the "
        "form of the method's paper: transductive (CFLOW-AD), in which scores depend on the whole "
        "test set; per_image (MSFlow), in which every image is its own measure. Default: what the "
        "run's config says.",
    )
    flags.DEFINE_string(
        "threshold",
        None,
        "Image score above which an image counts as anomalous, whatever the false-alarm rate; or "
        "best_f1: also says which one suits the labels of the test images best. That one is no "
        "result, and is not kept.",
    )


def job() -> None:
    """Evaluates and prints the headline metrics."""
    from flowad_jax.sweep import runner
    from flowad_jax.training import rescore, summary

    given = flags.FLAGS
    scripts.join_hosts()
    path, limit = given.workdir, rescore.read_threshold(given.threshold)
    asked = (given.scoring, given.false_alarm_rate, given.allow_import, limit)
    if runner.read(Path(path)):
        if given.data:
            raise UserError(f"--data is for a single run: choose a folder below {path}")
        print(runner.headline(runner.evaluate(path, *asked)))
        print(f"table: {path}/results.md")
        return
    place = rescore.report_folder(Path(path), given.data) if given.data else path
    scripts.print_once(summary.headline(rescore.evaluate_workdir(path, *asked, given.data)))
    scripts.print_once(f"results and pictures: {place}/results.md, {place}/report.html")


def main() -> None:
    """Runs the command with the words of ``sys.argv``."""
    scripts.run(__doc__, define_flags, job, required=("workdir",))
