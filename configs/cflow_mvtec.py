r"""CFLOW-AD on MVTec AD with Wide-ResNet-50-2, mended: with held-out images and calibrated scores.

flowad train --config=cflow_mvtec:bottle --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec \
    --config.encoder.weights=wide_resnet50_2.safetensors

As published: recipe papers/cflow_mvtec_wide_resnet50_2. It has the way to the weights,
the published figures and the hardware. What differs: flowad_jax.recipes.mended. Ours: not measured.
"""

from ml_collections import config_dict

from flowad_jax.recipes.mended import mended
from flowad_jax.recipes.papers import cflow_mvtec_wide_resnet50_2 as published


def get_config(category: str = "bottle") -> config_dict.ConfigDict:
    """The published recipe, mended; with the input size that the authors chose for a category."""
    return mended(published.get_config(category))
