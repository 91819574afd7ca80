r"""CFLOW-AD on MVTec AD with Wide-ResNet-50-2, mended: with held-out images and calibrated scores.

python train.py --config=configs/cflow_mvtec.py:bottle --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec \
    --config.encoder.weights=wide_resnet50_2.safetensors

As published: configs/papers/cflow_mvtec_wide_resnet50_2.py. It has the way to the weights,
the published figures and the hardware. What differs: configs/mended.py. Ours: not measured.
"""

from ml_collections import config_dict

from configs.mended import mended
from configs.papers import cflow_mvtec_wide_resnet50_2 as published


def get_config(category: str = "bottle") -> config_dict.ConfigDict:
    """The published recipe, mended; with the input size that the authors chose for a category."""
    return mended(published.get_config(category))
