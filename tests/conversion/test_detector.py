"""Workdirs out of checkpoints: what they refuse, what they say, and what takes them."""

import json
import shutil

import numpy as np
import pytest

import flowad_jax
from flowad_jax.conversion import back, clamp, detector, explain, settings
from flowad_jax.conversion.settings import changed
from flowad_jax.doctor import workdir as doctor
from flowad_jax.errors import UserError
from flowad_jax.training import converted, loop, summary, workdir
from flowad_jax.training.system import build
from flowad_jax.weights import detectors, torch_file, torch_writer
from tests.conversion.conftest import card_of, quiet

pytestmark = pytest.mark.whole


@pytest.fixture(name="theirs")
def _theirs(make, tmp_path):
    """A recipe and a checkpoint of CFLOW-AD, whose permutations are orders."""
    config, original = make("cflow", permutation="hard")
    back.back(original, str(tmp_path / "bottle.pt"), say=quiet)
    return config, tmp_path / "bottle.pt"


def test_a_converted_detector_is_a_workdir(theirs, tmp_path, image_root):
    config, checkpoint = theirs
    detector.convert(checkpoint, config, tmp_path / "first", say=quiet)
    path = shutil.move(tmp_path / "first", tmp_path / "run")  # its encoder goes with it
    assert {item.name for item in path.iterdir()} == {
        *("config.json", "converted.json", "detector.safetensors", "detector.card.json"),
        *("encoder.safetensors", "encoder.card.json"),
    }
    results = summary.evaluate_workdir(path)
    assert summary.headline(results).startswith("converted checkpoint: image_auroc")
    assert "converted checkpoint (its epoch is" in (path / "results.md").read_text()
    stored = json.loads((path / "config.json").read_text())
    assert converted.load_meta(path)["config"] == stored
    files = sorted((image_root / "part" / "test" / "spot").iterdir())
    assert len(flowad_jax.load(path).predict(files)) == 3
    section = doctor.examine(str(path))
    assert ("converted", "from bottle.pt, dialect cflow") in section.facts
    assert not section.problems
    with pytest.raises(UserError, match="converted detector, which cannot be trained on"):
        loop.train(workdir.load_config(path), path)
    (path / "converted.json").write_text("{")
    with pytest.raises(UserError, match=r"converted\.json cannot be read .*: convert again"):
        flowad_jax.load(path)


def broken(content, change):
    """The checkpoint with one thing wrong."""
    decoder = content["decoder_state_dict"][1]
    match change:
        case "missing":
            del decoder["module_list.1.subnet.2.bias"]
        case "unknown":
            decoder["module_list.1.extra"] = np.zeros(1, np.float32)
        case "gap":
            decoder |= {k.replace("list.1.", "list.3."): decoder.pop(k) for k in list(decoder)}
        case "householder":
            decoder["module_list.0.vk_householder"] = np.zeros((2, 4), np.float32)
        case "inverse":
            decoder["module_list.0.w_perm_inv"] = decoder["module_list.0.w_perm_inv"][::-1].copy()
        case "twice":
            matrix = decoder["module_list.0.w_perm"].copy()
            matrix[0] = matrix[1]
            decoder["module_list.0.w_perm"] = matrix
            del decoder["module_list.0.w_perm_inv"]
        case "scale":
            decoder["module_list.0.w_perm"] = 2.0 * decoder["module_list.0.w_perm"]
            del decoder["module_list.0.w_perm_inv"]
        case "encoder":
            content["encoder_state_dict"].pop("conv1.weight")
        case "no list":
            content["decoder_state_dict"] = {}
        case "other":
            return {"weight": np.zeros(3, np.float32)}
    return content


FAULTS = {
    "missing": r"bottle\.pt: .*no tensor 'module_list\.1\.subnet\.2\.bias'",
    "unknown": r"unknown tensors: 'module_list\.1\.extra'",
    "gap": "has blocks .*, not all from 0 on",
    "householder": "is a trained permutation",
    "inverse": "'module_list.0.w_perm' and the inverse beside it do not belong together",
    "twice": "'module_list.0.w_perm' is no order of",
    "scale": "its scales differ in permutation: hard, soft",
    "encoder": r"bottle\.pt \(its encoder\) does not fit the network: 1 variables without a tensor",
    "no list": "'decoder_state_dict' is no list of state dicts",
    "other": r"bottle\.pt: is no detector of CFLOW-AD .* it holds 'weight'",
}


@pytest.mark.parametrize("change", FAULTS)
def test_faults_are_named_and_nothing_is_left(change, theirs, tmp_path):
    config, checkpoint = theirs
    content = broken(torch_file.read(checkpoint), change)
    torch_writer.write(checkpoint, content)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(UserError, match=FAULTS[change]):
        detector.convert(checkpoint, config, tmp_path / "run", say=quiet)
    assert sorted(tmp_path.iterdir()) == before


