"""results.json is strict JSON, results.md says the same, and old files survive a failure."""

import errno
import json
import os

import numpy as np
import pytest

from flowad_jax.errors import UserError
from flowad_jax.evaluation import metrics
from flowad_jax.report import results


def example(**changes):
    found = {name: 0.1 * (1 + number) for number, name in enumerate(metrics.METRICS)}
    return {
        "method": "cflow",
        "data": {"name": "textures", "test": {"good": np.int64(20), "kinds": {"a|b": 5}}},
        "encoder": {"name": "resnet.resnet18", "sha256": "ab" * 32},
        "seed": 3,
        "columns": {
            "last": found | {"aupro_0.05": float("nan")},
            "oracle": {name: np.float32(0.5) for name in found} | {"epoch": 7},
        },
        "timing": {"epoch_seconds": np.array([1.5, float("inf")])},
        "versions": results.versions(),
        "undefined": {"aupro_0.05": "the test set has no masks"},
        "commands": ["flowad eval --workdir=runs/a"],
        "pictures": ["images/roc.png", "images/panels 00.png"],
        "scoring": "transductive",
    } | changes


def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")


def test_json_is_strict_and_complete(tmp_path):
    results.write(tmp_path / "new", example())
    text = (tmp_path / "new" / "results.json").read_text(encoding="utf-8")
    found = json.loads(text, parse_constant=refuse)
    assert set(results.REQUIRED) <= set(found)
    assert found["columns"]["last"]["aupro_0.05"] is None
    assert found["columns"]["last"]["image_auroc"] == 0.1
    assert list(found["columns"]["last"]) == list(metrics.METRICS)
    assert found["columns"]["oracle"]["pixel_ap"] == 0.5
    assert found["timing"] == {"epoch_seconds": [1.5, None]}
    assert found["data"]["test"] == {"good": 20, "kinds": {"a|b": 5}}


def test_markdown_shows_the_numbers_and_labels_the_oracle(tmp_path):
    results.write(tmp_path, example())
    text = (tmp_path / "results.md").read_text(encoding="utf-8")
    assert "| last epoch | oracle (best epoch on test: not comparable) |" in text
    assert "| image AUROC | 10.00 | 50.00 |" in text
    assert "| AUPRO, false positive rate up to 0.05 | – | 50.00 |" in text
    assert "| epoch | – | 7 |" in text
    assert "No AUPRO, false positive rate up to 0.05: the test set has no masks." in text
    assert "| scoring | transductive |" in text
    assert "| test.kinds.a\\|b | 5 |" in text
    assert "    flowad eval --workdir=runs/a\n" in text
    assert "![panels 00](images/panels%2000.png)" in text
    assert "ab" * 32 in text


def test_every_metric_has_a_title():
    made_up = (f"synthetic_{name}" for name in metrics.METRICS)
    assert tuple(results.METRICS) == (*metrics.METRICS, *made_up)


def test_a_column_without_values_is_left_out_of_the_table():
    plain = example(columns={"last": {"image_auroc": 0.5}, "oracle": {}})
    assert "oracle" not in results.markdown(plain)


def test_missing_entries_are_named(tmp_path):
    broken = example()
    del broken["seed"], broken["timing"]
    with pytest.raises(ValueError, match="seed, timing"):
        results.write(tmp_path, broken)
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_old_results(tmp_path, monkeypatch):
    results.write(tmp_path, example())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(UserError, match=r"results\.json.*No space left") as caught:
        results.write(tmp_path, example(seed=4))
    assert "\n" not in str(caught.value)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_workdir_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write") as caught:
        results.write(tmp_path / "file", example())
    assert str(tmp_path / "file") in str(caught.value)


def test_versions_name_what_computes():
    found = results.versions()
    assert found["numpy"] == np.__version__
    assert {"python", "platform", "jax", "flowad-jax"} <= set(found)
