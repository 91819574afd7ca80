"""Conversion keeps a file in memory once."""

import subprocess
import sys

import pytest

from flowad_jax.encoders import architecture, resnet
from flowad_jax.weights import layout
from peers import encoders as peers
from tests.weights import craft

# In a process of its own: largest resident set less what the idle process had, in bytes.
MEASURE = """
import sys
from pathlib import Path
from flowad_jax.encoders import architecture, load
from flowad_jax.weights import store

def resident(name):
    status = Path("/proc/self/status").read_text()
    return 1024 * int(status.split(name + ":")[1].split()[0])

arch, source, target = sys.argv[1:]
# What JAX takes has nothing to do with the file.
architecture.complete_shapes(architecture.find(arch))
Path("/proc/self/clear_refs").write_text("5")
before = resident("VmRSS")
store.save(target, *load.convert_checkpoint(arch, source))
print(resident("VmHWM") - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("legacy", [False, True], ids=["zip", "legacy"])
def test_peak_memory_is_at_most_1_3_times_the_file(tmp_path, legacy):
    shapes = architecture.complete_shapes(architecture.find("resnet.resnet34"))
    tensors = {
        rule.key: peers.random_tensor(rule.key, rule.torch_shape)
        for rule in layout.rules(shapes, resnet.torch_key)
    }
    path = craft.checkpoint(tmp_path / "a.pth", tensors, legacy=legacy)
    output = tmp_path / "b.safetensors"
    command = [sys.executable, "-c", MEASURE, "resnet.resnet34", str(path), str(output)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    size = path.stat().st_size
    assert size > 80e6
    assert int(done.stdout) < 1.3 * size
    assert output.stat().st_size > 0.99 * size
