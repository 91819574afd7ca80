"""Small copies of data sets on disk, with the names, formats and quirks of the real ones."""

import numpy as np
from PIL import Image

PART = (23, 63)  # of KolektorSDD2, a tenth of the real width and height
SCRATCH = np.zeros(PART[::-1], np.uint8)
SCRATCH[10:14, 5:8] = 255


def write_ksdd2(root):
    """Four images to train on, one of them with a defect; two good and two bad ones to test."""
    for split, first, defects in (("train", 10000, {10002}), ("test", 20000, {20000, 20003})):
        (root / split).mkdir(parents=True)
        for number in range(first, first + 4):
            Image.new("RGB", PART, (number % 100, 90, 120)).save(root / split / f"{number}.png")
            mask = SCRATCH if number in defects else np.zeros_like(SCRATCH)
            Image.fromarray(mask).save(root / split / f"{number}_GT.png")
    photograph = (root / "train" / "10001.png").read_bytes()
    (root / "train" / "10001 (copy).png").write_bytes(photograph)
    (root / "train" / "10003_copy.png").write_bytes(photograph)
    mask = (root / "train" / "10001_GT.png").read_bytes()
    (root / "train" / "10001_GT (copy).png").write_bytes(mask)
    (root / "train" / "10900_GT.png").write_bytes(mask)


WRITERS = {"ksdd2": (write_ksdd2, "")}  # how to write it, one of its categories
