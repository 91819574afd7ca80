r"""From the camera to the alarm: one machine over ten days, as `flowad serve` sees it.

    python -m benchmarks.line --data=ball_screw/dataset.csv --folder=line --output=line.json

Trains on the good images of the first five days, exports the detector, serves it, and sends the
later images by HTTP in the order of time. Says when the drift alarm comes, how often good images
are called anomalous on every day, and what that becomes with thresholds from the good images of
--good_day. Plots go to --plots. The table needs a column ``time`` beside those of data.name=csv.
"""

from __future__ import annotations

import csv
import subprocess
import sys
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from benchmarks import _common, _service
from flowad_jax.arguments import Parser
from flowad_jax.evaluation import conformal

RECIPE = ("--config=msflow_csv", "--config.data.image_size=(128, 320)")


def flowad(*words: object) -> float:
    """Runs a command of ours; returns its seconds."""
    started = time.perf_counter()
    subprocess.run([sys.executable, "-m", "flowad_jax", *map(str, words)], check=True)
    return time.perf_counter() - started


def stream(bundle: Path, rows: list[dict[str, str]], root: Path) -> tuple[list[Any], Any, float]:
    """Sends images in the order of time; returns predictions, the drift record and the seconds."""
    name, found = bundle.stem, []
    with _service.serving(bundle) as service:
        started = time.perf_counter()
        for row in rows:
            path = root / row["image"]
            query = f"/v1/detectors/{name}/predict?file_name={path.name}"
            status, content = service.ask("POST", query, path.read_bytes())
            if status != 200:
                raise SystemExit(f"error: {content}")
            found += content["predictions"]
        seconds = time.perf_counter() - started
        return found, service.ask("GET", f"/v1/detectors/{name}/drift")[1], seconds


def by_day(rows: list[dict[str, str]], found: list[Any]) -> dict[str, dict[str, Any]]:
    """Alarms among good and damaged images of every day."""
    days: dict[str, dict[str, list[bool]]] = defaultdict(lambda: {"good": [], "damaged": []})
    for row, one in zip(rows, found, strict=True):
        kind = "good" if row["label"] == "good" else "damaged"
        days[row["time"][:10]][kind].append(bool(one["anomalous"]))
    table: dict[str, dict[str, Any]] = {}
    for day, kinds in sorted(days.items()):
        table[day] = {}
        for kind, alarms in kinds.items():
            interval = conformal.binomial_interval(sum(alarms), len(alarms)) if alarms else None
            table[day][kind] = {"alarms": sum(alarms), "images": len(alarms), "interval": interval}
    return table


def plot(found: dict[str, Any], folder: Path) -> None:
    """Draws the drift statistic, and false alarms per day before and after."""
    import matplotlib.pyplot as plt

    folder.mkdir(parents=True, exist_ok=True)
    points = found["drift"]["points"]
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    axes.plot([point["value"] for point in points])
    axes.axhline(found["drift"]["limit"], linestyle="--", color="#b3261e", label="alarm")
    axes.set(yscale="log", xlabel="image", ylabel="drift statistic")
    axes.legend()
    figure.savefig(folder / "line_drift.png", dpi=110)
    figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
    for offset, name in ((-0.2, "before"), (0.2, "after")):
        days = found[name]
        shares = [
            100 * x["good"]["alarms"] / x["good"]["images"] if x["good"]["images"] else 0
            for x in days.values()
        ]
        places = [number + offset for number in range(len(days))]
        axes.bar(places, shares, 0.38, label=f"{name} recalibration")
    axes.axhline(100 * found["rate"], linestyle="--", color="#b3261e", label="asked for")
    axes.set_xticks(range(len(found["before"])), [day[5:] for day in found["before"]])
    axes.set(ylabel="good images called\nanomalous, %")
    axes.legend()
    figure.savefig(folder / "line_days.png", dpi=110)


def main() -> None:
    """Runs all of it."""
    parser = Parser("python -m benchmarks.line", __doc__)
    parser.add_argument("--data", required=True, help="table of images with a column time")
    parser.add_argument("--folder", required=True, help="new folder for the run and the bundles")
    parser.add_argument("--epochs", type=_common.positive, default=12)
    parser.add_argument("--rate", type=float, default=0.025, help="false-alarm rate")
    parser.add_argument("--good_day", default="2020-09-02", help="whose good images recalibrate")
    parser.add_argument("--plots", default="plots", help="folder for plots")
    parser.add_argument("--output", help="JSON file")
    options = parser.parse_args()
    data, folder = Path(options.data), Path(options.folder)
    run, bundle = folder / "run", folder / "screws.flowad"
    with open(data, encoding="utf-8") as file:
        rows = sorted(
            (row for row in csv.DictReader(file) if row["split"] == "test"),
            key=lambda row: row["time"],
        )
    every = [f"--config.train.{key}={options.epochs}" for key in ("epochs", "eval_every")]
    every.append(f"--config.train.checkpoint_every={options.epochs}")
    rate = f"--config.eval.false_alarm_rate={options.rate}"
    split = (f"--config.data.root={data}", "--config.data.holdout=0.2", rate)
    found: dict[str, Any] = {"rate": options.rate}
    found["seconds_to_train"] = flowad("train", *RECIPE, *every, *split, f"--workdir={run}")
    found["seconds_to_export"] = flowad("export", f"--workdir={run}", f"--output={bundle}")
    judged, found["drift"], seconds = stream(bundle, rows, data.parent)
    found["images_per_second"] = len(rows) / seconds
    found["before"] = by_day(rows, judged)
    if alarm := found["drift"]["alarm"]:
        found["alarm_at"] = rows[alarm["number"] - 1]["time"]
    first = min(row["time"] for row in rows if row["label"] != "good")
    found["first_damage"] = first
    chosen = [
        str(data.parent / row["image"])
        for row in rows
        if row["label"] == "good" and row["time"].startswith(options.good_day)
    ]
    found["seconds_to_recalibrate"] = flowad(
        "recalibrate", f"--bundle={bundle}", *(f"--good={path}" for path in chosen)
    )
    later = [row for row in rows if not row["time"].startswith(options.good_day)]
    judged, found["drift_after"], _ = stream(folder / "screws-2.flowad", later, data.parent)
    found["after"] = {options.good_day: dict(found["before"][options.good_day])}
    found["after"][options.good_day]["good"] = {"alarms": 0, "images": 0, "interval": None}
    found["after"] |= by_day(later, judged)
    plot(found, Path(options.plots))
    if options.output:
        _common.write(options.output, **found)
    for name in ("before", "after"):
        for day, kinds in found[name].items():
            said = ", ".join(f"{k} {x['alarms']} of {x['images']}" for k, x in kinds.items())
            print(f"{name} {day}: {said}")
    print(f"drift alarm: {found.get('alarm_at', 'none')}; first damage: {first}")


if __name__ == "__main__":
    main()
