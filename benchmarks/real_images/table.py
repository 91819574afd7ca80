"""Renders what `benchmarks.real_images` kept into its page.

    python -m benchmarks.real_images.table --write

Without --write the tables are printed.
"""

from __future__ import annotations

import json
import statistics
from collections import defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import _common
from flowad_jax.arguments import Parser
from flowad_jax.evaluation.conformal import binomial_interval

ROOT = Path(__file__).parents[2] / "docs" / "measured"
PAGE, DATA = ROOT / "real_images.md", ROOT / "real_images.json"
BEGIN, END = "<!-- tables begin -->", "<!-- tables end -->"
METRICS = {
    "image_auroc": "image AUROC",
    "image_ap": "image AP",
    "pixel_auroc": "pixel AUROC",
    "aupro_0.30": "AUPRO.30",
    "aupro_0.05": "AUPRO.05",
}
Runs = Mapping[str, Sequence[Mapping[str, Any]]]  # of every method


def by_set(found: Mapping[str, Any]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """The runs of every set and method, in the order of seeds."""
    sets: dict[str, dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for key in sorted(found["runs"]):
        name, method, _ = key.split("/")
        sets[name][method].append(found["runs"][key])
    return {name: sets[name] for name in found["titles"]}


def best(runs: Runs, metric: str) -> str | None:
    """The method whose mean is highest by more than the noise of both; None if there is none.

    The noise is the root of the summed variances between seeds; with single seeds nobody knows it.
    """
    values = {method: _values(own, metric) for method, own in runs.items()}
    if any(len(own) < 2 for own in values.values()) or len(values) < 2:
        return None
    first, second = sorted(values, key=lambda method: -statistics.mean(values[method]))[:2]
    gap = statistics.mean(values[first]) - statistics.mean(values[second])
    noise = (statistics.variance(values[first]) + statistics.variance(values[second])) ** 0.5
    return first if gap > noise else None


def table(runs: Runs) -> str:
    """The table of one set: methods below each other."""
    metrics = {
        key: title for key, title in METRICS.items() if _values(next(iter(runs.values())), key)
    }
    head = ["", *metrics.values(), "false alarms at 5 %", "epochs", "s to train", "MB"]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    winners = {metric: best(runs, metric) for metric in metrics}
    for method, own in runs.items():
        cells = [_cell(_values(own, metric), winners[metric] == method) for metric in metrics]
        seconds = f"{statistics.mean(run['train_seconds'] for run in own):.1f}"
        size = f"{own[0]['megabytes']:.1f}"
        lines.append([method, *cells, _alarms(own), str(own[0]["epochs"]), seconds, size])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def text(found: Mapping[str, Any]) -> str:
    """All tables with their headings."""
    parts = []
    for name, runs in by_set(found).items():
        one = next(iter(runs.values()))[0]
        counts, seeds = one["images"], {len(own) for own in runs.values()}
        size = one["image_size"]
        pixels = f"{size} px" if isinstance(size, int) else f"{size[0]} x {size[1]} px"
        parts.append(
            f"### {found['titles'][name]}\n\n{counts['train']} good images to train, "
            f"{counts['holdout']} held out, {counts['test']} to test; {pixels}; "
            f"{' or '.join(map(str, sorted(seeds)))} seeds.\n\n{table(runs)}"
        )
    return "\n\n".join(parts)


def filled(page: str, tables: str) -> str:
    """The page with other tables."""
    return _common.between(page, BEGIN, END, f"\n{tables}\n")


def read() -> dict[str, Any]:
    """What was kept."""
    found: dict[str, Any] = json.loads(DATA.read_text(encoding="utf-8"))
    return found


def _values(runs: Sequence[Mapping[str, Any]], metric: str) -> list[float]:
    return [100 * run["metrics"][metric] for run in runs if run["metrics"].get(metric) is not None]


def _cell(values: Sequence[float], wins: bool) -> str:
    spread = f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else ""
    shown = f"{statistics.mean(values):.1f}{spread}"
    return f"**{shown}**" if wins else shown


def _alarms(runs: Sequence[Mapping[str, Any]]) -> str:
    """The mean rate among good test images, with the interval that so many images allow.

    Seeds share the test images, so they do not make it narrower.
    """
    counts = [run["false_alarms"] for run in runs if run["false_alarms"]]
    if not counts:
        return "-"
    good, alarms = counts[0]["good"], statistics.mean(one["false_alarms"] for one in counts)
    low, high = binomial_interval(round(alarms), good)
    return f"{100 * alarms / good:.1f} % ({100 * low:.0f} to {100 * high:.0f})"


def main() -> None:
    """Prints the tables or writes them into the page."""
    parser = Parser("benchmarks.real_images", __doc__ or "")
    parser.add_argument("--write", action="store_true")
    tables = text(read())
    if parser.parse_args().write:
        page = PAGE.read_text(encoding="utf-8")
        PAGE.write_text(filled(page, tables), encoding="utf-8")
    else:
        print(tables)


if __name__ == "__main__":
    main()
