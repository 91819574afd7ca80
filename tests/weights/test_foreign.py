"""Objects of other libraries: placeholders that say what the file would have built."""

import pickle
import sys

import pytest

from flowad_jax.weights import torch_file
from flowad_jax.weights.foreign import Foreign
from tests.weights import craft, lightning_like


def parts(value):
    """A placeholder as (name, arguments, keywords, state, items, pairs), one level deep."""
    assert type(value) is Foreign
    return tuple(
        getattr(value, name)
        for name in ("name", "arguments", "keywords", "state", "items", "pairs")
    )


def check(found, protocol=2):
    """Compares what was read with what `lightning_like.content` holds."""
    plain = {key: found[key] for key in ("epoch", "pytorch-lightning_version", "loops")}
    with lightning_like.pretended_modules():
        saved = lightning_like.content({}, protocol)
    assert plain == {key: saved[key] for key in plain}
    assert found["callbacks"] == {
        "ModelCheckpoint{'monitor': None}": {"kept": {(0, "a"): [1]}},
        "anomalib.data.task_type.TaskType": None,
    }
    hyper = found["hyper_parameters"]
    assert type(hyper) is dict
    assert list(hyper) == list(saved["hyper_parameters"])
    check_objects(hyper)
    if protocol >= 4:
        made = ("torchvision.transforms.v2.Transform", (), {"size": 8}, {"size": 8}, [], [])
        assert parts(hyper["transform"]) == made


def check_objects(hyper):
    task = ("anomalib.data.task_type.TaskType", ("segmentation",), {}, None, [], [])
    assert parts(hyper["task"]) == task
    assert repr(hyper["task"]) == "<foreign anomalib.data.task_type.TaskType('segmentation')>"
    assert hyper["root"].name.startswith("pathlib.")
    assert hyper["root"].arguments == ("/", "data", "tile")
    settings = hyper["settings"]
    assert settings.name == "anomalib.models.settings.Settings"
    assert settings.state["layers"] == ["layer2", "layer3"]
    assert settings.state["owner"] is settings
    assert hyper["config"].state == {"_content": {"rate": 0.1}, "_parent": None}
    assert hyper["names"].name == "builtins.set"
    assert hyper["names"].items or hyper["names"].arguments == (["good"],)
    assert parts(hyper["crop"])[:2] == ("builtins.slice", (0, 4, None))
    assert hyper["started"].name == "datetime.date"
    assert hyper["parsed"].state == {"seed": 3}
    assert hyper["loss"].name == "functools.partial"
    assert hyper["kind"] == "anomalib.models.settings.Settings"
    assert hyper["queue"].name == "collections.deque"
    assert hyper["queue"].items == [1]
    assert hyper["score"].name.endswith(".multiarray.scalar")
    assert hyper["memory"].name.startswith("numpy.")


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_reads_every_object(tmp_path, protocol):
    path = craft.zip_file(tmp_path / "a.ckpt", lightning_like.body(protocol))
    check(torch_file.read(path, foreign=True), protocol)


def test_is_refused_where_it_is_not_asked_for(tmp_path, refused):
    path = craft.zip_file(tmp_path / "a.ckpt", lightning_like.body())
    refused(path, "asks for 'collections.defaultdict'")


def test_imports_nothing(tmp_path):
    path = craft.zip_file(tmp_path / "a.ckpt", craft.named("torchmetrics", "Metric") + b")R")
    before = set(sys.modules)
    assert torch_file.read(path, foreign=True).name == "torchmetrics.Metric"
    assert set(sys.modules) == before


def test_state_dict_beside_objects(tmp_path):
    body = craft.mapping(
        {
            "state_dict": craft.named("collections", "OrderedDict") + b")R" + b"}b",
            "hyper_parameters": craft.named("argparse", "Namespace") + b")\x81" + b"}b",
        }
    )
    path = craft.zip_file(tmp_path / "a.ckpt", body)
    with pytest.raises(torch_file.WeightFileError, match="'hyper_parameters': Foreign"):
        torch_file.state_dict(path)


OBJECT = craft.named("anomalib.models", "Patchcore")
LOOPS = {
    "state": OBJECT + b")\x81q\x00" + b"h\x00b",
    "argument": b"]q\x00" + OBJECT + b"h\x00\x85Rq\x01ah\x01",
    "items and pairs": OBJECT + b")\x81q\x00h\x00ah\x00h\x00s",
    "many paths": OBJECT + b"N\x85Rq\x00" + (OBJECT + b"h\x00h\x00\x86Rq\x00") * 100,
    "deep": OBJECT + b"q\x01N\x85Rq\x00" + b"h\x01h\x00\x85Rq\x00" * 50_000,
    "deep state": OBJECT + b"q\x01" + b"h\x01)R" * 50_000 + b"b" * 49_999,
}


@pytest.mark.parametrize("loop", LOOPS)
def test_loops_and_depth_are_shown_at_once(tmp_path, loop):
    found = torch_file.read(craft.zip_file(tmp_path / "a.ckpt", LOOPS[loop]), foreign=True)
    assert len(repr(found)) < 200


def test_a_long_text_is_cut(tmp_path):
    body = OBJECT + craft.many(*[craft.text("\x1b" * 1000)] * 9) + b"R"
    shown = repr(torch_file.read(craft.zip_file(tmp_path / "a.ckpt", body), foreign=True))
    assert shown.isprintable()
    assert shown.endswith(", ...)>")
    assert len(shown) < 400
