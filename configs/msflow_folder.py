r"""MSFlow on your own images, laid out like MVTec AD.

python train.py --config=configs/msflow_folder.py --workdir=runs/screws \
    --config.data.root=/path/to/images --config.data.category=screws

Expects the same folders as configs/cflow_folder.py. Hardware and time: see the README, section
"Measured"; accuracy depends on your images.
"""

from ml_collections import config_dict

from configs.msflow_textures import short_run


def get_config() -> config_dict.ConfigDict:
    """The short run of the textures on a folder."""
    return short_run("folder")
