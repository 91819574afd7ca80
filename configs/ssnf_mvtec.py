r"""SSNF on MVTec AD as published: CaiT-M48 at 448 px, 500 epochs, NSA with its constants.

python train.py --config=configs/ssnf_mvtec.py --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.data.category=bottle \
    --config.encoder.weights=cait_m48_448.safetensors

Hardware: a GPU or TPU; the encoder has 292 million parameters. Time and figures: not measured here,
and none of the paper's were at hand. The reference stops early, on the test set; this does not.
"""

from ml_collections import config_dict

from configs.base import base


def published(data: str, category: str) -> config_dict.ConfigDict:
    """SSNF with the encoder and the scoring of the reference."""
    config = base("ssnf", data)
    config.seed = 923_874_273  # the reference's
    config.data.category = category
    config.encoder.name = "cait.cait_m48_448"
    config.encoder.weights = "cait_m48_448.safetensors"
    config.encoder.taps = (40,)  # of 48 blocks, with the network's last LayerNorm behind it
    config.encoder.layer_norm = False
    config.eval.scoring = "per_image"
    return config


def get_config() -> config_dict.ConfigDict:
    """The published settings."""
    return published("mvtec", "bottle")
