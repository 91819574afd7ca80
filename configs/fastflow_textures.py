"""FastFlow on the embedded textures with EfficientNet-Lite0: minutes on a laptop.

flowad train --config=fastflow_textures --workdir=runs/fastflow_textures

Hardware, time and expected figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.base import base


def short_run(data: str) -> config_dict.ConfigDict:
    """FastFlow for some ten or hundred images and two CPU cores: fewer epochs, smaller batches.

    And deeper feature maps: with those of the paper EfficientNet-Lite0 misses most defects of
    magnetic tiles, see docs/measured/real_images.md.
    """
    config = base("fastflow", data)
    config.encoder.strides = (8, 16, 32)
    config.train.epochs = 40
    config.train.batch_size = 8
    config.train.eval_every = 8
    config.train.checkpoint_every = 8
    return config


def get_config() -> config_dict.ConfigDict:
    """The short run on the texture of bricks."""
    config = short_run("textures")
    config.data.category = "brick"
    return config
