r"""CFLOW-AD on MVTec AD with Wide-ResNet-50-2 as published, under a short name.

python train.py --config=configs/cflow_mvtec.py:bottle --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec \
    --config.encoder.weights=wide_resnet50_2.safetensors

Weights, figures, hardware and deviations: configs/papers/cflow_mvtec_wide_resnet50_2.py.
"""

from configs.papers.cflow_mvtec_wide_resnet50_2 import get_config

__all__ = ["get_config"]
