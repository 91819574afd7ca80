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
        "objective": "log_sigmoid",  # as released; "nll" as written in the paper
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
}

_SCHEDULES = {
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
