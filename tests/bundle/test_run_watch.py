"""The program in an exported detector is stopped, and watches folders."""

import ctypes
import os
import signal
import sys
import threading
import time

import pytest

from flowad_jax.flowad_runtime import detector as runtime
from tests.bundle import stub
from tests.bundle.test_run import run, table
from tests.inference.stub import lines, picture, summary


@pytest.fixture
def bundle(tmp_path):
    return stub.write(tmp_path / "a.flowad")


def test_a_signal_ends_the_run_after_its_batch(tmp_path, bundle, monkeypatch, capsys):
    for index in range(9):
        picture(tmp_path / "in" / f"{index}.png")
    judge, batches = runtime.Detector.judge, []

    def stopped(self, images):
        batches.append(len(images))
        if len(batches) == 2:
            signal.raise_signal(signal.SIGTERM)
        return judge(self, images)

    monkeypatch.setattr(runtime.Detector, "judge", stopped)
    usual = signal.getsignal(signal.SIGTERM)
    assert run(bundle, "--batch_size=2") == 128 + signal.SIGTERM
    assert signal.getsignal(signal.SIGTERM) == usual
    assert batches == [2, 2]
    assert len(lines(tmp_path)) == 4
    assert not summary(tmp_path)["finished"]
    assert "4 of 9 images: 4 normal" in capsys.readouterr().out


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO does it there")
@pytest.mark.parametrize("backend", stub.BACKENDS)
def test_signals_keep_their_stack(bundle, backend):
    """OpenVINO's is too small for Python's handlers where the processor has AMX: they crash."""
    pytest.importorskip(backend)

    def stack():
        found = ctypes.create_string_buffer(64)
        assert ctypes.CDLL(None).sigaltstack(None, found) == 0
        return found.raw

    before = stack()
    detector = runtime.Detector(bundle, backend)
    assert stack() == before
    del detector


class Watching:
    """Runs --watch in this process, and stops it."""

    def __init__(self, bundle, *flags):
        self._bundle, self._flags, self.code = bundle, flags, None

    def until(self, *conditions):
        """Ends when all conditions were true, one after the other."""
        rest = list(conditions)
        done = threading.Event()

        def follow():
            end = time.monotonic() + 20
            while rest and time.monotonic() < end:
                if rest[0]():
                    rest.pop(0)
                time.sleep(0.02)
            done.set()
            signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)

        thread = threading.Thread(target=follow)
        thread.start()
        self.code = run(self._bundle, "--watch", "--interval=0.05", "--save=map", *self._flags)
        thread.join()
        assert not rest, "in vain"
        return self


def test_watch_goes_on_where_it_stopped(tmp_path, bundle, capsys):
    path = picture(tmp_path / "in" / "a.png")
    (tmp_path / "in" / "late.png").write_bytes(path.read_bytes()[:30])

    def count(number):
        out = tmp_path / "out" / "predictions.jsonl"
        return lambda: out.exists() and out.read_text().count("\n") == number

    def arrive():
        picture(tmp_path / "in" / "late.png", spot=True)
        return True

    def counted():
        return summary(tmp_path)["images"] == 2

    found = Watching(bundle, "--fail_on_anomaly").until(count(1), arrive, count(2), counted)
    assert found.code == 3
    out = capsys.readouterr().out
    assert f"{path}: normal, score 0.1569, p 0.85" in out
    assert "late.png: anomalous" in out
    with (tmp_path / "out" / "predictions.jsonl").open("a") as file:
        file.write('{"path": "cu')
    picture(tmp_path / "in" / "b.png")
    os.utime(path, (1, 1))  # written anew
    Watching(bundle).until(count(4))
    names = [os.path.basename(line["path"]) for line in lines(tmp_path)]
    assert names[:2] == ["a.png", "late.png"]
    assert sorted(names[2:]) == ["a.png", "b.png"]
    assert len(table(tmp_path)) == 4
    assert len({line["map"] for line in lines(tmp_path)}) == 4
    assert summary(tmp_path)["images"] == 4
    assert run(bundle, "--watch", "--threshold=0.3") == 1
    assert "another detector or false-alarm rate" in capsys.readouterr().err


def test_watch_reports_what_stays_broken(tmp_path, bundle, capsys):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("no image")
    out = tmp_path / "out" / "predictions.jsonl"
    found = Watching(bundle, "--patience=0.2").until(lambda: out.exists() and out.read_text())
    assert found.code == 1
    assert capsys.readouterr().err.count("error: cannot read") == 1
    (tmp_path / "in" / "b.png").write_text("no image")
    assert Watching(bundle).until(lambda: time.sleep(0.5) or True).code == 1
    assert ["error" in line for line in lines(tmp_path)] == [True, True]
    assert run(bundle, "--watch", f"--input={tmp_path}/*.png") == 1


def test_a_watched_folder_may_go_and_come_back(tmp_path, bundle):
    picture(tmp_path / "in" / "a.png")

    def there(name, number):
        out, other = tmp_path / "out" / "predictions.jsonl", tmp_path / name
        return lambda: out.exists() and out.read_text().count("\n") == number and other.exists()

    def move():
        (tmp_path / "in").rename(tmp_path / "away")
        time.sleep(0.2)
        return True

    def back():
        (tmp_path / "away").rename(tmp_path / "in")
        picture(tmp_path / "in" / "b.png")
        return True

    assert Watching(bundle).until(there("in", 1), move, back, there("in", 2)).code == 0


def test_two_processes_do_not_share_a_folder(tmp_path, bundle, capsys):
    picture(tmp_path / "in" / "a.png")
    assert run(bundle) == 0
    with (tmp_path / "out" / ".lock").open() as file:
        fcntl = pytest.importorskip("fcntl")
        fcntl.flock(file, fcntl.LOCK_EX)
        assert run(bundle, "--watch") == 1
    assert "in use by another process" in capsys.readouterr().err
