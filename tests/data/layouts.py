"""Small copies of data sets, with the names, formats and quirks of the real ones.

Every writer puts one category into a folder: four normal images to train on, two normal and two
anomalous ones to test, and two for validation where the set has them. An anomaly is a bright
rectangle, and the masks show it in the way of the set.
"""

import json
import zlib

import numpy as np
from PIL import Image

SIZE = (64, 48)
DEFECT = np.zeros(SIZE[::-1], bool)
DEFECT[10:20, 8:24] = True
BRIGHTER = 30  # from frame to frame of a video


def photograph(path, defect=False, mode="RGB"):
    """Noise that depends on the name alone, so that no two images are equal."""
    rng = np.random.default_rng(zlib.crc32("/".join(path.parts[-4:]).encode()))
    pixels = rng.normal(110, 12, (*SIZE[::-1], 3)).clip(0, 255).astype(np.uint8)
    if defect:
        pixels[DEFECT] = 250
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).convert(mode).save(path)


def mask(path, value=255, pixels=DEFECT):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.where(pixels, value, 0).astype(np.uint8)).save(path)


def halves():
    """The mask of the defect in two parts."""
    left, right = DEFECT.copy(), DEFECT.copy()
    left[:, 16:], right[:, :16] = False, False
    return left, right


def _folders(category, normal="good", kind="bad", suffix=".png", name="{}_mask.png"):
    """The shape of MVTec AD, which several sets share."""
    for index in range(4):
        photograph(category / "train" / normal / f"{index:03}{suffix}")
    for index in range(2):
        photograph(category / "test" / normal / f"{index:03}{suffix}")
        photograph(category / "test" / kind / f"{index:03}{suffix}", defect=True)
        mask(category / "ground_truth" / kind / name.format(f"{index:03}"))


def write_folder(root):
    _folders(root / "part", kind="scratch", name="{}.png")


def write_mvtec(root):
    _folders(root / "bottle", kind="broken_large")


def write_btad(root):
    category = root / "BTech_Dataset_transformed" / "03"
    _folders(category, normal="ok", kind="ko", suffix=".bmp", name="{}.bmp")


def write_visa(root):
    rows = ["object,split,label,image,mask"]
    for index in range(6):
        image = f"candle/Data/Images/Normal/{index:04}.JPG"
        photograph(root / image)
        rows.append(f"candle,{'train' if index < 4 else 'test'},normal,{image},")
    for index in range(2):
        image = f"candle/Data/Images/Anomaly/{index:03}.JPG"
        truth = f"candle/Data/Masks/Anomaly/{index:03}.png"
        photograph(root / image, defect=True)
        mask(root / truth, value=1 + index)
        rows.append(f"candle,test,anomaly,{image},{truth}")
    (root / "split_csv").mkdir()
    (root / "split_csv" / "1cls.csv").write_text("\n".join(rows) + "\n")


def write_dagm(root):
    """As downloaded: one of five images to train on has a defect."""
    for split, count, defects in (("Train", 5, [2]), ("Test", 4, [0, 3])):
        folder = root / "Class1" / split
        for index in range(count):
            photograph(folder / f"{index:04}.PNG", defect=index in defects, mode="L")
        for index in defects:
            mask(folder / "Label" / f"{index:04}_label.PNG")


def write_magnetic_tile(root):
    """Every fifth of the free images is tested, so of six there are two."""
    for index in range(6):
        photograph(root / "MT_Free" / "Imgs" / f"exp1_num_{index}.jpg", mode="L")
    for kind in ("Crack", "Blowhole"):
        stem = root / f"MT_{kind}" / "Imgs" / "exp1_num_7"
        photograph(stem.with_suffix(".jpg"), defect=True, mode="L")
        mask(stem.with_suffix(".png"))


def write_mvtec_loco(root):
    """A mask for each part of an anomaly, in a folder for each image."""
    category = root / "breakfast_box"
    for split, count in (("train", 4), ("validation", 2), ("test", 2)):
        for index in range(count):
            photograph(category / split / "good" / f"{index:03}.png")
    for kind, parts in (("logical_anomalies", halves()), ("structural_anomalies", [DEFECT])):
        photograph(category / "test" / kind / "000.png", defect=True)
        for number, pixels in enumerate(parts):
            file = category / "ground_truth" / kind / "000" / f"{number:03}.png"
            mask(file, value=200 + number, pixels=pixels)
    (category / "defects_config.json").write_text("[]")


def write_mvtec_ad2(root):
    """Grey images; those for the authors' server have neither labels nor masks."""
    category = root / "can"
    public = category / "test_public"
    for split, count in ((category / "train", 4), (category / "validation", 2), (public, 2)):
        for index in range(count):
            photograph(split / "good" / f"{index:03}_regular.png", mode="L")
    for light in ("regular", "overexposed"):
        photograph(public / "bad" / f"000_{light}.png", defect=True, mode="L")
        mask(public / "ground_truth" / "bad" / f"000_{light}_mask.png")
    for split, count in (("test_private", 2), ("test_private_mixed", 3)):
        for index in range(count):
            photograph(category / split / f"{index:03}_regular.png", index == 0, mode="L")


