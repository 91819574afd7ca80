"""Runs of MSFlow and SSNF that are killed at any moment end as one that was left alone.

What SIGKILL leaves of a run is its folder as it lies on the disk at that moment. So one run is made
whose folder is copied before every event: a gradient step, a row of the log, a file that takes its
place, a checkpoint whose state is written and whose rest is not. Going on from a copy is going on
after a kill. benchmarks/kill.py sends the signal itself, to larger runs and for longer.
"""

import functools
import random
import shutil

import pytest

from benchmarks._runs import end, steps
from benchmarks.kill import differences
from flowad_jax import files
from flowad_jax.detector import checksums
from flowad_jax.training import loop, run
from flowad_jax.training.metrics_log import MetricsLog
from tests.training.multi_device_worker import config_of

pytestmark = [
    pytest.mark.whole,
    pytest.mark.filterwarnings("ignore:Sharding info not provided:UserWarning"),
]

METHODS = ("msflow", "ssnf")
EVENTS = (
    (run.TrainingRun, "record_step"),
    (MetricsLog, "write"),
    (files, "atomic_write"),
    (checksums, "of_files"),  # of the state, before it is known to be complete
)
KILLS = 2  # one of them within a checkpoint


@pytest.fixture(name="compiled_once")
def _compiled_once(monkeypatch):
    """All trainings of a test share their parts, and with them the compiled programs."""
    for module, name in ((loop, "build"), (loop, "make_train_step"), (run, "make_loss")):
        made, original = [], getattr(module, name)

        def shared(*args, made=made, original=original, **kwargs):
            made.extend([] if made else [original(*args, **kwargs)])
            return made[0]

        monkeypatch.setattr(module, name, shared)


def config_of_method(method):
    """A checkpoint in every epoch of two."""
    config = config_of(method)
    config.train.checkpoint_every, config.train.eval_every = 1, 2
    return config


def watched(monkeypatch, happens):
    """Lets ``happens(name)`` be called before every event."""
    for owner, name in EVENTS:
        original = getattr(owner, name)

        def event(*args, original=original, name=name, **kwargs):
            happens(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, functools.wraps(original)(event))


@pytest.mark.parametrize("method", METHODS)
def test_a_killed_run_ends_bit_equal_to_one_that_was_left_alone(
    method, tmp_path, monkeypatch, compiled_once
):
    alone, copies = tmp_path / "alone", []

    def copy(name):
        if alone.exists():
            copies.append((name, shutil.copytree(alone, tmp_path / str(len(copies)))))

    with monkeypatch.context() as patched:
        watched(patched, copy)
        loop.train(config_of_method(method), alone)
    expected = end(alone)
    assert steps(alone) == [2, 4]
    within = [row for row, (name, _) in enumerate(copies) if name == "of_files"]
    rng = random.Random(method)
    chosen = [within[1], *rng.sample(range(len(copies)), KILLS - 1)]
    for name, killed in (copies[row] for row in chosen):
        loop.train(config_of_method(method), killed)
        assert steps(killed) == [2, 4]
        assert differences(expected, end(killed)) == [], name
        assert not list((killed / "checkpoints").glob("*.unfinished"))
