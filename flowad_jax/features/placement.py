"""Which memory has room for feature maps."""

from __future__ import annotations

import operator
from pathlib import Path

import jax
from ml_collections import config_dict

from flowad_jax import memory
from flowad_jax.errors import UserError
from flowad_jax.features.batches import DTYPES
from flowad_jax.lookup import check_choice

PLACES = ("auto", "device", "host", "disk", "off")

_SHARE_OF_MEMORY = 0.5  # what is kept must not crowd out what computes
_SHARE_OF_DISK = 0.9  # checkpoints need some room, too


def check(config: config_dict.ConfigDict, deterministic: bool) -> None:
    """Checks the section `cache` of a config.

    Raises:
      UserError: a value is none of the choices, or a place is demanded for features that change.
    """
    cache = config.cache
    check_choice("cache.place", cache.place, PLACES)
    check_choice("cache.dtype", cache.dtype, DTYPES)
    if (cache.memory_mb or 0) < 0:
        raise UserError(
            f"cache.memory_mb={cache.memory_mb}: give 1 or more, or None: half of what is free"
        )
    if not deterministic and cache.place not in ("auto", "off"):
        keys = ("data.rotation_degrees", "data.sharpen", "synthesis.name")
        values = {key: operator.attrgetter(key)(config) for key in keys}
        changing = ", ".join(f"{key}={value}" for key, value in values.items() if value)
        raise UserError(
            f"cache.place='{cache.place}': features cannot be kept while training images change in "
            f"every epoch ({changing}): turn that off or set cache.place to 'auto'"
        )


class Room:
    """What a run may take for its features; what is chosen is taken."""

    def __init__(self, cache: config_dict.ConfigDict):
        self._place, self._limit = cache.place, (cache.memory_mb or 0) * 2**20
        self._taken = {"device": 0, "host": 0}
        self._free: dict[str, int] = {}

    def choose(self, need: int, title: str) -> str:
        """Returns ``"device"``, ``"host"`` or, where neither has room for the bytes, ``"disk"``.

        Raises:
          UserError: the config demands one of the two memories, and it has no room.
        """
        if self._place == "disk":
            return "disk"
        on_cpu = jax.default_backend() == "cpu"
        fastest_first = ("host",) if on_cpu else ("device", "host")
        for place in fastest_first if self._place == "auto" else (self._place,):
            pool = "host" if on_cpu else place  # on this backend both are one memory
            if need <= self._spare(pool):
                self._taken[pool] += need
                return place
        if self._place == "auto":
            return "disk"
        raise UserError(
            f"cache.place='{self._place}' has room for {memory.text(self._spare(pool))}, but the "
            f"{title} need {memory.text(need)}: set cache.memory_mb higher, cache.dtype to "
            "'bfloat16' or cache.place to 'auto'"
        )

    def fits_on_disk(self, need: int, folder: Path, title: str) -> bool:
        """Whether a folder has room, or a `UserError` if not and the config demands the disk."""
        free = int(_SHARE_OF_DISK * memory.disk(folder))
        if need > free and self._place == "disk":
            raise UserError(
                f"cache.place='disk': {folder} has room for {memory.text(free)}, but the {title} "
                f"need {memory.text(need)}: set cache.folder to another folder, cache.dtype to "
                "'bfloat16' or cache.place to 'auto'"
            )
        return need <= free

    def _spare(self, pool: str) -> int:
        if pool not in self._free:
            self._free[pool] = memory.device() if pool == "device" else memory.host()
        free = self._free[pool]
        allowed = min(free, self._limit) if self._limit else int(_SHARE_OF_MEMORY * free)
        return allowed - self._taken[pool]
