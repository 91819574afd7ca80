r"""MSFlow on VisA as in the reference's repository: Wide-ResNet-50-2, 512 px, 100 epochs.

python train.py --config=configs/msflow_visa.py --workdir=runs/candle \
    --config.data.root=/path/to/VisA --config.data.category=candle \
    --config.encoder.weights=wide_resnet50_2.safetensors

Hardware: a GPU or TPU. Time and figures: not measured here. Logs of the reference, mean over the
categories, last epoch: image AUROC 95.31, pixel AUROC 98.77, AUPRO 93.94.
"""

from ml_collections import config_dict

from configs.msflow_mvtec import published


def get_config() -> config_dict.ConfigDict:
    """The published settings; the root is the raw set or the one converted to 1cls folders."""
    config = published("visa")
    config.data.category = "candle"
    return config
