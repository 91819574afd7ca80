r"""Trains a defect detector, or resumes one that was stopped.

  python train.py --config=configs/quickstart.py --workdir=runs/quickstart
  python train.py --config=configs/quickstart.py --workdir=runs/grass --config.data.category=grass
  python train.py --config=configs/cflow_folder.py --workdir=runs/mine \
      --config.data.root=/path/to/images --config.data.category=screws
  python train.py --config=configs/quickstart.py --workdir=runs/all --config.data.category=all \
      --config.sweep.seeds="(0, 1, 2)"

The workdir receives checkpoints, metrics.jsonl, TensorBoard events, results.json, results.md,
images/ and report.html. Ctrl-C saves; the same command resumes. With data.category=all or lists
in config.sweep every combination is a run in a folder of its own, and results.md is their table.
All devices of the machine share the work; docs/clusters.md tells about several machines.
"""

from absl import flags

from flowad_jax import cli

_CONFIG = cli.define_config()
cli.define_hosts()
flags.adopt_module_key_flags(cli)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "Folder of the run; created if needed, resumed if it holds this run."
)
_CHANGED = flags.DEFINE_bool(
    "allow_changed_data",
    False,
    "Resume although images were added, changed or removed since: those held out stay held out, "
    "new ones are trained on, and results.json says so.",
)


def main() -> None:
    """Trains and prints the headline metrics."""
    from flowad_jax.training import members, sweep
    from flowad_jax.training.loop import train
    from flowad_jax.training.summary import headline

    cli.join_hosts()
    if members.wanted(_CONFIG.value):
        several = sweep.run(_CONFIG.value, str(_WORKDIR.value), _CHANGED.value)
        print(sweep.headline(several))
        print(f"table: {_WORKDIR.value}/results.md; every run has a folder with its report")
        sweep.require_all(several)
        return
    results = train(_CONFIG.value, str(_WORKDIR.value), _CHANGED.value)
    cli.say(headline(results))
    cli.say(f"results and pictures: {_WORKDIR.value}/results.md, {_WORKDIR.value}/report.html")


if __name__ == "__main__":
    cli.run(main, required=("config", "workdir"))
