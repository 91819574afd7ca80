"""U-Flow on the embedded textures with EfficientNet-Lite0: minutes on a laptop.

flowad train --config=uflow_textures --workdir=runs/uflow_textures

Hardware, time and expected figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.base import base


def short_run(data: str) -> config_dict.ConfigDict:
    """U-Flow for some ten or hundred images and two CPU cores: smaller images, fewer epochs."""
    config = base("uflow", data)
    config.data.image_size = 256
    config.encoder.strides = (8, 16, 32)
    config.train.schedule.steps = None
    config.train.epochs = 30
    config.train.batch_size = 8
    config.train.eval_every = 10
    config.train.checkpoint_every = 10
    config.eval.batch_size = 16
    return config


def get_config() -> config_dict.ConfigDict:
    """The short run on the texture of bricks."""
    config = short_run("textures")
    config.data.category = "brick"
    return config
