"""SSNF on the embedded textures with EfficientNet-Lite0: minutes on a laptop.

flowad train --config=ssnf_textures --workdir=runs/ssnf_textures

Hardware, time and expected figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.base import base


def short_run(data: str) -> config_dict.ConfigDict:
    """SSNF for some ten or hundred images and two CPU cores: two scales, few epochs."""
    config = base("ssnf", data)
    config.data.image_size = 192
    config.encoder.strides = (16, 32)
    # In nats per dimension. So short a run would not get below the published 0.17, and no synthetic
    # anomaly would ever train.
    config.method.negative_cap, config.method.cap_dimensions = 1.0, 1
    config.train.epochs = 16
    config.train.batch_size = 4
    config.train.learning_rate = 1e-3  # five times the published rate
    config.train.schedule.t_max = None  # one cosine over all epochs
    config.train.eval_every = 4
    config.train.checkpoint_every = 4
    return config


def get_config() -> config_dict.ConfigDict:
    """The short run on the texture of bricks."""
    config = short_run("textures")
    config.data.category = "brick"
    return config
