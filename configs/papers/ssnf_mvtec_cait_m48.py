r"""SSNF on MVTec AD with CaiT-M48: 448 px, 500 epochs, NSA with its constants.

flowad fetch --arch=cait.cait_m48_448
flowad convert --arch=cait.cait_m48_448 \
    --checkpoint=M48_448.pth --output=cait_m48_448.safetensors
flowad train --config=papers/ssnf_mvtec_cait_m48 --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.data.category=bottle \
    --config.encoder.weights=cait_m48_448.safetensors

Published: the paper's figures were not at hand. Ours: not measured.

Hardware: a GPU or TPU; the part of the encoder that runs has 292 million parameters, the flow 3.5
million.

Deviations beside those of all recipes (flowad_jax.recipes.papers): the authors' code stops early,
on the test set, and this does not. Material comes from any other training image, not from the one
visited before. As there, a failed synthesis is not tried again and trains as an anomaly, and
patches of odd width are shifted by a column; ssnf_mvtec is without these faults.
"""

from ml_collections import config_dict

from flowad_jax.recipes.papers import _common


def get_config() -> config_dict.ConfigDict:
    """The settings of the authors' code."""
    return _common.ssnf("mvtec", "bottle")
