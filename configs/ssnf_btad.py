r"""SSNF on BTAD as published: CaiT-M48 at 448 px, 500 epochs, NSA with its constants.

python train.py --config=configs/ssnf_btad.py --workdir=runs/btad \
    --config.data.root=/path/to/BTech_Dataset_transformed --config.data.category=01 \
    --config.encoder.weights=cait_m48_448.safetensors

Hardware: a GPU or TPU. Time and figures: not measured here, and none of the paper's were at hand.
"""

from ml_collections import config_dict

from configs.ssnf_mvtec import published


def get_config() -> config_dict.ConfigDict:
    """The published settings."""
    return published("btad", "01")
