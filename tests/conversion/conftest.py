"""Detectors with weights drawn at random, large enough that every tensor shows in the scores."""

import functools
import json

import jax
import numpy as np
import pytest

from flowad_jax.conversion import export
from flowad_jax.conversion.settings import changed
from flowad_jax.detector import converted, workdir
from flowad_jax.detector.calibration import to_json
from flowad_jax.recipes.base import base
from flowad_jax.training import scoring
from flowad_jax.training.experiment import build
from flowad_jax.training.optimizer import fresh_state
from tests.conftest import write_category

SMALL = {
    "cflow": {"blocks": 2, "condition": 4},
    "sanflow": {"blocks": 2, "condition": 4, "legacy": True},
    "msflow": {"blocks": (1, 2), "condition": 4},
    "ssnf": {"blocks": 2, "hidden": 4, "heads": 2},
    "fastflow": {"blocks": 2, "ratio": 0.7},
    "uflow": {"steps": 2, "ratio": 0.7},
    "patchflow": {"channels": 6, "hidden": 4},
}
ANOMALIB = ("fastflow", "uflow", "patchflow")  # whose files anomalib writes


def recipe(method, image_root):
    """Maps of two scales, of one for SSNF, from images of 32 px."""
    config = base(method, "folder")
    config.data.root, config.data.category = str(image_root), "part"
    config.data.image_size, config.data.workers, config.data.holdout = 32, 0, 0.34
    config.encoder.name, config.encoder.weights = "resnet.resnet_tiny", "random"
    config.encoder.pool, config.encoder.layer_norm = "none", False
    config.encoder.strides = (16,) if method == "ssnf" else (8, 16)
    config.method.update(SMALL.get(method, {}))
    config.eval.pictures_per_kind, config.eval.report_images = 0, 0
    config.eval.batch_size, config.eval.false_alarm_rate = 4, 0.4
    return config.lock()


def shaken(tree):
    """Adds noise of the size of the weights; permutations and counts stay."""
    rng = np.random.default_rng(0)

    def shake(leaf):
        leaf = np.asarray(leaf)
        if leaf.dtype != np.float32:
            return leaf
        return leaf + 0.1 * np.abs(leaf).mean() * rng.standard_normal(leaf.shape, np.float32)

    return jax.tree.map(shake, tree)


def write_detector(path, config):
    """A workdir with a detector that nobody trained."""
    system = build(config)
    fresh = fresh_state(system)
    variables = {"params": shaken(fresh.params), "buffers": jax.device_get(fresh.buffers)}
    path.mkdir()
    (path / workdir.CONFIG).write_text(config.to_json())
    converted.save(path, variables, {"dialect": "none"})
    fitted = scoring.fit(system, converted.state(variables), system.features)
    sha256 = system.encoder.source["sha256"]
    meta = {"encoder_sha256": sha256, "fitted": to_json(fitted), "dialect": "-", "source": "-"}
    converted.save_meta(path, meta)
    return path


@pytest.fixture(scope="session", name="images")
def _images(tmp_path_factory):
    """A category `part` that nobody changes."""
    return write_category(tmp_path_factory.mktemp("images"))


@pytest.fixture(scope="session", name="make")
def _make(images, tmp_path_factory):
    """Makes (recipe, workdir, checkpoint of the authors' code) of a method, each once."""

    @functools.cache
    def make(method, padding=None, **options):
        methods = {f"method.{name}": value for name, value in options.items()}
        config = changed(recipe(method, images), **methods)
        stored = changed(config, **{"encoder.padding": padding, "data.filter": "bilinear"})
        folder = tmp_path_factory.mktemp(method)
        path = write_detector(folder / "original", stored if padding else config)
        if options.get("legacy", True):
            export.export(path, str(folder / "bottle.pt"), say=lambda line: None)
        return config, path, folder / "bottle.pt"

    return make


def card_of(path):
    """The card of a converted detector."""
    return json.loads((path / "detector.card.json").read_text())


def quiet(line):
    """Takes lines for a user who is not there."""
