"""An exported detector may come from a stranger: what is wrong with it is one line."""

import builtins
import copy
import math
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from flowad_jax.bundle.run import Detector, UserError
from flowad_jax.flowad_runtime import card as cards
from tests.bundle import stub
from tests.data.image_files import picture


def refused(folder, *words, **options):
    with pytest.raises(UserError) as caught:
        Detector(folder, **options)
    text = str(caught.value)
    assert "\n" not in text
    assert len(text) < 500
    for word in words:
        assert word in text, text


def keys(rules, path=()):
    """Paths of all keys that are checked."""
    for name, rule in rules.items():
        yield (*path, name)
        if isinstance(rule, dict):
            yield from keys(rule, (*path, name))


KEYS = [*keys(cards.RULES)]
BAD = (None, math.nan, math.inf, -1, 1e300, True, "", "x" * 9999, [], [[]], {}, [[None]], [["1"]])
FINE = {  # what some of these may be
    "name": (str,), "files.model.onnx.sha256": (), "card": (),
    "threshold": (type(None),), "batch.dynamic": (bool,),
    "min_region": (type(None), float), "position": (float,),
}  # fmt: skip


@pytest.mark.parametrize("key", KEYS, ids=".".join)
def test_every_key_is_needed_and_checked(tmp_path, key):
    def parent(card):
        for name in key[:-1]:
            card = card[name]
        return card

    named = ".".join(key)
    stub.write(tmp_path, change=lambda card: parent(card).pop(key[-1]))
    refused(tmp_path, "detector.json", named, "export the detector again")
    for value in BAD:
        if isinstance(value, FINE.get(named, ())) and value == value and value != math.inf:
            continue
        stub.write(tmp_path, change=lambda card, value=value: parent(card).update({key[-1]: value}))
        refused(tmp_path)


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"null", b"\xff", b"[" * 10**5, b'{"format": 2}', b'{"format": 1e999}'],
)
def test_no_card(tmp_path, content):
    stub.write(tmp_path)
    (tmp_path / "detector.json").write_bytes(content)
    refused(tmp_path, "detector.json")


def test_missing_files_and_zips(tmp_path):
    refused(tmp_path, "detector.json cannot be read (No such file", "export the detector again")
    (tmp_path / "a.zip").write_bytes(b"")
    refused(tmp_path / "a.zip", "unpack it first")
    stub.write(tmp_path / "b")
    (tmp_path / "b" / "model.onnx").unlink()
    refused(tmp_path / "b", "model.onnx cannot be read (No such file")


@pytest.mark.parametrize(
    "change",
    [
        {"level": 0.5}, {"decided_by": "estimate"}, {"image": None}, {"pixel": 1e9},
        {"images": 7}, {"false_alarm_rate": 0.2}, {"decided_by": "threshold"}, {"promised": 0.01},
    ],
)  # fmt: skip
def test_thresholds_that_do_not_follow_from_the_scores(tmp_path, change):
    (key,) = change
    refused(stub.write(tmp_path, change=lambda card: card["card"].update(change)), f"card.{key}=")


def test_thresholds_of_which_one_is_missing(tmp_path):
    for key in ("promised", "pixel"):
        folder = stub.write(tmp_path, change=lambda card, key=key: card["card"].pop(key))
        refused(folder, f"card.{key}=None")


def test_scores_of_different_lengths(tmp_path):
    def change(card):
        card["calibration"]["peak"] = [card["calibration"]["peak"][0][:-1]]

    refused(stub.write(tmp_path, change=change), "calibration.peak")


def test_another_graph(tmp_path):
    stub.write(tmp_path)
    path = tmp_path / "model.onnx"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    refused(tmp_path, "model.onnx is not the file that was exported: copy it again")


@pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
def test_a_graph_that_is_none(tmp_path, backend):
    refused(stub.write(tmp_path, b"no graph"), f"cannot be loaded by {backend}", backend=backend)


def test_weights_in_other_files(tmp_path):
    graph = copy.deepcopy(stub.model())
    (tmp_path / "secret").write_bytes(np.float32(765).tobytes())
    weight = next(x for x in graph.graph.initializer if x.name == "full")
    onnx.external_data_helper.set_external_data(weight, location="../secret")
    weight.ClearField("raw_data")
    folder = stub.write(tmp_path / "a", graph.SerializeToString())
    refused(folder, "keeps weights in other files")


def test_a_graph_of_another_size(tmp_path):
    def change(card):
        card["image"]["height"] = 16

    detector = Detector(stub.write(tmp_path / "a", change=change))
    with pytest.raises(UserError, match=r"model\.onnx fails"):
        detector.predict(picture())
    other = Detector(stub.write(tmp_path / "b", stub.model(2).SerializeToString()))
    with pytest.raises(UserError, match=r"model\.onnx returns \(1, 2\)"):
        other.predict(picture())


@pytest.mark.parametrize("options", [{"false_alarm_rate": x} for x in (0, 1, -1, math.nan)])
def test_arguments_of_no_sense(tmp_path, options):
    refused(stub.write(tmp_path), "a rate lies between 0 and 1", **options)


def test_other_arguments(tmp_path, monkeypatch):
    stub.write(tmp_path)
    refused(tmp_path, "threshold=nan: give a finite number", threshold=math.nan)
    refused(tmp_path, "choose one of onnxruntime, openvino", backend="torch")
    usual = builtins.__import__

    def without(name, *args):
        if name == "openvino":
            raise ImportError(name)
        return usual(name, *args)

    monkeypatch.setattr(builtins, "__import__", without)
    refused(tmp_path, "pip install openvino", backend="openvino")


def test_nothing_is_reported_to_anybody(tmp_path):
    """Importing openvino starts a process that sends usage data, unless it is told not to."""
    code = (
        "import os, sys, numpy\n"
        "os.register_at_fork(before=lambda: os._exit(9))\n"
        "from flowad_jax.bundle.run import Detector\n"
        "print(Detector(sys.argv[1], 'openvino').predict(numpy.zeros((9, 9), 'uint8')))\n"
        "assert not sys.modules['openvino_telemetry']"
    )
    words = [sys.executable, "-c", code, str(stub.write(tmp_path))]
    subprocess.run(words, check=True, cwd=Path(stub.__file__).parents[2])


def test_openvino_computes_in_float32(tmp_path):
    scores = [Detector(stub.write(tmp_path), x).predict(picture()).score for x in stub.BACKENDS]
    assert scores[0] == pytest.approx(scores[1], rel=1e-6)
