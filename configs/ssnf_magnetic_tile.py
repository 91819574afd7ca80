r"""SSNF on Magnetic Tile Defects with EfficientNet-Lite0, for two CPU cores.

flowad train --config=ssnf_magnetic_tile --workdir=runs/tile_ssnf \
    --config.data.root=/path/to/magnetic_tile

Trains on four fifths of the defect-free images, tests on the others and all defects. Hardware,
time and our figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.ssnf_textures import short_run


def get_config() -> config_dict.ConfigDict:
    """The short run with few epochs, because the set has many images."""
    config = short_run("magnetic_tile")
    config.train.epochs = 4
    config.train.batch_size = 8
    config.train.eval_every = 2
    config.train.checkpoint_every = 1
    return config
