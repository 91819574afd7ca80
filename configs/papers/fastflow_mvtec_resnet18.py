r"""FastFlow on MVTec AD with ResNet-18: 256 px, 500 epochs.

flowad fetch --arch=resnet.resnet18
flowad convert --arch=resnet.resnet18 \
    --checkpoint=resnet18-f37072fd.pth --output=resnet18.safetensors
flowad train --config=papers/fastflow_mvtec_resnet18 --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.data.category=bottle \
    --config.encoder.weights=resnet18.safetensors

Published, mean over 15 categories in percent: the paper has a pixel AUROC of 97.2. The authors
released no code. The public implementation gathierry/FastFlow reports a pixel AUROC of 95.6 after
the last epoch and 97.2 at the best one on the test set; anomalib's, an image AUROC of 90.7 and a
pixel AUROC of 96.8. Ours: not measured.

Hardware: a GPU or TPU; the flows have 5.6 million parameters.

Deviations beside those of all recipes (flowad_jax.recipes.papers): how images are resized is not
known of the paper; here as in all recipes. The weights of the encoder are torchvision's, those of
anomalib timm's.
"""

from ml_collections import config_dict

from flowad_jax.recipes.papers import _common


def get_config() -> config_dict.ConfigDict:
    """The settings of the paper, as far as the two implementations agree on them."""
    config = _common.fastflow("resnet.resnet18")
    config.method.conv3x3_only = True
    return config
