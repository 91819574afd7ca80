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
}

_SCHEDULES = {
    "cflow": {
        "name": "schedules.cflow",
        "sub_epochs": 8,  # epochs per meta epoch; the rate follows a cosine over meta epochs
        "warmup_meta_epochs": 2,
        "decay_rate": 0.1,  # the cosine ends at learning_rate * decay_rate**3
    },
}


def section(method: str) -> config_dict.ConfigDict:
    """Returns the `method` section of one of the systems."""
    return config_dict.ConfigDict(_SECTIONS[method])


def schedule(method: str) -> config_dict.ConfigDict:
    """Returns the `train.schedule` section of one of the systems."""
    return config_dict.ConfigDict(_SCHEDULES[method])
