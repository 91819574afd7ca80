r"""U-Flow on your own images, laid out like MVTec AD.

flowad train --config=uflow_folder --workdir=runs/screws \
    --config.data.root=/path/to/images --config.data.category=screws

Expects the same folders as cflow_folder. Hardware and time: see
docs/measured/accuracy.md; accuracy depends on your images.
"""

from ml_collections import config_dict

from flowad_jax.recipes.uflow_textures import short_run


def get_config() -> config_dict.ConfigDict:
    """The short run of the textures on a folder."""
    return short_run("folder")
