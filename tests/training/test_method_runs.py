"""Whole runs of every method on a tiny data set; the loop itself is tested with CFLOW-AD."""

import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.interrupt import Interrupted
from flowad_jax.training import metrics_log, rescore
from flowad_jax.training.experiment import build
from flowad_jax.training.loop import train
from tests.conftest import tiny_recipe
from tests.training.test_loop import assert_same_end, final_state, stop_after_steps, without_times


@pytest.fixture(name="recipe")
def _recipe(image_root):
    """Of a method, with six training images in batches of four: the last batch is padded."""

    def recipe(method):
        config = tiny_recipe(image_root, method)
        config.train.learning_rate = 1e-3
        config.eval.pictures_per_kind = 0
        return config

    return recipe


def losses(path):
    return [row["loss"] for row in metrics_log.read(path) if row["kind"] == "train"]


@pytest.mark.whole
@pytest.mark.parametrize("method", ["msflow", "sanflow", "ssnf"])
def test_an_interrupted_run_resumes_to_the_same_end(method, recipe, tmp_path, monkeypatch):
    config = recipe(method)
    config.data.workers = 2  # what is drawn for an image does not depend on who asks for it
    results = train(config, tmp_path / "whole")
    config.data.workers = 0
    stop_after_steps(monkeypatch)
    with pytest.raises(Interrupted, match="SIGTERM: saved at epoch 1, batch"):
        train(config, tmp_path / "stopped")
    monkeypatch.undo()
    train(config, tmp_path / "stopped")
    assert_same_end(config, tmp_path / "whole", tmp_path / "stopped")
    assert 0 <= results["columns"]["last"]["image_auroc"] <= 1
    first, *_, last = losses(tmp_path / "whole")
    assert last < first
    rows = without_times(tmp_path / "whole")
    if method == "ssnf":  # it trains on synthetic images and says so
        assert 0 < rows[0]["kept/scale0"] <= 1
        assert rows[0]["nll_synthetic/scale0"] != rows[0]["nll/scale0"]
    elif method == "sanflow":  # it keeps running statistics
        statistics = final_state(config, tmp_path / "whole")[0].buffers["snet"]["norm0"]
        assert np.any(np.asarray(statistics["mean"]) != 0)
        assert 0 < rows[0]["variance/snet+scale0"] <= 5


@pytest.mark.whole
@pytest.mark.parametrize("method", ["msflow", "ssnf"])
def test_both_forms_of_scoring(method, recipe, tmp_path):
    config = recipe(method)
    config.train.epochs, config.data.category_sizes = 1, {"part": 64}
    calibrated = train(config, tmp_path / "run")
    assert calibrated["data"]["image_size"] == 64
    published = rescore.evaluate_workdir(tmp_path / "run", scoring="per_image")
    assert published["scoring"] == "per_image"
    one, other = (found["columns"]["last"] for found in (calibrated, published))
    assert 0 <= one["image_auroc"] <= 1
    if method == "msflow":
        assert one != other
    else:
        assert one["image_auroc"] == pytest.approx(other["image_auroc"])


@pytest.mark.whole
def test_ssnf_without_synthesis_is_plain_maximum_likelihood(recipe, tmp_path):
    config = recipe("ssnf")
    config.synthesis.name = None
    config.data.sharpen = 0.0
    config.train.epochs = 1
    train(config, tmp_path / "run")
    first = metrics_log.read(tmp_path / "run")[0]
    assert first["kept/scale0"] == 0
    assert first["loss"] == pytest.approx(first["nll/scale0"])


def test_blocks_that_do_not_fit_are_refused_before_anything_is_written(recipe, tmp_path):
    config = recipe("msflow")
    config.method.blocks = (1, 1, 1)
    with pytest.raises(UserError, match=r"method\.blocks=\(1, 1, 1\) is for 3 scales"):
        train(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["resnet.resnet_tiny", "efficientnet_lite.efficientnet_lite_tiny"])
def test_maps_are_pooled_to_half_the_size(recipe, name):
    config = recipe("msflow")
    config.encoder.name = name
    config.data.image_size = 64
    shapes = [tuple(shape.shape[1:3]) for shape in build(config).batch_shapes.maps]
    assert shapes == [(8, 8), (4, 4)]


def test_few_images_are_drawn_and_visited_again(recipe):
    config = recipe("ssnf")
    config.data.few_shot, config.data.repeat = 2, 3
    experiment = build(config)
    assert len(experiment.train) == 2
    assert experiment.images_per_epoch == 6
    assert len(experiment.train_loader) == 2
    config.data.few_shot = 7
    with pytest.raises(UserError, match=r"data\.few_shot=7: the set has 6 training images"):
        build(config)


def test_the_released_mixture_resizes_training_images_by_a_filter_of_their_own(recipe):
    config = recipe("sanflow")
    config.synthesis.kinds = ("normal",)
    for legacy in (False, True):
        config.synthesis.legacy = legacy
        experiment = build(config)
        trained = next(experiment.train_loader.in_order().epoch(0)).image
        scored = next(experiment.calibration_loader.epoch(0)).image
        assert (np.abs(trained[:4] - scored[:4]).max() > 0.01) == legacy


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("synthesis.name", "nsaa", "synthesis.name='nsaa': did you mean 'nsa'"),
        ("synthesis.blend", "hard", "synthesis.blend='hard': choices are"),
        ("synthesis.lenders", "nowhere", "synthesis.lenders='nowhere' is no folder"),
        ("synthesis.mask_threshold", 2.0, r"synthesis\.mask_threshold=2\.0"),
        ("data.sharpen", 2.0, r"data\.sharpen=2\.0 is no probability"),
        ("data.repeat", 0, r"data\.repeat=0 is too small"),
        ("train.decay", "l3", r"train\.decay='l3'"),
        ("cache.place", "host", r"in every epoch \(data.sharpen=0.5, synthesis.name=nsa\)"),
    ],
)
def test_bad_values_are_named(recipe, key, value, message):
    config = recipe("ssnf")
    section, name = key.split(".")
    config[section][name] = value
    with pytest.raises(UserError, match=message):
        _ = build(config).optimizer


def test_synthesis_knows_its_category_and_its_method(recipe):
    config = recipe("ssnf")
    config.synthesis.dataset, config.synthesis.category = "mvtec", "skrew"
    with pytest.raises(UserError, match=r"synthesis.category='skrew'.*did you mean 'screw'"):
        build(config)
    config.synthesis.category = "screw"
    assert build(config).train_loader.deterministic is False
    config = recipe("cflow")
    with config.unlocked():
        config.synthesis.name = "nsa"
    with pytest.raises(UserError, match="method cflow learns from normal images alone"):
        build(config)
