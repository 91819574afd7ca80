"""A folder that predict.py watches, with a clock made of steps instead of seconds."""

import functools
import os
import signal
from pathlib import Path

from flowad_jax.inference import job, watch
from tests.inference.stub import Bright, lines, picture, use

PATIENCE = job.PredictArgs.patience
INTERVAL = 1.0  # of the clock that the schedules drive


class Killed(BaseException):
    """Ends a watch at once, as SIGKILL would."""


class World:
    """Files and a clock: steps are done one between two looks, each of which takes a second."""

    def __init__(self, root, monkeypatch):
        self.root, self.now, self.steps = root, 0.0, iter(())
        self.inputs, self.output, self.ending = [str(root / "in")], root / "out", signal.SIGTERM
        (root / "in").mkdir()
        use(monkeypatch, Bright())
        monkeypatch.setattr(watch, "wait", self._wait)
        timed = functools.partial(watch.Watcher, clock=lambda: self.now)
        monkeypatch.setattr(watch, "Watcher", timed)

    def watch(self, *steps, workdir="run", save=(), **settings):
        """Watches until the steps are done and some looks more; returns the exit code."""
        self.steps = iter((*steps, *[nothing] * 4))
        out = str(self.output)
        try:
            return job.run(
                job.PredictArgs(workdir, self.inputs, out, save=save, watch=True, **settings)
            )
        except Killed:
            return None

    def found(self):
        """Names with what was said of them, in the order of the lines."""
        words = {True: "bad", False: "good", None: "unreadable"}
        found = lines(self.output.parent)
        return [f"{Path(line['path']).name} {words[line.get('anomalous')]}" for line in found]

    def _wait(self, seconds, stopped):
        if stopped():
            return
        self.now += INTERVAL
        step = next(self.steps, None)
        if step is None:
            signal.raise_signal(self.ending)
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


def move(source, target):
    return lambda world: (world.root / source).rename(world.root / target)
