r"""CFLOW-AD on your own images, laid out like MVTec AD.

python train.py --config=configs/cflow_folder.py --workdir=runs/screws \
    --config.data.root=/path/to/images --config.data.category=screws

Expects {root}/{category}/train/good, test/good, test/{kind of defect} and, if there are masks,
ground_truth/{kind}/{stem}_mask.png. With an empty category the root itself has these folders.
Hardware and time: see the README, section "Measured"; accuracy depends on your images.
"""

from ml_collections import config_dict

from configs.quickstart import short_run


def get_config() -> config_dict.ConfigDict:
    """The short run of the quickstart on a folder."""
    return short_run("folder")
