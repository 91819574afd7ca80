"""Features on disk: found by later runs, and never used when they are stale or damaged."""

import errno
import logging
import resource

import pytest

from flowad_jax.errors import UserError
from flowad_jax.features import memory
from flowad_jax.training.system import build
from tests.conftest import write_image
from tests.training.kept import assert_same_epoch, prepare, without_encoder


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


def change_pixel(config, root):
    write_image(root / "part" / "train" / "good" / "3.png", seed=77)


def swap_images(config, root):
    good = root / "part" / "train" / "good"
    for old, new in (("0", "x"), ("1", "0"), ("x", "1")):
        (good / f"{old}.png").rename(good / f"{new}.png")


def change_key(key, value):
    def change(config, root):
        section, name = key.split(".")
        with config.unlocked():
            config[section][name] = value

    return change


@pytest.mark.parametrize(
    "change",
    [
        change_pixel,
        swap_images,
        change_key("encoder.taps", (1, 3)),
        change_key("encoder.pool", "avg"),
        change_key("encoder.compute", "bfloat16"),
        change_key("data.image_size", 64),
        change_key("data.filter", "bilinear"),
        change_key("cache.dtype", "bfloat16"),
    ],
)
def test_what_is_stale_is_not_used(config, image_root, tmp_path, change):
    config.cache.place = "disk"
    prepare(config, tmp_path)
    change(config, image_root)
    with pytest.raises(AssertionError, match="the encoder ran"):
        prepare(config, tmp_path, without_encoder(config))
    assert_same_epoch(prepare(config, tmp_path).train, build(config).features.train)


def test_other_weights_are_other_features(config, tmp_path):
    config.cache.place = "disk"
    prepare(config, tmp_path)
    config.seed = 1
    with pytest.raises(AssertionError, match="the encoder ran"):
        prepare(config, tmp_path, without_encoder(config))


def cut(file):
    file.write_bytes(file.read_bytes()[:-8])


def flip(file):
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)


def remove(file):
    file.unlink()


@pytest.mark.parametrize(
    ("name", "damage"),
    [("map0.bin", remove), ("map0.bin", cut), ("map1.bin", flip), ("card.json", cut)],
)
def test_what_is_damaged_is_computed_again(config, tmp_path, name, damage):
    config.cache.place = "disk"
    prepare(config, tmp_path)
    files = sorted((tmp_path / "features").glob(f"*/{name}"))
    assert len(files) == 2
    for file in files:
        damage(file)
    with pytest.raises(AssertionError, match="the encoder ran"):
        prepare(config, tmp_path, without_encoder(config))
    prepare(config, tmp_path)
    again = prepare(config, tmp_path, without_encoder(config))
    assert_same_epoch(again.train, build(config).features.train)


class Stopped(Exception):
    """What a test raises between two batches."""


def test_nothing_half_written_stays(config, tmp_path):
    config.cache.place = "disk"
    system, calls = build(config), []

    def stop():
        calls.append(1)
        if len(calls) == 3:  # two batches are checked, the first one is encoded
            raise Stopped

    with pytest.raises(Stopped):
        prepare(config, tmp_path, system, stop)
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
