"""The doctor names each problem of a data folder with its remedy, and changes nothing."""

import re
import shutil

import numpy as np
import pytest
from PIL import Image, ImageOps

from flowad_jax.data.findings import examples
from tests.conftest import write_image
from tests.data import layouts
from tests.doctor.conftest import remove, snapshot, write

pytestmark = pytest.mark.whole

TRUTH = "ground_truth/spot"
MASK, SPOT, NORMAL, TRAIN = (
    f"{TRUTH}/1_mask.png",
    "test/spot/1.png",
    "test/good/1.png",
    "train/good",
)
MANY = [f"{TRAIN}/{index:02d}.png" for index in range(3, 20)]
INVERTED = "1 of 5 masks mark nearly the whole image or all of its border"
SPLIT = "1 of 5 masks hold many grey values and are split above 127"


@pytest.fixture
def part(tmp_path):
    """A category without a fault: 20 images to train on, 5 normal and 5 defective ones to test."""
    part = tmp_path / "images" / "part"
    for index in range(20):
        write_image(part / "train" / "good" / f"{index:02d}.png", index)
    for index in range(5):
        write_image(part / "test" / "good" / f"{index}.png", 100 + index)
        write_image(part / "test" / "spot" / f"{index}.png", 200 + index, defect=True)
    (part / TRUTH).mkdir(parents=True)
    masks(*range(5))(part)
    return part


def masks(*numbers, size=(40, 36), value=255):
    """Draws the masks of some images, perhaps again."""

    def draw(part):
        mask = np.zeros(size, np.uint8)
        mask[10:20, 8:20] = value
        for number in numbers:
            Image.fromarray(mask).save(part / TRUTH / f"{number}_mask.png")

    return draw


def save(source, target, change=lambda image: image):
    """Saves what becomes of an image, at its place or another."""

    def spoil(part):
        with Image.open(part / source) as image:
            changed = change(image.copy())
        changed.save(part / target)

    return spoil


def deep(image):
    return Image.fromarray(np.full(image.size[::-1], 30000, np.uint16))


def misname_masks(part):
    for file in (part / TRUTH).iterdir():
        file.rename(file.with_stem(f"label_{file.stem}"))


def blur_mask(part):
    save(MASK, f"{TRUTH}/1_mask.jpg")(part)
    remove(MASK)(part)


def cut(name):
    """Keeps the header and some of the pixels."""
    return lambda part: (part / name).write_bytes((part / name).read_bytes()[:-30])


def break_link(part):
    (part / "test" / "good" / "9.png").symlink_to(part / "gone.png")


def test_a_sound_folder_is_counted_and_left_alone(ask, part):
    before = snapshot(part)
    code, text = ask(f"--data={part.parent}")
    assert code == 0, text
    for line in ("20 good", "5 good, 5 spot", "5 of 5 anomalous", "all 36 x 40", "30 grey"):
        assert line in text
    assert "nothing is wrong" in text
    assert snapshot(part) == before


@pytest.mark.parametrize(
    ("spoil", "what", "remedy"),
    [
        (remove(MASK), "without a mask (1 of 5): {}/test/spot/1.png", "add ground_truth"),
        (misname_masks, "anomalous images without a mask (5 of 5)", "data.options.masks to 'none'"),
        (masks(1, 2, size=(20, 36)), "another size than their image (2)", "size of the image"),
        (masks(*range(5), value=0), "all masks are black", "--set=mask_threshold=0"),
        (save(MASK, MASK, ImageOps.invert), INVERTED, "invert"),
        (blur_mask, SPLIT, "black and white"),
        (write("train/good/07.heic", b""), "masks: 1 ({}/train/good/07.heic)", "convert them to"),
        (break_link, "images or masks: 1 ({}/test/good/9.png)", "repair their links"),
        (write(MASK, b"broken"), f"cannot read '{{}}/{MASK}'", "replace or remove"),
        (write(MANY[0], b"broken"), "cannot read '{}/train/good/03.png'", "replace or remove"),
        (cut(MASK), f"cannot read '{{}}/{MASK}'", "replace or remove"),
        (cut(NORMAL), "cannot read '{}/test/good/1.png'", "replace or remove"),
        (save(SPOT, SPOT, lambda image: image.convert("RGBA")), "2 modes are mixed", "convert all"),
        (save(MANY[0], f"{TRAIN}/99.png", deep), "16 bit as {}/train/good/99.png", "convert all"),
        # The same pixels in another file.
        (save(MANY[1], "test/good/leak.bmp"), "04.png = {}/test/good/leak.bmp", "from train"),
        (save(MANY[0], MANY[1]), "more than once (1): {}/train/good/03.png", "keep one of each"),
        (save(SPOT, NORMAL), "tested both as normal and as anomalous", "decide which"),
        (
            save(NORMAL, "test/good/thumb.png", lambda image: image.resize((31, 40))),
            "a side of less than 32 pixels (1)",
            "higher resolution",
        ),
        (remove(*MANY), "images to train on: only 3", "add normal images"),
        (remove(NORMAL), "normal test images: only 4, so metrics will be noise", "5 or more"),
        (remove("test/spot", "ground_truth"), "only 0, so metrics will be undefined", "add some"),
        (remove(TRAIN), "no training images in '{}/train/good'", "put the normal images there"),
    ],
)
def test_each_problem_of_a_folder(assert_only_problem, part, spoil, what, remedy):
    spoil(part)
    words = [f"--data={part.parent}", "--category=part"]
    assert_only_problem(part, words, what.format(part), remedy)


