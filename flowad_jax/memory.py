"""How many bytes are free on the device, in memory of the host, and on a disk."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

_UNKNOWN = 2**31  # where the operating system says nothing
_VERSION_1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")


def device() -> int:
    """Bytes free on the default accelerator; 0 if it does not say."""
    import jax  # not for those who only read images

    stats = jax.devices()[0].memory_stats() or {}
    return max(0, stats.get("bytes_limit", 0) - stats.get("bytes_in_use", 0))


def host(proc: Path = Path("/proc"), cgroups: Path = Path("/sys/fs/cgroup")) -> int:
    """Bytes of memory that a process can get without swapping, within the limits of its container.

    Args:
      proc: where the kernel describes itself.
      cgroups: where it shows the limits of groups of processes, version 1 or 2.
    """
    free = _UNKNOWN // 2
    if (available := _numbers(proc / "meminfo").get("MemAvailable:")) is not None:
        free = available * 1024
    else:
        with contextlib.suppress(AttributeError, OSError, ValueError):
            free = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    return max(0, min([free, *_left_in_groups(proc, cgroups)]))


def disk(folder: Path) -> int:
    """Bytes that can be written into a folder, existing or not; 0 if it may not be written."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK):
        return 0
    return shutil.disk_usage(existing).free


def text(count: float) -> str:
    """A number of bytes as people write it, e.g. ``"1.2 GiB"``."""
    if count < 2**20:
        return f"{count / 2**10:.1f} KiB"
    return f"{count / 2**20:.1f} MiB" if count < 2**30 else f"{count / 2**30:.1f} GiB"


def _left_in_groups(proc: Path, cgroups: Path) -> Iterator[int]:
    """What is left in the group of this process and in those around it, where they have a limit."""
    for line in _lines(proc / "self" / "cgroup"):
        _, controllers, name = line.split(":", 2)
        if not controllers:
            root, names = cgroups, ("memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):
            root, names = cgroups / "memory", _VERSION_1
        else:
            continue
        limit, usage, reclaimable = names
        group = root / name.lstrip("/")
        for path in (group, *(p for p in group.parents if p.is_relative_to(root))):
            bound, used = _lines(path / limit), _lines(path / usage)
            if bound and used and bound[0] != "max":
                cache = _numbers(path / "memory.stat").get(reclaimable, 0)
                yield int(bound[0]) - int(used[0]) + cache


def _numbers(path: Path) -> dict[str, int]:
    """First number of every line by the word before it."""
    pairs = (line.split() for line in _lines(path))
    return {pair[0]: int(pair[1]) for pair in pairs if len(pair) > 1 and pair[1].isdigit()}


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []
