"""Scores the newest checkpoint of a run on its test images and rewrites its report.

python eval.py --workdir=runs/quickstart
python eval.py --workdir=runs/quickstart --scoring=transductive   # a run of CFLOW-AD
python eval.py --workdir=runs/screws --scoring=per_image          # a run of MSFlow
python eval.py --workdir=runs/all                                 # all runs of a sweep
"""

from pathlib import Path

from absl import flags

from flowad_jax import cli

cli.define_allow_import()
cli.define_hosts()
flags.adopt_module_key_flags(cli)
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run made by train.py.")
_SCORING = flags.DEFINE_string(
    "scoring",
    None,
    "calibrated: a score depends on its image alone, measured against normal images. Or the form "
    "of the method's paper: transductive (CFLOW-AD), in which scores depend on the whole test set; "
    "per_image (MSFlow), in which every image is its own measure. Default: what the run's config "
    "says.",
)
_RATE = flags.DEFINE_float(
    "false_alarm_rate",
    None,
    "How often a good image may be called anomalous, such as 0.01. The images that training held "
    "out set the threshold. Default: what the run's config says.",
)


def main() -> None:
    """Evaluates and prints the headline metrics."""
    from flowad_jax.training import sweep
    from flowad_jax.training.summary import evaluate_workdir, headline

    cli.join_hosts()
    path, asked = str(_WORKDIR.value), (_SCORING.value, _RATE.value, flags.FLAGS.allow_import)
    if sweep.read(Path(path)):
        print(sweep.headline(sweep.evaluate(path, *asked)))
        print(f"table: {path}/results.md")
        return
    cli.say(headline(evaluate_workdir(path, *asked)))
    cli.say(f"results and pictures: {path}/results.md, {path}/report.html")


if __name__ == "__main__":
    cli.run(main, required=("workdir",))
