"""The published layout of the magnetic tile set, with its JPEG-like masks."""

import numpy as np
import pytest
from PIL import Image

from flowad_jax.data import magnetic_tile
from flowad_jax.errors import UserError

FREE = ["exp1_num_10.jpg", "exp1_num_9.jpg", *(f"exp2_num_{i}.jpg" for i in range(9))]


@pytest.fixture
def root(tmp_path):
    sizes = {"MT_Free": FREE, "MT_Crack": ["exp1_num_4.jpg"], "MT_Blowhole": ["exp1_num_7.jpg"]}
    for name, files in sizes.items():
        (tmp_path / name / "Imgs").mkdir(parents=True)
        for i, file in enumerate(files):
            Image.new("L", (14 + i, 20), 100).save(tmp_path / name / "Imgs" / file)
    for path in ("MT_Crack/Imgs/exp1_num_4.png", "MT_Blowhole/Imgs/exp1_num_7.png"):
        mask = np.zeros((20, 14), np.uint8)
        mask[5], mask[6], mask[7, :3] = 3, 252, 130  # grey values as a JPEG leaves them
        Image.fromarray(mask).save(tmp_path / path)
    (tmp_path / "README.md").write_text("not a folder")
    return tmp_path


def test_every_fifth_free_image_is_tested(root):
    train = magnetic_tile.build(root, "", "train")
    test = magnetic_tile.build(root, "", "test")
    held_out = [
        path.split("/")[-1]
        for path, kind in zip(test.paths, test.kinds, strict=True)
        if kind == "good"
    ]
    assert held_out == FREE[::5]
    assert len(train) == 8
    assert not set(train.paths) & set(test.paths)
    assert test.kinds == ["MT_Blowhole", "MT_Crack", "good", "good", "good"]
    assert len(magnetic_tile.build(root, "", "train", test_every=2)) == 5


def test_black_masks_of_free_images_are_passed_over(root):
    before = magnetic_tile.build(root, "", "test").paths
    for file in FREE:
        Image.new("L", (3, 3)).save((root / "MT_Free/Imgs" / file).with_suffix(".png"))
    assert magnetic_tile.build(root, "", "test").paths == before


def test_threshold(root):
    assert magnetic_tile.build(root, "", "test")[0].mask.sum() == 14 + 3
    assert magnetic_tile.build(root, "", "test", mask_threshold=0)[0].mask.sum() == 28 + 3
    assert magnetic_tile.build(root, "", "test", mask_threshold=200)[0].mask.sum() == 14


def test_bad_input(root, tmp_path):
    assert magnetic_tile.categories(root) == [""]
    with pytest.raises(UserError, match="has no categories, use ''"):
        magnetic_tile.build(root, "MT_Crack", "test")
    with pytest.raises(UserError, match=r"data\.test_every=1"):
        magnetic_tile.build(root, "", "test", test_every=1)
    with pytest.raises(UserError, match=r"no photographs.*MT_Free"):
        magnetic_tile.build(root / "MT_Free", "", "train")
    (root / "MT_Crack/Imgs/exp1_num_4.png").unlink()
    with pytest.raises(UserError, match=r"exp1_num_4\.jpg' has no mask"):
        magnetic_tile.build(root, "", "test")
    for name in FREE[1:]:
        (root / "MT_Free/Imgs" / name).unlink()
    with pytest.raises(UserError, match="too few images for a train split"):
        magnetic_tile.build(root, "", "train")
