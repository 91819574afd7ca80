"""How configs were written before: read at the border, so that nothing behind it knows.

"Unset" was spelled in many ways and is None now; on a command line the old spellings are still the
way to write it. Keys of version 0.1 that are gone are read from stored configs.
"""

from __future__ import annotations

import copy
from typing import Any

from ml_collections import config_dict

from flowad_jax.errors import UserError

# Values that stand for None.
UNSET: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(("data.root", "data.category", "data.options.frames"), ("",)),
    **dict.fromkeys(("synthesis.name", "synthesis.lenders", "cache.folder"), ("",)),
    **dict.fromkeys(("synthesis.dataset", "synthesis.category"), ("",)),
    "encoder.pool": ("none", ""),
    **dict.fromkeys(("sweep.seeds", "sweep.encoders", "train.stack"), ((), [])),
    **dict.fromkeys(("data.few_shot", "cache.memory_mb", "train.clip_norm"), (0,)),
    **dict.fromkeys(("method.fibre_steps", "method.top", "train.schedule.t_max"), (0,)),
}


# What stored configs had in effect before there were these keys.
_TRAIN_BEFORE = {
    "init_from": None,
    "whiten": False,
    "feature_noise": 0.0,
    "ema_decay": None,
    "ensemble": 1,
    "loggers": ("tensorboard",),
}


def read_unset(config: config_dict.ConfigDict | dict[str, Any]) -> None:
    """Puts None where a config has an old spelling of it, in place."""
    for key, spellings in UNSET.items():
        *above, last = key.split(".")
        section: Any = config
        for step in above:
            tables = isinstance(section, config_dict.ConfigDict | dict)
            section = section.get(step, {}) if tables else {}
        if not isinstance(section, config_dict.ConfigDict | dict) or last not in section:
            continue
        if not isinstance(value := section[last], bool) and value in spellings:
            section[last] = None


def read_stored(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a stored config in the spelling of today.

    Raises:
      UserError: it has a value of a key of version 0.1 for which there is no key any more.
    """
    config = copy.deepcopy(config)
    data, synthesis, train, evaluated, encoder = (
        found if isinstance(found := config.get(name), dict) else {}
        for name in ("data", "synthesis", "train", "eval", "encoder")
    )
    if "weights" in encoder:
        encoder.setdefault("pyramid", 1)
    train.pop("plan_memory", None)
    if "epochs" in train:
        for key, value in _TRAIN_BEFORE.items():
            train.setdefault(key, value)
    if "image_size" in data:
        data.setdefault("fit", "stretch")
        data.setdefault("fold", None)
        data.setdefault("synthetic_test", None)
        data.setdefault("jitter", 0.0)
    if "false_alarm_rate" in evaluated:
        for key, before in (("min_region", None), ("calibration", "split"), ("folds", 5)):
            evaluated.setdefault(key, before)
    if "legacy_shift" in synthesis:
        synthesis["legacy"] = synthesis.pop("legacy_shift")
    if "train_filter" in data:
        usual = data.get("filter")
        used = data.pop("train_filter") or usual
        if synthesis.get("name") == "mixture" and used in (usual, "bilinear"):
            synthesis.setdefault("legacy", used != usual)
        elif used != usual:
            raise UserError(_gone("data.train_filter", used))
    if data.pop("share_sharpening", False):
        raise UserError(_gone("data.share_sharpening", True))
    if (top := evaluated.pop("top", None)) is not None and evaluated.get("image_score") == "top":
        evaluated["image_score"] = repr(top)
    read_unset(config)
    return config


def _gone(key: str, value: object) -> str:
    return f"{key}={value!r}: this version has no such key; use version 0.1 for that run"
