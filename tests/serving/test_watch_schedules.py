"""What happens to files while predict.py watches, as schedules: one line for each state of each."""

import functools
import os
import shutil
import signal
from pathlib import Path

import pytest

from flowad_jax.serving import command, reading, watch
from tests.serving.test_predict import Bright, lines, picture, summary, use

PATIENCE = command.Job.patience
INTERVAL = 1.0  # of the clock that the schedules drive


class Killed(BaseException):
    """Ends a watch at once, as SIGKILL would."""


class World:
    """Files and a clock: steps are done one between two looks, each of which takes a second."""

    def __init__(self, root, monkeypatch):
        self.root, self.now, self.steps = root, 0.0, iter(())
        self.inputs = [str(root / "in")]
        (root / "in").mkdir()
        use(monkeypatch, Bright())
        monkeypatch.setattr(watch, "wait", self._wait)
        timed = functools.partial(watch.Watcher, clock=lambda: self.now)
        monkeypatch.setattr(watch, "Watcher", timed)

    def watch(self, *steps, **settings):
        """Watches until the steps are done and some looks more; returns the exit code."""
        self.steps = iter((*steps, *[nothing] * 4))
        job = command.Job(
            "run", self.inputs, str(self.root / "out"), save=(), watch=True, **settings
        )
        try:
            return command.run(job)
        except Killed:
            return None

    def found(self):
        """Names with what was said of them, in the order of the lines."""
        words = {True: "bad", False: "good", None: "unreadable"}
        return [f"{Path(x['path']).name} {words[x.get('anomalous')]}" for x in lines(self.root)]

    def _wait(self, seconds, stopped):
        if stopped():
            return
        self.now += INTERVAL
        step = next(self.steps, None)
        if step is None:
            signal.raise_signal(signal.SIGTERM)
        elif step is kill:
            raise Killed
        else:
            step(self)


def nothing(world):
    """A look later."""


def kill(world):
    """SIGKILL between two looks."""


def wait(seconds):
    def step(world):
        world.now += seconds

    return step


def write(name, spot=False, size=(20, 30)):
    return lambda world: picture(world.root / "in" / name, spot, size)


def part(name, start, end):
    """Appends a part, between two shares, of an image of a defect."""

    def step(world):
        whole = picture(world.root / "whole.bmp", spot=True).read_bytes()
        first, last = (round(share * len(whole)) for share in (start, end))
        with (world.root / "in" / name).open("ab") as file:
            file.write(whole[first:last])

    return step


def junk(name):
    return lambda world: (world.root / "in" / name).write_text("no image")


def replace(name, size):
    """Puts another image in the place of one, which keeps its time of modification."""

    def step(world):
        path = world.root / "in" / name
        stamp = path.stat().st_mtime_ns
        other = picture(world.root / name, spot=True, size=size)
        os.utime(other, ns=(stamp, stamp))
        os.replace(other, path)

    return step


def remove(name):
    return lambda world: (world.root / "in" / name).unlink()


def touch(name):
    return lambda world: os.utime(world.root / "in" / name, ns=(0, 12345))


