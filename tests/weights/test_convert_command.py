import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flowad_jax.weights import store
from tests.weights import craft

ROOT = Path(__file__).parents[2]
LITE0 = "efficientnet_lite.efficientnet_lite0"


def run(*flags):
    """Runs the command as a user does."""
    return subprocess.run(
        [sys.executable, str(ROOT / "convert_torch_weights.py"), *map(str, flags)],
        capture_output=True,
        text=True,
        env=os.environ | {"JAX_PLATFORMS": "cpu"},
    )


def convert(arch, checkpoint, output):
    return run(f"--arch={arch}", f"--checkpoint={checkpoint}", f"--output={output}")


def faults(done, code):
    """The lines on standard error of a run that ends with ``code`` and no traceback."""
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr.splitlines()


def test_converts_the_embedded_file(tmp_path):
    output = tmp_path / "lite0.safetensors"
    done = convert(LITE0, store.embedded(LITE0), output)
    assert done.returncode == 0, done.stderr
    variables, card = store.load(output)
    assert variables["params"]["conv_stem"]["kernel"].shape == (3, 3, 3, 32)
    assert card["architecture"] == LITE0
    assert card["source"]["sha256"].startswith("57934424")
    assert f"{card['sizes']['parameters']:,} parameters" in done.stdout
    assert card["source"]["sha256"] in done.stdout


def test_another_architecture_lists_everything_and_writes_nothing(tmp_path):
    output = tmp_path / "old.safetensors"
    store.save(output, {"params": {"a": np.ones(3, np.float32)}}, {"old": True})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    lines = faults(convert("resnet.resnet18", store.embedded(LITE0), output), 1)
    assert "  params/conv1/kernel <- conv1.weight" in lines
    assert "  _conv_stem.weight" in lines
    assert "efficientnet-lite0-57934424.pth does not fit the network" in lines[-1]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_malicious_file_is_refused_by_name(tmp_path):
    body = craft.named("posix", "system") + craft.text(f"touch {tmp_path}/HARM") + b"\x85R"
    path = craft.zip_file(tmp_path / "a.pth", body)
    (line,) = faults(convert("resnet.resnet18", path, tmp_path / "b.npz"), 1)
    assert str(path) in line
    assert "'posix.system'" in line
    assert [left.name for left in tmp_path.iterdir()] == ["a.pth"]


@pytest.mark.parametrize("flags", [(), ("--arch=a", "--checkpoint=b"), ("--archh=a",), ("word",)])
def test_wrong_usage(flags):
    (line,) = faults(run(*flags), 2)
    assert line.startswith("error: ")


def test_help_teaches():
    done = run("--help")
    assert "python convert_torch_weights.py --arch=resnet" in done.stdout
    assert "--checkpoint:" in done.stdout
