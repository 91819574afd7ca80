r"""SANFlow on MVTec AD with Wide-ResNet-101-2: 320 px, 80 epochs, batches of 4.

flowad fetch --arch=resnet.wide_resnet101_2
flowad convert --arch=resnet.wide_resnet101_2 \
    --checkpoint=wide_resnet101_2-32ee1156.pth --output=wide_resnet101_2.safetensors
flowad train --config=papers/sanflow_mvtec_wide_resnet101_2 --workdir=runs/bottle \
    --config.data.root=/path/to/mvtec --config.data.category=bottle \
    --config.encoder.weights=wide_resnet101_2.safetensors

Published: the published figures were not at hand, neither the paper's tables nor any in the
authors' repository. Ours: not measured.

Hardware: a GPU or TPU; the decoders have 137.5 million parameters, the encoder 124.8 million.

Deviations beside those of all recipes (flowad_jax.recipes.papers): the colour jitter's strength,
drawn once per run there, is the middle of its range; masks are drawn at every visit instead of from
a bank of 10,000; an image never lends material to itself. The faults of the released code are in,
by method.legacy; sanflow_mvtec is without them. Test images are resized by Lanczos,
training images bilinearly, as there; the epochs and the batch size are those of the authors'
commands, not of their code's defaults.
"""

from ml_collections import config_dict

from flowad_jax.recipes.papers import _common


def get_config() -> config_dict.ConfigDict:
    """The settings of the authors' commands."""
    return _common.sanflow("resnet.wide_resnet101_2", image_size=320)
