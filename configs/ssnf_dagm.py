r"""SSNF on DAGM 2007 as published: CaiT-M48 at 448 px, 500 epochs, NSA with its constants.

python train.py --config=configs/ssnf_dagm.py --workdir=runs/dagm \
    --config.data.root=/path/to/DAGM --config.data.category=Class1 \
    --config.encoder.weights=cait_m48_448.safetensors

The root holds the set as it is distributed, or rearranged into train/good and test. Hardware: a
GPU or TPU. Time and figures: not measured here, and none of the paper's were at hand.
"""

from ml_collections import config_dict

from configs.ssnf_mvtec import published


def get_config() -> config_dict.ConfigDict:
    """The published settings."""
    return published("dagm", "Class1")
