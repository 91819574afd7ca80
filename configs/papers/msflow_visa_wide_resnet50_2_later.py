r"""MSFlow on VisA with Wide-ResNet-50-2, as in the authors' code and log since January 2024.

flowad fetch --arch=resnet.wide_resnet50_2
flowad convert --arch=resnet.wide_resnet50_2 \
    --checkpoint=wide_resnet50_2-95faca4d.pth --output=wide_resnet50_2.safetensors
flowad train --config=papers/msflow_visa_wide_resnet50_2_later \
    --workdir=runs/candle --config.data.root=/path/to/VisA --config.data.category=candle \
    --config.encoder.weights=wide_resnet50_2.safetensors

512 px and 100 epochs; the rate warms up from 0.1 and falls at 70 and 90 % of the epochs.

Published by the authors, mean over 12 categories in percent, log that comes with the code (the
paper has no VisA). Best epoch on the test set per metric: image AUROC 97.78, pixel AUROC 98.87,
AUPRO 95.15; last epoch: 95.31, 98.77 and 93.94. Ours: not measured.

Hardware: a GPU or TPU; the flows have 99.6 million parameters. A third party's notes of the paper
name one 2080 Ti.

Deviations beside those of all recipes (flowad_jax.recipes.papers): none. The root is the raw set
or the one converted to 1cls folders.
"""

from ml_collections import config_dict

from flowad_jax.recipes.papers import _common


def get_config() -> config_dict.ConfigDict:
    """The settings of the log."""
    return _common.msflow("visa", "candle", later=True)
