"""SANFlow on the embedded textures with EfficientNet-Lite0: minutes on a laptop.

flowad train --config=sanflow_textures --workdir=runs/sanflow_textures

Hardware, time and expected figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.base import base


def short_run(data: str) -> config_dict.ConfigDict:
    """SANFlow for some ten or hundred images and two CPU cores: smaller images, fewer epochs.

    The variance net works on every pixel, so images are half as large as published.
    """
    config = base("sanflow", data)
    config.data.image_size = 128
    config.encoder.layer_norm = True  # latents shall have a small variance; maps start nearer to it
    config.method.condition = 128
    config.train.epochs = 16
    config.train.learning_rate = 1e-3  # twice the published rate
    config.train.schedule.sub_epochs = 2
    return config


def get_config() -> config_dict.ConfigDict:
    """The short run on the texture of bricks."""
    config = short_run("textures")
    config.data.category = "brick"
    return config
