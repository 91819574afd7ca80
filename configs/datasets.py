"""The arguments that only one data set takes, with their defaults."""

from ml_collections import config_dict

_OPTIONS = {
    "textures": {
        "train_images": 48,
        "good_images": 16,  # good test images
        "images_per_kind": 8,  # test images per kind of defect
        "tile": 160,  # side of the tiles cut from the photograph, in its pixels
        "strength": 1.0,  # contrast of the defects
        "seed": 0,
    },
    "folder": {
        "masks": "auto",  # "require" them, or "none": ignore them
        "mask_threshold": 0,  # pixels above it are defects
        "white": 65535,  # value of white in 16-bit images
        "normal": "good",  # name of the folders of normal images
    },
    "csv": {
        "table": "dataset.csv",  # below the root; or the root is the table itself
        "masks": "auto",
        "mask_threshold": 0,
        "white": 65535,
    },
    "mvtec": {"masks": "require", "mask_threshold": 0},
    "mvtec_ad2": {"masks": "require", "mask_threshold": 0},
    "mvtec_loco": {"masks": "require", "mask_threshold": 0},
    "real_iad": {
        "images": "realiad_1024",  # or "realiad_512", "realiad_256": folder of the images
        "splits": "realiad_jsons",  # folder of the lists: "realiad_jsons_sv" has a single view
        "views": "all",  # or one, "C1" to "C5"
        "masks": "require",
        "mask_threshold": 0,
    },
    "visa": {"masks": "require", "mask_threshold": 0},
    "btad": {"masks": "require", "mask_threshold": 0},
    "dagm": {"masks": "require", "mask_threshold": 0},
    "magnetic_tile": {
        "masks": "auto",
        "mask_threshold": 127,
        "test_every": 5,  # every fifth good image is a test image
    },
    "ksdd2": {"masks": "require", "mask_threshold": 0},
    "stc": {
        "masks": "require",
        "every": 1,  # takes every so-many-th frame of each video
        "quality": 95,  # of the JPEG files that training videos become, once
        "frames": "",  # folder for them; empty: training/frames of the root
    },
}


def options(data: str) -> config_dict.ConfigDict:
    """Returns the `data.options` section of one of the data sets, prepared with TFDS or not."""
    return config_dict.ConfigDict(_OPTIONS[data.removeprefix("tfds:")])
