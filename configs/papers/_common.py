"""What the recipes of one system share: the settings of the authors' code or commands."""

from ml_collections import config_dict

from flowad_jax.recipes.base import base

_WIDE = "resnet.wide_resnet50_2"


def cflow(data: str, category: str | None, encoder: str = _WIDE) -> config_dict.ConfigDict:
    """CFLOW-AD with the scoring of the paper."""
    config = _published("cflow", data, category, encoder)
    config.data.drop_last = True
    config.eval.scoring = "transductive"
    return config


def sanflow(encoder: str, image_size: int) -> config_dict.ConfigDict:
    """SANFlow as the authors' commands run it on MVTec AD."""
    config = _published("sanflow", "mvtec", "bottle", encoder)
    config.data.image_size = image_size
    config.data.drop_last = True
    config.method.legacy = True  # what that means is spelled out, so that a config can be read
    config.method.log_variance_weight = 1.0
    config.method.stop_alpha = False
    config.method.cross_entropy = "double_softmax"
    config.method.variance_floor = 0.0
    config.method.mask_pool = config.method.variance_pool = "corner"
    config.method.per_scale = config.method.joint_step = False
    config.synthesis.legacy = True
    # The authors draw one strength for a whole run, from 0 to 0.2; this is the middle.
    config.synthesis.jitter_per_sample = False
    config.synthesis.jitter = 0.1
    config.eval.scoring = "transductive"
    return config


def msflow(data: str, category: str | None, *, later: bool = False) -> config_dict.ConfigDict:
    """MSFlow with the scoring of the paper, with the learning rate of its release or the later."""
    config = _published("msflow", data, category, _WIDE)
    if data == "mvtec":  # a misplaced transistor is a large anomaly, which smaller images show
        config.data.category_sizes = {"transistor": 256}
    if not later:  # by the defaults beside the README of revision 8fdf1d2
        config.train.schedule.warmup_start = 0.3
        config.train.schedule.milestones = (0.75, 0.9)
    config.eval.scoring = "per_image"
    return config


def fastflow(encoder: str) -> config_dict.ConfigDict:
    """FastFlow on MVTec AD as its two public implementations run it, with their scoring."""
    config = _published("fastflow", "mvtec", "bottle", encoder)
    config.encoder.padding = "zeros"
    config.data.drop_last = True
    config.eval.scoring = "per_image"
    return config


def patchflow(data: str, category: str) -> config_dict.ConfigDict:
    """PatchFlow with the settings of its public implementation and the image size of the paper."""
    config = _published("patchflow", data, category, "efficientnet.tf_efficientnet_b5_ns")
    config.data.image_size = 768
    config.eval.scoring = "per_image"
    return config


def ssnf(data: str, category: str) -> config_dict.ConfigDict:
    """SSNF with the encoder, the synthesis and the scoring of the authors' code."""
    config = _published("ssnf", data, category, "cait.cait_m48_448")
    config.seed = 923_874_273  # theirs
    config.encoder.taps = (40,)  # of 48 blocks, with the network's last LayerNorm behind it
    config.encoder.layer_norm = False
    # A synthesis that fails is not tried again and trains as an anomaly, and patches of odd width
    # are blended one column to the right of where their label is.
    config.synthesis.retries = 0
    config.synthesis.unchanged_as_negative = True
    config.synthesis.legacy = True
    config.eval.scoring = "per_image"
    return config


def _published(
    method: str, data: str, category: str | None, encoder: str
) -> config_dict.ConfigDict:
    """All normal images train; weights lie in the current folder, named as by the commands."""
    config = base(method, data)
    family, variant = encoder.split(".")
    config.data.category = category
    config.data.holdout = 0.0
    config.encoder.name = encoder
    config.encoder.weights = f"{variant}.safetensors"
    if family == "resnet":
        config.encoder.padding = "reflect"
    return config
