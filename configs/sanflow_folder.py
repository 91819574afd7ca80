r"""SANFlow on your own images, laid out like MVTec AD.

flowad train --config=sanflow_folder --workdir=runs/sanflow_screws \
    --config.data.root=/path/to/images --config.data.category=screws

Expects {root}/{category}/train/good, test/good, test/{kind of defect} and, if there are masks,
ground_truth/{kind}/{stem}_mask.png. Hardware and time: see docs/measured/accuracy.md; accuracy
depends on your images.
"""

from ml_collections import config_dict

from flowad_jax.recipes.sanflow_textures import short_run


def get_config() -> config_dict.ConfigDict:
    """The short run on a folder."""
    return short_run("folder")
