import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from flowad_jax.encoders import architecture
from flowad_jax.weights import store, torch_file, torch_writer
from peers import encoders as peers

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


def test_converts_the_embedded_file_and_back(tmp_path):
    output = tmp_path / "lite0.safetensors"
    done = convert(LITE0, store.embedded(LITE0), output)
    assert done.returncode == 0, done.stderr
    variables, card = store.load(output)
    assert variables["params"]["conv_stem"]["kernel"].shape == (3, 3, 3, 32)
    assert card["architecture"] == LITE0
    assert card["source"]["sha256"].startswith("57934424")
    assert f"{card['sizes']['parameters']:,} parameters" in done.stdout
    assert card["source"]["sha256"] in done.stdout
    gives_the_tensors_back(output, tmp_path / "lite0.pth")


def gives_the_tensors_back(ours, output):
    done = run("--reverse", f"--arch={LITE0}", f"--checkpoint={ours}", f"--output={output}")
    assert done.returncode == 0, done.stderr
    assert r"left out, as no tap needs it: (_conv_head|" in done.stdout
    assert f"wrote {output}: 240 tensors, 12.0 MB" in done.stdout
    published, found = torch_file.state_dict(store.embedded(LITE0)), torch_file.state_dict(output)
    assert len(found) == 240
    for key, tensor in found.items():
        np.testing.assert_array_equal(tensor, published[key])


def test_another_architecture_lists_everything_and_writes_nothing(tmp_path):
    output = tmp_path / "old.safetensors"
    store.save(output, {"params": {"a": np.ones(3, np.float32)}}, {"old": True})
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    lines = faults(convert("resnet.resnet18", store.embedded(LITE0), output), 1)
    assert "  params/conv1/kernel <- conv1.weight" in lines
    assert "  _conv_stem.weight" in lines
    assert "efficientnet-lite0-57934424.pth does not fit the network" in lines[-1]
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# Many wrong command lines in one process, which has loaded what they have in common.
FORKS = """
import os, sys
from flowad_jax.cli import convert

for line in sys.argv[1:]:
    if not os.fork():
        sys.argv = ["convert_torch_weights.py", *line.split()]
        os.dup2(1, 2)
        convert.main()
    _, status = os.wait()
    print(os.waitstatus_to_exitcode(status), flush=True)
"""
WRONG_USAGE = {
    "": "--arch, --checkpoint, --output",
    "--arch=a --checkpoint=b": "missing --output",
    "--archh=a": "archh",
    "word": "'word'",
    "--explain --arch=a --output=b": "--explain and --output",
    "--explain": "missing --checkpoint",
    "--reverse --verify": "--reverse and --verify",
    "--workdir=a": "missing --config, --checkpoint",
    "--workdir=a --reverse": "missing --output",
    "--workdir=a --arch=b": "--arch and --workdir",
    "--clamp=a": "--clamp",
    "--arch=a --checkpoint=b --output=./b": "--output=./b is the file",
}


def test_wrong_usage():
    command = [sys.executable, "-c", FORKS, *WRONG_USAGE]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=True)
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * len(WRONG_USAGE)
    for words, line, code in zip(WRONG_USAGE.values(), lines[::2], lines[1::2], strict=True):
        assert line.startswith("error: ")
        assert words in line
        assert code == "2"


def test_a_dry_run_writes_nothing(tmp_path):
    output = tmp_path / "lite0.npz"
    done = run(
        "--dry_run",
        f"--arch={LITE0}",
        f"--checkpoint={store.embedded(LITE0)}",
        f"--output={output}",
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("dry run, nothing was written: 240 tensors")
    assert not list(tmp_path.iterdir())


def test_explain_prints_the_table():
    done = run("--explain", "--arch=resnet.resnet_tiny")
    assert done.returncode == 0, done.stderr
    assert "(8, 3, 7, 7)" in done.stdout


@pytest.mark.live
def test_verify_puts_all_layers_into_the_card(tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    output = tmp_path / "lite0.safetensors"
    done = run(
        "--verify", f"--arch={LITE0}", f"--checkpoint={store.embedded(LITE0)}", f"--output={output}"
    )
    assert done.returncode == 0, done.stderr
    assert "112 layers compared" in done.stdout
    verified = store.load(output)[1]["verified"]
    assert verified["peer"] == "efficientnet_lite_pytorch.efficientnet-lite0"
    assert len(verified["layers"]) == 112
    assert 0 < verified["worst"] < 1e-5


def test_verify_without_a_peer_writes_nothing(tmp_path):
    arch, path = "mobilenet_v3.mobilenet_v3_tiny", tmp_path / "a.pth"
    tensors = {
        rule.key: peers.random_tensor(rule.key, rule.torch_shape)
        for rule in architecture.rules(architecture.find(arch))
    }
    torch_writer.write(path, tensors)
    (line,) = faults(
        run("--verify", f"--arch={arch}", f"--checkpoint={path}", f"--output={tmp_path}/b.npz"), 1
    )
    assert "no PyTorch network" in line
    assert [left.name for left in tmp_path.iterdir()] == ["a.pth"]


def test_help_teaches():
    done = run("--help")
    for example in ("--arch=resnet", "--explain", "--config=", "--verify", "--reverse"):
        assert f"flowad convert {example}" in done.stdout
    assert "--checkpoint:" in done.stdout
