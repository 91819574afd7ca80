"""CFLOW-AD on the embedded textures with EfficientNet-Lite0: minutes on a laptop.

flowad train --config=cflow_textures --workdir=runs/cflow_textures

Hardware, time and expected figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.base import base


def short_run(data: str) -> config_dict.ConfigDict:
    """CFLOW-AD for some ten or hundred images and two CPU cores: fewer epochs, smaller batches."""
    config = base("cflow", data)
    config.train.epochs = 16
    config.train.batch_size = 8
    config.train.learning_rate = 1e-3  # five times the published rate, for a tenth of the epochs
    config.train.schedule.sub_epochs = 2
    config.train.eval_every = 4
    config.train.checkpoint_every = 4
    return config


def get_config() -> config_dict.ConfigDict:
    """The short run on the texture of bricks."""
    config = short_run("textures")
    config.data.category = "brick"
    config.eval.false_alarm_rate = 0.2  # what the few images that it holds out can promise
    return config
