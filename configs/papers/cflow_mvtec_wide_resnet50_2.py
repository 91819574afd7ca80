r"""CFLOW-AD on MVTec AD with Wide-ResNet-50-2, in the image sizes of the authors' commands.

flowad fetch --arch=resnet.wide_resnet50_2
flowad convert --arch=resnet.wide_resnet50_2 \
    --checkpoint=wide_resnet50_2-95faca4d.pth --output=wide_resnet50_2.safetensors
flowad train --config=papers/cflow_mvtec_wide_resnet50_2 --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.data.category=bottle \
    --config.encoder.weights=wide_resnet50_2.safetensors

Published, mean over 15 categories in percent, Table 3 of the paper: image AUROC 98.26, pixel AUROC
98.62, AUPRO 94.60. The authors' code reports the best epoch on the test set per metric, and its
parser averages four runs. Ours: not measured.

Hardware: a GPU or TPU; the decoders have 81.6 million parameters, and an image batch of 512 px
gives 672 gradient steps.

Deviations beside those of all recipes (flowad_jax.recipes.papers): one run, not four. 25 x 8 = 200
epochs as in the authors' code; their paper says 100. The sizes per category follow the test
results: for a comparison that is not about the paper's table use one for all,
--config.data.category_sizes="{}".

--config=papers/cflow_mvtec_wide_resnet50_2:screw chooses a category, too.
"""

from ml_collections import config_dict

from flowad_jax.recipes.papers import _common

# Sides of the input in the authors' commands; the other categories have 256.
SIZES = {"transistor": 128} | dict.fromkeys(
    ("bottle", "carpet", "grid", "leather", "screw", "tile", "toothbrush", "wood", "zipper"), 512
)


def get_config(category: str = "bottle") -> config_dict.ConfigDict:
    """The published settings, with the input size that the authors chose for each category."""
    config = _common.cflow("mvtec", category)
    config.data.image_size = 256
    config.data.category_sizes = SIZES
    return config
