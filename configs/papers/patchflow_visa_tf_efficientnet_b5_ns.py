r"""PatchFlow on VisA with EfficientNet-B5: 768 px, 10 epochs.

flowad fetch --arch=efficientnet.tf_efficientnet_b5_ns
flowad convert --arch=efficientnet.tf_efficientnet_b5_ns \
    --checkpoint=tf_efficientnet_b5_ns-6f26d0cf.pth --output=tf_efficientnet_b5_ns.safetensors
flowad train --config=papers/patchflow_visa_tf_efficientnet_b5_ns --workdir=runs/candle \
    --config.data.root=/path/to/VisA --config.data.category=candle \
    --config.encoder.weights=tf_efficientnet_b5_ns.safetensors

Published by the authors, mean over 12 categories in percent, each at the epoch that is best on
the test set by pixel AUROC: image AUROC 96.48. Ours: not measured.

Hardware: a GPU or TPU; the encoder sees every image in three sizes.

Deviations beside those of all recipes (flowad_jax.recipes.papers): the authors' code has no licence
and was not read; the settings are those of the example of its port in anomalib, whose epochs and
batches may differ from the paper's. Which weights of EfficientNet-B5 the authors took is not known;
here those that timm has under its plain name.
"""

from ml_collections import config_dict

from flowad_jax.recipes.papers import _common


def get_config() -> config_dict.ConfigDict:
    """The settings of the public implementation at the image size of the paper."""
    return _common.patchflow("visa", "candle")
