"""Runs predict.py with a stub in children that kill themselves at every write, one after another.

python -m tests.serving.killed_predict FOLDER

The k-th child of a scene works in FOLDER/SCENE/k and dies by SIGKILL before its k-th write to the
file system; the last one ends by itself.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

from ml_collections import config_dict

from flowad_jax.serving import command, watch
from tests.serving.test_predict import Bright, picture

WRITES = {f"os.{call}" for call in ("rename", "remove", "mkdir", "rmdir", "truncate", "link")}


def predict(**settings):
    """Judges in/ into out/ of the current folder, or watches for some looks."""
    looks = iter(range(3))
    watch.wait = lambda *_: next(looks, None) is None and signal.raise_signal(signal.SIGTERM)
    return command.run(command.Job("run", ["in"], "out", save=("map",), **settings))


def fresh():
    """Judges for the first time."""
    old_images()
    yield
    predict()


def rerun():
    """Judges other images of the same names, and one more."""
    old_images()
    predict()
    new_images()
    yield
    predict()


def watched():
    """Goes on with a watch that has lines."""
    old_images()
    predict(watch=True)
    picture(Path("in/c.png"), spot=True)
    picture(Path("in/d.png"))
    yield
    predict(watch=True)


def old_images():
    """Two normal images."""
    for name in ("a", "b"):
        picture(Path(f"in/{name}.png"))


def new_images():
    """Three anomalous images, two of them in place of the normal ones."""
    for name in ("a", "b", "c"):
        picture(Path(f"in/{name}.png"), spot=True)


def child(scene, step):
    """Plays a scene; dies at a step of its second part."""
    steps = scene()
    next(steps)
    left = [step]

    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if writes or event in WRITES:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(hook)
    for _ in steps:
        pass


def main(folder):
    """Plays all scenes until nothing is left to be killed at."""
    command.detectors.load = lambda *_: Bright()
    config = config_dict.ConfigDict({"data": {"options": {}}})
    command.workdir.load_config = lambda *_: config
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    for scene in (fresh, rerun, watched):
        play(scene, Path(folder, scene.__name__))


def play(scene, folder):
    """Plays a scene until nothing is left to be killed at."""
    for step in itertools.count():
        place = folder / str(step)
        place.mkdir(parents=True)
        if (pid := os.fork()) == 0:
            try:
                os.chdir(place)
                child(scene, step)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == 0:
            return
        assert status == -signal.SIGKILL, f"step {step}: {status}"


if __name__ == "__main__":
    main(*sys.argv[1:])
