"""Which memory has room for feature maps."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import jax
from ml_collections import config_dict

from flowad_jax.errors import UserError
from flowad_jax.features import memory
from flowad_jax.features.batches import DTYPES
from flowad_jax.lookup import check_choice

PLACES = ("auto", "device", "host", "disk", "off")

_SHARE_OF_MEMORY = 0.5  # what is kept must not crowd out what computes
_SHARE_OF_DISK = 0.9  # checkpoints need some room, too


def check(config: config_dict.ConfigDict, deterministic: bool) -> None:
    """Checks the section `cache` of a config.

    Args:
      config: the recipe.
      deterministic: whether training images look the same in every epoch.

    Raises:
      UserError: a value is none of the choices, or a place is demanded for features that change.
    """
    cache = config.cache
    check_choice("cache.place", cache.place, PLACES)
    check_choice("cache.dtype", cache.dtype, DTYPES)
    if cache.memory_mb < 0:
        raise UserError(
            f"cache.memory_mb={cache.memory_mb}: must be 0 (half of what is free) or more"
        )
    if not deterministic and cache.place not in ("auto", "off"):
        raise UserError(
            f"cache.place='{cache.place}': features cannot be kept while training images change in "
            f"every epoch ({', '.join(_changing(config))}): turn that off or set cache.place to "
            "'auto'"
        )


def _changing(config: config_dict.ConfigDict) -> list[str]:
    """The settings that change training images, as ``key=value``."""
    keys = ("data.rotation_degrees", "data.sharpen", "synthesis.name")
    values = {key: config[key.split(".")[0]][key.split(".")[1]] for key in keys}
    return [f"{key}={value}" for key, value in values.items() if value]


class Room:
    """What a run may take for its features; what is chosen is taken."""

    def __init__(self, cache: config_dict.ConfigDict):
        """Reads the section `cache` of a config; memory is measured when first asked for."""
        self._place, self._limit = cache.place, cache.memory_mb * 2**20
        self._taken = {"device": 0, "host": 0}

    def choose(self, need: int, title: str) -> str:
        """Returns ``"device"``, ``"host"`` or, where neither has room, ``"disk"``.

        Args:
          need: bytes.
          title: what needs them, for the message.

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
        """Whether a folder has room for ``need`` bytes.

        Raises:
          UserError: it has not, and the config demands the disk.
        """
        free = int(_SHARE_OF_DISK * memory.disk(folder))
        if need > free and self._place == "disk":
            raise UserError(
                f"cache.place='disk': {folder} has room for {memory.text(free)}, but the {title} "
                f"need {memory.text(need)}: set cache.folder to another folder, cache.dtype to "
                "'bfloat16' or cache.place to 'auto'"
            )
        return need <= free

    def _spare(self, pool: str) -> int:
        free = self._free_on_device if pool == "device" else self._free_on_host
        allowed = min(free, self._limit) if self._limit else int(_SHARE_OF_MEMORY * free)
        return allowed - self._taken[pool]

    @cached_property
    def _free_on_device(self) -> int:
        return memory.device()

    @cached_property
    def _free_on_host(self) -> int:
        return memory.host()
