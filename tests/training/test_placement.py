"""Features go where there is room, and a place that has none is refused in one line."""

import logging
import shutil

import jax
import pytest

from flowad_jax import memory
from flowad_jax.errors import UserError
from flowad_jax.features.placement import Room
from flowad_jax.training.experiment import build
from tests.training.feature_cache_helpers import prepare, without_encoder


def test_auto_goes_on_to_the_next_place(config, tmp_path, monkeypatch, caplog):
    system = build(config)

    def chosen():
        caplog.clear()
        with caplog.at_level(logging.INFO, "flowad_jax"):
            prepare(config, tmp_path, system)
        return [record.message for record in caplog.records if "features of" in record.message]

    monkeypatch.setattr(memory, "host", lambda: 2**40)
    assert all("in memory of the host" in line for line in chosen())
    monkeypatch.setattr(memory, "host", lambda: 2**10)
    assert all(f"kept in {tmp_path / 'features'}" in line for line in chosen())
    shutil.rmtree(tmp_path / "features")
    monkeypatch.setattr(memory, "disk", lambda folder: 2**10)
    lines = chosen()
    assert len(lines) == 3  # training, then calibration and test
    assert all("no room, so they are computed in every epoch" in line for line in lines)
    assert not (tmp_path / "features").exists()


def test_auto_finds_what_is_on_a_disk_that_is_full_since(config, tmp_path, monkeypatch):
    system, mute = build(config), without_encoder(config)
    monkeypatch.setattr(memory, "host", lambda: 0)
    prepare(config, tmp_path, system)
    monkeypatch.setattr(memory, "disk", lambda folder: 0)
    prepare(config, tmp_path, mute)


def test_auto_takes_half_of_the_accelerator_first(config, monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    monkeypatch.setattr(memory, "device", lambda: 1000)
    monkeypatch.setattr(memory, "host", lambda: 2000)
    room = Room(config.cache)
    chosen = [room.choose(need, "features") for need in (300, 300, 200, 700, 1)]
    assert chosen == ["device", "host", "device", "host", "disk"]


def test_memory_mb_replaces_the_half(config, monkeypatch):
    monkeypatch.setattr(memory, "host", lambda: 10 * 2**20)
    config.cache.memory_mb = 8
    room = Room(config.cache)
    assert [room.choose(need * 2**20, "features") for need in (7, 2, 1)] == ["host", "disk", "host"]
    config.cache.memory_mb = 100
    assert Room(config.cache).choose(11 * 2**20, "features") == "disk"


@pytest.mark.parametrize(
    ("place", "match"),
    [
        ("host", r"cache.place='host' has room for 512.0 KiB.*6 training images .* need .* KiB"),
        ("device", r"cache.place='device' has room for 512.0 KiB.*cache.memory_mb"),
        ("disk", r"cache.place='disk': .*features has room for .*cache.folder"),
    ],
)
def test_a_demanded_place_that_is_too_small(config, tmp_path, monkeypatch, place, match):
    monkeypatch.setattr(memory, "host", lambda: 2**20)
    monkeypatch.setattr(memory, "disk", lambda folder: 2**10)
    monkeypatch.setattr("flowad_jax.features.store.Layout.bytes", 600 * 2**10)
    config.cache.place = place
    with pytest.raises(UserError, match=match) as refused:
        prepare(config, tmp_path)
    assert "\n" not in str(refused.value)
    assert not (tmp_path / "features").exists()
