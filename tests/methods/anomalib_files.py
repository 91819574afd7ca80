"""Single files of anomalib (Apache-2.0), imported without the many packages that it depends on."""

import importlib.util
import sys
import types
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

RELATIVE = 1e-4  # float32 on both sides; sums run in another order


class InferenceBatch(NamedTuple):
    """Stands for anomalib's record of results."""

    pred_score: Any
    anomaly_map: Any


def load(model, monkeypatch, parts=("anomaly_map", "torch_model"), others=None):
    """Modules of one of its image models; ``others`` stand for what they need beside that."""
    found = importlib.util.find_spec("anomalib")
    root = Path(found.origin).parent
    stubs = {
        "anomalib": {},
        "anomalib.data": {"InferenceBatch": InferenceBatch},
        "anomalib.models": {},
        "anomalib.models.components": {},
        "anomalib.models.components.flow": {},
        "anomalib.models.image": {},
        f"anomalib.models.image.{model}": {},
        "omegaconf": {"ListConfig": list},
        # Encoders, of which nothing is needed here.
        "timm": {},
        "timm.models": {},
        "timm.models.cait": {"Cait": object},
        "timm.models.vision_transformer": {"VisionTransformer": object},
        **(others or {}),
    }
    for name, content in stubs.items():
        module = types.ModuleType(name)
        vars(module).update(content)
        if name.startswith("anomalib"):
            module.__path__ = [str(root.joinpath(*name.split(".")[1:]))]
        monkeypatch.setitem(sys.modules, name, module)
    flow = sys.modules["anomalib.models.components.flow"]
    name = "anomalib.models.components.flow.all_in_one_block"
    monkeypatch.delitem(sys.modules, name, raising=False)
    flow.AllInOneBlock = importlib.import_module(name).AllInOneBlock
    modules = []
    for part in parts:
        name = part if "." in part else f"anomalib.models.image.{model}.{part}"
        monkeypatch.delitem(sys.modules, name, raising=False)
        modules.append(importlib.import_module(name))
    return modules


def assert_close(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.abs(ours - theirs).max() <= RELATIVE * np.abs(theirs).max()
