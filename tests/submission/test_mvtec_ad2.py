"""A submission to the server of MVTec AD 2: judged, complete, checked, packed."""

import sys
import tarfile

import numpy as np
import pytest
import tifffile
from PIL import Image

from flowad_jax.cli import submit
from flowad_jax.errors import UserError
from flowad_jax.inference import loading
from flowad_jax.submission import mvtec_ad2
from flowad_jax.training.loop import train
from tests.conftest import tiny_recipe
from tests.data import layouts


@pytest.fixture(name="root", scope="module")
def _root(tmp_path_factory):
    """The data set, and a run on the category that there is."""
    root = tmp_path_factory.mktemp("submission")
    layouts.write_mvtec_ad2(root / "data")
    config = tiny_recipe(root / "data", "gaussian", "can")
    config.data.name, config.data.options = "mvtec_ad2", {"masks": "require", "mask_threshold": 0}
    config.data.holdout, config.eval.false_alarm_rate = 0.0, 0.4
    train(config, root / "run")
    return root


@pytest.fixture(name="one_category", autouse=True)
def _one_category(monkeypatch):
    """As if the data set had a single category."""
    card = mvtec_ad2.CARD._replace(categories=("can",))
    monkeypatch.setattr(mvtec_ad2, "CARD", card)


def run(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["flowad submit", *map(str, words)])
    submit.main()


def test_maps_and_decisions_are_those_of_predict(root, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    run(monkeypatch, root / "run", f"--output={output}")
    assert "5 images of 1 categories judged" in capsys.readouterr().out
    predictor = loading.load(root / "run")
    image = root / "data" / "can" / "test_private_mixed" / "002_regular.png"
    (found,) = predictor.predict([image])
    place = "can/test_private_mixed/002_regular"
    values = tifffile.imread(output / "anomaly_images" / f"{place}.tiff")
    assert values.dtype == np.float16
    np.testing.assert_array_equal(values, found.map.astype(np.float16))
    called = np.asarray(Image.open(output / "anomaly_images_thresholded" / f"{place}.png"))
    np.testing.assert_array_equal(called == 255, found.map > predictor.thresholds["pixel"])
    with tarfile.open(tmp_path / "out.tar.gz") as packed:
        assert f"anomaly_images/{place}.tiff" in packed.getnames()


def test_faults_are_named_and_nothing_is_packed(root, tmp_path, monkeypatch, capsys):
    output = tmp_path / "out"
    run(monkeypatch, root / "run", f"--output={output}")
    (tmp_path / "out.tar.gz").unlink()
    maps = output / "anomaly_images" / "can" / "test_private"
    called = output / "anomaly_images_thresholded" / "can" / "test_private"
    (called / "000_regular.png").unlink()
    tifffile.imwrite(maps / "000_regular.tiff", np.zeros((3, 3), np.float32))
    Image.fromarray(np.full(layouts.SIZE[::-1], 7, np.uint8)).save(called / "001_regular.png")
    (maps / "001_regular.tiff").write_bytes(b"no")
    (maps / "other.tiff").write_bytes(b"")
    with pytest.raises(SystemExit):
        run(monkeypatch, root / "run", f"--output={output}", "--check")
    said = capsys.readouterr()
    for line in (
        "000_regular.png: is missing",
        "000_regular.tiff: is float32 instead of float16",
        "000_regular.tiff: is (3, 3) but its image is (48, 64)",
        "001_regular.png: has values other than 0 and 255",
        "001_regular.tiff: cannot be read",
        "other.tiff: is of no private image",
    ):
        assert line in said.out
    assert "has 6 faults: it is not packed" in said.err
    assert not (tmp_path / "out.tar.gz").exists()


def test_runs_that_do_not_fit_are_one_line(root, tmp_path, image_root):
    with pytest.raises(UserError, match="are both of can"):
        mvtec_ad2.find([str(root / "run"), str(root / "run")])
    config = tiny_recipe(image_root, "gaussian")
    train(config, tmp_path / "other")
    with pytest.raises(UserError, match="is a run on 'folder': name runs on mvtec_ad2"):
        mvtec_ad2.find([str(tmp_path / "other")])


def test_a_category_without_a_run_is_a_fault(root, tmp_path, monkeypatch):
    card = mvtec_ad2.CARD._replace(categories=("can", "rice"))
    monkeypatch.setattr(mvtec_ad2, "CARD", card)
    mvtec_ad2.write(root / "run", tmp_path / "out")
    assert mvtec_ad2.problems(tmp_path / "out", {"can": str(root / "data")}) == ["no run of rice"]


def test_words_are_needed(monkeypatch, capsys):
    with pytest.raises(SystemExit):
        run(monkeypatch)
    assert "name the folders of runs and --output" in capsys.readouterr().err
