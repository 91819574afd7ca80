"""Tries to break the reader of PyTorch files: nothing may run, hang, fill the memory or crash.

    python -m benchmarks.fuzz_reader --files=200000 --output=fuzz.json

Makes damaged and hostile checkpoints of both formats from good ones (with PyTorch installed, also
from such that it wrote) and reads each twice: strictly, and with foreign objects kept. A read has
to return or to end in a `WeightFileError`. Findings are everything else: another exception, too
little memory within the documented bound, a read of over 20 s, or any import, call of exec, file
opened for writing, process, socket or ctypes, which an audit hook stops before it happens. The
bytes behind a finding are kept; the same seed makes them again. Then pickles made to fill the
memory are read, each in a process of its own, and the largest growth is compared with the bound.

Linux only. Takes about a millisecond a file and core, and half a minute for the memory.
"""

from __future__ import annotations

import argparse
import collections
import functools
import json
import multiprocessing
import os
import tempfile
import time
import tracemalloc
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tqdm import tqdm

from benchmarks import _common, fuzz_files, fuzz_guard
from benchmarks.msflow_sides import forget_peak, peak_bytes
from flowad_jax.weights import torch_file, unpickler
from flowad_jax.weights.foreign import Foreign
from tests.weights import craft, waste

CHUNK = 500
TRACED = 50  # every so many files the memory of a read is traced, which makes it slower
MODES = {"strict": False, "foreign": True}


class Fuzzer:
    """Reads damaged files and counts what happens.

    Args:
      contents: undamaged checkpoints, by name.
      seed: of what is done to them.
      keep: folder for files with a finding.
    """

    def __init__(self, contents: dict[str, bytes], seed: int, keep: str | Path):
        self._maker = fuzz_files.Maker(contents, seed)
        self._keep = Path(keep)
        self.counts: collections.Counter[str] = collections.Counter()
        self.findings: list[dict[str, Any]] = []
        self.worst: dict[str, float] = {"seconds": 0.0, "traced_bytes": 0, "of_bound": 0.0}

    def run(self, numbers: range) -> None:
        """Makes and reads the files with these numbers, within the documented memory."""
        # In memory where that can be mapped as a file.
        folder = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
        with tempfile.TemporaryDirectory(dir=folder) as name:
            path = Path(name) / "fuzz.pth"
            with fuzz_guard.limited_memory(fuzz_files.MAX_BYTES):
                for number in numbers:
                    self._one(number, path)

    def _one(self, number: int, path: Path) -> None:
        changes, content = self._maker.file(number)
        path.write_bytes(content)
        form = "zip" if content[:2] == b"PK" else "legacy"
        self.counts["files"] += 1
        self.counts[f"files, {form}"] += 1
        self.counts.update(f"change, {change}" for change in set(changes))
        for mode, foreign in MODES.items():
            trace = number % TRACED == 0
            outcome, error = self._read(path, len(content), foreign, trace)
            self.counts[f"{outcome}, {mode}"] += 1
            if outcome == "found":
                self._found(number, mode, changes, error, content)
            elif error is not None:
                self.counts[f"cause, {type(error).__name__}"] += 1

    def _read(
        self, path: Path, size: int, foreign: bool, trace: bool
    ) -> tuple[str, BaseException | None]:
        """One read: "read", "refused" or "found", and the exception behind it."""
        if trace:
            tracemalloc.start()
        start = time.perf_counter()
        outcome, error = attempt(path, foreign)
        self.worst["seconds"] = max(self.worst["seconds"], time.perf_counter() - start)
        if trace:
            peak = tracemalloc.get_traced_memory()[1]
            tracemalloc.stop()
            self.worst["traced_bytes"] = max(self.worst["traced_bytes"], peak)
            self.worst["of_bound"] = max(self.worst["of_bound"], peak / fuzz_guard.bound(size))
            if peak > fuzz_guard.bound(size):
                return "found", MemoryError(f"held {peak} bytes")
        return outcome, error

    def _found(self, number: int, mode: str, changes: list, error: Any, content: bytes) -> None:
        self._keep.mkdir(parents=True, exist_ok=True)
        kept = self._keep / f"{number}_{mode}.pth"
        kept.write_bytes(content)
        what = f"{type(error).__name__}: {error}"
        found = {"number": number, "mode": mode, "changes": changes, "error": what}
        self.findings.append({**found, "file": str(kept)})


def attempt(path: Path, foreign: bool) -> tuple[str, BaseException | None]:
    """Reads a file under guard.

    Returns:
      "read" and None; "refused" and what made the reader refuse it; or "found" and what it must
      not have raised.
    """
    try:
        with fuzz_guard.watching(path):
            content = torch_file.read(path, foreign=foreign)
            # Plain containers may be nested as deep as they like; placeholders show one level.
            repr(next((value for value in _values(content) if isinstance(value, Foreign)), None))
    except torch_file.WeightFileError as error:
        cause = error.__cause__
        # The reader says of everything else that the file is damaged.
        suspicious = isinstance(cause, MemoryError | RecursionError | SystemError)
        one_line = error.args[0].isprintable()  # as the reader wrote it: `str` would escape it
        return ("refused", cause) if one_line and not suspicious else ("found", cause or error)
    except (Exception, fuzz_guard.Stopped) as error:
        return "found", error
    return "read", None


