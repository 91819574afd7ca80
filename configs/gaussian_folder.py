r"""The Gaussian baseline on your own images, laid out like MVTec AD.

flowad train --config=gaussian_folder --workdir=runs/screws \
    --config.data.root=/path/to/images --config.data.category=screws

Expects the same folders as cflow_folder. Hardware and time: see
docs/measured/accuracy.md; accuracy depends on your images.
"""

from ml_collections import config_dict

from flowad_jax.recipes.gaussian_textures import short_run


def get_config() -> config_dict.ConfigDict:
    """The baseline on a folder."""
    return short_run("folder")
