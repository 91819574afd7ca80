"""A checkpoint like those of Lightning and anomalib, of classes under their names."""

import argparse
import collections
import contextlib
import dataclasses
import datetime
import enum
import functools
import pathlib
import pickle
import sys
import types

import numpy as np


class TaskType(enum.StrEnum):
    SEGMENTATION = "segmentation"


class AttributeDict(dict):
    def __getattr__(self, key):
        return self[key]


@dataclasses.dataclass
class Settings:
    layers: list
    owner: object = None


class Transform:
    """Wants a keyword when it is made."""

    def __new__(cls, *, size):
        made = super().__new__(cls)
        made.size = size
        return made

    def __getnewargs_ex__(self):
        return (), {"size": self.size}


class DictConfig:
    """Restores itself, as OmegaConf does."""

    def __getstate__(self):
        return {"_content": {"rate": 0.1}, "_parent": None}


MODULES = {
    "anomalib.data.task_type": TaskType,
    "anomalib.models.settings": Settings,
    "torchvision.transforms.v2": Transform,
    "lightning.fabric.utilities.data": AttributeDict,
    "omegaconf.dictconfig": DictConfig,
}
# The objects of `hyper_parameters`, as a reader that has none of the classes names them.
NAMES = {
    "task": "anomalib.data.task_type.TaskType",
    "root": "pathlib.",
    "settings": "anomalib.models.settings.Settings",
    "config": "omegaconf.dictconfig.DictConfig",
    "names": "builtins.set",
    "crop": "builtins.slice",
    "started": "datetime.date",
    "parsed": "argparse.Namespace",
    "loss": "functools.partial",
    "queue": "collections.deque",
    "score": "numpy.",
    "memory": "numpy.",
    "transform": "torchvision.transforms.v2.Transform",
}


@contextlib.contextmanager
def pretended_modules():
    """Lets pickle find the classes of this module where the real ones are."""
    before, names = dict(sys.modules), {kind: kind.__module__ for kind in MODULES.values()}
    for module in MODULES:
        parts = module.split(".")
        for end in range(1, len(parts) + 1):
            name = ".".join(parts[:end])
            sys.modules[name] = types.ModuleType(name)
    for module, kind in MODULES.items():
        setattr(sys.modules[module], kind.__name__, kind)
        kind.__module__ = module
    try:
        yield
    finally:
        for kind, module in names.items():
            kind.__module__ = module
        for name in set(sys.modules) - set(before):
            del sys.modules[name]
        sys.modules.update(before)


def content(state_dict, protocol=2):
    """One object of every kind; `Transform` only where the protocol can write it."""
    settings = Settings(["layer2", "layer3"])
    settings.owner = settings
    hyper_parameters = AttributeDict(
        task=TaskType.SEGMENTATION,
        root=pathlib.PurePosixPath("/data/tile"),
        settings=settings,
        config=DictConfig(),
        names={"good"},
        crop=slice(0, 4),
        started=datetime.date(2024, 5, 1),
        parsed=argparse.Namespace(seed=3),
        loss=functools.partial(Settings, owner=None),
        kind=Settings,
        raw=b"\xff\x00",
        queue=collections.deque([1], 4),
        score=np.float32(0.5),
        memory=np.arange(3),
        **({"transform": Transform(size=8)} if protocol >= 4 else {}),
    )
    counted = collections.defaultdict(list, {(0, "a"): [1]})
    return {
        "epoch": 3,
        "pytorch-lightning_version": "2.4.0",
        "state_dict": state_dict,
        "callbacks": {"ModelCheckpoint{'monitor': None}": {"kept": counted}, TaskType: None},
        "loops": {"fit_loop": {"state_dict": {}, "dataloader": [None, True, 0.5]}},
        "hyper_parameters": hyper_parameters,
    }


def body(protocol=2):
    """The pickle of the checkpoint without any tensor, less its start and end."""
    with pretended_modules():
        return pickle.dumps(content({}, protocol), protocol)[2:-1]
