"""Runs predict.py with a stub in children that kill themselves at every write, one after another.

python -m tests.inference.killed_predict FOLDER

The k-th child of a scene works in FOLDER/SCENE/k and dies by SIGKILL before its k-th write to the
file system; the last one ends by itself.
"""

import itertools
import os
import signal
import sys
from pathlib import Path

from flowad_jax.inference import job, watch
from tests.inference.stub import Bright, picture

WRITES = {f"os.{call}" for call in ("rename", "remove", "mkdir", "rmdir", "truncate", "link")}


def predict(**settings):
    """Judges in/ into out/ of the current folder, or watches for some looks."""
    looks = iter(range(3))
    watch.wait = lambda *_: next(looks, None) is None and signal.raise_signal(signal.SIGTERM)
    return job.run(job.PredictArgs("run", ["in"], "out", save=("map",), **settings))


def fresh():
    """Judges for the first time."""
    old_images()
    return {}


def rerun():
    """Judges other images of the same names, and one more, where an output is."""
    old_images()
    predict()
    for name in "abc":
        picture(Path(f"in/{name}.png"), spot=True)
    return {}


def watched():
    """Goes on with a watch that has lines."""
    old_images()
    predict(watch=True)
    picture(Path("in/c.png"), spot=True)
    picture(Path("in/d.png"))
    return {"watch": True}


def old_images():
    """Two normal images."""
    for name in "ab":
        picture(Path(f"in/{name}.png"))


def die_before_write(number):
    """Ends this process at its n-th write."""
    left = [number]

    def hook(event, arguments):
        writes = event == "open" and isinstance(arguments[2], int) and arguments[2] & 3
        if writes or event in WRITES:
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left[0] -= 1

    sys.addaudithook(hook)


def play(scene, folder):
    """Plays a scene until nothing is left to be killed at."""
    for step in itertools.count():
        place = folder / str(step)
        place.mkdir(parents=True)
        if (pid := os.fork()) == 0:
            try:
                os.chdir(place)
                settings = scene()
                die_before_write(step)
                predict(**settings)
            except BaseException:
                sys.excepthook(*sys.exc_info())
                os._exit(1)
            os._exit(0)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        if status == 0:
            return
        assert status == -signal.SIGKILL, f"step {step}: {status}"


if __name__ == "__main__":
    job.loading.load = lambda *_: Bright()
    sys.stdout = open(os.devnull, "w")  # noqa: SIM115
    root = Path(sys.argv[1]).absolute()
    for scene in (fresh, rerun, watched):
        play(scene, root / scene.__name__)
