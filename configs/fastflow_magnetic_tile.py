r"""FastFlow on Magnetic Tile Defects with EfficientNet-Lite0, for two CPU cores.

flowad train --config=fastflow_magnetic_tile --workdir=runs/tile_fastflow \
    --config.data.root=/path/to/magnetic_tile

Trains on four fifths of the defect-free images, tests on the others and all defects. Hardware,
time and our figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.fastflow_textures import short_run


def get_config() -> config_dict.ConfigDict:
    """The short run on tiles; their many images make epochs longer."""
    config = short_run("magnetic_tile")
    config.train.epochs = 6
    config.train.batch_size = 16
    config.train.eval_every = 6
    config.train.checkpoint_every = 1
    return config
