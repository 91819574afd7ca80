r"""False alarms of every kind of calibration on few images, over seeds.

    python -m benchmarks.calibrations --data=magnetic_tile --root=/path/to/magnetic_tile
    python -m benchmarks.calibrations --data=csv --root=/path/to/ball_screw/dataset.csv

For every seed, some normal training images are drawn and the short recipe of CFLOW-AD trains one
detector on all of them and one for each fold. Then all good test images, which nothing was trained
on, are judged: by the first fold's detector with what it holds out (``split``), by those of all
folds (``cross``), and by the one of all images with the folds' scores (``cross_fast``). Rates below
what the images can promise are those of the estimated tail. Intervals are those of Clopper and
Pearson over all seeds, as if their alarms were independent.
"""

from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np

from benchmarks import _common
from flowad_jax.arguments import Parser
from flowad_jax.data.images import read_image
from flowad_jax.detector import folds, splits, state, workdir
from flowad_jax.detector.calibration import Part
from flowad_jax.detector.model import build_model
from flowad_jax.evaluation import conformal
from flowad_jax.evaluation.decisions import CALIBRATIONS, Decisions
from flowad_jax.inference.predictor import Predictor
from flowad_jax.recipes import cflow_folder
from flowad_jax.settings import sections
from flowad_jax.sweep import cross


def measure(paths: list[str], new: list[str], seed: int, path: Path, args) -> list[dict]:
    """Trains with some of the images and counts alarms among the new ones."""
    drawn = np.random.default_rng(seed).choice(len(paths), args.images, replace=False)
    (path / "images").mkdir()
    for index in drawn:
        name = Path(paths[index])
        (path / "images" / f"{index}{name.suffix}").symlink_to(name.absolute())
    config = cflow_folder.get_config()
    config.data.root, config.data.image_size = str(path / "images"), args.size
    config.seed, config.train.epochs, config.train.eval_every = seed, args.epochs, args.epochs
    config.train.checkpoint_every = args.epochs
    config.eval.report_images = config.eval.pictures_per_kind = 0
    config.eval.calibration, config.eval.folds = "cross_fast", args.folds
    cross.train(config, path / "run")
    config = workdir.load_config(path / "run")
    model = build_model(config)
    whole, _, meta = state.of_workdir(model, path / "run")
    found = [(fold.state, fold.fitted) for fold in folds.read(model, path / "run", config)]
    found.append((whole, state.fitted_of(meta, config)))
    predictor = Predictor(
        model, [Part({"params": x.params, "buffers": x.buffers}, fitted) for x, fitted in found]
    )
    scores = []
    for first in range(0, len(new), predictor.batch_size):
        batch = [predictor.load_image(read_image(x)) for x in new[first:][: predictor.batch_size]]
        judged = predictor._scores(predictor.log_probs([x.resized for x in batch]))
        scores.append(np.stack([part.image for part in judged]))
    by_part, fitted = np.concatenate(scores, axis=1), [one for _, one in found]
    parts = {"split": slice(0, 1), "cross": slice(0, args.folds), "cross_fast": slice(-1, None)}
    return [
        alarms(kind, rate, fitted[parts[kind]], by_part[parts[kind]])
        for kind in CALIBRATIONS
        for rate in map(float, args.rates.split(","))
    ]


def alarms(kind: str, rate: float, fitted: list, scores: np.ndarray) -> dict:
    """Counts what one kind of calibration calls anomalous."""
    decisions = Decisions([x.image for x in fitted], [x.peak for x in fitted], rate, kind)
    flagged = decisions.anomalous(scores.mean(axis=0), decisions.p_values(scores))
    card = {key: decisions.card[key] for key in ("images", "decided_by", "promised")}
    return {"kind": kind, "rate": rate, **card, "alarms": int(flagged.sum()), "of": len(flagged)}


def main() -> None:
    """Measures and prints a table in Markdown."""
    parser = Parser("python -m benchmarks.calibrations", __doc__)
    parser.add_argument("--data", required=True, help="name of a data set")
    parser.add_argument("--root", required=True, help="where it lies")
    parser.add_argument("--images", type=int, default=45, help="normal images to train on")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--rates", default="0.01,0.05,0.1,0.2")
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--size", type=int, default=128, help="side of the images in pixels")
    parser.add_argument("--output", help="JSON file")
    args = parser.parse_args()
    config = cflow_folder.get_config()
    sections.choose(config, "data.options", args.data)
    config.data.root = args.root
    train, test = (good_files(config, split) for split in ("train", "test"))
    rows: dict[tuple[str, float], dict] = {}
    for seed in map(int, args.seeds.split(",")):
        with tempfile.TemporaryDirectory() as folder:
            for row in measure(train, test, seed, Path(folder), args):
                total = rows.setdefault((row["kind"], row["rate"]), {**row, "alarms": 0, "of": 0})
                total["alarms"] += row["alarms"]
                total["of"] += row["of"]
    print("| calibration | asked for | decided by | guaranteed | measured | 95 % interval |")
    print("|---|---:|---|---:|---:|---:|")
    for row in rows.values():
        row["interval"] = conformal.binomial_interval(row["alarms"], row["of"])
        low, high = (f"{100 * x:.1f}" for x in row["interval"])
        promised = "–" if row["promised"] is None else f"{100 * row['promised']:.1f} %"
        print(
            f"| {row['kind']}, {row['images']} images | {100 * row['rate']:g} % | "
            f"{row['decided_by']} | {promised} | {100 * row['alarms'] / row['of']:.1f} % of "
            f"{row['of']} | {low} to {high} % |"
        )
    if args.output:
        _common.write(args.output, rows=list(rows.values()), images=args.images, seeds=args.seeds)


def good_files(config, split: str) -> list[str]:
    """The files of the good images of a split."""
    source = splits.source(config, split)
    return [path for path, label in zip(source.paths, source.labels, strict=True) if label == 0]


if __name__ == "__main__":
    main()
