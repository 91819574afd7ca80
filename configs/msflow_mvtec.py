r"""MSFlow on MVTec AD with Wide-ResNet-50-2, mended: with held-out images and calibrated scores.

python train.py --config=configs/msflow_mvtec.py --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.data.category=bottle \
    --config.encoder.weights=wide_resnet50_2.safetensors

As published: configs/papers/msflow_mvtec_wide_resnet50_2_later.py. It has the way to the weights,
the published figures and the hardware. What differs: configs/mended.py. Ours: not measured.
"""

from ml_collections import config_dict

from configs.mended import mended
from configs.papers import msflow_mvtec_wide_resnet50_2_later as published


def get_config() -> config_dict.ConfigDict:
    """The published recipe, mended."""
    return mended(published.get_config())