def test_what_does_not_belong_together_is_refused(theirs, tmp_path, image_root):
    config, checkpoint = theirs
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("mine")
    cases = [
        (config, {"target": tmp_path / "run"}, "exists and is not empty"),
        (config, {"clamp_kind": "tanh_ratio"}, "was trained with tanh, as its permutations show"),
        (
            changed(config, **{"encoder.name": "resnet.resnet50"}),
            {},
            r"maps of \(16, 32\) channels, but encoder 'resnet.resnet50' has \(256, 512",
        ),
        (changed(config, **{"method.name": "msflow"}), {}, "a recipe of msflow, but .* of cflow"),
        (changed(config, **{"data.root": str(tmp_path / "no")}), {}, "no"),
    ]
    for recipe, options, message in cases:
        arguments = {"target": tmp_path / "new", "say": quiet, **options}
        with pytest.raises(UserError, match=message):
            detector.convert(checkpoint, recipe, **arguments)
    assert (tmp_path / "run" / "mine.txt").read_text() == "mine"
    assert not (tmp_path / "new").exists()


def test_a_dry_run_writes_nothing(theirs, tmp_path):
    config, checkpoint = theirs
    before = sorted(tmp_path.iterdir())
    card = detector.convert(checkpoint, config, None, say=quiet)
    assert card["dialect"] == "cflow"
    assert sorted(tmp_path.iterdir()) == before


def test_what_only_training_needs_is_no_obstacle(theirs, tmp_path):
    """Fewer images than a batch that must be full, a place for features, how anomalies are made."""
    config, checkpoint = theirs
    recipe = changed(
        config,
        **{"data.drop_last": True, "train.batch_size": 99, "cache.place": "disk"},
        **{"synthesis.name": "nsa", "synthesis.lenders": str(tmp_path / "gone")},
    )
    detector.convert(checkpoint, recipe, tmp_path / "run", say=quiet)
    results = summary.evaluate_workdir(tmp_path / "run")
    assert results["columns"]
    assert not doctor.examine(str(tmp_path / "run")).problems
    with pytest.raises(UserError, match="learns from normal images alone"):
        build(workdir.load_config(tmp_path / "run"))


def test_verification_goes_into_the_card(theirs, tmp_path):
    config, checkpoint = theirs
    detector.convert(
        checkpoint, config, tmp_path / "run", verify=lambda *_: {"images": 4}, say=quiet
    )
    assert card_of(tmp_path / "run")["verified"] == {"images": 4}


def test_the_clamp_is_found_or_asked_for():
    assert clamp.choose({"tanh": 0.7, "tanh_ratio": 0.6}) == "tanh_ratio"
    for losses in ({"tanh": 0.6, "tanh_ratio": 0.6002}, {"tanh": 0.6, "tanh_ratio": float("nan")}):
        with pytest.raises(UserError, match=r"normal images do not either .*give --clamp"):
            clamp.choose(losses)


def test_scales_of_the_authors_vit_are_sorted(theirs, tmp_path):
    config, checkpoint = theirs
    found = detectors.recognise(torch_file.read(checkpoint), "a.pt")
    three = found._replace(
        channels=(768,) * 3,
        variables={"params": {f"scale{i}": f"block {b}" for i, b in enumerate((10, 2, 6))}},
    )
    recipe = changed(config, **{"encoder.name": "vit.vit_base_patch16_224"})
    settled = settings.settle(three, recipe)
    assert settled.config.encoder.taps == (2, 6, 10)
    assert settled.config.data.norm == "mean_as_std"
    ordered = settings.reordered(three, settled.order)["params"]
    assert ordered == {"scale0": "block 2", "scale1": "block 6", "scale2": "block 10"}


def test_the_table_shows_where_tensors_go(theirs):
    _, checkpoint = theirs
    text = explain.explained(checkpoint)
    assert "a detector of cflow, dialect cflow" in text
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert any(
        line.startswith("decoder_state_dict 1 module_list.0.subnet.2.weight")
        and "params/scale1/blocks_0/net/out/kernel" in line
        for line in lines
    )
    assert sum("not kept: it is the inverse" in line for line in lines) == 4
    assert not any("left out" in line for line in lines)


def test_json_has_the_names_of_files_only(theirs, tmp_path):
    config, checkpoint = theirs
    detector.convert(checkpoint, config, tmp_path / "run", say=quiet)
    stored = json.loads((tmp_path / "run" / "config.json").read_text())
    assert stored["encoder"]["weights"] == "encoder.safetensors"


def test_what_is_left_to_the_recipe_is_the_size_of_its_category(theirs):
    config, checkpoint = theirs
    found, category = detector.read(checkpoint), config.data.category
    settled = settings.settle(found, changed(config, **{"data.category_sizes.other": 64}))
    assert "  data.image_size = 32\n" in detector.described(found, settled)
    settled = settings.settle(found, changed(config, **{f"data.category_sizes.{category}": 64}))
    text = detector.described(found, settled)
    assert f"  data.category_sizes.{category} = 64\n" in text
    assert "data.image_size" not in text
