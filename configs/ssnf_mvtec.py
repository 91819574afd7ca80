r"""SSNF on MVTec AD with CaiT-M48 as published, under a short name.

python train.py --config=configs/ssnf_mvtec.py --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.data.category=bottle \
    --config.encoder.weights=cait_m48_448.safetensors

Weights, figures, hardware and deviations: configs/papers/ssnf_mvtec_cait_m48.py.
"""

from configs.papers.ssnf_mvtec_cait_m48 import get_config

__all__ = ["get_config"]
