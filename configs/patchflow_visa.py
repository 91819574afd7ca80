r"""PatchFlow on VisA with EfficientNet-B5, mended: with held-out images and calibrated scores.

flowad train --config=patchflow_visa --workdir=runs/candle \
    --config.data.root=/path/to/VisA --config.data.category=candle \
    --config.encoder.weights=tf_efficientnet_b5_ns.safetensors

As published: recipe papers/patchflow_visa_tf_efficientnet_b5_ns. It has the way to the weights,
the published figures and the hardware. What differs: flowad_jax.recipes.mended. Ours: not measured.
"""

from ml_collections import config_dict

from flowad_jax.recipes.mended import mended
from flowad_jax.recipes.papers import patchflow_visa_tf_efficientnet_b5_ns as published


def get_config() -> config_dict.ConfigDict:
    """The published recipe, mended."""
    return mended(published.get_config())
