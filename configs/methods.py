"""The sections of a recipe that differ between the systems, with the published values."""

from ml_collections import config_dict

_SECTIONS = {
    "cflow": {
        "name": "cflow",
        "condition": 128,  # size of the position code; 0 for the unconditional ablation
        "blocks": 8,  # coupling blocks per decoder
        "clamp": 1.9,  # bound on the log-scale of a coupling
        "clamp_kind": "tanh",  # FrEIA 0.2; "tanh_ratio" is FrEIA since August 2023
        "permutation": "soft",  # rotations; "hard" for channel orders
        "fibre_size": 256,  # rows per gradient step
        # 0: as published; n: every scale in n gradient steps per image batch, large maps in large
        # ones, whatever fibre_size says.
        "fibre_steps": 0,
        "objective": "log_sigmoid",  # as released; "nll" as written in the paper
    },
    "sanflow": {
        "name": "sanflow",
        "condition": 512,  # size of the position code
        "blocks": 8,  # coupling blocks per decoder
        "clamp": 1.9,  # bound on the log-scale of a coupling
        "clamp_kind": "tanh",  # FrEIA 0.2; "tanh_ratio" is FrEIA since August 2023
        "permutation": "hard",  # channel orders; "soft" for rotations
        "prior_p": 11.0,  # side of the receptive field of the variance net: strength of the prior
        "prior_level": 0.1,  # variance of normal latents that the prior expects
        "anomalous_mean": 1.0,  # mean of anomalous latents
        "variance_clip": 5.0,  # largest variance
        "variance_floor": 1e-6,  # smallest; released: none
        "log_alpha_clip": (1e-8, 1e4),  # bounds of alpha, outside which it has no gradient
        "cross_entropy_weight": 0.2,
        # Below, where the released code has faults: first what is right, then what it does.
        "log_variance_weight": 0.5,  # factor of the log-variance; released: 1.0
        "stop_alpha": True,  # anomalous rows do not push alpha; released: False
        "cross_entropy": "per_dimension",  # of likelihoods; released: "double_softmax"
        "mask_pool": "area",  # a position counts as anomalous by share; "max"; released: "corner"
        "mask_share": 0.1,  # that share
        "variance_pool": "average",  # over the pixels of a position; released: "corner"
        "per_scale": False,  # an own variance for every scale
        "joint_step": True,  # one step per image batch; released: one per scale
        "legacy": False,  # all of it as released, whatever the keys above say
    },
    "msflow": {
        "name": "msflow",
        "condition": 64,  # size of the position code
        "blocks": (2, 5, 8),  # coupling blocks per scale, shallow first
        "clamp": 1.9,  # bound on the log-scale of a coupling
        "clamp_kind": "tanh",  # FrEIA 0.2; "tanh_ratio" is FrEIA since August 2023
        "top": 0.03,  # share of the pixels that make the score of an image
        "compute": "float32",  # "bfloat16" convolves in half precision
    },
    "ssnf": {
        "name": "ssnf",
        "blocks": 10,  # coupling blocks, twice the reference's --coupling
        "hidden": 128,  # channels inside the sub-nets
        "heads": 4,  # of the attention
        "clamp": 2.0,  # bound on the log-scale of a coupling
        "clamp_kind": "tanh",  # FrEIA 0.2; "tanh_ratio" is FrEIA since August 2023
        "drop": 0.2,  # dropout of channels and of attention weights
        "layout": "conv+attn",  # of the sub-nets: "conv", "attn", "attn+conv", or one per block
        "negative_weight": 0.5,  # weight of the synthetic anomalies
        "negative_cap": 1e5,  # they train while their negative log-likelihood is below ...
        "cap_dimensions": 602112,  # ... for so many dimensions; scaled to those at hand
        "positive_weight": "switch",  # 1 while no anomaly trains; "constant": always 1 - weight
        "score": "density",  # mean density over the channels; "nll" does not saturate
        "top": 0.0,  # share of the pixels that make the score of an image; 0 for the maximum
        "sigmoid": False,  # of the maps, as the reference's separate evaluation has it
        "compute": "float32",  # "bfloat16" computes the sub-nets in half precision
    },
}

_SCHEDULES = {
    "sanflow": {
        "name": "schedules.cflow",
        "sub_epochs": 4,
        "warmup_meta_epochs": 2,
        "decay_rate": 0.1,
    },
    "ssnf": {
        "name": "schedules.ssnf",
        "t_max": 100,  # epochs of half a cosine; 0: one that ends with the last epoch
        "eta_min": 1e-6,  # the lowest rate
    },
    "cflow": {
        "name": "schedules.cflow",
        "sub_epochs": 8,  # epochs per meta epoch; the rate follows a cosine over meta epochs
        "warmup_meta_epochs": 2,
        "decay_rate": 0.1,  # the cosine ends at learning_rate * decay_rate**3
    },
    "msflow": {
        "name": "schedules.msflow",
        "sub_epochs": 4,  # epochs per meta epoch
        "warmup_meta_epochs": 3,
        "warmup_start": 0.1,  # the warm-up begins at this share of the learning rate
        "milestones": (0.7, 0.9),  # shares of the epochs after which the rate falls
        "gamma": 0.33,  # by this factor
    },
}

# Where a system's published recipe differs from the values in base.py.
_PUBLISHED: dict[str, dict] = {
    "cflow": {},
    "msflow": {
        "data.image_size": 512,
        "data.rotation_degrees": 0.0,
        "encoder.strides": (4, 8, 16),
        "encoder.pool": "avg",
        "train.epochs": 100,
        "train.batch_size": 8,
        "train.learning_rate": 1e-4,
        "train.clip_norm": 2.0,
        "train.eval_every": 4,
        "train.checkpoint_every": 4,
        "eval.batch_size": 8,
    },
    "sanflow": {
        "data.rotation_degrees": 0.0,
        "train.epochs": 80,
        "train.batch_size": 4,
        "train.learning_rate": 5e-4,
        "train.eval_every": 4,
        "train.checkpoint_every": 4,
    },
    "ssnf": {
        "data.image_size": 448,
        "data.rotation_degrees": 0.0,
        "data.sharpen": 0.5,
        "encoder.strides": (16,),
        "encoder.layer_norm": True,
        "train.epochs": 500,
        "train.batch_size": 16,
        "train.adam_eps": 1e-4,
        "train.weight_decay": 1e-5,
        "train.eval_every": 10,
        "train.checkpoint_every": 10,
        "eval.batch_size": 16,
    },
}


def section(method: str) -> config_dict.ConfigDict:
    """Returns the `method` section of one of the systems."""
    return config_dict.ConfigDict(_SECTIONS[method])


def schedule(method: str) -> config_dict.ConfigDict:
    """Returns the `train.schedule` section of one of the systems."""
    return config_dict.ConfigDict(_SCHEDULES[method])


def published(method: str) -> dict:
    """Returns the other keys of the published recipe, flattened, where base.py has other values."""
    return _PUBLISHED[method]
