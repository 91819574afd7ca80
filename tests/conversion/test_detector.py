"""Workdirs out of checkpoints: what they refuse, what they say, and what takes them."""

import json
import shutil

import numpy as np
import pytest

import flowad_jax
from flowad_jax.conversion import detector, explain, settings
from flowad_jax.conversion.settings import changed
from flowad_jax.detector import converted, workdir
from flowad_jax.doctor import workdir as doctor
from flowad_jax.errors import UserError
from flowad_jax.training import loop, rescore, summary
from flowad_jax.training.experiment import build
from flowad_jax.weights import detectors, torch_file, torch_writer
from tests.conversion.conftest import card_of, quiet

pytestmark = pytest.mark.whole


@pytest.fixture(name="theirs")
def _theirs(make):
    """A recipe and a checkpoint of CFLOW-AD, whose permutations are orders."""
    config, _, checkpoint = make("cflow", permutation="hard")
    return config, checkpoint


def test_a_converted_detector_is_a_workdir(theirs, tmp_path, image_root):
    config, checkpoint = theirs
    config = changed(config, **{"data.root": str(image_root)})
    (image_root / "part" / "train" / "good" / "photo.heic").write_bytes(b"")
    verify = {"images": 4}
    detector.convert(checkpoint, config, tmp_path / "first", verify=lambda *_: verify, say=quiet)
    path = shutil.move(tmp_path / "first", tmp_path / "run")  # its encoder goes with it
    assert {item.name for item in path.iterdir()} == {
        *("config.json", "converted.json", "detector.safetensors", "detector.card.json"),
        *("encoder.safetensors", "encoder.card.json"),
    }
    results = rescore.evaluate_workdir(path)
    assert summary.headline(results).startswith("converted checkpoint: image_auroc")
    assert "photo.heic" in results["findings"][0]
    assert "converted checkpoint (its epoch is" in (path / "results.md").read_text()
    stored = json.loads((path / "config.json").read_text())
    assert converted.load_meta(path)["config"] == stored
    assert stored["encoder"]["weights"] == "encoder.safetensors"  # names of files only
    assert card_of(path)["verified"] == {"images": 4}
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
    "scale": "its scales differ in permutation: hard, soft",
    "encoder": r"bottle\.pt \(its encoder\) does not fit the network: 1 variables without a tensor",
    "no list": "'decoder_state_dict' is no list of state dicts",
    "other": r"bottle\.pt: not a supported detector checkpoint .* it holds 'weight'",
}


@pytest.mark.parametrize("change", FAULTS)
def test_faults_are_named_and_nothing_is_left(change, theirs, tmp_path):
    config, checkpoint = theirs
    content = broken(torch_file.read(checkpoint), change)
    checkpoint = tmp_path / "bottle.pt"
    torch_writer.write(checkpoint, content)
    with pytest.raises(UserError, match=FAULTS[change]):
        detector.convert(checkpoint, config, tmp_path / "run", say=quiet)
    assert list(tmp_path.iterdir()) == [checkpoint]


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
    before = sorted(checkpoint.parent.iterdir())
    card = detector.convert(checkpoint, config, None, say=quiet)
    assert card["dialect"] == "cflow"
    assert sorted(checkpoint.parent.iterdir()) == before


def test_what_only_training_needs_is_no_obstacle(theirs, tmp_path):
    """Fewer images than a batch that must be full, a place for features, how anomalies are made."""
    config, checkpoint = theirs
    recipe = changed(
        config,
        **{"data.drop_last": True, "train.batch_size": 99, "cache.place": "disk"},
        **{"synthesis.name": "nsa", "synthesis.lenders": str(tmp_path / "gone")},
    )
    detector.convert(checkpoint, recipe, tmp_path / "run", say=quiet)
    results = rescore.evaluate_workdir(tmp_path / "run")
    assert results["columns"]
    assert not doctor.examine(str(tmp_path / "run")).problems
    with pytest.raises(UserError, match="learns from normal images alone"):
        build(workdir.load_config(tmp_path / "run"))


def test_the_clamp_is_found_or_asked_for():
    assert detector.choose_clamp({"tanh": 0.7, "tanh_ratio": 0.6}) == "tanh_ratio"
    for losses in ({"tanh": 0.6, "tanh_ratio": 0.6002}, {"tanh": 0.6, "tanh_ratio": float("nan")}):
        with pytest.raises(UserError, match=r"normal images do not either .*give --clamp"):
            detector.choose_clamp(losses)


def test_scales_of_the_authors_vit_are_sorted(theirs, tmp_path):
    config, checkpoint = theirs
    found = detectors.detect_format(torch_file.read(checkpoint), "a.pt")
    three = found._replace(
        channels=(768,) * 3,
        variables={"params": {f"scale{i}": f"block {b}" for i, b in enumerate((10, 2, 6))}},
    )
    recipe = changed(config, **{"encoder.name": "vit.vit_base_patch16_224"})
    settled = settings.merge_settings(three, recipe)
    assert settled.config.encoder.taps == (2, 6, 10)
    assert settled.config.data.norm == "mean_as_std"
    ours = {theirs: scale for scale, theirs in enumerate(settled.order)}
    assert settings.rename_scales(three.variables, ours)["params"] == {
        "scale0": "block 2",
        "scale1": "block 6",
        "scale2": "block 10",
    }


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


def test_what_is_left_to_the_recipe_is_the_size_of_its_category(theirs):
    config, checkpoint = theirs
    found, category = detector.read(checkpoint), config.data.category
    settled = settings.merge_settings(found, changed(config, **{"data.category_sizes.other": 64}))
    assert "  data.image_size = 32\n" in settings.described(found, settled)
    settled = settings.merge_settings(
        found, changed(config, **{f"data.category_sizes.{category}": 64})
    )
    text = settings.described(found, settled)
    assert f"  data.category_sizes.{category} = 64\n" in text
    assert "data.image_size" not in text
