r"""MSFlow on Magnetic Tile Defects with Wide-ResNet-50-2: 192 px, 30 epochs, batches of 16.

flowad fetch --arch=resnet.wide_resnet50_2
flowad convert --arch=resnet.wide_resnet50_2 \
    --checkpoint=wide_resnet50_2-95faca4d.pth --output=wide_resnet50_2.safetensors
flowad train --config=papers/msflow_magnetic_tile_wide_resnet50_2 \
    --workdir=runs/tile --config.data.root=/path/to/magnetic_tile \
    --config.encoder.weights=wide_resnet50_2.safetensors

Published, in percent: image AUROC 99.2, by a third party's notes of the paper; which epoch was not
at hand. Ours: not measured. With EfficientNet-Lite0: docs/measured/accuracy.md.

Hardware: a GPU or TPU; the flows have 99.6 million parameters. A third party's notes of the paper
name one 2080 Ti.

Deviations beside those of all recipes (flowad_jax.recipes.papers): the authors released no loader
for this set; size, split, epochs, batch size and the falls of the rate at 70 and 90 % are from the
notes, the rest is that of the paper's release on MVTec AD. Their four fifths of the normal images
to train are random; here every fifth image is a test image, in the order of names.
"""

from ml_collections import config_dict

from flowad_jax.recipes.papers import _common


def get_config() -> config_dict.ConfigDict:
    """The settings that the paper gives for this set: size, split, epochs, batch size."""
    config = for_tiles(_common.msflow("magnetic_tile", None))
    config.train.schedule.milestones = (0.7, 0.9)
    return config


def for_tiles(config: config_dict.ConfigDict) -> config_dict.ConfigDict:
    """Puts them into a recipe for MSFlow."""
    config.data.image_size = 192
    config.data.options.test_every = 5
    config.train.epochs = 30
    config.train.batch_size = 16
    config.train.eval_every = 10
    config.train.checkpoint_every = 5
    config.eval.batch_size = 16
    return config