SCHEDULES = {
    "arrivals": ([write("a.png"), nothing, write("b.png", spot=True)], "a.png good,b.png bad"),
    "half, a long pause, the rest": (
        [part("a.bmp", 0, 0.5), *[nothing] * 7, part("a.bmp", 0.5, 1)],
        "a.bmp bad",
    ),
    "in quarters with pauses": (
        [
            step
            for quarter in range(4)
            for step in (part("a.bmp", quarter / 4, (quarter + 1) / 4), nothing, nothing, nothing)
        ],
        "a.bmp bad",
    ),
    "half, killed, the rest": (
        [part("a.bmp", 0, 0.5), *[nothing] * 3, kill, nothing, part("a.bmp", 0.5, 1)],
        "a.bmp bad",
    ),
    "half, and never the rest": (
        [part("a.bmp", 0, 0.5), nothing, nothing, wait(PATIENCE), nothing, nothing, kill, nothing],
        "a.bmp unreadable",
    ),
    "junk, three starts": (
        [junk("a.png"), write("b.png"), nothing, wait(2 * PATIENCE), nothing]
        + [kill, *[nothing] * 3, wait(2 * PATIENCE), nothing] * 2,
        "b.png good,a.png unreadable",
    ),
    "junk becomes an image": (
        [junk("a.png"), nothing, nothing, wait(2 * PATIENCE), nothing, write("a.png")],
        "a.png unreadable,a.png good",
    ),
    "same time, another size": (
        [write("a.bmp"), nothing, nothing, replace("a.bmp", (30, 40))],
        "a.bmp good,a.bmp bad",
    ),
    "same time, same size": (
        [write("a.bmp"), nothing, nothing, replace("a.bmp", (20, 30))],
        "a.bmp good,a.bmp bad",
    ),
    "same time, another size, while nobody looks": (
        [write("a.bmp"), nothing, nothing, nothing, kill, replace("a.bmp", (30, 40))],
        "a.bmp good,a.bmp bad",
    ),
    "another time": ([write("a.png"), nothing, nothing, touch("a.png")], "a.png good,a.png good"),
    "gone and back": (
        [write("a.png"), nothing, nothing, remove("a.png"), nothing, write("a.png", spot=True)],
        "a.png good,a.png bad",
    ),
    "gone before it was read": ([write("a.png"), remove("a.png"), write("b.png")], "b.png good"),
    "killed at every look": (
        [write("a.png"), kill, nothing, kill, nothing, nothing, kill, write("b.png"), kill, kill],
        "a.png good,b.png good",
    ),
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_state_of_a_file_has_one_line(tmp_path, monkeypatch, name, capsys):
    steps, wanted = SCHEDULES[name]
    world = World(tmp_path, monkeypatch)
    while kill in steps:
        first, steps = steps[: steps.index(kill) + 1], steps[steps.index(kill) + 1 :]
        assert world.watch(*first) is None
    world.watch(*steps)
    found = wanted.split(",")
    assert world.found() == found
    told = summary(tmp_path)
    assert (told["images"], told["unreadable"]) == (len(found), wanted.count("unreadable"))
    assert capsys.readouterr().err.count("error: ") == wanted.count("unreadable")
    before = lines(tmp_path)
    assert world.watch() == 0
    assert lines(tmp_path) == before, "nothing is new"


def test_a_folder_is_the_same_however_it_is_spelled(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    for name in ("a.png", "sub/b.png"):
        picture(tmp_path / "in" / name)
    (tmp_path / "link").symlink_to("in")
    monkeypatch.chdir(tmp_path)
    world.watch()
    before = lines(tmp_path)
    assert len(before) == 2
    spellings = ("in", "in/", "./in", "link", "../" + tmp_path.name + "/in", "in,link,in/sub")
    for spelling in (*spellings, f"{tmp_path}/in//", str(tmp_path / "link" / "sub" / "..")):
        world.inputs = [spelling]
        assert world.watch(kill) is None
        assert world.watch() == 0
        assert lines(tmp_path) == before, spelling


def test_two_links_in_a_folder_are_two_images(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    picture(tmp_path / "store.png")
    for name in ("a.png", "b.png"):
        (tmp_path / "in" / name).symlink_to(tmp_path / "store.png")
    other = picture(tmp_path / "other.png", spot=True)

    def retarget(world):
        (tmp_path / "in" / "b.png").unlink()
        (tmp_path / "in" / "b.png").symlink_to(other)

    world.watch(nothing, nothing, retarget)
    assert world.found() == ["a.png good", "b.png good", "b.png bad"]


def test_an_output_reached_by_a_link_is_no_input(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    picture(tmp_path / "in" / "a.png")
    (tmp_path / "link").symlink_to("in")
    world.inputs = [str(tmp_path / "link")]
    monkeypatch.setattr(world, "root", tmp_path / "in")
    (tmp_path / "in" / "in").mkdir()
    job = command.Job("run", world.inputs, str(tmp_path / "in" / "out"), watch=True)
    for _ in range(2):
        world.steps = iter([nothing] * 4)
        assert command.run(job) == 0
    assert world.found() == ["a.png good"]


def test_lines_of_version_01_are_gone_on_with(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    for name in "abc":
        picture(tmp_path / "in" / f"{name}.png")
    junk("d.png")(world)
    world.watch()
    new = ("resolved", "size", "inode")
    old = [{k: v for k, v in line.items() if k not in new} for line in lines(tmp_path)]
    del old[3]["modified"]  # that of an unreadable file was not kept
    file = tmp_path / "out" / "predictions.jsonl"
    file.write_text("".join(command.json.dumps(line) + "\n" for line in old))
    touch("b.png")(world)
    for _ in range(2):
        world.watch(nothing, nothing, wait(2 * PATIENCE))
        assert lines(tmp_path)[:4] == old
        assert world.found()[4:] == ["b.png good", "d.png unreadable"]


def test_a_file_that_changes_while_it_is_read_is_read_again(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    path = picture(tmp_path / "in" / "a.png")
    read, pending = reading.read_image, [write("a.png", spot=True)]

    def change(*arguments):
        pixels = read(*arguments)
        if pending:
            pending.pop()(world)
            os.utime(path, ns=(0, 77))
        return pixels

    monkeypatch.setattr(reading, "read_image", change)
    world.watch()
    assert world.found() == ["a.png bad"]


def test_unreadable_files_are_tried_more_and_more_rarely(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    junk("a.png")(world)
    times, size_of = [], reading.image_size
    monkeypatch.setattr(
        reading, "image_size", lambda path: times.append(world.now) or size_of(path)
    )
    assert world.watch(*[nothing] * 80) == command.FAULTY
    first = times[0]
    assert [now - first for now in times] == [0, 1, 2, 4, 8, 16, 32, PATIENCE]
    assert world.found() == ["a.png unreadable"]


def test_patience_is_a_setting(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    junk("a.png")(world)
    said = []
    world.watch(nothing, lambda world: said.extend(world.found()), patience=0.0)
    assert said == ["a.png unreadable"]


def test_another_spelling_of_the_workdir_is_the_same_detector(tmp_path, monkeypatch):
    world = World(tmp_path, monkeypatch)
    picture(tmp_path / "in" / "a.png")
    monkeypatch.chdir(tmp_path)
    world.watch()
    shutil.copytree(tmp_path / "in", tmp_path / "run")
    (tmp_path / "same").symlink_to("run")
    world.steps = iter([nothing] * 4)
    job = command.Job("same/", world.inputs, str(tmp_path / "out"), save=(), watch=True)
    assert command.run(job) == 0
    assert world.found() == ["a.png good"]
