"""What is doubtful about the files of a data set stands in the log, the results and the page."""

import json
import logging
import shutil

import numpy as np
import pytest
from PIL import Image

from flowad_jax import schema
from flowad_jax.detector import checksums, splits
from flowad_jax.detector.checkpoint import FOLDER, META, steps
from flowad_jax.interrupt import Interrupted
from flowad_jax.training import experiment, rescore
from flowad_jax.training.loop import train
from flowad_jax.training.rescore import evaluate_workdir
from tests.training.test_loop import stop_after_steps


@pytest.mark.whole
def test_a_run_says_what_is_doubtful(tiny_config, image_root, tmp_path, caplog):
    part = image_root / "part"
    truth = part / "ground_truth" / "spot"
    with Image.open(truth / "0_mask.png") as mask:
        right = np.asarray(mask)
        mask.save(truth / "0_mask.jpg", quality=80)
    (truth / "0_mask.png").unlink()
    speck = np.zeros((40, 36), np.uint8)
    speck[4, 4] = 255  # in the last row and column that 32 px leave out
    Image.fromarray(speck).save(truth / "1_mask.png")
    alpha = Image.new("LA", right.shape[::-1], (9, 0))
    alpha.putalpha(Image.fromarray(right))
    alpha.save(truth / "2_mask.png")
    (part / "train" / "good" / "photo.heic").write_bytes(b"")
    tiny_config.train.epochs, tiny_config.eval.report_images = 1, 9
    with caplog.at_level(logging.WARNING, "flowad_jax"):
        found = train(tiny_config, tmp_path / "run")["findings"]
    skipped, split, gone, regions = found
    assert "skipped files beside images or masks: 1" in skipped
    assert "photo.heic" in skipped
    assert "1 of 3 masks hold many grey values and are split above 127" in split
    assert f"{truth}/0_mask.jpg" in split
    assert "at 32 px nothing is left of the masks of 1 of 3 anomalous images" in gone
    assert "spot/1.png" in gone
    assert "1 of 3 separate defect regions" in regions
    warned = [record.getMessage() for record in caplog.records]
    page, table = ((tmp_path / "run" / f).read_text() for f in ("report.html", "results.md"))
    for line in found:
        assert line in warned
        beginning = line.partition(" (")[0]
        assert beginning in page
        assert beginning in table
    assert json.loads((tmp_path / "run" / "results.json").read_text())["findings"] == found
    shutil.rmtree(part / "train")  # which is not looked at again
    assert evaluate_workdir(tmp_path / "run")["findings"] == found


@pytest.mark.whole
def test_what_is_mended_during_a_run_stays_known(
    tiny_config, image_root, tmp_path, monkeypatch, caplog
):
    photo, path = image_root / "part" / "train" / "good" / "photo.heic", tmp_path / "run"
    photo.write_bytes(b"")
    stop_after_steps(monkeypatch)
    with pytest.raises(Interrupted):
        train(tiny_config, path)
    monkeypatch.undo()
    photo.unlink()
    (line,) = train(tiny_config, path)["findings"]
    assert "photo.heic" in line
    assert evaluate_workdir(path)["findings"] == [line]
    assert "does not say what was doubtful" not in caplog.text
    meta = path / FOLDER / str(steps(path)[-1]) / META
    content, _ = checksums.read_sealed(meta, schema.table({}), "")
    assert content.pop("findings") == [line]
    meta.write_text(checksums.seal(content))  # as before they were stored
    assert evaluate_workdir(path)["findings"] == []
    assert f"{path} does not say what was doubtful about its training images" in caplog.text


def test_eval_looks_at_the_depth_of_what_is_there(tiny_config, image_root):
    """Of the images that were trained on it knows the names only."""
    file = sorted((image_root / "part" / "test").rglob("*.png"))[1]
    with Image.open(file) as image:
        dark = np.asarray(image.convert("L")).astype(np.uint16) * 16
    Image.fromarray(dark).save(file)
    listed = splits.listed(tiny_config, splits.draw(tiny_config))
    split = splits.names_only(listed)
    (line,) = experiment.build(tiny_config, split=split, for_training=False).findings
    assert "set data.options.white=4095" in line


def test_scores_that_do_not_tell_images_apart_are_a_finding(
    tiny_run, tmp_path, monkeypatch, caplog
):
    shutil.copytree(tiny_run[0] / "run", tmp_path / "run")
    score = rescore.score

    def saturated(*args):
        scored = score(*args)
        return scored._replace(scores=scored.scores._replace(image=np.ones(6)))

    assert tiny_run[1]["findings"] == []
    monkeypatch.setattr(rescore, "score", saturated)
    with caplog.at_level(logging.WARNING, "flowad_jax"):
        (line,) = evaluate_workdir(tmp_path / "run")["findings"]
    assert line.startswith("test images: 6 of 6 share the highest score, 1; ")
    assert line in caplog.messages
    assert "6 of 6 share the highest score" in (tmp_path / "run" / "results.md").read_text()
