r"""SSNF on DAGM 2007 with CaiT-M48, mended: without the faults of the released code.

python train.py --config=configs/ssnf_dagm.py --workdir=runs/dagm \
    --config.data.root=/path/to/DAGM --config.data.category=Class1 \
    --config.encoder.weights=cait_m48_448.safetensors

As published: configs/papers/ssnf_dagm_cait_m48.py. It has the way to the weights,
the published figures and the hardware. What differs: configs/mended.py. Ours: not measured.
"""

from ml_collections import config_dict

from configs.mended import mended
from configs.papers import ssnf_dagm_cait_m48 as published


def get_config() -> config_dict.ConfigDict:
    """The published recipe, mended."""
    return mended(published.get_config())
