r"""SSNF on DAGM 2007 with CaiT-M48 as published, under a short name.

python train.py --config=configs/ssnf_dagm.py --workdir=runs/dagm \
    --config.data.root=/path/to/DAGM --config.data.category=Class1 \
    --config.encoder.weights=cait_m48_448.safetensors

Weights, figures, hardware and deviations: configs/papers/ssnf_dagm_cait_m48.py.
"""

from configs.papers.ssnf_dagm_cait_m48 import get_config

__all__ = ["get_config"]
