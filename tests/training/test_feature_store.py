"""Features on disk: found by later runs, and never used when they are stale or damaged."""

import errno
import logging
import resource

import pytest

from flowad_jax import memory
from flowad_jax.errors import UserError
from flowad_jax.training.experiment import build
from tests.conftest import write_image
from tests.training.feature_cache_helpers import assert_same_epoch, prepare, without_encoder


@pytest.fixture(scope="module")
def kept():
    """Files of features that one test computes; the key knows nothing of folders."""
    return {}


@pytest.fixture
def folder(config, tmp_path, kept):
    """A workdir with the features of the images."""
    config.cache.place = "disk"
    if not kept:
        prepare(config, tmp_path)
        kept |= {
            file.relative_to(tmp_path): file.read_bytes()
            for file in (tmp_path / "features").rglob("*.*")
        }
    for name, content in kept.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(content)
    return tmp_path


def test_a_later_run_finds_what_is_on_disk(config, tmp_path, caplog):
    config.cache.place, config.cache.folder = "disk", str(tmp_path / "shared")
    with caplog.at_level(logging.INFO, "flowad_jax"):
        made = prepare(config, tmp_path / "one")
        assert "features of 6 training images (" in caplog.text
        assert "KiB of float32): computed in" in caplog.text
        assert f"kept in {tmp_path / 'shared'}" in caplog.text
        caplog.clear()
        config.train.learning_rate = 1.0  # of no consequence for features
        found = prepare(config, tmp_path / "two", without_encoder(config))
    assert caplog.text.count(": found in") == 2
    for name in ("train", "calibration", "test"):
        assert_same_epoch(getattr(made, name), getattr(found, name))


def set_key(key, value):
    def change(config, root):
        section, _, name = key.rpartition(".")
        with config.unlocked():
            (config[section] if section else config)[name] = value

    return change


def change_pixel(config, root):
    write_image(root / "part" / "train" / "good" / "3.png", seed=77)


def swap_images(config, root):
    good = root / "part" / "train" / "good"
    for old, new in (("0", "x"), ("1", "0"), ("x", "1")):
        (good / f"{old}.png").rename(good / f"{new}.png")


@pytest.mark.parametrize(
    "change",
    [
        change_pixel,
        swap_images,
        set_key("encoder.taps", (1, 3)),
        set_key("encoder.pool", "avg"),
        set_key("encoder.compute", "bfloat16"),
        set_key("data.image_size", 64),
        set_key("data.filter", "bilinear"),
        set_key("cache.dtype", "bfloat16"),
        set_key("seed", 1),  # which draws other weights
    ],
)
def test_what_is_stale_is_not_used(config, image_root, folder, change):
    change(config, image_root)
    with pytest.raises(AssertionError, match="the encoder ran"):
        prepare(config, folder, without_encoder(config))
    if change in (change_pixel, swap_images):
        assert_same_epoch(prepare(config, folder).train, build(config).features.train)


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def cut(file):
    file.write_bytes(file.read_bytes()[:-8])


@pytest.mark.parametrize(
    ("name", "damage"),
    [("map0.bin", "unlink"), ("map0.bin", cut), ("map1.bin", flip), ("card.json", cut)],
)
def test_what_is_damaged_is_computed_again(config, folder, name, damage):
    files = sorted((folder / "features").glob(f"*/{name}"))
    assert len(files) == 2
    intact = [file.read_bytes() for file in files]
    for file in files:
        file.unlink() if damage == "unlink" else damage(file)
    with pytest.raises(AssertionError, match="the encoder ran"):
        prepare(config, folder, without_encoder(config))
    prepare(config, folder)
    assert [file.read_bytes() for file in files] == intact


class Stopped(Exception):
    """What a test raises between two batches."""


def test_nothing_half_written_stays(config, tmp_path):
    config.cache.place = "disk"
    calls = []

    def stop():
        calls.append(1)
        if len(calls) == 3:  # two batches are checked, the first one is encoded
            raise Stopped

    with pytest.raises(Stopped):
        prepare(config, tmp_path, build(config), stop)
    assert list((tmp_path / "features").iterdir()) == []


def test_a_full_disk_is_named_and_left_clean(config, tmp_path):
    config.cache.place = "disk"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    system = build(config)
    list(system.features.train.epoch(0))  # jax writes its compilation cache now
    resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
    try:
        with pytest.raises(UserError, match="File too large; free some space, or set"):
            prepare(config, tmp_path, system)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list((tmp_path / "features").iterdir()) == []


def test_a_folder_that_cannot_be_written_is_named(config, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("precious")
    config.cache.place, config.cache.folder = "disk", str(tmp_path / "file" / "features")
    monkeypatch.setattr(memory, "disk", lambda folder: 2**40)
    with pytest.raises(UserError, match=r"cannot keep features in .*file/features: ") as refused:
        prepare(config, tmp_path)
    assert "\n" not in str(refused.value)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_sudden_fault_of_the_disk_is_one_line(config, tmp_path, monkeypatch):
    config.cache.place = "disk"

    def no_rename(old, new):
        raise OSError(errno.EDQUOT, "Disk quota exceeded")

    monkeypatch.setattr("flowad_jax.features.store.os.replace", no_rename)
    with pytest.raises(UserError, match="Disk quota exceeded"):
        prepare(config, tmp_path)
    assert list((tmp_path / "features").iterdir()) == []
