"""Scores the newest checkpoint of a run on its test images and rewrites its report.

python eval.py --workdir=runs/quickstart
python eval.py --workdir=runs/quickstart --scoring=transductive
"""

from absl import flags

from flowad_jax import cli

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a run made by train.py.")
_SCORING = flags.DEFINE_enum(
    "scoring",
    None,
    ["calibrated", "transductive"],
    "calibrated: a score depends on its image alone. transductive: the paper's form, whose scores "
    "depend on the whole test set. Default: what the run's config says.",
)


def main() -> None:
    """Evaluates and prints the headline metrics."""
    from flowad_jax.training.summary import evaluate_workdir, one_line

    results = evaluate_workdir(str(_WORKDIR.value), _SCORING.value)
    print(f"last epoch: {one_line(results['columns']['last'])}")
    print(f"results and pictures: {_WORKDIR.value}/results.md")


if __name__ == "__main__":
    cli.run(main, required=("workdir",))
