"""Damaged and hostile PyTorch checkpoints, each made from a good one by a number.

A checkpoint is taken apart into the operations of its pickles and the rest, changed, and put
together again so that checksums fit; or it is changed as the bytes that it is. The same seed and
number give the same file, whatever was made before.
"""

from __future__ import annotations

import io
import pickletools
import random
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np

from benchmarks import fuzz_changes
from tests.weights import craft, lightning_like

MAX_BYTES = 1_000_000

_TENSORS = {
    "w": np.ones((2, 3), np.float32),
    "half": np.ones(4, np.float16),
    "n": np.array(3),
    "b": np.array([True]),
}


class Parts(NamedTuple):
    """A checkpoint, taken apart.

    Attributes:
      legacy: whether it is in the legacy format, not a zip file.
      pickles: the operations of each of its pickles.
      rest: zip entries, the one of the pickle first and empty; or, under "", what follows the
        pickles.
    """

    legacy: bool
    pickles: list[list[bytes]]
    rest: dict[str, bytes]


def taken_apart(content: bytes) -> Parts:
    """Splits the bytes of a checkpoint."""
    if content[:2] != b"PK":
        stream = io.BytesIO(content)
        return Parts(True, [_operations(stream) for _ in range(5)], {"": stream.read()})
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {entry: archive.read(entry) for entry in archive.namelist()}
    (key,) = [entry for entry in entries if entry.endswith("/data.pkl")]
    return Parts(False, [_operations(io.BytesIO(entries.pop(key)))], {key: b"", **entries})


def _operations(stream: io.BytesIO) -> list[bytes]:
    """The operations of the next pickle of a stream."""
    places = [place for _, _, place in pickletools.genops(stream)]
    ends = [*places[1:], stream.tell()]
    content = stream.getvalue()
    return [content[place:end] for place, end in zip(places, ends, strict=True)]


def put_together(parts: Parts) -> bytes:
    """The bytes of a checkpoint."""
    joined = [b"".join(operations) for operations in parts.pickles]
    if parts.legacy:
        return b"".join(joined) + parts.rest[""]
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for index, (name, content) in enumerate(parts.rest.items()):
            archive.writestr(zipfile.ZipInfo(name), content if index else joined[0])
    return stream.getvalue()


def crafted() -> dict[str, bytes]:
    """Undamaged checkpoints, written by hand, by name."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "good.pth"
        return {f"crafted {name}": write(path).read_bytes() for name, write in _CRAFTED.items()}


def by_torch() -> dict[str, bytes]:
    """The same, written by PyTorch; none where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    module = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.BatchNorm2d(2))
    found = {}
    for zipped in (True, False):
        form = "zip" if zipped else "legacy"
        plain, kept = io.BytesIO(), io.BytesIO()
        torch.save(module.state_dict(), plain, _use_new_zipfile_serialization=zipped)
        with lightning_like.pretended_modules():
            content = lightning_like.content(module.state_dict())
            content["hyper_parameters"]["module"] = module
            torch.save(content, kept, _use_new_zipfile_serialization=zipped)
        found[f"torch {form}"] = plain.getvalue()
        found[f"torch {form} with objects"] = kept.getvalue()
    return found


def _nested(path: Path, legacy: bool) -> Path:
    """A state dict inside of a checkpoint, with a view that shares its storage."""
    views = {name: craft.whole(name, array) for name, array in _TENSORS.items()}
    views["view"] = craft.tensor(craft.storage("w", "float32", 6), 1, (2, 2), (1, 2))
    body = craft.mapping({"state_dict": craft.mapping(views), "epoch": craft.integer(9)})
    if legacy:
        return craft.legacy_file(path, body, _TENSORS)
    return craft.zip_file(path, body, {name: a.tobytes() for name, a in _TENSORS.items()})


_CRAFTED: dict[str, Callable[[Path], Path]] = {
    "zip": lambda path: _nested(path, False),
    "legacy": lambda path: _nested(path, True),
    "zip with objects": lambda path: craft.zip_file(path, lightning_like.body()),
    "zip with objects, protocol 4": lambda path: craft.zip_file(path, lightning_like.body(4)),
    "legacy with objects": lambda path: craft.legacy_file(path, lightning_like.body()),
}


class Maker:
    """Makes files from undamaged ones.

    Args:
      contents: undamaged checkpoints, by name.
      seed: of all random numbers.
    """

    def __init__(self, contents: dict[str, bytes], seed: int):
        self._parts = [taken_apart(content) for content in contents.values()]
        self._contents = list(contents.values())
        self._seed = seed
        pickles = [operations for parts in self._parts for operations in parts.pickles]
        self._pool = sorted(set().union(*pickles))

    def file(self, number: int) -> tuple[list[str], bytes]:
        """Returns what was done to make file ``number``, and its bytes."""
        rng = random.Random(f"{self._seed}/{number}")
        done = []
        parts = self._parts[rng.randrange(len(self._parts))]
        if rng.random() < 0.75:
            parts, done = self._changed(parts, rng)
        content = bytearray(put_together(parts))
        if not done or rng.random() < 0.1:
            for name in rng.choices(list(fuzz_changes.BYTES), k=rng.choice((1, 1, 2))):
                fuzz_changes.BYTES[name](content, rng.choice(self._contents), rng)
                done.append(name)
        return done, bytes(content[:MAX_BYTES])

    def _changed(self, parts: Parts, rng: random.Random) -> tuple[Parts, list[str]]:
        """A copy with a few changes that know of pickles and entries."""
        pickles, rest = [list(operations) for operations in parts.pickles], dict(parts.rest)
        # Of a legacy file the fourth has the content.
        chosen = pickles[rng.choice((3, 3, 3, 3, rng.randrange(5))) if parts.legacy else 0]
        done = []
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            name = rng.choice((*fuzz_changes.OPERATIONS, "entries"))
            if name == "entries":
                fuzz_changes.entries(rest, rng)
            elif chosen:
                fuzz_changes.OPERATIONS[name](chosen, self._pool, rng)
            done.append(name)
        return Parts(parts.legacy, pickles, rest), done
