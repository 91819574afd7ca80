"""The section `synthesis`: how anomalies are made for the methods that learn from some."""

from ml_collections import config_dict

# None stands for the published constant of the category, see flowad_jax/synthesis/nsa_constants.py.
_CONSTANTS: dict[str, type] = {
    "texture": bool,
    "background": tuple,  # ((brightness, tolerance), ...)
    "rows": tuple,  # bounds of half the height, shares of the image
    "columns": tuple,  # bounds of half the width
    "factors": tuple,  # bounds of the scaling of a patch
    "min_object": float,  # share of a patch that must be object
    "min_overlap": float,  # share of it that must land on the object
    "max_patches": int,
    "logistic": tuple,  # slope and midpoint of logistic-intensity
}

_OPTIONS = {
    "": {},
    "nsa": {
        "dataset": "",  # whose constants to take; empty: those of data.name and data.category
        "category": "",
        "gamma": (2, 0.05, 0.03),  # shape, scale, offset of a patch's half-sides, as shares
        "resize": True,  # scale patches
        "shift": True,  # put them somewhere else than where they were cut
        "blend": "normal",  # as SSNF; "by_class" as NSA, better on textures; see nsa.Settings
        "label": "binary",
        "tolerance": 1.0,  # grey levels of change that do not count as anomalous
        "draws": 200,  # places to try for one patch
        "retries": 4,  # further attempts after one that changed nothing; the reference has none
        "filter_scale": 1.0,  # size of the median filters relative to the published one
        "legacy_shift": False,  # the reference blends odd patches one column to the right
    },
    "cutpaste": {
        "kinds": ("patch", "scar"),
        "area": (0.02, 0.15),  # bounds of a patch's share of the image
        "aspect": 3.3,  # bounds of its ratio of width to height
        "least_aspect": 0.3,
        "jitter": 0.1,  # of the colours
        "degrees": 45.0,  # bound of a scar's rotation
        "same_image": True,  # cut from the image itself
        "retries": 4,
    },
    "mixture": {
        "kinds": ("normal", "rectangle", "circle", "scar"),  # each as likely
        "jitter": 0.2,  # of the colours
        "jitter_per_sample": True,  # the reference draws one strength for the whole run
    },
}

_PUBLISHED = {"sanflow": "mixture", "ssnf": "nsa"}


def section(method: str, name: str | None = None) -> config_dict.ConfigDict:
    """Returns the section with one kind of synthesis, or with the one that a method published."""
    name = _PUBLISHED.get(method, "") if name is None else name
    config = config_dict.ConfigDict({"name": name})
    # A pixel is anomalous where its share of foreign material is above this.
    config.mask_threshold = 0.0
    # Folder of images that lend their material; empty: the other training images do.
    config.lenders = ""
    # Methods that learn from pairs: whether a synthesis that changed nothing trains as an anomaly
    # all the same, as SSNF's released code has it; else such a pair trains as normal only.
    config.unchanged_as_negative = False
    config.update(_OPTIONS[name])
    for key, kind in _CONSTANTS.items() if name == "nsa" else ():
        config[key] = config_dict.placeholder(kind)
    return config
