r"""CFLOW-AD on Magnetic Tile Defects in few large gradient steps: not the published recipe.

flowad train --config=cflow_large_fibres --workdir=runs/tile_large \
    --config.data.root=/path/to/magnetic_tile

`cflow_magnetic_tile` with one named change, `method.fibre_steps`: every scale takes 8
steps per image batch, whatever its size, where the published 256 rows per step make 64, 16 and 4.
The learning rate is doubled, for there are fewer steps. Figures: docs/measured/accuracy.md,
"CFLOW-AD with large fibres".
"""

from ml_collections import config_dict

from flowad_jax.recipes import cflow_magnetic_tile


def get_config() -> config_dict.ConfigDict:
    """The short run with large fibres: every image batch of 16 gives 24 gradient steps."""
    config = cflow_magnetic_tile.get_config()
    config.method.fibre_steps = 8
    config.train.learning_rate = 2e-3
    return config
