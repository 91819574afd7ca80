"""A detector that calls bright pixels anomalous, and helpers to judge files with it."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from flowad_jax.canvas import Canvas
from flowad_jax.inference import job, regions
from flowad_jax.inference.prediction import Prediction
from flowad_jax.inference.predictor import Predictor

CARD = {"false_alarm_rate": 0.1, "level": 0.1, "images": 9, "image": 0.5, "pixel": 0.5}


class Bright(Predictor):
    """Maps are brightness from 0 to 1; keeps the sizes of the batches that it was given."""

    name, canvas, batch_size, filter = "bright", Canvas.of(32), 2, "lanczos"

    def __init__(self, thresholds=CARD, white=65535):
        self.thresholds, self.white, self.batches, self.tiled = thresholds, white, [], []
        self.normal = [np.linspace(0.1, 0.5, 9)]

    def judge(self, images):
        self.batches.append(len(images))
        for image in images:
            yield self.decide(image.pixels)

    def judge_tiled(self, windows):
        self.tiled.append(windows.size)
        return self.decide(windows.read())

    def decide(self, image):
        values = (image.mean(-1) / 255).astype(np.float32)
        score = float(values.max())
        if not self.thresholds:
            return Prediction(score, None, None, values, (), scores=(score,))
        found = regions.find(values, 0.5)
        p_value = 0.1 if score > 0.5 else 1.0
        return Prediction(score, p_value, score > 0.5, values, found, scores=(score,))


def use(monkeypatch, detector):
    """Has a detector loaded, whatever the workdir."""
    monkeypatch.setattr(job.loading, "load", lambda *_: detector)
    return detector


def picture(path, spot=False, size=(20, 30)):
    """A dark image (H, W), with a bright spot of 4 x 3 pixels at column 5, row 2."""
    pixels = np.full(size, 40, np.uint8)
    if spot:
        pixels[2:5, 5:9] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)
    return path


def predict(folder, *inputs, **settings):
    """Judges inputs, or the folder ``in``, into ``out``."""
    named = [str(item) for item in inputs or (folder / "in",)]
    return job.run(job.PredictArgs("run", named, str(folder / "out"), **settings))


def lines(folder):
    text = (Path(folder) / "out" / "predictions.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def summary(folder):
    return json.loads((Path(folder) / "out" / "summary.json").read_text())


def snapshot(folder):
    """All files but the lock, which says when it was taken."""
    files = (path for path in sorted(folder.rglob("*")) if path.is_file())
    return {path: path.read_bytes() for path in files if path.name != ".lock"}
