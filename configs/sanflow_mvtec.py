r"""SANFlow on MVTec AD: Wide-ResNet-50-2, 256 px, 80 epochs, batches of 4.

python train.py --config=configs/sanflow_mvtec.py --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.data.category=bottle \
    --config.encoder.weights=wide_resnet50_2.safetensors

For the paper's other encoder: --config.encoder.name=resnet.wide_resnet101_2, its weights and
--config.data.image_size=320; a fourth scale: --config.encoder.strides="(4, 8, 16, 32)". The faults
of the released code are mended; --config.method.legacy=True brings them back. Hardware: a GPU or
TPU. Time and figures: not measured here, and none of the paper's were at hand.
"""

from ml_collections import config_dict

from configs.base import base


def get_config() -> config_dict.ConfigDict:
    """The settings of the reference's commands."""
    config = base("sanflow", "mvtec")
    config.data.category = "bottle"
    config.encoder.name = "resnet.wide_resnet50_2"
    config.encoder.weights = "wide_resnet50_2.safetensors"
    return config
