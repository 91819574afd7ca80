"""New thresholds from good images: in a new place, of images that were not trained on."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from flowad_jax.bundle import card, validate
from flowad_jax.cli import recalibrate as command
from flowad_jax.errors import UserError
from flowad_jax.evaluation.decisions import Decisions
from flowad_jax.feedback.store import FeedbackStore, Judgement, beside
from flowad_jax.flowad_runtime import Detector
from flowad_jax.inference import loading
from flowad_jax.recalibration import bundle, run_folder, sample
from flowad_jax.recalibration.sample import Sample
from flowad_jax.serve import judge
from tests.bundle.test_place import snapshot

ABOUT = {"from": "x", "when": "2026-01-01", "images": 6, "source": "images", "replaced": True}


@pytest.fixture(name="good")
def _good(run):
    """Test images stand for good images that came later."""
    return sorted((run.parent / "images" / "test").rglob("*.png"))


def test_a_bundle_gets_new_thresholds_in_a_new_place(exported, good, tmp_path):
    before = snapshot(exported.place)
    found = bundle.score(exported.place, good, "onnxruntime")
    assert found.scores.shape[0] == len(good)
    target = tmp_path / "new.flowad"
    change = bundle.recalibrate(exported.place, target, found, True, 0.3, ABOUT)
    assert snapshot(exported.place) == before
    about = card.read(target)
    assert about["recalibrated"] == ABOUT
    assert about["calibration"]["image"] == found.scores.T.tolist()
    detector = Detector(target)
    assert detector.thresholds == change.after
    assert detector.thresholds["decided_by"] == "promise"
    assert validate.validate(target)
    name = card.ONNX
    assert (target / name).read_bytes() == (exported.place / name).read_bytes()


def test_joined_to_those_of_before(exported, good, tmp_path):
    old = card.read(exported.place)["calibration"]["image"][0]
    found = bundle.score(exported.place, good, "onnxruntime")
    bundle.recalibrate(exported.place, tmp_path / "new.flowad", found, False, None, ABOUT)
    now = card.read(tmp_path / "new.flowad")["calibration"]["image"][0]
    assert now == [*old, *found.scores[:, 0]]


def test_a_workdir_gets_new_thresholds(run, good, tmp_path):
    before = snapshot(run)
    found = run_folder.score(run, good)
    change = run_folder.recalibrate(run, tmp_path / "new", found, True, 0.3, ABOUT)
    assert snapshot(run) == before
    again = loading.load(tmp_path / "new")
    assert again.thresholds == change.after
    np.testing.assert_allclose(again.normal[0], found.scores[:, 0])
    for one, score in zip(again.predict([str(x) for x in good]), found.scores, strict=True):
        assert one.score == pytest.approx(score[0], rel=1e-5)


def test_images_that_were_trained_on_are_refused(exported, run, good):
    trained = bundle.trained_on(exported.place)
    assert trained == run_folder.trained_on(run)
    assert {*trained.values()} == {"train", "holdout"}
    everything = run.parent / "images" / "train"
    with pytest.raises(UserError, match=r"--good: \d+ images were trained on, such as '.*'"):
        sample.find([str(everything)], trained, True)
    assert len(sample.find([str(x) for x in good], trained, True)) == len(good)


def test_held_out_images_do_not_count_twice(exported, run):
    trained = bundle.trained_on(exported.place)
    images = sorted((run.parent / "images" / "train").rglob("*.png"))
    held = [x for x in images if trained[sample.fingerprint.of_file(x)] == "holdout"]
    names = [str(x) for x in held]
    assert len(sample.find(names, trained, True)) == len(held) > 0
    with pytest.raises(UserError, match="held out and count already"):
        sample.find(names, trained, False)


def test_the_same_image_counts_once(good, tmp_path, caplog):
    for name in ("a.png", "b.png"):
        shutil.copy(good[0], tmp_path / name)
    with caplog.at_level("WARNING", logger="flowad_jax"):
        assert len(sample.find([str(tmp_path)], {"x": "train"}, True)) == 1
    assert "has the content of" in caplog.text


def test_parts_share_the_images():
    old = [np.arange(3.0), np.arange(3.0)]
    given = Sample(np.array([[1, 10], [2, 20], [3, 30], [4, 40.0]]), np.arange(4.0), "images")
    image, peak = sample.calibrated((old, old), given, True)
    assert [x.tolist() for x in image] == [[1, 3], [20, 40]]
    assert [x.tolist() for x in peak] == [[0, 2], [1, 3]]
    with pytest.raises(UserError, match="3 good images are too few: give at least 4"):
        sample.calibrated((old, old), given._replace(scores=given.scores[:3]), True)
    with pytest.raises(UserError, match="NaN"):
        sample.calibrated((old, old), given._replace(peaks=np.full(4, np.nan)), True)


def test_the_promise_is_renewed():
    """Of streams that are shifted against the held-out images of before."""
    alarms, rng = [], np.random.default_rng(0)
    for _ in range(400):
        old = [rng.normal(0, 1, 40)]
        good = rng.normal(2, 1, (40, 1))
        given = Sample(good, good[:, 0], "images")
        image, peak = sample.calibrated((old, old), given, True)
        later = rng.normal(2, 1, (1, 50))
        decisions = Decisions(image, peak, 0.1)
        alarms.append(decisions.anomalous(later[0], decisions.p_values(later)).mean())
    assert 0.07 < np.mean(alarms) < 0.112


def feedback(place, version, verdicts):
    store = FeedbackStore(beside(place))
    scores = np.linspace(1, 2, len(verdicts))
    numbers = store.add(
        [
            Judgement(0.0, version, f"{k}", f"{k}.png", (float(x),), 1.0, None, None)
            for k, x in enumerate(scores)
        ]
    )
    for number, verdict in zip(numbers, verdicts, strict=True):
        if verdict:
            store.add_verdict(number, verdict)
    store.close()
    return scores


@pytest.mark.parametrize("complete", [True, False])
def test_from_what_operators_confirmed(exported, tmp_path, monkeypatch, capsys, complete):
    place = tmp_path / "screws.flowad"
    shutil.copytree(exported.place, place)
    version = judge.open_judge(place, judge.LoadOptions()).version
    verdicts = ["good"] * 9 + ["defect", "good" if complete else None]
    scores = feedback(place, version, verdicts)
    words = [f"--bundle={place}", "--from_feedback", "--false_alarm_rate=0.2"]
    done = run_command(words)
    assert done.returncode == 0, done.stderr
    about = card.read(tmp_path / "screws-2.flowad")
    kept = [x for x, verdict in zip(scores, verdicts, strict=True) if verdict == "good"]
    assert about["calibration"]["image"] == [kept]
    assert about["recalibrated"]["source"] == "feedback"
    assert about["card"]["decided_by"] == ("promise" if complete else "estimate")
    assert ("estimate" in done.stdout.splitlines()[-1]) is not complete


def run_command(words):
    return subprocess.run(
        [sys.executable, "-m", "flowad_jax", "recalibrate", *words],
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--good=x"], 2, "give --bundle or --workdir"),
        (["--bundle=a"], 2, "give --good or --from_feedback"),
        (["--bundle=missing.flowad", "--good=x"], 1, "missing.flowad is not an exported detector"),
        (["--workdir=missing", "--good=x"], 1, "missing is not a workdir"),
    ],
)
def test_wrong_words(words, code, message):
    done = run_command(words)
    assert (done.returncode, message in done.stderr) == (code, True), done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_nothing_is_ever_written_over(exported, good, tmp_path):
    place = tmp_path / "screws.flowad"
    shutil.copytree(exported.place, place)
    assert command.next_version(place).name == "screws-2.flowad"
    (tmp_path / "screws-2.flowad").mkdir()
    assert command.next_version(place).name == "screws-3.flowad"
    (tmp_path / "current").symlink_to("screws-2.flowad")
    assert command.next_version(tmp_path / "current").name == "screws-3.flowad"
    done = run_command([f"--bundle={place}", f"--good={good[0].parent}", f"--output={place}"])
    assert (done.returncode, "is there already" in done.stderr) == (1, True), done.stderr
    text = (place / "detector.json").read_text()
    assert json.loads(text)["calibration"] == card.read(exported.place)["calibration"]
