"""Starting, reloading, ending, and what survives it."""

import concurrent.futures
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from starlette.exceptions import HTTPException

from flowad_jax.errors import UserError
from flowad_jax.feedback.store import FeedbackStore
from flowad_jax.inference import loading
from flowad_jax.serve import app
from tests.bundle import stub
from tests.serve.service import png, running


@pytest.fixture(name="bundle")
def _bundle(tmp_path):
    return stub.write(tmp_path / "screws.flowad")


def wait_for(condition, seconds=60):
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


def test_a_newer_detector_is_taken_and_no_request_is_lost(tmp_path, bundle):
    stub.write(tmp_path / "screws-2.flowad", normal=[[0.5, 0.9]])
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "detector.json").write_text("{")
    link = tmp_path / "current.flowad"

    def lead_to(place):
        (tmp_path / "next").symlink_to(place)
        os.replace(tmp_path / "next", link)

    lead_to(bundle)
    with running(link) as service:
        first = service.get("/v1/detectors/current")[1]
        done = threading.Event()

        def ask():
            found = []
            while not done.is_set():
                found.append(service.predict(png(), name="current"))
            return found

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            asked = [pool.submit(ask) for _ in range(4)]
            lead_to(tmp_path / "broken")
            wait_for(lambda: service.get("/v1/detectors/current")[1]["error"])
            lead_to(tmp_path / "screws-2.flowad")
            wait_for(lambda: service.get("/v1/detectors/current")[1]["version"] != first["version"])
            time.sleep(0.2)
            done.set()
            answers = [one for future in asked for one in future.result()]
        assert {status for status, _ in answers} == {200}
        p_values = {content["predictions"][0]["p_value"] for _, content in answers}
        assert p_values == {0.85, 1.0}  # of the one and of the other
        last = service.get("/v1/detectors/current")[1]
        assert (last["error"], last["normal"]) == (None, [[0.5, 0.9]])
        assert last["drift"]["images"] < len(answers)
    assert [x["event"] for x in service.events].count("reload refused") == 1


def test_sigterm_answers_what_runs_and_exits_with_0(bundle):
    with (
        running(bundle, "--batch_wait_ms=3000") as service,
        concurrent.futures.ThreadPoolExecutor() as pool,
    ):
        answer = pool.submit(service.predict, png())
        time.sleep(1.0)
        assert service.stop() == 0
        assert answer.result()[0] == 200
    assert service.events[-1]["event"] == "ended"


def test_another_rate_from_the_start_says_what_it_means(bundle):
    with running(bundle, "--false_alarm_rate=0.25") as service:
        card = service.get("/v1/detectors/screws")[1]["card"]
        assert (card["level"], card["decided_by"]) == (0.25, "promise")
        assert "at most 25 % false alarms" in card["meaning"]
        assert service.get("/v1/detectors/screws/decisions?false_alarm_rate=0.25")[1] == card


class FullDisk:
    """A detector whose judgements cannot be kept."""

    name, judge = "screws", SimpleNamespace(version="1")
    batches = SimpleNamespace(admit=lambda count: None, leave=lambda count: None)

    def __init__(self, reason):
        self.reason = reason

    def predict_all(self, files, kinds):
        raise UserError(f"screws.feedback.sqlite: {self.reason}")


@pytest.mark.parametrize(
    ("reason", "status"), [("database or disk is full", 507), ("file is not a database", 500)]
)
def test_what_cannot_be_kept_is_not_answered(tmp_path, reason, status):
    with pytest.raises(HTTPException) as error:
        app._judge(FullDisk(reason), [(tmp_path / "a.png", "a.png")], [])
    assert (error.value.status_code, reason in error.value.detail) == (status, True)


def test_a_full_queue_says_when_to_come_again(bundle):
    with (
        running(bundle, "--queue=2", "--batch_wait_ms=1500") as service,
        concurrent.futures.ThreadPoolExecutor(8) as pool,
    ):
        asked = [pool.submit(service.ask, "POST", "/v1/detectors/screws/predict", png())
                 for _ in range(8)]  # fmt: skip
        found = [one.result() for one in asked]
        assert {status for status, *_ in found} == {200, 429}
        assert {headers["Retry-After"] for status, headers, _ in found if status == 429} == {"1"}
        assert service.form([(f"{x}.png", png()) for x in range(3)])[0] == 429
        assert service.predict(png())[0] == 200


def test_verdicts_and_drift_survive_a_kill(tmp_path, bundle):
    with running(bundle) as service:
        numbers = [service.predict(png(spot=x > 3))[1]["predictions"][0]["id"] for x in range(8)]
        assert service.say(numbers[-1], "defect")[1]["verdict"] == "defect"
        before = service.get("/v1/detectors/screws/drift")[1]
        assert before["images"] == 7  # confirmed defects do not count
        service.stop(signal.SIGKILL)
    with running(bundle) as service:
        after = service.get("/v1/detectors/screws/drift")[1]
        assert (after["images"], after["value"]) == (7, before["value"])
        rows = service.get("/v1/detectors/screws/history")[1]["rows"]
        assert [row["verdict"] for row in rows] == [*[None] * 7, "defect"]


