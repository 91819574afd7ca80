"""What judges images in a bundle, without JAX, and the backends of it that are installed here."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from flowad_jax import flowad_runtime
from flowad_jax.errors import UserError
from flowad_jax.flowad_runtime import graph

ENTRY, PACKAGE = "run.py", "flowad_runtime"
# Both are copied into bundles as they are.
SOURCES = Path(__file__).parent / ENTRY, Path(flowad_runtime.__file__).parent
BACKENDS = ("onnxruntime", "openvino")
INSTALL = "pip install 'flowad_jax[onnx]'"


def installed() -> dict[str, str]:
    """Returns the versions of the backends that are installed, by name."""
    found = {}
    for name in BACKENDS:
        if importlib.util.find_spec(name):
            # Its package may have another name, such as onnxruntime-gpu.
            packages = importlib.metadata.packages_distributions().get(name, [name])
            found[name] = importlib.metadata.version(packages[0])
    return found


def require(*names: str) -> None:
    """Raises a `UserError` with the command that installs what is missing of some packages."""
    for name in names:
        if importlib.util.find_spec(name) is None:
            raise UserError(f"{name} is not installed: {INSTALL}")


def copy(folder: Path) -> None:
    """Copies the runtime into a bundle."""
    entry, package = SOURCES
    shutil.copyfile(entry, folder / ENTRY)
    (folder / PACKAGE).mkdir()
    for file in sorted(package.glob("*.py")):
        shutil.copyfile(file, folder / PACKAGE / file.name)


def load(folder: Path) -> ModuleType:
    """Imports the runtime of a bundle that was made here: it is code."""
    name, place = "flowad_jax_exported_runtime", folder / PACKAGE
    for loaded in [one for one in sys.modules if one.partition(".")[0] == name]:
        del sys.modules[loaded]  # that of another bundle
    spec = importlib.util.spec_from_file_location(
        name, place / "__init__.py", submodule_search_locations=[str(place)]
    )
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    before, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    try:
        spec.loader.exec_module(module)
    finally:
        sys.dont_write_bytecode = before
    return module


def evaluate(backend: str, model: bytes, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns all outputs of any model by a backend, by name."""
    import onnx

    names = [output.name for output in onnx.load_from_string(model).graph.output]
    found = graph.load(model, backend, 0, "the graph", names)(inputs)
    return {name: np.array(found[name]) for name in names}


def outputs(detector: Any, inputs: Mapping[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns scores (N, K) and maps (N, H, W) by the graph of a runtime's ``Detector``."""
    count = len(inputs["image"])
    size = detector._most or count
    found = [
        {
            name: np.array(x)  # a copy: a backend may use its memory again
            for name, x in detector._graph(
                {name: x[first : first + size] for name, x in inputs.items()}
            ).items()
        }
        for first in range(0, count, size)
    ]
    score, anomaly_map = (np.concatenate([one[k] for one in found]) for k in ("score", "map"))
    return score, anomaly_map
