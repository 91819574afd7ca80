r"""CFLOW-AD on MVTec AD with ResNet-18.

flowad fetch --arch=resnet.resnet18
flowad convert --arch=resnet.resnet18 \
    --checkpoint=resnet18-f37072fd.pth --output=resnet18.safetensors
flowad train --config=papers/cflow_mvtec_resnet18 --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.data.category=bottle \
    --config.encoder.weights=resnet18.safetensors

Published, mean over 15 categories in percent, Table 3 of the paper: image AUROC 96.75, pixel AUROC
98.06; its AUPRO was not at hand. The authors' code reports the best epoch on the test set per
metric, and its parser averages four runs. Ours: not measured.

Hardware: a GPU or TPU; the decoders have 8.6 million parameters.

Deviations beside those of all recipes (flowad_jax.recipes.papers): the image sizes that the paper
had with this encoder were not at hand, so all categories have 256 px, the default of the authors'
code; its Wide-ResNet-50-2 has sizes by category. One run, not four. 25 x 8 = 200 epochs as in the
authors' code; their paper says 100. The authors' file of weights is resnet18-5c106cde.pth, this is
torchvision's present one.
"""

from ml_collections import config_dict

from flowad_jax.recipes.papers import _common


def get_config() -> config_dict.ConfigDict:
    """The published settings at one image size."""
    return _common.cflow("mvtec", "bottle", "resnet.resnet18")
