r"""Judges images with the detector in this folder: is it anomalous, where, and how sure.

  python screws.flowad/run.py --input=new/ --output=found
  python screws.flowad/run.py --input='line1/*.png,line2/*.png' --output=found \
      --false_alarm_rate=0.05 --fail_on_anomaly
  python screws.flowad/run.py --input=camera/ --output=found --watch

It says what `flowad predict` says, and needs only numpy, pillow and onnxruntime or openvino. The
output folder, new or empty, receives predictions.jsonl (a line per image), predictions.csv,
summary.json, heatmaps/, overlays/ and maps/; with --watch an earlier output is continued. There is
no --tile: images are brought to the size of training. In Python:

  from run import Detector
  prediction = Detector("screws.flowad").predict("new/1.png")

Exit codes: 0 all images judged; 1 an image could not be read (the others are judged), or nothing
could be done, which one line explains; 2 wrong usage; 128 + n stopped by signal n. Only with
--fail_on_anomaly: 3 all judged and at least one is anomalous; 4 none is anomalous, but for at least
one no decision is possible. Ctrl-C and SIGTERM are the normal end of --watch.
"""

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __package__:  # in flowad_jax, where it is copied from
    from ..flowad_runtime import Detector, Prediction, Region, UserError, program
else:
    sys.path.append(str(HERE))  # python -I leaves it out
    from flowad_runtime import (  # type: ignore[no-redef]
        Detector,
        Prediction,
        Region,
        UserError,
        program,
    )

__all__ = ["Detector", "Prediction", "Region", "UserError"]

if __name__ == "__main__":
    raise SystemExit(program.main(HERE, __doc__))
