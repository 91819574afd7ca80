r"""Trains a defect detector, or resumes one that was stopped.

  flowad train --config=quickstart --workdir=runs/quickstart
  flowad train --config=msflow_textures --workdir=runs/flow --config.train.epochs=24
  flowad train --config=msflow_folder --workdir=runs/mine \
      --config.data.root=/path/to/images --config.data.category=screws
  flowad train --config=msflow_textures --workdir=runs/all --config.data.category=all \
      --config.sweep.seeds="(0, 1, 2)"

The workdir receives checkpoints, metrics.jsonl, TensorBoard events, results.json, results.md,
images/ and report.html. Ctrl-C saves; the same command resumes. With data.category=all or lists
in config.sweep every combination is a run in a folder of its own, and results.md is their table.
All devices of the machine share the work; docs/clusters.md tells about several machines.
"""

from absl import flags

from flowad_jax.cli import scripts


def define_flags() -> None:
    """Defines the flags of the command."""
    scripts.define_config()
    scripts.define_hosts()
    flags.adopt_module_key_flags(scripts)
    flags.DEFINE_string(
        "workdir", None, "Folder of the run; created if needed, resumed if it holds this run."
    )
    flags.DEFINE_bool(
        "allow_changed_data",
        False,
        "Resume although images were added, changed or removed since: those held out stay held "
        "out, new ones are trained on, and results.json says so.",
    )
    flags.DEFINE_string(
        "init_from",
        None,
        "Workdir of an earlier run of the same method, encoder and image size: training starts "
        "from what it has learned, on new normal images.",
    )


def job() -> None:
    """Trains and prints the headline metrics."""
    from flowad_jax.sweep import plan, runner
    from flowad_jax.sweep.cross import train
    from flowad_jax.training.summary import headline

    given = flags.FLAGS
    scripts.join_hosts()
    if given.init_from is not None:
        with given.config.unlocked():
            given.config.train.init_from = given.init_from
    if plan.is_sweep(given.config):
        several = runner.run(given.config, given.workdir, given.allow_changed_data)
        print(runner.headline(several))
        print(f"table: {given.workdir}/results.md; every run has a folder with its report")
        runner.require_all(several)
        return
    results = train(given.config, given.workdir, given.allow_changed_data)
    scripts.print_once(headline(results))
    scripts.print_once(
        f"results and pictures: {given.workdir}/results.md, {given.workdir}/report.html"
    )
    scripts.print_once(f"next: flowad predict --workdir={given.workdir} --input=NEW_IMAGES")


def main() -> None:
    """Runs the command with the words of ``sys.argv``."""
    scripts.run(__doc__, define_flags, job, required=("config", "workdir"))
