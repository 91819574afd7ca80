r"""MSFlow on VisA with Wide-ResNet-50-2 as published, under a short name.

python train.py --config=configs/msflow_visa.py --workdir=runs/candle \
    --config.data.root=/path/to/VisA --config.data.category=candle \
    --config.encoder.weights=wide_resnet50_2.safetensors

Weights, figures, hardware and deviations: configs/papers/msflow_visa_wide_resnet50_2.py.
"""

from configs.papers.msflow_visa_wide_resnet50_2 import get_config

__all__ = ["get_config"]
