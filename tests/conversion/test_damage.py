"""Converted detectors that are damaged or edited are refused, in one line."""

import json
import math
import random
import shutil

import jax
import numpy as np
import pytest

import flowad_jax
from flowad_jax.detector import checksums, converted, state, workdir
from flowad_jax.detector.model import build_model
from flowad_jax.doctor.workdir import examine
from flowad_jax.errors import UserError
from flowad_jax.training import rescore

pytestmark = pytest.mark.whole
FILES = (converted.DETECTOR, converted.META)


@pytest.fixture(name="path")
def _path(make, tmp_path):
    """A converted SSNF detector, the smallest, to damage."""
    return shutil.copytree(make("ssnf")[1], tmp_path / "run")


def refused(function, *args):
    with pytest.raises(UserError) as error:
        function(*args)
    assert "\n" not in str(error.value)
    return str(error.value)


def values(model, path):
    trained, position, meta = state.of_workdir(model, path)
    return [np.asarray(leaf) for leaf in jax.tree.leaves(trained.params)], position, meta


def test_bit_flips_are_detected_or_harmless(path):
    model, rng, lines = build_model(workdir.load_config(path)), random.Random(14), []
    right = values(model, path)
    for turn in range(40):
        file = path / FILES[turn % 2]
        before = file.read_bytes()
        content = bytearray(before)
        bit = rng.randrange(8 * len(content))
        content[bit // 8] ^= 1 << bit % 8
        file.write_bytes(content)
        try:
            arrays, *others = values(model, path)
            assert others == list(right[1:])
            assert all(np.array_equal(a, b) for a, b in zip(arrays, right[0], strict=True))
        except UserError as error:
            lines.append((file.name, str(error)))
        file.write_bytes(before)
    assert len(lines) >= 36  # the others hit white space of the JSON
    assert all(name in line and "\n" not in line for name, line in lines)


@pytest.mark.parametrize("name", FILES)
def test_a_lost_or_truncated_file(path, name):
    content = (path / name).read_bytes()
    for left in (content[: len(content) // 2], b"", None):
        (path / name).write_bytes(left) if left is not None else (path / name).unlink()
        for call in (flowad_jax.load, rescore.evaluate_workdir):
            line = refused(call, path)
            assert name in line
            assert "convert again" in line
        assert examine(str(path)).problems[-1][1] == "convert again"
    # What is left of a detector is no workdir to train in.
    assert "holds a converted detector" in refused(
        workdir.create_workdir, path, workdir.config_dict.ConfigDict({})
    )


def test_calibration_that_measures_nothing(path):
    file = path / converted.META
    content = json.loads(file.read_text())["content"]
    for value, said in (
        ([math.nan], "NaN"),
        ([], "fitted.scale_max=[]"),
        ([0.0, 0.0], "fitted.scale_max has shape (2,), must be (1,)"),
    ):
        content["fitted"]["scale_max"] = value
        file.write_text(checksums.seal(content))
        line = refused(flowad_jax.load, path)
        assert str(file) in line
        assert said in line


def test_meta_without_the_checksum_of_the_detector(path, caplog):
    file = path / converted.META
    content = json.loads(file.read_text())["content"]
    del content["detector_sha256"]
    file.write_text(checksums.seal(content))
    assert "has no checksum of the detector" in refused(flowad_jax.load, path)
    file.write_text(json.dumps(content))  # as version 0.1 wrote it
    flowad_jax.load(path)
    assert "detector.safetensors cannot be checked for damage" in caplog.text


def test_an_edited_config_is_refused(path):
    file = path / converted.META
    config = json.loads((path / workdir.CONFIG).read_text())
    content = json.loads(file.read_text())["content"]
    file.write_text(checksums.seal({**content, "config": config}))
    flowad_jax.load(path)
    config["data"]["filter"] = "bilinear"
    (path / workdir.CONFIG).write_text(json.dumps(config))
    for call in (flowad_jax.load, rescore.evaluate_workdir):
        assert "was changed after training (data.filter: 'lanczos' there" in refused(call, path)
