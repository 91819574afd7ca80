r"""Writes a trained detector as a folder that needs no JAX, and checks that it says the same.

  flowad export --workdir=runs/screws --output=screws.flowad
  flowad export --workdir=runs/screws --output=screws.flowad --false_alarm_rate=0.01
  flowad export --validate=screws.flowad

The folder holds the detector as ONNX and as StableHLO with all constants, and run.py, which judges
images with numpy, Pillow and onnxruntime (or openvino) alone:

  pip install onnxruntime pillow numpy
  python screws.flowad/run.py --input=new/ --output=found

Every test image of the run that is at hand is judged by JAX and by run.py with each backend that
is installed here. Scores, maps, p-values, decisions and regions have to agree, otherwise one line
names the backend, the image and the stage that differs, and nothing is written. An earlier bundle
of the same name is replaced when the new one is complete.

--validate checks a bundle again, on any machine: the checksums of its files, and its images through
every backend that is installed, with the time that one image takes.

Exit codes: 0 done; 1 one line says what is wrong; 2 wrong usage.
"""

from __future__ import annotations

import sys

from absl import flags

from flowad_jax.arguments import fail
from flowad_jax.cli import scripts

ONE, DYNAMIC = "1", "dynamic"


def define_flags() -> None:
    """Defines the flags of the command."""
    scripts.define_allow_import()
    scripts.define_false_alarm_rate()
    flags.adopt_module_key_flags(scripts)
    flags.DEFINE_string("workdir", None, "Folder of a finished run of `flowad train`.")
    flags.DEFINE_string("output", None, "Folder to write, such as screws.flowad, or a .zip of it.")
    flags.DEFINE_string("validate", None, "Bundle to check again, instead of writing one.")
    flags.DEFINE_float(
        "threshold",
        None,
        "Image score above which an image is anomalous, whatever the false-alarm rate. Default: "
        "what --false_alarm_rate comes to.",
    )
    flags.DEFINE_enum(
        "batch",
        DYNAMIC,
        (DYNAMIC, ONE),
        "Images that the graph takes at once: any number, or one, which some compilers need.",
    )
    flags.DEFINE_enum(
        "dtype",
        "float32",
        ("float32", "float16", "int8"),
        "Of the stored weights; float16 halves the files, computes in float32, and judges the "
        "held-out images again, because rounded weights move all scores a little. int8 lets ONNX "
        "compute in 8 bits and is only written if no decision on the run's images changes.",
    )
    flags.DEFINE_integer("opset", 18, "Version of ONNX's operators.", lower_bound=18)


def check_flags() -> None:
    """Ends the process where flags are missing or do not go together."""
    chosen = flags.FLAGS
    if chosen.validate is None:
        scripts.require(("workdir", "output"))
        return
    for name in ("workdir", "output", "threshold", "false_alarm_rate"):
        if chosen[name].value is not None:
            fail(2, f"--validate and --{name} do not go together: leave one out; see --help")


def job() -> None:
    """Exports, or checks an export again, and prints what came of it."""
    chosen = flags.FLAGS
    try:
        if chosen.validate is not None:
            from flowad_jax.bundle import validate

            print(validate.shown(validate.validate(chosen.validate)))
            return
        from flowad_jax.bundle import card, export

        options = card.GraphOptions(chosen.dtype, chosen.opset, chosen.batch == DYNAMIC)
        given = (chosen.false_alarm_rate, chosen.threshold, chosen.allow_import)
        print(export.shown(export.export(chosen.workdir, chosen.output, options, *given)))
    except KeyboardInterrupt:
        print("interrupted; nothing was written", file=sys.stderr)
        raise SystemExit(130) from None


def main() -> None:
    """Runs the command with the words of ``sys.argv``."""
    scripts.run(__doc__, define_flags, job, check=check_flags)
