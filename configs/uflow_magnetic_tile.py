r"""U-Flow on Magnetic Tile Defects with EfficientNet-Lite0, for two CPU cores.

flowad train --config=uflow_magnetic_tile --workdir=runs/tile_uflow \
    --config.data.root=/path/to/magnetic_tile

Trains on four fifths of the defect-free images, tests on the others and all defects. Hardware,
time and our figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.uflow_textures import short_run


def get_config() -> config_dict.ConfigDict:
    """The short run on tiles; their many images make epochs longer."""
    config = short_run("magnetic_tile")
    config.train.epochs = 5
    config.train.batch_size = 16
    config.train.eval_every = 5
    config.train.checkpoint_every = 1
    return config
