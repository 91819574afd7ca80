r"""CFLOW-AD on your own images, laid out like MVTec AD.

python train.py --config=configs/cflow_folder.py --workdir=runs/screws \
    --config.data.root=/path/to/images --config.data.category=screws

Expects {root}/{category}/train/good, test/good, test/{kind of defect} and, if there are masks,
ground_truth/{kind}/{stem}_mask.png. With an empty category the root itself has these folders.
Hardware and time: see the README, section "Measured"; accuracy depends on your images.
"""

from ml_collections import config_dict

from configs.base import base


def get_config() -> config_dict.ConfigDict:
    """A CFLOW-AD run that suits a few hundred images and two CPU cores."""
    config = base("cflow", "folder")
    config.train.epochs = 16
    config.train.batch_size = 8
    config.train.learning_rate = 1e-3  # five times the published rate, for a tenth of the epochs
    config.train.schedule.sub_epochs = 2
    config.train.eval_every = 4
    config.train.checkpoint_every = 4
    return config
