r"""CFLOW-AD on your own images, laid out like MVTec AD.

flowad train --config=cflow_folder --workdir=runs/screws \
    --config.data.root=/path/to/images --config.data.category=screws

Expects {root}/{category}/train/good, test/good, test/{kind of defect} and, if there are masks,
ground_truth/{kind}/{stem}_mask.png. With an empty category the root itself has these folders.
Hardware and time: see docs/measured/accuracy.md; accuracy depends on your images.
"""

from ml_collections import config_dict

from flowad_jax.recipes.cflow_textures import short_run


def get_config() -> config_dict.ConfigDict:
    """The short run of the textures on a folder."""
    return short_run("folder")
