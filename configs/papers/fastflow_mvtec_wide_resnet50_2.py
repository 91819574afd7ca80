r"""FastFlow on MVTec AD with Wide-ResNet-50-2: 256 px, 500 epochs.

flowad fetch --arch=resnet.wide_resnet50_2
flowad convert --arch=resnet.wide_resnet50_2 \
    --checkpoint=wide_resnet50_2-95faca4d.pth --output=wide_resnet50_2.safetensors
flowad train --config=papers/fastflow_mvtec_wide_resnet50_2 --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.data.category=bottle \
    --config.encoder.weights=wide_resnet50_2.safetensors

Published, mean over 15 categories in percent: the paper has a pixel AUROC of 98.1. The authors
released no code. The public implementation gathierry/FastFlow reports a pixel AUROC of 97.2 after
the last epoch and 98.3 at the best one on the test set; anomalib's, an image AUROC of 96.3 and a
pixel AUROC of 97.9. Ours: not measured.

Hardware: a GPU or TPU; the flows have 45.0 million parameters.

Deviations beside those of all recipes (flowad_jax.recipes.papers): how images are resized is not
known of the paper; here as in all recipes. The weights of the encoder are torchvision's, those of
anomalib timm's.
"""

from ml_collections import config_dict

from flowad_jax.recipes.papers import _common


def get_config() -> config_dict.ConfigDict:
    """The settings of the paper, as far as the two implementations agree on them."""
    return _common.fastflow("resnet.wide_resnet50_2")
