"""The Gaussian baseline on the embedded textures with EfficientNet-Lite0: seconds on a laptop.

flowad train --config=gaussian_textures --workdir=runs/gaussian_textures

Hardware, time and expected figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.base import base


def short_run(data: str) -> config_dict.ConfigDict:
    """The one pass that there is."""
    config = base("gaussian", data)
    config.train.batch_size = 8
    return config


def get_config() -> config_dict.ConfigDict:
    """The baseline on the texture of bricks."""
    config = short_run("textures")
    config.data.category = "brick"
    return config
