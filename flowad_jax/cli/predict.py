r"""Judges images with a detector that `flowad train` made: is it anomalous, where, and how sure.

  flowad predict --workdir=runs/screws --input=new/ --output=found
  flowad predict --workdir=runs/screws --input='line1/*.png,line2/*.png' --output=found \
      --false_alarm_rate=0.05 --fail_on_anomaly
  flowad predict --workdir=runs/screws --input=camera/ --output=found --watch

The output folder receives predictions.jsonl (a line per image), predictions.csv, summary.json,
heatmaps/, overlays/ and maps/. An output of an earlier call is replaced when all images are judged,
and stays if that does not come about; with --watch it is continued. Other folders must be empty.
Files that `flowad predict` did not write are never touched. What lies in the folders and is no
image is counted and named in the summary.

Exit codes: 0 all images judged; 1 an image could not be read (the others are judged), or nothing
could be done, which one line explains; 2 wrong usage; 128 + n stopped by signal n. Only with
--fail_on_anomaly: 3 all judged and at least one is anomalous; 4 none is anomalous, but for at least
one no decision is possible (training held no or too few images out). Ctrl-C and SIGTERM are the
normal end of --watch: its exit code is that of the images so far.
"""

from absl import flags

from flowad_jax.cli import scripts

KINDS = ("heatmap", "overlay", "map")


def define_flags() -> None:
    """Defines the flags of the command."""
    scripts.define_allow_import()
    scripts.define_false_alarm_rate()
    flags.adopt_module_key_flags(scripts)

    flags.DEFINE_string("workdir", None, "Folder of a finished run of `flowad train`.")
    flags.DEFINE_multi_string(
        "input",
        None,
        "File, folder (with all folders in it) or pattern such as 'images/*.png'. Several are "
        "joined by commas, or the flag is repeated.",
    )
    flags.DEFINE_string("output", None, "Folder for what is found; created if needed.")
    flags.DEFINE_float(
        "threshold",
        None,
        "Image score above which an image is anomalous, whatever the false-alarm rate. Default: "
        "what --false_alarm_rate comes to.",
    )
    flags.DEFINE_bool(
        "tile", False, "Judge images larger than those of training in overlapping tiles."
    )
    flags.DEFINE_integer(
        "batch_size",
        None,
        "Most images, or tiles of one, that are computed at once; fewer take less time and memory. "
        "Default: eval.batch_size of the run's config.",
        lower_bound=1,
        upper_bound=2**16,
    )
    flags.DEFINE_list(
        "save",
        ",".join(KINDS),
        f"Which pictures to write: any of {', '.join(KINDS)}, joined by commas; empty for none.",
    )
    flags.DEFINE_enum(
        "map_format", "tiff", ("tiff", "npy"), "Files of the anomaly maps, float32 at image size."
    )
    flags.DEFINE_bool(
        "watch", False, "Go on with images that arrive in the folders of --input, until stopped."
    )
    flags.DEFINE_float(
        "interval",
        1.0,
        "Seconds between two looks with --watch; an image is judged when it did not change in "
        "between.",
        lower_bound=0.01,
    )
    flags.DEFINE_float(
        "patience",
        60.0,
        "Seconds for which --watch tries a file again that cannot be read, because it may still be "
        "on its way, before it is reported.",
        lower_bound=0.0,
    )
    flags.DEFINE_bool(
        "fail_on_anomaly",
        False,
        "If all images were judged, exit with 3 if one is anomalous, else with 4 if one is "
        "undecided.",
    )
    flags.DEFINE_float(
        "drift_alpha",
        0.01,
        "Largest probability of ever raising a false alarm about drift: about images being "
        "no longer like the held-out normal ones; 0 to leave it out. Images count in the order in "
        "which they are judged.",
        lower_bound=0.0,
    )
    flags.register_validator(
        "save", lambda names: set(names) <= set(KINDS), f"it takes {', '.join(KINDS)}"
    )


def job() -> None:
    """Judges and prints how many images are what."""
    from flowad_jax.inference import job as inference_job

    given = flags.FLAGS
    args = inference_job.PredictArgs(
        workdir=given.workdir,
        inputs=given.input or (),
        output=given.output,
        false_alarm_rate=given.false_alarm_rate,
        threshold=given.threshold,
        tile=given.tile,
        save=given.save,
        map_format=given.map_format,
        watch=given.watch,
        interval=given.interval,
        patience=given.patience,
        fail_on_anomaly=given.fail_on_anomaly,
        allow_import=given.allow_import,
        batch_size=given.batch_size,
        drift_alpha=given.drift_alpha,
    )
    if code := inference_job.run(args):
        raise SystemExit(code)


def main() -> None:
    """Runs the command with the words of ``sys.argv``."""
    scripts.run(__doc__, define_flags, job, required=("workdir", "input", "output"))
