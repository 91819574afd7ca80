"""Names and checksums of images, by which a later run knows whether they are still the same."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from tqdm import tqdm

from flowad_jax import files
from flowad_jax.data import roots
from flowad_jax.data.record import Source
from flowad_jax.errors import UserError

Listing = Mapping[str, str]  # checksums by name, in the order of the source

_DIGITS = 32  # of a SHA-256 in hexadecimal: 128 bits, of which no two images share all by chance


def of_file(path: str | Path) -> str:
    """The first digits of a file's SHA-256, or a `UserError` if it cannot be read."""
    try:
        with files.open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:_DIGITS]
    except OSError as error:
        raise UserError(f"cannot read '{path}': {error.strerror or error}") from error


def of_record(source: Source, index: int) -> str:
    """The checksum of a record: of its file, or else of its decoded pixels.

    A source of files has a method ``fingerprint(index)``; elsewhere the path may be a mere name.
    """
    if hasattr(source, "fingerprint"):
        return source.fingerprint(index)
    image = source[index].image
    head = f"{image.shape} {image.dtype} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(image).tobytes()).hexdigest()[:_DIGITS]


def names(paths: Sequence[str], root: str | Path) -> list[str]:
    """Names of records, relative to the root if they lie there, so that a set may be moved.

    A name that comes again gets a number, so that each stands for one record.
    """
    top = roots.anchor(root) if root else Path()
    seen: Counter[str] = Counter()
    found = []
    for path in map(Path, paths):
        name = (path.relative_to(top) if path.is_relative_to(top) else path).as_posix()
        seen[name] += 1
        found.append(name if seen[name] == 1 else f"{name} ({seen[name]})")
    return found


def listing(source: Source, root: str | Path, title: str) -> dict[str, str]:
    """Reads all records of a source, with a progress bar of that title; see `names`."""
    total, title = len(source), f"check {title} images"
    with (
        ThreadPoolExecutor(min(8, 2 * (os.cpu_count() or 1))) as pool,
        tqdm(total=total, desc=title, unit="img", disable=None, leave=False) as bar,
    ):
        sums = []
        for digest in pool.map(lambda index: of_record(source, index), range(total)):
            sums.append(digest)
            bar.update()
    return dict(zip(names(source.paths, root), sums, strict=True))


def differences(before: Listing, now: Listing) -> list[str]:
    """Says what was changed or removed, in the order it had, and then what was added."""
    lost = [
        f"'{name}' was {'changed' if name in now else 'removed'}"
        for name, digest in before.items()
        if now.get(name) != digest
    ]
    return lost + [f"'{name}' was added" for name in now if name not in before]
