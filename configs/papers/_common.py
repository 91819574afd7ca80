"""What the recipes of one system share: the settings of the authors' code or commands."""

from typing import Any

from ml_collections import config_dict

from configs.base import base

_WIDE = "resnet.wide_resnet50_2"

# What the released SANFlow computes: `method.legacy` has all of it, and here is what that means.
_SANFLOW_RELEASED: dict[str, Any] = {
    "legacy": True,
    "log_variance_weight": 1.0,
    "stop_alpha": False,
    "cross_entropy": "double_softmax",
    "variance_floor": 0.0,
    "mask_pool": "corner",
    "variance_pool": "corner",
    "per_scale": False,
    "joint_step": False,
}

# How MSFlow's learning rate was set when the paper came out, by the defaults beside the README of
# revision 8fdf1d2. configs/methods.py has what the code and the logs have since January 2024.
_MSFLOW_RELEASE: dict[str, Any] = {"warmup_start": 0.3, "milestones": (0.75, 0.9)}


def cflow(data: str, category: str, encoder: str = _WIDE) -> config_dict.ConfigDict:
    """CFLOW-AD with the scoring of the paper."""
    config = _published(base("cflow", data), category, encoder)
    config.data.drop_last = True
    config.eval.scoring = "transductive"
    return config


def sanflow(data: str, category: str, encoder: str = _WIDE) -> config_dict.ConfigDict:
    """SANFlow as the authors' commands run it."""
    config = _published(base("sanflow", data), category, encoder)
    config.data.drop_last = True
    config.data.train_filter = "bilinear"
    config.method.update(_SANFLOW_RELEASED)
    # The authors draw one strength for a whole run, from 0 to 0.2; this is the middle.
    config.synthesis.jitter_per_sample = False
    config.synthesis.jitter = 0.1
    config.eval.scoring = "transductive"
    return config


def msflow(
    data: str, category: str, encoder: str = _WIDE, *, later: bool = False
) -> config_dict.ConfigDict:
    """MSFlow with the scoring of the paper, with the learning rate of its release or the later."""
    config = _published(base("msflow", data), category, encoder)
    if not later:
        config.train.schedule.update(_MSFLOW_RELEASE)
    config.eval.scoring = "per_image"
    return config


def ssnf(data: str, category: str) -> config_dict.ConfigDict:
    """SSNF with the encoder, the synthesis and the scoring of the authors' code."""
    config = _published(base("ssnf", data), category, "cait.cait_m48_448")
    config.seed = 923_874_273  # theirs
    config.encoder.taps = (40,)  # of 48 blocks, with the network's last LayerNorm behind it
    config.encoder.layer_norm = False
    # A synthesis that fails is not tried again and trains as an anomaly, and patches of odd width
    # are blended one column to the right of where their label is.
    config.synthesis.retries = 0
    config.synthesis.unchanged_as_negative = True
    config.synthesis.legacy_shift = True
    config.eval.scoring = "per_image"
    return config


def _published(
    config: config_dict.ConfigDict, category: str, encoder: str
) -> config_dict.ConfigDict:
    """All normal images train; weights lie in the current folder, named as by the commands."""
    family, variant = encoder.split(".")
    config.data.category = category
    config.data.holdout = 0.0
    config.encoder.name = encoder
    config.encoder.weights = f"{variant}.safetensors"
    if family == "resnet":
        config.encoder.padding = "reflect"
    return config
