r"""CFLOW-AD on Magnetic Tile Defects with EfficientNet-Lite0, for two CPU cores.

flowad train --config=cflow_magnetic_tile --workdir=runs/tile \
    --config.data.root=/path/to/magnetic_tile

Trains on four fifths of the defect-free images, tests on the others and all defects. Hardware,
time and our figures: see docs/measured/accuracy.md.
"""

from ml_collections import config_dict

from flowad_jax.recipes.base import base


def get_config() -> config_dict.ConfigDict:
    """A short run: every image batch of 16 gives 84 gradient steps."""
    config = base("cflow", "magnetic_tile")
    config.train.epochs = 4
    config.train.batch_size = 16
    config.train.learning_rate = 1e-3  # five times the published rate, for a tenth of the epochs
    config.train.schedule.sub_epochs = 1
    config.train.schedule.warmup_meta_epochs = 1
    config.train.eval_every = 2
    config.train.checkpoint_every = 1
    return config