def _values(content: Any) -> Iterable[Any]:
    return content.values() if isinstance(content, dict) else (content,)


def wasted(name: str) -> dict[str, Any]:
    """Reads a pickle made to fill the memory, with as many operations as the reader allows.

    Returns:
      The name of the case, by how many bytes the process grew, what part of the bound that is,
      how long it took, and what became of the file.
    """
    with tempfile.TemporaryDirectory() as folder:
        body = waste.body(name, unpickler.MAX_OPERATIONS)
        path = craft.zip_file(Path(folder) / "a.pth", body, {"s": waste.STORED.tobytes()})
        del body
        size = path.stat().st_size
        forget_peak()
        before, start = peak_bytes(), time.perf_counter()
        outcome, error = attempt(path, foreign=True)
        grown, seconds = peak_bytes() - before, time.perf_counter() - start
        # The pages of the mapped file count, too.
        used = grown / (size + fuzz_guard.bound(size))
        ending = outcome if error is None else f"{outcome}: {error}"
        return {
            **{"name": name, "grown_bytes": grown, "of_bound": used},
            **{"seconds": seconds, "outcome": ending},
        }


_fuzzer: Fuzzer  # of a worker process


def _start(contents: dict[str, bytes], seed: int, keep: str) -> None:
    global _fuzzer
    _fuzzer = Fuzzer(contents, seed, keep)


def _work(first: int, total: int) -> tuple[collections.Counter, list, dict]:
    """Reads one chunk of files."""
    _fuzzer.counts.clear()
    _fuzzer.findings.clear()
    _fuzzer.run(range(first, min(first + CHUNK, total)))
    return _fuzzer.counts, _fuzzer.findings, _fuzzer.worst


def fuzz(files: int, seed: int, processes: int, keep: str) -> dict[str, Any]:
    """Reads damaged files in several processes and returns the figures."""
    contents, start = fuzz_files.crafted() | fuzz_files.by_torch(), time.perf_counter()
    counts: collections.Counter[str] = collections.Counter()
    findings: list[dict[str, Any]] = []
    worst: dict[str, float] = {}
    # A new interpreter each: a forked one would take PyTorch along.
    pool = multiprocessing.get_context("spawn").Pool(processes, _start, (contents, seed, keep))
    with pool, tqdm(total=files, unit="file") as bar:
        chunks = range(0, files, CHUNK)
        for some in pool.imap_unordered(functools.partial(_work, total=files), chunks):
            counts.update(some[0])
            findings += some[1]
            worst = {key: max(value, worst.get(key, 0)) for key, value in some[2].items()}
            bar.update(some[0]["files"])
            bar.set_postfix(findings=len(findings))
    seconds = time.perf_counter() - start
    figures = {"counts": dict(sorted(counts.items())), "seconds": seconds, "worst": worst}
    return {"good": list(contents), **figures, "findings": sorted(findings, key=str)}


def fill_memory(processes: int) -> list[dict[str, Any]]:
    """Reads every pickle that wastes memory, each in a new process; the worst comes first."""
    spawn = multiprocessing.get_context("spawn")
    with spawn.Pool(processes, maxtasksperchild=1) as pool:
        found = pool.imap_unordered(wasted, waste.CASES)
        cases = list(tqdm(found, total=len(waste.CASES), unit="bomb"))
    return sorted(cases, key=lambda case: -case["of_bound"])


def parse() -> argparse.Namespace:
    """Parses the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, default=100_000, help="how many to make")
    parser.add_argument("--seed", type=int, default=0, help="of what is done to them")
    parser.add_argument("--processes", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--keep", default="fuzz_findings", help="folder for files with a finding")
    parser.add_argument("--output", help="JSON file, beside what is printed")
    return parser.parse_args()


def main() -> None:
    """Prints the figures as JSON; exits with status 1 where there is a finding."""
    options = parse()
    measured = fuzz(options.files, options.seed, options.processes, options.keep)
    measured["memory"] = fill_memory(options.processes)
    bad = [
        case["name"]
        for case in measured["memory"]
        if case["of_bound"] > 1 or case["outcome"].startswith("found")
    ]
    print(json.dumps(measured, indent=2))
    if options.output:
        _common.write(options.output, options=vars(options), **measured)
    if measured["findings"] or bad:
        raise SystemExit(
            f"{len(measured['findings'])} findings; beyond the memory: {bad or 'none'}"
        )


if __name__ == "__main__":
    main()
