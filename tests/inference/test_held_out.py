"""Tiled images are ranked among the held-out images, which were judged in tiles, too."""

import json
import logging
import shutil

import numpy as np
import pytest

from flowad_jax.data.images import read_image
from flowad_jax.detector import splits, workdir
from flowad_jax.errors import UserError
from flowad_jax.evaluation import conformal
from flowad_jax.inference import held_out, loading
from flowad_jax.inference.held_out import FILE


@pytest.fixture
def path(run, tmp_path):
    """A copy of the run, which has judged nothing in tiles yet."""
    shutil.copytree(run[0] / "run", tmp_path / "run")
    (tmp_path / "run" / FILE).unlink(missing_ok=True)
    return tmp_path / "run"


def refuse(*_):
    raise AssertionError("the held-out images are opened again")


def missing(*_):
    raise UserError("the folder is missing")


def test_a_tiled_image_has_its_rank_among_held_out_ones(run, path, files):
    detector = loading.load(path, false_alarm_rate=0.3)
    found = detector.predict(files, tile=True)
    names = workdir.meta_of(path)["images"]["holdout"]
    held = [read_image(run[0] / "images" / name) for name in names]
    normal = np.array([image.score for image in detector.predict(held, tile=True)])
    stored = json.loads((path / FILE).read_text())["content"]
    assert stored["most_tiles"] > 1
    np.testing.assert_allclose(stored["image"], [normal], rtol=1e-5)
    for one in found:
        (expected,) = conformal.p_values(np.array([one.score]), normal)
        assert (one.p_value, one.anomalous) == (pytest.approx(expected), expected <= 0.3)
        assert one.reason is None


def test_scores_are_kept_for_their_checkpoint(path, files, monkeypatch, caplog):
    first = loading.load(path).predict(files[:1], tile=True)[0]
    written, again = (path / FILE).read_text(), held_out.splits.again
    monkeypatch.setattr(held_out.splits, "again", refuse)
    assert loading.load(path).predict(files[:1], tile=True)[0].p_value == first.p_value
    monkeypatch.setattr(held_out.splits, "again", again)
    other = json.loads(written)
    for text in ("{}", written.replace('"most_tiles": ', '"most_tiles": 1'), written[:-50]):
        (path / FILE).write_text(text)
        with caplog.at_level(logging.WARNING, "flowad_jax"):
            assert loading.load(path).predict(files[:1], tile=True)[0].p_value == first.p_value
        assert FILE in caplog.text
        assert json.loads((path / FILE).read_text()) == other


@pytest.mark.parametrize("fault", ["gone", "changed", "unknown"])
def test_without_the_images_nothing_is_promised(run, path, pixels, monkeypatch, fault):
    listed = workdir.meta_of(path)
    if fault == "gone":
        monkeypatch.setattr(splits, "source", missing)
    elif fault == "changed":
        listed["images"]["holdout"] = dict.fromkeys(listed["images"]["holdout"], "0" * 32)
    else:
        del listed["images"]
    monkeypatch.setattr(held_out.workdir, "meta_of", lambda _: listed)
    (found,) = loading.load(path, false_alarm_rate=0.3).predict([pixels], tile=True)
    assert found.anomalous is None
    words = {"gone": "is missing", "changed": "was changed", "unknown": "does not say which"}
    assert words[fault] in found.reason
    assert not (path / FILE).exists()


def test_an_image_of_more_tiles_is_another_matter(path, pixels):
    large = np.tile(pixels, (3, 3, 1))
    (found,) = loading.load(path, false_alarm_rate=0.3).predict([large], tile=True)
    assert found.anomalous is None
    assert "the largest of them has fewer tiles" in found.reason


def test_what_is_not_a_number_is_ranked_among_by_nothing(path, files):
    detector = loading.load(path)
    with pytest.raises(UserError, match="NaN or infinite values"):
        detector.held_out.scores(lambda part, image: (1, float("nan"), 0.0))
    assert not (path / FILE).exists()
    detector.held_out.scores = lambda judge: missing()
    assert detector.predict(files[:1], tile=True)[0].anomalous is None
