r"""MSFlow on MVTec AD with Wide-ResNet-50-2, the paper's release: revision 8fdf1d2 of the code.

flowad fetch --arch=resnet.wide_resnet50_2
flowad convert --arch=resnet.wide_resnet50_2 \
    --checkpoint=wide_resnet50_2-95faca4d.pth --output=wide_resnet50_2.safetensors
flowad train --config=papers/msflow_mvtec_wide_resnet50_2 --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.data.category=bottle \
    --config.encoder.weights=wide_resnet50_2.safetensors

512 px (transistor 256) and 100 epochs; the rate warms up from 0.3 and falls at 75 and 90 % of the
epochs. In January 2024 the authors changed that: msflow_mvtec_wide_resnet50_2_later.py.

Published by the authors, mean over 15 categories in percent. Table of their repository, which
agrees with the paper's abstract: image AUROC 99.7, pixel AUROC 98.8, AUPRO 97.1; which code and
epoch made it is not known. Ours: not measured.

Hardware: a GPU or TPU; the flows have 99.6 million parameters. A third party's notes of the paper
name one 2080 Ti.

Deviations beside those of all recipes (flowad_jax.recipes.papers): batches of 8 as in the code, a
third party's notes of the paper say 16, and falls at 70 and 90 %. The score of an image is the mean
of its top 3 % of pixels as in the paper; the code had 10 % until September 2023. Transistor has
256 px, as in the logs.
"""

from ml_collections import config_dict

from flowad_jax.recipes.papers import _common


def get_config() -> config_dict.ConfigDict:
    """The settings of the release."""
    return _common.msflow("mvtec", "bottle")
