"""PatchFlow on the embedded textures with EfficientNet-Lite0: minutes on a laptop.

flowad train --config=patchflow_textures --workdir=runs/patchflow_textures

Hardware, time and expected figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.base import base


def short_run(data: str) -> config_dict.ConfigDict:
    """PatchFlow for some ten or hundred images and two CPU cores: smaller batches."""
    config = base("patchflow", data)
    config.train.epochs = 20
    config.train.batch_size = 8
    return config


def get_config() -> config_dict.ConfigDict:
    """The short run on the texture of bricks."""
    config = short_run("textures")
    config.data.category = "brick"
    return config
