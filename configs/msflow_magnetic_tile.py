r"""MSFlow on Magnetic Tile Defects, 192 px and 30 epochs as published, with EfficientNet-Lite0.

flowad train --config=msflow_magnetic_tile --workdir=runs/tile_msflow \
    --config.data.root=/path/to/magnetic_tile

Trains on four fifths of the defect-free images, tests on the others and all defects. The paper's
encoder is Wide-ResNet-50-2, see papers/; this one brings its weights along. Hardware, time
and our figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.base import base
from flowad_jax.recipes.papers.msflow_magnetic_tile_wide_resnet50_2 import for_tiles


def get_config() -> config_dict.ConfigDict:
    """The settings that the paper gives for this set: size, split, epochs, batch size."""
    return for_tiles(base("msflow", "magnetic_tile"))
