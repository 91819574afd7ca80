"""Dict keys whose hashes are chosen, so that each new one is compared with all that are there."""

import struct

import numpy as np

# Of CPython's hash of a tuple, an xxHash of the hashes of its parts.
_P1, _P2, _P5 = 11400714785074694791, 14029467366897019727, 2870177450012600261
_WORD = 2**64


def tuples(count):
    """Different pairs of small integers with one hash."""
    first = np.arange(20 * count, dtype=np.uint64)
    with np.errstate(over="ignore"):
        turned = np.uint64(_P5) + first * np.uint64(_P2)
        turned = (turned << np.uint64(31)) | (turned >> np.uint64(33))
        inverse = np.uint64(pow(_P2, -1, _WORD))
        second = (-turned * np.uint64(_P1) * inverse).view(np.int64)
    fits = np.flatnonzero(abs(second) < 2**59)[:count]
    found = [(int(first[index]), int(second[index])) for index in fits]
    assert len(found) == count
    assert len({hash(key) for key in found}) == 1
    return found


def integers(count, most=2**59):
    """Integers of which a dict finds each of the last third only behind many of the others.

    The first two thirds lie along the path on which a dict looks for a free place. The way of the
    others, which depends on their higher bits at first, leads to the start of that path.

    Args:
      count: the more of the places of a dict they take, the less time it takes to make them.
      most: all are below.
    """
    size = 1 << (3 * count // 2).bit_length()
    path = np.zeros(2 * count // 3, np.int64)
    for step in range(1, len(path)):
        path[step] = (5 * path[step - 1] + 1) % size
    rank = np.full(size, len(path))
    rank[path] = np.arange(len(path))
    rng, late = np.random.default_rng(0), np.zeros(0, np.int64)
    while len(late) < count - len(path):
        hashes = rng.integers(size, min(most, size * 2**10), 1_000_000)
        place, rest = hashes % size, hashes
        while rest.any():
            kept = rank[place] < len(path)
            hashes, place, rest = hashes[kept], place[kept], rest[kept] >> 5
            place = (5 * place + rest + 1) % size
        late = np.union1d(late, hashes[rank[place] < len(path) // 3])
    return [int(key) for key in (*path, *rng.permutation(late)[: count - len(path)])]


def pickled(key):
    """A key as pickle operations."""
    if isinstance(key, tuple):
        parts = b"".join(map(pickled, key))
        return parts + b"\x86" if len(key) == 2 else b"(" + parts + b"t"
    if isinstance(key, float):
        return b"G" + struct.pack(">d", key)
    if key is None:
        return b"N"
    if isinstance(key, str):
        return b"\x8c" + bytes([len(key.encode())]) + key.encode()
    return (
        b"J" + struct.pack("<i", key) if abs(key) < 2**31 else b"\x8a\x08" + struct.pack("<q", key)
    )
