r"""MSFlow on MVTec AD with Wide-ResNet-50-2 as published, under a short name.

python train.py --config=configs/msflow_mvtec.py --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.data.category=bottle \
    --config.encoder.weights=wide_resnet50_2.safetensors

Weights, figures, hardware and deviations: configs/papers/msflow_mvtec_wide_resnet50_2.py.
"""

from configs.papers.msflow_mvtec_wide_resnet50_2 import get_config

__all__ = ["get_config"]
