r"""SANFlow on Magnetic Tile Defects with EfficientNet-Lite0, for two CPU cores.

flowad train --config=sanflow_magnetic_tile --workdir=runs/tile_sanflow \
    --config.data.root=/path/to/magnetic_tile

Trains on four fifths of the defect-free images, tests on the others and all defects. Hardware,
time and our figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.sanflow_textures import short_run


def get_config() -> config_dict.ConfigDict:
    """The short run with few epochs, because the set has many images."""
    config = short_run("magnetic_tile")
    config.train.epochs = 3
    config.train.batch_size = 8
    config.train.schedule.sub_epochs = 1
    config.train.schedule.warmup_meta_epochs = 1
    config.train.eval_every = 1
    config.train.checkpoint_every = 1
    return config
