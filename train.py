r"""Trains a defect detector, or resumes one that was stopped.

  python train.py --config=configs/quickstart.py --workdir=runs/quickstart
  python train.py --config=configs/quickstart.py --workdir=runs/grass --config.data.category=grass
  python train.py --config=configs/cflow_folder.py --workdir=runs/mine \
      --config.data.root=/path/to/images --config.data.category=screws

The workdir receives checkpoints, metrics.jsonl, TensorBoard events, results.json, results.md,
images/ and report.html. Ctrl-C saves; the same command resumes.
"""

from absl import flags

from flowad_jax import cli

_CONFIG = cli.define_config()
flags.adopt_module_key_flags(cli)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; created if needed, resumed if it holds this run."
)


def main() -> None:
    """Trains and prints the headline metrics."""
    from flowad_jax.training.loop import train
    from flowad_jax.training.summary import headline

    results = train(_CONFIG.value, str(_WORKDIR.value))
    print(headline(results))
    print(f"results and pictures: {_WORKDIR.value}/results.md, {_WORKDIR.value}/report.html")


if __name__ == "__main__":
    cli.run(main, required=("config", "workdir"))
