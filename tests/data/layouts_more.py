"""Small copies of data sets on disk, with the names, formats and quirks of the real ones."""

import numpy as np
from PIL import Image

PART = (23, 63)  # of KolektorSDD2, a tenth of the real width and height
SCRATCH = np.zeros(PART[::-1], np.uint8)
SCRATCH[10:14, 5:8] = 255
STREET = (96, 64)  # of ShanghaiTech Campus
BRIGHTER = 30  # from frame to frame


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


def write_video(path, frames=6):
    """Frames of one grey each, ever brighter."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = *STREET, "yuv420p"
        for number in range(frames):
            pixels = np.full((*STREET[::-1], 3), BRIGHTER * number % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_stc(root):
    """Two training videos of camera 01 and one of 02; two test videos, whose ends are anomalous."""
    for name in ("01_002", "01_001", "02_001"):
        write_video(root / "training" / "videos" / f"{name}.avi")
    testing = root / "testing"
    for video, length in (("01_0014", 5), ("01_0015", 4)):
        (testing / "frames" / video).mkdir(parents=True)
        for number in range(length):
            photograph = Image.new("RGB", STREET, (BRIGHTER * number, 60, 60))
            photograph.save(testing / "frames" / video / f"{number:03d}.jpg")
        labels = np.arange(length) >= 2
        masks = np.zeros((length, *STREET[::-1]), np.uint8)
        masks[1:, 20:30, 40:44] = 1  # of frame 1, which is normal, too
        for folder, array in (("frame", labels), ("pixel", masks)):
            (testing / f"test_{folder}_mask").mkdir(exist_ok=True)
            np.save(testing / f"test_{folder}_mask" / f"{video}.npy", array.astype(np.uint8))


# How to write each, and one of its categories.
WRITERS = {"stc": (write_stc, "01"), "ksdd2": (write_ksdd2, "")}
