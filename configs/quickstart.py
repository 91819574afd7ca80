"""CFLOW-AD on the embedded textures with EfficientNet-Lite0: minutes on a laptop.

python train.py --config=configs/quickstart.py --workdir=runs/quickstart

Hardware, time and expected figures: see the README, section "Measured".
"""

from ml_collections import config_dict

from configs.base import base


def get_config() -> config_dict.ConfigDict:
    """A short CFLOW-AD run: fewer epochs and smaller batches than published."""
    config = base("cflow", "textures")
    config.data.category = "brick"
    config.train.epochs = 16
    config.train.batch_size = 8
    config.train.learning_rate = 1e-3  # five times the published rate, for a tenth of the epochs
    config.train.schedule.sub_epochs = 2
    config.train.eval_every = 4
    config.train.checkpoint_every = 4
    return config
