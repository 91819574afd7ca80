"""What the recipes of one system share: the settings of the authors' code or commands."""

from ml_collections import config_dict

from configs.base import base

_WIDE = "resnet.wide_resnet50_2"


def cflow(data: str, category: str, encoder: str = _WIDE) -> config_dict.ConfigDict:
    """CFLOW-AD with the scoring of the paper."""
    config = _with_encoder(base("cflow", data), category, encoder)
    config.data.drop_last = True
    config.eval.scoring = "transductive"
    return config


def sanflow(data: str, category: str, encoder: str = _WIDE) -> config_dict.ConfigDict:
    """SANFlow as the authors' commands run it, but for the faults that `method.legacy` restores."""
    config = _with_encoder(base("sanflow", data), category, encoder)
    config.data.drop_last = True
    config.data.train_filter = "bilinear"
    config.eval.scoring = "transductive"
    return config


def msflow(data: str, category: str, encoder: str = _WIDE) -> config_dict.ConfigDict:
    """MSFlow with the scoring of the paper."""
    config = _with_encoder(base("msflow", data), category, encoder)
    config.eval.scoring = "per_image"
    return config


def ssnf(data: str, category: str) -> config_dict.ConfigDict:
    """SSNF with the encoder and the scoring of the authors' code."""
    config = _with_encoder(base("ssnf", data), category, "cait.cait_m48_448")
    config.seed = 923_874_273  # theirs
    config.encoder.taps = (40,)  # of 48 blocks, with the network's last LayerNorm behind it
    config.encoder.layer_norm = False
    config.eval.scoring = "per_image"
    return config


def _with_encoder(
    config: config_dict.ConfigDict, category: str, encoder: str
) -> config_dict.ConfigDict:
    """Weights are expected in the current folder, under the name that the commands give them."""
    family, variant = encoder.split(".")
    config.data.category = category
    config.encoder.name = encoder
    config.encoder.weights = f"{variant}.safetensors"
    if family == "resnet":
        config.encoder.padding = "reflect"
    return config
