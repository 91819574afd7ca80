"""SSNF on the embedded textures with EfficientNet-Lite0: minutes on a laptop.

python train.py --config=configs/ssnf_textures.py --workdir=runs/ssnf_textures

Hardware, time and expected figures: see the README, section "Measured".
"""

from ml_collections import config_dict

from configs.base import base


def short_run(data: str) -> config_dict.ConfigDict:
    """SSNF for some ten or hundred images and two CPU cores: smaller images, fewer epochs."""
    config = base("ssnf", data)
    config.data.image_size = 256
    config.train.epochs = 32
    config.train.batch_size = 8
    config.train.learning_rate = 1e-3  # five times the published rate, for a tenth of the epochs
    config.train.schedule.t_max = 0  # one cosine over all epochs
    config.train.eval_every = 8
    config.train.checkpoint_every = 8
    return config


def get_config() -> config_dict.ConfigDict:
    """The short run on the texture of bricks."""
    config = short_run("textures")
    config.data.category = "brick"
    return config