def test_defects_that_vanish_at_the_size_of_the_network(ask, part):
    speck = np.zeros((40, 36), np.uint8)
    speck[4, 4] = 255
    Image.fromarray(speck).save(part / MASK)
    assert ask(f"--data={part.parent}")[0] == 0  # 256 px: every pixel is there several times
    code, text = ask(f"--data={part.parent}", "--image_size=32,32")
    assert code == 1
    named = f"({part}/test/spot/1.png)"
    assert f"at 32 px nothing is left of the masks of 1 of 5 anomalous images {named}" in text
    assert f"at 32 px nothing is left of 1 of 5 separate defect regions {named}" in text
    assert "-> raise data.image_size" in text


def test_images_of_unknown_label_need_no_mask(ask, part):
    rows = ["image,split,label,mask"]
    for split in ("train", "test"):
        rows += [f"{f.relative_to(part)},{split},good," for f in (part / split / "good").iterdir()]
    rows += [f"test/spot/{i}.png,test,spot,{TRUTH}/{i}_mask.png" for i in range(5)]
    write_image(part / "odd.png", 999)
    (part / "dataset.csv").write_text("\n".join([*rows, "odd.png,test,unknown,"]))
    code, text = ask(f"--data={part}", "--name=csv")
    assert code == 0, text
    assert "5 good, 5 spot, 1 unknown" in text


def test_several_problems_are_found_at_once(ask, part):
    spoilers = remove(MASK), write(MANY[5], b""), save(*MANY[:2]), masks(2, 3, size=(20, 36))
    for spoil in spoilers:
        spoil(part)
    code, text = ask(f"--data={part}")
    assert code == 1
    assert "4 problems found" in text


def test_options_and_categories(ask, part):
    for split in ("train", "test"):
        (part / split / "good").rename(part / split / "ok")
    shutil.copytree(part, part.parent / "other")
    remove(MASK)(part)
    code, text = ask(f"--data={part.parent}", "--set=normal=ok", "--set=masks=none")
    assert code == 0, text
    assert "category 'other'" in text
    assert "category 'part'" in text


def test_masks_of_another_layout(ask, tmp_path):
    for index in range(30):
        write_image(tmp_path / "MT_Free" / "Imgs" / f"{index:02d}.jpg", index)
    for index in range(6):
        write_image(tmp_path / "MT_Break" / "Imgs" / f"{index}.jpg", 50 + index)
    for index in range(5):
        write_image(tmp_path / "MT_Break" / "Imgs" / f"{index}.png", 50, defect=True)
    code, text = ask(f"--data={tmp_path}", "--name=magnetic_tile")
    assert code == 1
    assert "without a mask (1 of 6)" in text
    assert "MT_Break/Imgs/5.jpg" in text


@pytest.mark.parametrize("name", layouts.ALL)
def test_masks_are_found_wherever_a_layout_has_them(ask, tmp_path, name):
    draw, category = layouts.ALL[name]
    draw(tmp_path)
    _, text = ask(f"--data={tmp_path}", f"--name={name}", f"--category={category}")
    (line,) = (line for line in text.splitlines() if line.strip().startswith("masks"))
    number, of = re.search(r"(\d+) of (\d+) anomalous images", line).groups()
    assert number == of != "0"


def test_images_that_are_no_files(ask):
    code, text = ask("--data=unused", "--name=textures", "--category=grass")
    assert code == 0, text
    assert "40 of 40 anomalous images" in text


def test_examples_are_few():
    assert examples("ab") == "a, b"
    assert examples("abcd") == "a, b and 2 more"
