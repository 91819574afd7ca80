"""What a bundle says about itself: as the runtime reads it, or refused."""

import copy
import json
import math

import pytest

from flowad_jax import flowad_runtime
from flowad_jax.bundle import card
from flowad_jax.bundle.card import GraphOptions
from flowad_jax.errors import UserError
from tests.bundle import untrained

DELETE = object()
VALUES = (
    *(None, True, "x", "", -1, 0, 1, 2**17, 0.5, 1.5, -0.5, math.inf, math.nan, [], {}),
    *([[]], [["x"]], [[1.0], [math.nan]], [[True]], DELETE),
)
# Of these both say the same, of the others the runtime knows nothing.
READ = (
    *("format", "name", "threshold", "position", "min_region", "card", "image", "batch"),
    *("image.height", "image.width", "image.fit", "image.filter", "image.white"),
    *("batch.dynamic", "batch.most", "calibration", "calibration.kind"),
    *("calibration.false_alarm_rate", "calibration.image", "calibration.peak", "files"),
    *("files.model.onnx", "files.model.onnx/sha256"),
    *(f"card.{name}" for name in ("false_alarm_rate", "level", "decided_by", "image", "pixel")),
)


@pytest.fixture(name="bundle", scope="module", params=["msflow", "cflow"])
def _bundle(request, tmp_path_factory):
    """A folder whose graph is none."""
    folder = tmp_path_factory.mktemp("bundle")
    for name in card.NEEDED:
        (folder / name).write_bytes(b"none")
    parts = 3 if request.param == "cflow" else 1
    predictor = untrained.predictor(request.param, "pad", parts)
    about = card.describe(predictor, GraphOptions(), {"jax": "0.1"})
    card.write(folder, about, [{"backend": "a", "version": "1", "images": 1, "score": 0, "map": 0}])
    return folder


def steps(key):
    """Keys of the tables on the way to a value."""
    if key.startswith("files."):
        return ["files", *key.removeprefix("files.").split("/")]
    return key.split(".")


def refusal(read, folder):
    try:
        read(folder)
    except (UserError, flowad_runtime.UserError) as error:
        return str(error)
    return ""


def test_both_readers_read_it(bundle):
    about = card.read(bundle)
    assert about["files"][card.ONNX]["bytes"] == 4
    assert set(about) == set(card.SCHEMA["required"])
    assert flowad_runtime.card.read(bundle)["card"] == about["card"]
    assert about["encoder"]["weights"] == "random, seed 0"


@pytest.mark.parametrize("key", READ)
def test_both_readers_refuse_the_same(bundle, tmp_path, key):
    content = json.loads((bundle / card.CARD).read_text())
    for name in card.NEEDED:
        (tmp_path / name).write_bytes(b"none")
    refused = 0
    for value in VALUES:
        changed = copy.deepcopy(content)
        *outer, last = steps(key)
        place = changed
        for step in outer:
            place = place[step]
        if value is DELETE:
            del place[last]
        else:
            place[last] = value
        (tmp_path / card.CARD).write_text(json.dumps(changed))
        ours = refusal(card.read, tmp_path)
        theirs = refusal(flowad_runtime.card.read, tmp_path)
        assert "\n" not in ours + theirs
        graph = "is not the file" in ours  # the runtime looks at that when it loads the graph
        assert graph or bool(ours) == bool(theirs), f"{key}={value!r}: {ours!r}, {theirs!r}"
        refused += bool(ours)
    assert refused > len(VALUES) / 3


def test_what_is_written_has_its_shape(bundle, tmp_path):
    about = json.loads((bundle / card.CARD).read_text())
    for name in card.NEEDED:
        (tmp_path / name).touch()
    with pytest.raises(UserError, match="unknown key mine"):
        card.write(tmp_path, {**about, "mine": 1}, [])
    assert not (tmp_path / card.CARD).exists()


def test_files_that_changed_are_refused(bundle, tmp_path):
    def damaged(name, change):
        for path in bundle.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        change(tmp_path / name)
        return refusal(card.read, tmp_path)

    for name in card.NEEDED:
        assert f"{name} is not the file that was exported" in damaged(
            name, lambda path: path.write_bytes(b"nOne")
        )
        assert f"{name} cannot be read (No such file" in damaged(name, lambda path: path.unlink())
    assert "it has no detector.json" in damaged(card.CARD, lambda path: path.unlink())
    assert "cannot be read" in damaged(card.CARD, lambda path: path.write_text("{"))


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "a/../../b"])
def test_files_lie_in_the_bundle(bundle, tmp_path, name):
    about = json.loads((bundle / card.CARD).read_text())
    about["files"][name] = {"sha256": "0", "bytes": 1}
    (tmp_path / card.CARD).write_text(json.dumps(about))
    for path in card.NEEDED:
        (tmp_path / path).write_bytes(b"none")
    assert "which lies elsewhere" in refusal(card.read, tmp_path)


def test_a_zip_has_to_be_unpacked(tmp_path):
    (tmp_path / "a.zip").touch()
    assert refusal(card.read, tmp_path / "a.zip").endswith("unpack it first")
