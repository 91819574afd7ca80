r"""MSFlow on mini ShanghaiTech Campus with Wide-ResNet-50-2: every fifth frame at 256 x 384 px.

flowad fetch --arch=resnet.wide_resnet50_2
flowad convert --arch=resnet.wide_resnet50_2 \
    --checkpoint=wide_resnet50_2-95faca4d.pth --output=wide_resnet50_2.safetensors
flowad train --config=papers/msflow_stc_wide_resnet50_2 --workdir=runs/stc_01 \
    --config.data.root=/path/to/shanghaitech --config.data.category=01 \
    --config.encoder.weights=wide_resnet50_2.safetensors

Published, in percent: pixel AUROC 93.0, by a third party's notes of the paper; which epoch was not
at hand. Ours: not measured.

Hardware: a GPU or TPU; the flows have 99.6 million parameters. A third party's notes of the paper
name one 2080 Ti.

Deviations beside those of all recipes (flowad_jax.recipes.papers): the authors released no loader
for this set; size (taken as height x width, as frames are wide), every fifth frame, epochs, batch
size and the falls of the rate at 70 and 90 % are from the notes, the rest is that of the paper's
release on MVTec AD. Whether the paper has one detector for each camera was not at hand; here it is
one.
"""

from ml_collections import config_dict

from flowad_jax.recipes.papers import _common


def get_config() -> config_dict.ConfigDict:
    """The settings that the paper gives for this set: size, frames, epochs, batch size."""
    config = _common.msflow("stc", "01")
    config.data.image_size = (256, 384)
    config.data.options.every = 5
    config.train.epochs = 10
    config.train.batch_size = 16
    config.train.eval_every = 5
    config.train.checkpoint_every = 1
    config.eval.batch_size = 16
    config.train.schedule.milestones = (0.7, 0.9)
    return config
