r"""SSNF on your own images, laid out like MVTec AD.

flowad train --config=ssnf_folder --workdir=runs/ssnf_screws \
    --config.data.root=/path/to/images --config.data.category=screws

Expects {root}/{category}/train/good, test/good, test/{kind of defect} and, if there are masks,
ground_truth/{kind}/{stem}_mask.png. For objects on a plain background tell NSA what is object:
--config.synthesis.background="((200, 60),)" is all that is not bright. Hardware and time: see the
docs/measured/accuracy.md; accuracy depends on your images.
"""

from ml_collections import config_dict

from flowad_jax.recipes.ssnf_textures import short_run


def get_config() -> config_dict.ConfigDict:
    """The short run on a folder."""
    return short_run("folder")
