r"""The Gaussian baseline on Magnetic Tile Defects with EfficientNet-Lite0, for two CPU cores.

flowad train --config=gaussian_magnetic_tile --workdir=runs/tile_gaussian \
    --config.data.root=/path/to/magnetic_tile

Trains on four fifths of the defect-free images, tests on the others and all defects. Hardware,
time and our figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.gaussian_textures import short_run


def get_config() -> config_dict.ConfigDict:
    """The baseline on tiles."""
    return short_run("magnetic_tile")