def test_a_watched_folder(tmp_path, bundle):
    camera = tmp_path / "camera"
    camera.mkdir()

    def names():
        return [row["name"] for row in service.get("/v1/detectors/screws/history")[1]["rows"]]

    with running(bundle, f"--watch=screws={camera}") as service:
        (camera / "a.png").write_bytes(png(spot=True))
        (camera / "notes.txt").write_text("none")
        wait_for(lambda: names() == ["a.png"])
        (row,) = service.get("/v1/detectors/screws/history")[1]["rows"]
        assert service.get(row["pictures"]["overlay"])[0] == 200
    with running(bundle, f"--watch=screws={camera}") as service:
        (camera / "b.png").write_bytes(png())
        wait_for(lambda: names() == ["a.png", "b.png"])  # the first one is known


def test_a_token_of_any_letters(bundle):
    with running(bundle, env={"FLOWAD_TOKEN": "Schlüssel"}) as service:
        right = {"Authorization": "Bearer Schlüssel".encode()}
        assert service.get("/v1/detectors", headers=right)[0] == 200


def test_a_port_that_is_taken(bundle):
    with running(bundle) as service:
        done = subprocess.run(
            [sys.executable, "-m", "flowad_jax", "serve", str(bundle), f"--port={service.port}"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert done.returncode == 1
    assert done.stderr.startswith(f"error: --port={service.port}: cannot listen at 127.0.0.1: ")


def test_without_feedback_nothing_is_written(tmp_path, bundle):
    with running(bundle, "--nofeedback") as service:
        number = service.predict(png())[1]["predictions"][0]["id"]
        status, content = service.say(number, "good")
        assert (status, "start with --feedback" in content["error"]) == (409, True)
        assert service.get("/v1/detectors/screws/feedback.csv")[0] == 409
        assert len(service.get("/v1/detectors/screws/history")[1]["rows"]) == 1
    assert [path.name for path in tmp_path.iterdir()] == ["screws.flowad"]


def test_images_are_kept_if_asked_for(tmp_path, bundle):
    with running(bundle, "--keep_images_days=1") as service:
        number = service.predict(png())[1]["predictions"][0]["id"]
    store = FeedbackStore(tmp_path / "screws.flowad.feedback.sqlite")
    assert store.picture(number) == png()
    store.close()


def test_a_token_is_needed_for_all_but_the_page(tmp_path, bundle):
    (tmp_path / "token").write_text("geheim\n")
    with running(bundle, f"--token_file={tmp_path / 'token'}") as service:
        assert service.get("/v1/detectors")[0] == 401
        wrong = {"Authorization": "Bearer no"}
        status, headers, content = service.ask("GET", "/v1/detectors", headers=wrong)
        assert (status, headers["WWW-Authenticate"]) == (401, "Bearer")
        assert content["error"] == "a token is needed: Authorization: Bearer TOKEN"
        for path in ("/", "/healthz", "/readyz"):
            assert service.get(path)[0] == 200
        assert service.get("/metrics")[0] == 401
        assert service.get("/v1/detectors", headers={"Authorization": "geheim"})[0] == 401
        right = {"Authorization": "Bearer geheim"}
        assert service.get("/v1/detectors", headers=right)[0] == 200


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        ([], 2, "name at least one detector"),
        (["missing.flowad"], 1, "missing.flowad is not there"),
        (["."], 1, "has neither detector.json"),
        (["screws.flowad", "--host=0.0.0.0"], 1, "give a token by --token_file"),
        (["screws.flowad", "--token_file=none"], 1, "cannot read none"),
        (["screws.flowad", "--watch=camera"], 2, "write NAME=FOLDER"),
        (["screws.flowad", "--watch=tiles=."], 1, "there is no detector 'tiles'"),
        (["screws.flowad", "--watch=screws=gone"], 1, "'gone' is no folder"),
        (["screws.flowad", "copy/screws.flowad"], 1, "two detectors are called 'screws'"),
    ],
)
def test_what_cannot_be_started_says_why(tmp_path, bundle, words, code, message):
    stub.write(tmp_path / "copy" / "screws.flowad")
    done = subprocess.run(
        [sys.executable, "-m", "flowad_jax", "serve", *words],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "FLOWAD_TOKEN": ""},
    )
    assert done.returncode == code, done.stderr
    assert done.stderr.startswith("error: ")
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_the_workdir_of_a_run_is_served_as_predict_judges(tiny_run, tmp_path):
    run = tmp_path / "parts"
    shutil.copytree(tiny_run[0] / "run", run)
    image = next((tiny_run[0] / "images").rglob("test/good/*.png"))
    expected = loading.load(run).predict([str(image)])[0]
    with running(run) as service:
        about = service.get("/v1/detectors/parts")[1]
        assert (about["kind"], about["method"]) == ("workdir", loading.load(run).name)
        status, content = service.predict(
            image.read_bytes(), "?pictures=overlay,heatmap", name="parts"
        )
        assert status == 200, content
        (found,) = content["predictions"]
        assert found["score"] == pytest.approx(expected.score, rel=1e-6)
        assert (found["p_value"], found["anomalous"]) == (expected.p_value, expected.anomalous)
        for address in found["pictures"].values():
            assert service.get(address)[0] == 200
        drift = service.get("/v1/detectors/parts/drift")[1]
        assert (drift["images"], drift.get("reason")) == (1, None)
    assert (tmp_path / "parts.feedback.sqlite").is_file()
