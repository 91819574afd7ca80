r"""Gives a trained detector new thresholds, from images that people confirmed as good.

  flowad recalibrate --bundle=screws.flowad --good=confirmed/
  flowad recalibrate --bundle=screws.flowad --from_feedback
  flowad recalibrate --workdir=runs/screws --good='monday/*.png,tuesday/' --add

The detector stays as it is; the promise about false alarms is renewed for images like these. It
takes seconds and writes a new version beside the old one (screws-2.flowad), which a link can lead
`flowad serve` to. Images that were trained on are refused.

--from_feedback takes the images that operators confirmed on the live page of `flowad serve` since
the drift statistic was started. Unless all judged images have a verdict, people chose them, and
the new threshold is an estimate and no promise.

Exit codes: 0 done; 1 one line says what is wrong; 2 wrong usage.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from absl import flags

from flowad_jax.arguments import fail
from flowad_jax.cli import scripts
from flowad_jax.errors import printable

if TYPE_CHECKING:
    from flowad_jax.recalibration.sample import Change

_VERSION = re.compile(r"^(.*?)(?:-(\d+))?(\.flowad)?$")


def define_flags() -> None:
    """Defines the flags of the command."""
    scripts.define_false_alarm_rate()
    flags.adopt_module_key_flags(scripts)
    flags.DEFINE_string("bundle", None, "Folder that `flowad export` wrote.")
    flags.DEFINE_string("workdir", None, "Or the folder of a finished run of `flowad train`.")
    flags.DEFINE_multi_string("good", [], "Good images: files, folders, patterns, with commas.")
    flags.DEFINE_boolean("from_feedback", False, "Take the images that operators confirmed.")
    flags.DEFINE_boolean(
        "add", False, "Join them to the held-out images of before, instead of replacing these."
    )
    flags.DEFINE_string("output", None, "Folder to write. Default: the next version beside it.")
    flags.DEFINE_enum(
        "backend", "onnxruntime", ("onnxruntime", "openvino"), "What computes a bundle."
    )


def check_flags() -> None:
    """Ends the process where flags are missing or do not go together."""
    chosen = flags.FLAGS
    if (chosen.bundle is None) == (chosen.workdir is None):
        fail(2, "give --bundle or --workdir; see --help")
    if bool(chosen.good) == chosen.from_feedback:
        fail(2, "give --good or --from_feedback; see --help")


def next_version(path: Path) -> Path:
    """The first name behind those that are taken: screws.flowad, screws-2.flowad, ..."""
    place = Path(path.resolve())
    match = _VERSION.match(place.name)
    assert match is not None
    stem, number, end = match[1], int(match[2] or 1), match[3] or ""
    while (found := place.with_name(f"{stem}-{number + 1}{end}")).exists():
        number += 1
    return found


def job() -> None:
    """Writes the new version and prints what changed."""
    from flowad_jax.bundle import card, place
    from flowad_jax.errors import UserError
    from flowad_jax.feedback.store import FeedbackStore, beside
    from flowad_jax.recalibration import bundle, run_folder, sample
    from flowad_jax.serve import judge

    chosen = flags.FLAGS
    folder = Path(chosen.bundle or chosen.workdir)
    kind: Any = bundle if chosen.bundle else run_folder
    if chosen.bundle:
        card.read(folder)
    else:
        run_folder.check(folder)
    target = place.check(chosen.output) if chosen.output else next_version(folder)
    if target.exists():
        raise UserError(f"--output: {target} is there already: name a new folder")
    version = judge.open_judge(folder, judge.LoadOptions(chosen.backend)).version
    if chosen.from_feedback:
        store = FeedbackStore(beside(chosen.bundle or chosen.workdir), create=False)
        try:
            found = sample.from_feedback(store, version)
        finally:
            store.close()
    else:
        paths = sample.find(chosen.good, kind.trained_on(folder), not chosen.add)
        scorer = (paths, chosen.backend) if chosen.bundle else (paths,)
        found = kind.score(folder, *scorer)
    about = {
        "from": version,
        "when": datetime.now(UTC).isoformat(timespec="seconds"),
        "images": len(found.scores),
        "source": found.source,
        "replaced": not chosen.add,
    }
    rate = chosen.false_alarm_rate
    change = kind.recalibrate(folder, target, found, not chosen.add, rate, about)
    print(shown(change))


def shown(change: Change) -> str:
    """What a person reads of a calibration."""
    lines = [f"{printable(str(change.place))}: new thresholds from {change.images} good images"]
    if change.above is not None:
        share = f"{100 * change.above / change.images:.3g} %"
        lines.append(f"  the old thresholds call {change.above} of them anomalous ({share})")
    for name, card in (("before", change.before), ("now", change.after)):
        lines.append(f"  {name}: {card.get('meaning', 'nothing decides')}")
    return "\n".join(lines)


def main() -> None:
    """Runs the command with the words of ``sys.argv``."""
    scripts.run(__doc__, define_flags, job, check=check_flags)
