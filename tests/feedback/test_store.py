"""What was acknowledged stays, whoever writes and however a process ends."""

import os
import resource
import signal
import sqlite3
import subprocess
import sys
import threading

import pytest

from flowad_jax.errors import UserError
from flowad_jax.feedback.store import FeedbackStore, Judgement, beside

ONE = Judgement(1.5, "d" * 64, "i" * 64, "a.png", (0.25, 3.0), 2.0, 0.1, True, 0.5, 0.1)


@pytest.fixture(name="store")
def _store(tmp_path):
    store = FeedbackStore(tmp_path / "screws.flowad.feedback.sqlite")
    yield store
    store.close()


def test_judgements_and_verdicts_come_back(store):
    undecided = ONE._replace(p_value=None, anomalous=None, brightness=None, name="ä\n.png")
    assert store.add([ONE, undecided]) == [1, 2]
    assert [row.judgement for row in store.rows()] == [ONE, undecided]
    assert store.row(1).verdict is None
    assert store.add_verdict(1, "defect").verdict == "defect"
    assert store.add_verdict(1, "good").verdict == "good"
    again = FeedbackStore(store.path)
    assert [row.verdict for row in again.rows()] == ["good", None]
    assert again.rows(after=1)[0].id == 2
    assert [row.id for row in again.rows(limit=1)] == [1]
    assert [row.id for row in again.rows(limit=1, newest=True)] == [2]
    again.close()
    with sqlite3.connect(store.path) as file:
        kept = file.execute("SELECT verdict FROM verdicts ORDER BY id").fetchall()
    file.close()
    assert kept == [("defect",), ("good",)]


@pytest.mark.parametrize("command", ["UPDATE judgements SET peak = 0", "DELETE FROM verdicts"])
def test_nothing_is_changed_or_removed(store, command):
    store.add([ONE])
    store.add_verdict(1, "good")
    file = sqlite3.connect(store.path)
    with pytest.raises(sqlite3.IntegrityError, match="only added to"):
        file.execute(command)
    file.close()


def test_wrong_words_and_numbers(store):
    store.add([ONE])
    with pytest.raises(UserError, match="verdict 'bad': choose good or defect"):
        store.add_verdict(1, "bad")
    with pytest.raises(UserError, match="no image has the number 7"):
        store.add_verdict(7, "good")
    assert store.add([ONE]) == [2]  # the file is usable still


def test_a_reset_starts_anew(store):
    store.add([ONE, ONE._replace(detector="other"), ONE])
    assert [row.id for row in store.since_reset(ONE.detector)] == [1, 3]
    store.add_reset(ONE.detector)
    assert store.since_reset(ONE.detector) == []
    assert [row.id for row in store.since_reset("other")] == [2]
    store.add([ONE])
    assert [row.id for row in store.since_reset(ONE.detector)] == [4]


def test_pictures_are_forgotten_after_a_while(store):
    store.add([ONE, ONE._replace(time=9.0)])
    for number in (1, 2):
        store.keep_picture(number, b"x")
    assert store.drop_pictures(5.0) == 1
    assert [store.picture(number) for number in (1, 2)] == [None, b"x"]


def test_files_that_are_none(tmp_path):
    (tmp_path / "text").write_text("no database, but long enough to have a header of one " * 40)
    with pytest.raises(UserError, match="text: file is not a database"):
        FeedbackStore(tmp_path / "text")
    file = sqlite3.connect(tmp_path / "other")
    file.execute("CREATE TABLE a (b)")
    file.commit()
    file.close()
    with pytest.raises(UserError, match="another program's database"):
        FeedbackStore(tmp_path / "other")
    FeedbackStore(tmp_path / "new").close()
    file = sqlite3.connect(tmp_path / "new")
    file.execute("PRAGMA user_version = 9")
    file.close()
    with pytest.raises(UserError, match=r"newer flowad_jax \(version 9\)"):
        FeedbackStore(tmp_path / "new")
    with pytest.raises(UserError, match="is not there"):
        FeedbackStore(tmp_path / "missing", create=False)
    with pytest.raises(UserError, match="unable to open"):
        FeedbackStore(tmp_path / "no folder" / "a")


WRITER = """
import sys
from flowad_jax.feedback.store import FeedbackStore, Judgement
store = FeedbackStore(sys.argv[1])
while True:
    number, = store.add([Judgement(0.0, "d", "i", "n", (1.0,), 1.0, None, None)])
    store.add_verdict(number, "good")
    print(number, flush=True)
"""


def test_two_killed_writers_lose_nothing_that_was_acknowledged(tmp_path):
    path, seen = tmp_path / "store", []
    for _ in range(3):
        writers = [
            subprocess.Popen(
                [sys.executable, "-c", WRITER, path], stdout=subprocess.PIPE, text=True
            )
            for _ in range(2)
        ]
        for writer in writers:
            seen += [int(writer.stdout.readline()) for _ in range(5)]
        for writer in writers:
            os.kill(writer.pid, signal.SIGKILL)
            seen += [int(line) for line in writer.stdout.read().splitlines() if line]
            writer.stdout.close()
            writer.wait()
    store = FeedbackStore(path)
    verdicts = {row.id: row.verdict for row in store.rows()}
    store.close()
    assert len(seen) == len(set(seen)) >= 30
    assert {verdicts[number] for number in seen} == {"good"}


def test_threads_share_a_store(store):
    def write():
        for _ in range(20):
            store.add_verdict(store.add([ONE])[0], "good")

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.rows()) == 80


def test_a_full_disk_is_one_line_and_loses_nothing(store):
    store.add([ONE])
    usual = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
        with pytest.raises(UserError, match=r"screws\.flowad\.feedback\.sqlite: .*(full|I/O)"):
            store.add([ONE._replace(name="n" * 1000)] * 1000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, usual)
    assert len(store.rows()) == 1
    store.add([ONE])
    assert len(store.rows()) == 2


def test_the_file_lies_beside_the_detector_as_it_is_named(tmp_path):
    (tmp_path / "current.flowad").symlink_to("screws-2.flowad")
    assert beside(f"{tmp_path}/current.flowad/").name == "current.flowad.feedback.sqlite"
