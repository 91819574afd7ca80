r"""CFLOW-AD on MVTec AD with Wide-ResNet-50-2, as published.

python convert_torch_weights.py --arch=resnet.wide_resnet50_2 \
    --checkpoint=wide_resnet50_2-95faca4d.pth --output=wide_resnet50_2.safetensors
python train.py --config=configs/cflow_mvtec.py:bottle --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.encoder.weights=wide_resnet50_2.safetensors

Published averages over 15 categories, best epoch on the test set per metric: image AUROC 98.26,
pixel AUROC 98.62, AUPRO 94.60. Ours: not measured. Meant for a GPU.
"""

from ml_collections import config_dict

from configs.base import base
from flowad_jax.data.mvtec import CFLOW_IMAGE_SIZE


def get_config(category: str = "bottle") -> config_dict.ConfigDict:
    """The published settings, with the input size that the authors chose for each category."""
    config = base("cflow", "mvtec")
    config.data.category = category
    config.data.image_size = CFLOW_IMAGE_SIZE.get(category, 256)
    config.data.drop_last = True
    config.encoder.name = "resnet.wide_resnet50_2"
    config.encoder.weights = "wide_resnet50_2.safetensors"
    config.encoder.padding = "reflect"
    config.eval.scoring = "transductive"
    return config
