"""Bundles that compute in 8 bits are written only if no decision changes."""

import shutil

import onnx
import pytest

from flowad_jax import flowad_runtime, schema
from flowad_jax.bundle import card, export, quantization, reference, validate
from flowad_jax.bundle.card import GraphOptions
from flowad_jax.errors import UserError


@pytest.fixture
def bundle(exported, tmp_path):
    """A copy of the bundle that may be changed."""
    shutil.copytree(exported.place, tmp_path / "copy.flowad")
    return tmp_path / "copy.flowad"


def described(bundle):
    """The card without what follows from the files."""
    about = schema.read(bundle / card.CARD, card.SCHEMA, "")
    return {key: value for key, value in about.items() if key not in ("checked", "files")}


def test_eight_bits(bundle, trained):
    before = flowad_runtime.Detector(bundle).predict(reference.find(trained)[0])
    quantization.quantize(bundle, trained)
    kinds = {node.op_type for node in onnx.load(bundle / card.ONNX).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    card.write(bundle, described(bundle), [])
    after = flowad_runtime.Detector(bundle).predict(reference.find(trained)[0])
    assert after.score != before.score
    assert after.score == pytest.approx(before.score, rel=0.5)


def negate(folder, predictor):
    """Does it so badly that what was high is low."""
    model = onnx.load(folder / card.ONNX)
    last = model.graph.output[0].name
    for node in model.graph.node:
        node.output[:] = ["exact" if name == last else name for name in node.output]
    model.graph.node.append(onnx.helper.make_node("Neg", ["exact"], [last]))
    (folder / card.ONNX).write_bytes(model.SerializeToString())


def test_a_changed_decision_leaves_nothing(run, tmp_path, monkeypatch):
    monkeypatch.setattr(quantization, "quantize", negate)
    with pytest.raises(UserError, match=r"--dtype=int8: \d+ of 10 decisions change with onnx"):
        export.export(run, str(tmp_path / "a.flowad"), GraphOptions("int8"))
    assert not [*tmp_path.iterdir()]


def test_held_out_images_have_their_ranks_in_what_was_quantised(bundle, trained):
    """One of them is at the threshold, and would flip were that of the exact scores."""
    quantization.quantize(bundle, trained)
    about = described(bundle)
    card.write(bundle, about, [])
    before = about["calibration"]["image"][0]
    quantization.recalibrate(bundle, about, trained)
    card.write(bundle, about, [])
    assert about["calibration"]["image"][0] != before
    (held,) = trained.held_out.sources()
    detector = flowad_runtime.Detector(bundle)
    ours = sorted(one.p_value for one in detector.predict([*held.paths]))
    assert ours == [0.4, 0.6, 0.8, 1.0]


def test_no_decision_changes(run, tmp_path):
    """With a threshold that all scores exceed, in whatever precision."""
    place = str(tmp_path / "a.flowad")
    found = export.export(run, place, GraphOptions("int8"), threshold=-100.0)
    about = card.read(found.place)
    assert (about["dtype"], found.checked) == ("int8", "10 held-out and test images of the run")
    assert about["checked"][0]["score"] > 1e-5
    assert "decisions are equal" in export.shown(found)
    assert validate.validate(found.place)


def test_nothing_to_compare(bundle, trained):
    given = validate.read_check(bundle / card.CHECK)
    with pytest.raises(UserError, match="needs decisions to compare, and there are none: gone"):
        quantization.compare(bundle, trained, given, reference.Images("images", [], "gone"))
