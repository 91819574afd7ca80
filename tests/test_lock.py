"""One owner of a folder: the second one is told who has it, and a kill leaves nothing locked."""

import errno
import fcntl
import logging
import os
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager

import pytest

from flowad_jax.detector import workdir
from flowad_jax.errors import UserError
from flowad_jax.lock import FILE, owning
from flowad_jax.sweep import runner
from flowad_jax.training import rescore
from flowad_jax.training.loop import train

HOLD = """
import sys
from flowad_jax.lock import owning
folder, sys.argv = sys.argv[1], ["flowad train", "--workdir=some where"]
with owning(folder):
    print("here", flush=True)
    sys.stdin.read()
"""


@contextmanager
def held(folder):
    """Another process has the folder until the block ends, in which it may be killed."""
    command = [sys.executable, "-c", HOLD, str(folder)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert other.stdout.readline() == "here\n"
    try:
        yield other
    finally:
        other.communicate("")


def refused(folder, action):
    with pytest.raises(UserError, match="is in use by process") as second:
        action()
    assert str(second.value).startswith(f"{folder} is in use")
    return str(second.value)


def test_the_second_one_is_told_who_has_it_and_a_kill_frees_it(tmp_path):
    folder = tmp_path / "run"
    with held(folder) as other:

        def take():
            with owning(folder):
                pytest.fail("two owners")

        told = refused(folder, take)
        assert f"process {other.pid} on {os.uname().nodename} since 2" in told
        assert "(flowad train '--workdir=some where')" in told
        other.send_signal(signal.SIGKILL)
        other.wait()
        with owning(folder):  # at once
            assert (folder / FILE).stat().st_size


def test_a_folder_is_free_after_its_owner(tmp_path):
    for _ in range(2):
        with owning(tmp_path / "run"):
            pass
    with pytest.raises(ZeroDivisionError), owning(tmp_path / "run"):
        _ = 1 / 0
    with owning(tmp_path / "run"):
        pass


def test_whatever_writes_into_a_workdir_asks_first(tiny_config, tmp_path):
    path = workdir.create_workdir(tmp_path / "run", tiny_config)
    with held(path):
        before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
        refused(path, lambda: train(tiny_config, path))
        refused(path, lambda: rescore.evaluate_workdir(path))
        assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before


@pytest.mark.parametrize("stack", [(), ("other", "part")])
def test_runs_within_several_have_owners_too(tiny_config, image_root, tmp_path, stack):
    shutil.copytree(image_root / "part", image_root / "other")
    tiny_config.data.category, tiny_config.train.stack = "other,part", stack
    path = tmp_path / "several"
    with held(path):
        refused(path, lambda: runner.run(tiny_config, path))
    with held(path / "other"), held(path / "part"):
        found = runner.run(tiny_config, path)
    for run in found["runs"]:
        assert run["fault"].startswith(f"{path / run['folder']} is in use by process")
    ledger = path / workdir.LEDGER
    ledger.write_text(ledger.read_text().replace('"failed"', '"done"'))
    with held(path):
        refused(path, lambda: runner.evaluate(path))


def test_a_file_system_without_locks_is_named(tmp_path, monkeypatch, caplog):
    def unable(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unable)
    with caplog.at_level(logging.WARNING, "flowad_jax"), owning(tmp_path):
        pass
    assert "No locks available" in caplog.text


def test_a_system_without_such_locks_is_named(tmp_path):
    """On Windows the whole package would not be imported."""
    code = """if True:
        import os, sys
        sys.modules["fcntl"] = None
        del os.O_NOFOLLOW, os.O_NONBLOCK, os.pread, os.pwrite
        from flowad_jax import lock
        with lock.owning(sys.argv[1]):
            print(open(os.path.join(sys.argv[1], lock.FILE)).read())
    """
    command = [sys.executable, "-c", code, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert "not on this system" in done.stderr
    assert '"pid"' in done.stdout


def test_what_lies_at_the_place_of_the_lock_is_not_followed(tmp_path):
    """A workdir may come from others."""
    precious = tmp_path / "precious"
    precious.write_text("mine")
    for number, make in enumerate((lambda p: p.symlink_to(precious), os.mkfifo, os.mkdir)):
        folder = tmp_path / str(number)
        folder.mkdir()
        make(folder / FILE)
        with pytest.raises(UserError) as refused, owning(folder):
            pass
        assert str(folder) in str(refused.value)
    assert precious.read_text() == "mine"
