"""Checkpoints that are damaged, foreign or edited: one line that says so, and never another answer.

Damage is drawn at random from fixed seeds and done to copies of one tiny run.
"""

import json
import logging
import random
import shutil
from contextlib import ExitStack

import jax
import numpy as np
import pytest

import flowad_jax
from flowad_jax.detector import checkpoint, checksums, state
from flowad_jax.doctor.workdir import examine
from flowad_jax.errors import UserError
from flowad_jax.interrupt import Signals
from flowad_jax.sweep.plan import Trial
from flowad_jax.sweep.stacked_run import begin
from flowad_jax.training import rescore
from flowad_jax.training.loop import train
from flowad_jax.training.optimizer import state_shapes
from tests.conftest import shared_recipe
from tests.detector.conftest import (
    NEWEST,
    OLDER,
    content_of,
    files_of,
    meta_file,
    newest,
    problem_of,
    refused,
    snapshot,
)


def values(restored):
    """A restored state, its position and its meta, to be compared."""
    trained, *others = restored
    leaves = jax.tree.leaves(trained._replace(rng=jax.random.key_data(trained.rng)))
    return [(str(leaf.dtype), np.asarray(leaf).tolist()) for leaf in leaves], others


def flip(file, rng):
    """Flips one bit of a file."""
    content = bytearray(file.read_bytes())
    bit = rng.randrange(8 * len(content))
    content[bit // 8] ^= 1 << bit % 8
    file.write_bytes(content)


def test_bit_flips_are_detected_or_harmless(path, model):
    right, rng, lines = values(state.of_workdir(model, path)), random.Random(14), []
    files = [file for file in files_of(newest(path)) if file.stat().st_size]
    assert {"manifest.ocdbt", "_METADATA", "metadata"} <= {file.name for file in files}
    for _ in range(100):
        file = rng.choice(files)
        before = file.read_bytes()
        flip(file, rng)
        try:
            assert values(state.of_workdir(model, path)) == right, file
        except UserError as error:
            lines.append(str(error))
        file.write_bytes(before)
    assert len(lines) >= 95  # the others hit white space of the JSON
    assert all("\n" not in line and f"checkpoints/{NEWEST}" in line for line in lines)
    assert values(state.of_workdir(model, path)) == right


LOST = {
    "deleted": lambda file: file.unlink(),
    "emptied": lambda file: file.write_bytes(b""),
    "halved": lambda file: file.write_bytes(file.read_bytes()[: file.stat().st_size // 2]),
    "cut off": lambda file: file.write_bytes(file.read_bytes()[:-2]),
}


@pytest.mark.parametrize("lose", LOST.values(), ids=LOST)
def test_files_that_are_lost_or_cut_off(path, model, lose):
    for file in files_of(newest(path)):
        before = file.read_bytes()
        lose(file)
        line = refused(state.of_workdir, model, path)
        assert f"delete checkpoints/{NEWEST} to go back to step {OLDER}" in line
        assert file.name in line
        file.write_bytes(before)


def test_a_damaged_state_reaches_nobody_and_the_step_before_resumes(path, root, doors, caplog):
    """Flipped in the largest file, where the parameters are."""
    flip(max(files_of(newest(path) / "state"), key=lambda f: f.stat().st_size), random.Random(3))
    before = snapshot(path / "checkpoints")
    for call in doors:
        line = refused(call, path)
        assert f"checkpoint {NEWEST} in" in line
        assert "has changed (its checksum differs)" in line
        assert snapshot(path / "checkpoints") == before
    problem, remedy = problem_of(path)
    assert "has changed" in problem
    assert f"delete checkpoints/{NEWEST}" in remedy
    shutil.rmtree(newest(path))  # as it advises
    with caplog.at_level(logging.INFO, "flowad_jax"):
        train(shared_recipe(root), path)
    assert "resuming at epoch 3, batch 0" in caplog.text
    assert checkpoint.steps(path) == [OLDER, NEWEST]


def test_a_damaged_run_of_a_stack_is_left_out(root, tmp_path):
    trials, noted = [Trial(name, shared_recipe(root)) for name in ("whole", "damaged")], {}
    for trial in trials:
        shutil.copytree(root / "run", tmp_path / trial.folder)
    flip(newest(tmp_path / "damaged") / "state" / "manifest.ocdbt", random.Random(0))
    with ExitStack() as opened, Signals() as signals:
        note = lambda trial, fault: noted.update({trial.folder: fault})  # noqa: E731
        stacked = begin(trials, tmp_path, note, opened, signals)
    assert [one.run.title for one in stacked] == ["whole"]
    assert noted.keys() == {"damaged"}
    assert "manifest.ocdbt has changed" in noted["damaged"]


def test_a_state_and_a_meta_of_two_checkpoints(path, model):
    shutil.rmtree(newest(path) / "state")
    shutil.copytree(path / "checkpoints" / str(OLDER) / "state", newest(path) / "state")
    assert "cannot be restored" in refused(state.of_workdir, model, path)


def test_a_checkpoint_under_the_name_of_another_step(path, model):
    newest(path).rename(path / "checkpoints" / "9")
    line = refused(state.of_workdir, model, path)
    assert line.endswith(f"checkpoints/9: rename it to {NEWEST}, its step")


def test_a_state_of_other_arrays_is_refused_whole_or_in_part(path, model):
    """Reading no optimizer's state must not mean reading less than the model has."""
    content = content_of(path)
    del content["config"]  # which would be compared first
    meta_file(path).write_text(checksums.seal(content))
    like = state_shapes(model)
    fewer = {group: like.params[group] for group in list(like.params)[:1]}
    more = {**like.params, "scale9": fewer[next(iter(fewer))]}
    for params in (fewer, more):
        for other in (like._replace(params=params), like._replace(params=params, opt_state={})):
            line = refused(checkpoint.restore, path, other)
            assert line.endswith("another version: use the version of flowad_jax that wrote it")


def make_old(path):
    """Gives the newest checkpoint the form that version 0.1 wrote."""
    content = content_of(path)
    del content["state"], content["config"]
    meta_file(path).write_text(json.dumps(content))


def test_version_0_1_loads_with_one_warning(path, root, model, caplog):
    (arrays, (position, meta)) = values(state.of_workdir(model, path))
    make_old(path)
    del meta["config"]
    assert values(state.of_workdir(model, path)) == (arrays, [position, meta])
    assert [r.message for r in caplog.records] == [
        f"{newest(path)}/state cannot be checked for damage: version 0.1 wrote no checksums"
    ]
    (path / "config.json").unlink()
    assert "config.json that they belong to is gone" in refused(train, shared_recipe(root), path)


def test_damage_that_only_orbax_can_see(path, model):
    """Without checksums, arrays that cannot be read are still one line."""
    make_old(path)
    files = files_of(newest(path) / "state")
    for file in (max(files, key=lambda f: f.stat().st_size), newest(path) / "state/_METADATA"):
        before = file.read_bytes()
        file.write_bytes(before[:50])
        line = refused(state.of_workdir, model, path)
        assert "/state is damaged or of another version" in line
        assert f"delete checkpoints/{NEWEST}" in line
        file.write_bytes(before)


def test_reading_changes_nothing(path, model, monkeypatch):
    before = snapshot(path)
    flowad_jax.load(path)
    state.of_workdir(model, path)
    assert not examine(str(path)).problems
    monkeypatch.chdir(path.parent)
    assert not examine(path.name).problems
    assert snapshot(path) == before
    shutil.rmtree(path / "checkpoints")
    before = snapshot(path)
    for call in (flowad_jax.load, rescore.evaluate_workdir):
        assert "holds no complete checkpoint" in refused(call, path)
    assert examine(str(path)).problems
    assert snapshot(path) == before
