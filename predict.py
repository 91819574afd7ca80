r"""Judges images with a detector that train.py made: is it anomalous, where, and how sure.

  python predict.py --workdir=runs/screws --input=new/ --output=found
  python predict.py --workdir=runs/screws --input='line1/*.png,line2/*.png' --output=found \
      --false_alarm_rate=0.05 --fail_on_anomaly
  python predict.py --workdir=runs/screws --input=camera/ --output=found --watch

The output folder receives predictions.jsonl (a line per image), predictions.csv, summary.json,
heatmaps/, overlays/ and maps/. An output of an earlier call is replaced when all images are judged,
and stays if that does not come about; with --watch it is continued. Other folders must be empty.
Files that predict.py did not write are never touched. What lies in the folders and is no image is
counted and named in the summary.

Exit codes: 0 all images judged; 1 an image could not be read (the others are judged), or nothing
could be done, which one line explains; 2 wrong usage; 128 + n stopped by signal n. Only with
--fail_on_anomaly: 3 all judged and at least one is anomalous; 4 none is anomalous, but for at least
one no decision is possible (training held no or too few images out). Ctrl-C and SIGTERM are the
normal end of --watch: its exit code is that of the images so far.
"""

from absl import flags

from flowad_jax import cli

cli.define_allow_import()
flags.adopt_module_key_flags(cli)

KINDS = ("heatmap", "overlay", "map")

_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of a finished run of train.py.")
_INPUT = flags.DEFINE_multi_string(
    "input",
    None,
    "File, folder (with all folders in it) or pattern such as 'images/*.png'. Several are joined "
    "by commas, or the flag is repeated.",
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for what is found; created if needed.")
_RATE = flags.DEFINE_float(
    "false_alarm_rate",
    None,
    "How often a good image may be called anomalous, such as 0.01. The images that training held "
    "out set the threshold. Default: what the run's config says.",
)
_TILE = flags.DEFINE_bool(
    "tile", False, "Judge images larger than those of training in overlapping tiles."
)
_SAVE = flags.DEFINE_list(
    "save",
    ",".join(KINDS),
    f"Which pictures to write: any of {', '.join(KINDS)}, joined by commas; empty for none.",
)
_MAP_FORMAT = flags.DEFINE_enum(
    "map_format", "tiff", ("tiff", "npy"), "Files of the anomaly maps, float32 at image size."
)
_WATCH = flags.DEFINE_bool(
    "watch", False, "Go on with images that arrive in the folders of --input, until stopped."
)
_INTERVAL = flags.DEFINE_float(
    "interval",
    1.0,
    "Seconds between two looks with --watch; an image is judged when it did not change in between.",
    lower_bound=0.01,
)
_PATIENCE = flags.DEFINE_float(
    "patience",
    60.0,
    "Seconds for which --watch tries a file again that cannot be read, because it may still be on "
    "its way, before it is reported.",
    lower_bound=0.0,
)
_FAIL = flags.DEFINE_bool(
    "fail_on_anomaly",
    False,
    "If all images were judged, exit with 3 if one is anomalous, else with 4 if one is undecided.",
)
flags.register_validator(
    "save", lambda names: set(names) <= set(KINDS), f"it takes {', '.join(KINDS)}"
)


def main() -> None:
    """Judges and prints how many images are what."""
    from flowad_jax.serving import command

    job = command.Job(
        workdir=str(_WORKDIR.value),
        inputs=_INPUT.value or (),
        output=str(_OUTPUT.value),
        false_alarm_rate=_RATE.value,
        tile=_TILE.value,
        save=_SAVE.value,
        map_format=_MAP_FORMAT.value,
        watch=_WATCH.value,
        interval=_INTERVAL.value,
        patience=_PATIENCE.value,
        fail_on_anomaly=_FAIL.value,
        allow_import=flags.FLAGS.allow_import,
    )
    if code := command.run(job):
        raise SystemExit(code)


if __name__ == "__main__":
    cli.run(main, required=("workdir", "input", "output"))
