"""MSFlow on the embedded textures with EfficientNet-Lite0: minutes on a laptop.

flowad train --config=msflow_textures --workdir=runs/msflow_textures

Hardware, time and expected figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.base import base


def short_run(data: str) -> config_dict.ConfigDict:
    """MSFlow for some ten or hundred images and two CPU cores: smaller images, fewer epochs."""
    config = base("msflow", data)
    config.data.image_size = 256
    config.train.epochs = 32
    config.train.learning_rate = 1e-3  # ten times the published rate, for a third of the epochs
    config.train.schedule.warmup_meta_epochs = 1
    config.train.eval_every = 8
    config.train.checkpoint_every = 8
    return config


def get_config() -> config_dict.ConfigDict:
    """The short run on the texture of bricks."""
    config = short_run("textures")
    config.data.category = "brick"
    return config
