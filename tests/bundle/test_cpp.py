"""The program in C++ that the documents show compiles, and says what JAX says."""

import re
import shutil
import subprocess
from importlib.util import find_spec
from pathlib import Path

import pytest

from flowad_jax.bundle import card, validate
from tests.test_docs import ROOT

PAGE = ROOT / "docs" / "how-to" / "deploy.md"


@pytest.mark.skipif(shutil.which("g++") is None, reason="no compiler")
def test_the_program_says_the_same(exported, tmp_path):
    spec = find_spec("openvino")
    if spec is None or not (headers := Path(spec.origin).parent / "include").is_dir():
        pytest.skip("no headers of OpenVINO")
    libraries = headers.parent / "libs"
    (library,) = libraries.glob("libopenvino.so.*")
    source, program = tmp_path / "detect.cpp", tmp_path / "detect"
    (code,) = re.findall(r"^```cpp\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL)
    source.write_text(code)
    words = ["g++", "-std=c++17", "-Wall", "-Werror", source, f"-isystem{headers}", "-o", program]
    words += [f"-L{libraries}", f"-l:{library.name}", f"-Wl,-rpath,{libraries}"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    check = validate.read_check(exported.place / card.CHECK)
    (tmp_path / "pixels.rgb").write_bytes(check.image[2].tobytes())
    (tmp_path / "short.rgb").write_bytes(b"none")

    def run(name):
        words = [program, exported.place / card.ONNX, "32", "32", tmp_path / name]
        return subprocess.run(words, capture_output=True, text=True, timeout=60)

    done = run("pixels.rgb")
    assert done.returncode == 0, done.stderr
    score, largest = map(float, done.stdout.split())
    assert score == pytest.approx(check.score[2, 0], rel=1e-4)
    assert largest == pytest.approx(check.map[2].max(), rel=1e-4)
    assert run("short.rgb").returncode == 1
