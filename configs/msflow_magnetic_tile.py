r"""MSFlow on Magnetic Tile Defects, 192 px and 30 epochs as published, with EfficientNet-Lite0.

python train.py --config=configs/msflow_magnetic_tile.py --workdir=runs/tile_msflow \
    --config.data.root=/path/to/magnetic_tile

Trains on four fifths of the defect-free images, tests on the others and all defects. The paper's
encoder is Wide-ResNet-50-2; this one brings its weights along. Hardware, time and our figures: see
the README, section "Measured".
"""

from ml_collections import config_dict

from configs.base import base


def get_config() -> config_dict.ConfigDict:
    """The settings that the paper gives for this set: size, split, epochs, batch size."""
    config = base("msflow", "magnetic_tile")
    config.data.image_size = 192
    config.train.epochs = 30
    config.train.batch_size = 16
    config.train.eval_every = 10
    config.train.checkpoint_every = 5
    config.eval.batch_size = 16
    return config
