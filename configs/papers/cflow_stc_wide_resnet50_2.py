r"""CFLOW-AD on ShanghaiTech Campus with Wide-ResNet-50-2, one camera at a time.

flowad fetch --arch=resnet.wide_resnet50_2
flowad convert --arch=resnet.wide_resnet50_2 \
    --checkpoint=wide_resnet50_2-95faca4d.pth --output=wide_resnet50_2.safetensors
flowad train --config=papers/cflow_stc_wide_resnet50_2 --workdir=runs/stc_01 \
    --config.data.root=/path/to/shanghaitech --config.data.category=01 \
    --config.encoder.weights=wide_resnet50_2.safetensors

Published: the paper's figures for this set were not at hand. Ours: not measured.

Hardware: a GPU or TPU; the decoders have 81.6 million parameters.

Deviations beside those of all recipes (flowad_jax.recipes.papers): the image size that the paper
had on this set was not at hand, so it is 256 px, the default of the authors' code. 25 x 8 = 200
epochs as in that code; the paper says 100. Pixels are normalised as there, with means of 0.5 and
deviations of 0.225.
"""

from ml_collections import config_dict

from flowad_jax.recipes.papers import _common


def get_config() -> config_dict.ConfigDict:
    """The settings of the authors' code."""
    config = _common.cflow("stc", "01")
    config.data.norm = "stc"
    config.data.options.quality = 80  # of the JPEG files that the training videos become
    return config
