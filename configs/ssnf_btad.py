r"""SSNF on BTAD with CaiT-M48, mended: without the faults of the released code.

flowad train --config=ssnf_btad --workdir=runs/btad \
    --config.data.root=/path/to/BTech_Dataset_transformed --config.data.category=01 \
    --config.encoder.weights=cait_m48_448.safetensors

As published: recipe papers/ssnf_btad_cait_m48. It has the way to the weights,
the published figures and the hardware. What differs: flowad_jax.recipes.mended. Ours: not measured.
"""

from ml_collections import config_dict

from flowad_jax.recipes.mended import mended
from flowad_jax.recipes.papers import ssnf_btad_cait_m48 as published


def get_config() -> config_dict.ConfigDict:
    """The published recipe, mended."""
    return mended(published.get_config())
