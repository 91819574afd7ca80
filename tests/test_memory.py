"""Free memory as the kernel and its containers state it; sizes as people write them."""

import os

import pytest

from flowad_jax import memory

KIB = 1024
MEMINFO = {"proc/meminfo": "MemTotal:  9000 kB\nMemFree: 100 kB\nMemAvailable:  5000 kB\n"}
OWN_GROUP = {
    "proc/self/cgroup": "0::/\n",
    "cgroup/memory.max": "900000\n",
    "cgroup/memory.current": "950000\n",
}
INNER_GROUP = {
    "proc/self/cgroup": "0::/outer/inner\n",
    "cgroup/outer/memory.max": "900000\n",
    "cgroup/outer/memory.current": "500000\n",
    "cgroup/outer/memory.stat": "anon 400000\ninactive_file 50000\n",
    "cgroup/outer/inner/memory.max": "max\n",
    "cgroup/outer/inner/memory.current": "400000\n",
}
VERSION_1 = {
    "proc/self/cgroup": "5:cpu,cpuacct:/other\n4:memory:/docker/abc\n",
    "cgroup/memory/memory.limit_in_bytes": "700000\n",
    "cgroup/memory/memory.usage_in_bytes": "300000\n",
    "cgroup/memory/memory.stat": "total_inactive_file 1000\n",
}


@pytest.mark.parametrize(
    ("files", "free"),
    [
        (MEMINFO, 5000 * KIB),
        (MEMINFO | INNER_GROUP, 900000 - 500000 + 50000),  # pages of files can be dropped
        (MEMINFO | OWN_GROUP, 0),
        (MEMINFO | VERSION_1, 700000 - 300000 + 1000),
        ({}, 2**30),  # an operating system that says nothing
    ],
)
def test_the_tightest_group_around_the_process_counts(tmp_path, monkeypatch, files, free):
    monkeypatch.delattr(os, "sysconf")
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    assert memory.host(tmp_path / "proc", tmp_path / "cgroup") == free


def test_this_machine_has_some(tmp_path):
    assert 2**20 < memory.host() < 2**50
    assert memory.host(tmp_path) > 2**20  # from the number of pages
    assert memory.disk(tmp_path / "not" / "yet") == pytest.approx(memory.disk(tmp_path), rel=0.1)
    (tmp_path / "file").write_text("")
    assert memory.disk(tmp_path / "file" / "below") == 0


def test_text():
    sizes = 1536, 5 * 2**20, 3 * 2**30
    assert [memory.text(n) for n in sizes] == ["1.5 KiB", "5.0 MiB", "3.0 GiB"]