def write_csv(root):
    """A table in which two masks make up one, with files in folders that mean nothing."""
    rows = ["image,split,label,mask,category"]
    for split, count in (("train", 4), ("validation", 2), ("test", 2)):
        for index in range(count):
            photograph(root / "images" / f"{split}_{index}.png")
            rows.append(f"images/{split}_{index}.png,{split},good,,cap")
    for kind, parts in (("crack", halves()), ("anomalous", [DEFECT])):
        photograph(root / "images" / f"{kind}.jpg", defect=True)
        names = [f"masks/{kind}_{number}.png" for number in range(len(parts))]
        for name, pixels in zip(names, parts, strict=True):
            mask(root / name, pixels=pixels)
        rows.append(f"images/{kind}.jpg,test,{kind},{';'.join(names)},cap")
    (root / "dataset.csv").write_text("\n".join(rows) + "\n")


def real_iad_item(sample, kind, view):
    """A line of the lists, with the names that the set gives to files."""
    folder = "OK" if kind == "OK" else f"NG/{kind}"
    name = f"audiojack_{sample:04}_{folder.replace('/', '_')}_{view}_20230922130520"
    stem = f"{folder}/S{sample:04}/{name}"
    return {
        "category": "audiojack",
        "anomaly_class": kind,
        "image_path": f"{stem}.jpg",
        "mask_path": None if kind == "OK" else f"{stem}.png",
    }


def write_real_iad(root):
    """Samples of two views each, with the list as in the archive of all lists."""
    kinds = {"train": ["OK", "OK"], "test": ["OK", "AK"]}
    numbers = {"train": (1, 2), "test": (3, 4)}
    meta = {"prefix": "audiojack/", "normal_class": "OK", "pre_transform": None}
    listed = {"meta": meta}
    for split in kinds:
        listed[split] = [
            real_iad_item(sample, kind, view)
            for sample, kind in zip(numbers[split], kinds[split], strict=True)
            for view in ("C1", "C2")
        ]
    folder = root / "realiad_1024" / "audiojack"
    for item in listed["train"] + listed["test"]:
        photograph(folder / item["image_path"], defect=item["mask_path"] is not None)
        if item["mask_path"]:
            mask(folder / item["mask_path"])
    file = root / "realiad_jsons" / "realiad_jsons" / "audiojack.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(listed))


def write_ksdd2(root):
    """One of five images to train on has a defect; files that copies of the set hold are there."""
    folder = root / "KolektorSDD2"
    for split, numbers, defects in (
        ("train", range(10000, 10005), [10002]),
        ("test", range(20000, 20004), [20000, 20003]),
    ):
        for number in numbers:
            photograph(folder / split / f"{number}.png", defect=number in defects)
            mask(folder / split / f"{number}_GT.png", pixels=DEFECT & (number in defects))
    for stray in ("10001 (copy)", "10003_copy"):
        photograph(folder / "train" / f"{stray}.png")
    for stray in ("10001_GT (copy)", "10900_GT"):
        mask(folder / "train" / f"{stray}.png")


def write_video(path, frames=2):
    """Frames of one grey each, ever brighter."""
    import av

    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=24)
        stream.width, stream.height, stream.pix_fmt = *SIZE, "yuv420p"
        for number in range(frames):
            pixels = np.full((*SIZE[::-1], 3), BRIGHTER * number % 256, np.uint8)
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def write_stc(root):
    """Two training videos of a camera; the masks of its test videos mark a normal frame too."""
    for name in ("01_002", "01_001"):
        write_video(root / "shanghaitech" / "training" / "videos" / f"{name}.avi")
    testing = root / "shanghaitech" / "testing"
    for video, labels in (("01_0014", [0, 0, 1]), ("01_0015", [1])):
        for number, label in enumerate(labels):
            photograph(testing / "frames" / video / f"{number:03d}.jpg", defect=label)
        masks = np.stack([DEFECT * (number > 0 or label) for number, label in enumerate(labels)])
        for folder, array in (("frame", np.array(labels)), ("pixel", masks)):
            (testing / f"test_{folder}_mask").mkdir(exist_ok=True)
            np.save(testing / f"test_{folder}_mask" / f"{video}.npy", array.astype(np.uint8))


# By the name of the data set: what writes it, and the category that this gives.
ALL = {
    "folder": (write_folder, "part"),
    "csv": (write_csv, "cap"),
    "mvtec": (write_mvtec, "bottle"),
    "visa": (write_visa, "candle"),
    "btad": (write_btad, "03"),
    "dagm": (write_dagm, "Class1"),
    "ksdd2": (write_ksdd2, ""),
    "magnetic_tile": (write_magnetic_tile, ""),
    "mvtec_ad2": (write_mvtec_ad2, "can"),
    "mvtec_loco": (write_mvtec_loco, "breakfast_box"),
    "real_iad": (write_real_iad, "audiojack"),
    "stc": (write_stc, "01"),
}
