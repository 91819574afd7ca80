r"""SSNF on BTAD with CaiT-M48 as published, under a short name.

python train.py --config=configs/ssnf_btad.py --workdir=runs/btad \
    --config.data.root=/path/to/BTech_Dataset_transformed --config.data.category=01 \
    --config.encoder.weights=cait_m48_448.safetensors

Weights, figures, hardware and deviations: configs/papers/ssnf_btad_cait_m48.py.
"""

from configs.papers.ssnf_btad_cait_m48 import get_config

__all__ = ["get_config"]
