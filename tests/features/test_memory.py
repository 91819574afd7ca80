"""Free memory as the kernel and its containers state it; sizes as people write them."""

import os

import pytest

from flowad_jax.features import memory


def write(root, files):
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)


MEMINFO = {"proc/meminfo": "MemTotal:  9000 kB\nMemFree: 100 kB\nMemAvailable:  5000 kB\n"}


def free(tmp_path, files):
    write(tmp_path, files)
    return memory.host(tmp_path / "proc", tmp_path / "cgroup")


def test_no_container(tmp_path):
    assert free(tmp_path, MEMINFO) == 5000 * 1024


def test_the_tightest_group_around_the_process_counts(tmp_path):
    groups = {
        "proc/self/cgroup": "0::/outer/inner\n",
        "cgroup/outer/memory.max": "900000\n",
        "cgroup/outer/memory.current": "500000\n",
        "cgroup/outer/memory.stat": "anon 400000\ninactive_file 50000\n",
        "cgroup/outer/inner/memory.max": "max\n",
        "cgroup/outer/inner/memory.current": "400000\n",
    }
    # Pages of files can be dropped.
    assert free(tmp_path, MEMINFO | groups) == 900000 - 500000 + 50000


def test_a_container_that_sees_only_its_own_group(tmp_path):
    groups = {
        "proc/self/cgroup": "0::/\n",
        "cgroup/memory.max": "900000\n",
        "cgroup/memory.current": "950000\n",
    }
    assert free(tmp_path, MEMINFO | groups) == 0


def test_version_1(tmp_path):
    groups = {
        "proc/self/cgroup": "5:cpu,cpuacct:/other\n4:memory:/docker/abc\n",
        "cgroup/memory/memory.limit_in_bytes": "700000\n",
        "cgroup/memory/memory.usage_in_bytes": "300000\n",
        "cgroup/memory/memory.stat": "total_inactive_file 1000\n",
    }
    assert free(tmp_path, MEMINFO | groups) == 700000 - 300000 + 1000


def test_an_operating_system_that_says_nothing(tmp_path, monkeypatch):
    monkeypatch.delattr(os, "sysconf")
    assert free(tmp_path, {}) == 2**30


def test_this_machine_has_some():
    assert 2**20 < memory.host() < 2**50


def test_room_on_disk(tmp_path):
    assert memory.disk(tmp_path / "not" / "yet") == pytest.approx(memory.disk(tmp_path), rel=0.1)
    (tmp_path / "file").write_text("")
    assert memory.disk(tmp_path / "file" / "below") == 0


def test_text():
    assert [memory.text(n) for n in (1536, 5 * 2**20, 3 * 2**30)] == [
        "1.5 KiB",
        "5.0 MiB",
        "3.0 GiB",
    ]
