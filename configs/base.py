"""The complete recipe of a method on a data set, from which recipes change what differs.

docs/configuration.md has every key with its default and its meaning. They come from the functions
that a config calls; what stands here are values of published recipes that differ from them.
"""

from typing import Any

from ml_collections import config_dict

from flowad_jax.settings.sections import section

_SCHEDULES = {
    "fastflow": "schedules.constant",
    "gaussian": "schedules.constant",
    "patchflow": "schedules.constant",
    "uflow": "schedules.linear",
    "msflow": "schedules.msflow",
    "ssnf": "schedules.ssnf",
}
_ANOMALIES = {"sanflow": "mixture", "ssnf": "nsa"}
_PUBLISHED: dict[str, dict[str, Any]] = {
    "fastflow": {
        "data.rotation_degrees": 0.0,
        "encoder.strides": (4, 8, 16),
        "train.epochs": 500,
        "train.learning_rate": 1e-3,
        "train.weight_decay": 1e-5,
        "train.eval_every": 10,
        "train.checkpoint_every": 10,
    },
    "gaussian": {
        "data.rotation_degrees": 0.0,
        "train.epochs": 1,  # there are no gradient steps; it tells the loss
        "train.checkpoint_every": 1,
        "train.eval_every": 1,
    },
    "msflow": {
        "data.image_size": 512,
        "data.rotation_degrees": 0.0,
        "encoder.strides": (4, 8, 16),
        "encoder.pool": "avg",
        "train.epochs": 100,
        "train.batch_size": 8,
        "train.learning_rate": 1e-4,
        "train.clip_norm": 2.0,
        "train.eval_every": 4,
        "train.checkpoint_every": 4,
        "eval.batch_size": 8,
    },
    "patchflow": {
        "data.rotation_degrees": 0.0,
        "encoder.pyramid": 3,
        "train.epochs": 10,
        "train.batch_size": 16,
        "train.learning_rate": 1e-3,
        "train.weight_decay": 1e-4,
        "train.eval_every": 10,
        "train.checkpoint_every": 5,
        "eval.batch_size": 16,
    },
    "sanflow": {
        "data.rotation_degrees": 0.0,
        "train.epochs": 80,
        "train.batch_size": 4,
        "train.learning_rate": 5e-4,
        "train.schedule.sub_epochs": 4,
        "train.eval_every": 4,
        "train.checkpoint_every": 4,
    },
    "ssnf": {
        "data.image_size": 448,
        "data.rotation_degrees": 0.0,
        "data.sharpen": 0.5,
        "encoder.strides": (16,),
        "encoder.layer_norm": True,
        "train.epochs": 500,
        "train.batch_size": 16,
        "train.adam_eps": 1e-4,
        "train.weight_decay": 1e-5,
        "train.eval_every": 10,
        "train.checkpoint_every": 10,
        "eval.batch_size": 16,
    },
    "uflow": {
        "data.image_size": 448,
        "data.rotation_degrees": 0.0,
        "encoder.strides": (4, 8, 16),
        "train.batch_size": 4,
        "train.learning_rate": 1e-3,
        "train.weight_decay": 1e-5,
        "train.eval_every": 10,
        "train.checkpoint_every": 10,
        "eval.batch_size": 4,
    },
}


def base(
    method: str = "cflow", data: str = "textures", anomalies: str | None = None
) -> config_dict.ConfigDict:
    """Returns the complete recipe of a method on a data set, with the method's published values.

    Args:
      method: cflow, sanflow, msflow, ssnf, fastflow or another one of `flowad_jax.methods`.
      data: name of the data set.
      anomalies: kind of synthesis, nsa, cutpaste or mixture; "" for none, None for the method's
        own.
    """
    kind = _ANOMALIES.get(method) if anomalies is None else anomalies or None
    config = section("")
    for name in ("sweep", "data", "encoder", "train", "cache", "eval"):
        config[name] = section(name)
    config.data.name, config.data.options = data, section("data.options", data)
    config.synthesis = section("synthesis", kind)
    config.method = section("method", method)
    schedule = _SCHEDULES.get(method, "schedules.cflow")
    config.train.schedule = section("train.schedule", schedule)
    config.update_from_flattened_dict(_PUBLISHED.get(method, {}))
    return config.lock()
