"""What `run.py` does: reads images, has them judged, writes what was found."""

from __future__ import annotations

import argparse
import contextlib
import itertools
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NoReturn

from . import inputs, output
from .detector import READERS, Detector, Loaded, Prediction
from .drift import Drift
from .errors import UserError, printable
from .graph import BACKENDS
from .inputs import State, Watcher
from .output import FOLDERS, Output

DONE, FAULTY, WRONG_USAGE, ANOMALOUS, UNDECIDED = 0, 1, 2, 3, 4
NAP = 0.1  # seconds between looks at whether to stop


class Parser(argparse.ArgumentParser):
    """Reports wrong usage in one line."""

    def error(self, message: str) -> NoReturn:
        """Ends the process with status 2."""
        print(f"error: {printable(message)}; see --help", file=sys.stderr)
        raise SystemExit(WRONG_USAGE)


def parse(help: str, words: Sequence[str] | None) -> argparse.Namespace:
    """Returns the flags of a command line."""
    form = argparse.RawDescriptionHelpFormatter
    parser = Parser(description=help, formatter_class=form, allow_abbrev=False)
    add = parser.add_argument
    add("--input", action="append", required=True, help=(
        "File, folder (with all folders in it) or pattern such as 'images/*.png'. Several are "
        "joined by commas, or the flag is repeated."))  # fmt: skip
    add("--output", required=True, help="Folder for what is found; created if needed.")
    add("--false_alarm_rate", type=float, help=(
        "How often a normal image may be called anomalous, such as 0.01, by the images that "
        "training held out. Default: that of the export."))  # fmt: skip
    add("--threshold", type=float, help=(
        "Image score above which an image is anomalous, whatever the rate."))  # fmt: skip
    add("--batch_size", type=_number(int, 1), help=(
        "Most images that are computed at once. Default: that of training."))  # fmt: skip
    add("--save", type=_kinds, default=tuple(FOLDERS), metavar="KINDS", help=(
        f"Which pictures to write: any of {', '.join(FOLDERS)}, joined by commas; empty for "
        "none. Default: all."))  # fmt: skip
    add("--map_format", choices=("tiff", "npy"), default="tiff", help=(
        "Files of the anomaly maps, float32 at image size."))  # fmt: skip
    add("--backend", choices=tuple(BACKENDS), default="onnxruntime", help="What computes.")
    add("--threads", type=_number(int, 0), default=0, help="Threads that compute; 0 for all cores.")
    add("--watch", action="store_true", help=(
        "Go on with images that arrive in the folders of --input, until stopped."))  # fmt: skip
    add("--interval", type=_number(float, 0.01), default=1.0, help=(
        "Seconds between two looks with --watch; an image is judged when it did not change in "
        "between."))  # fmt: skip
    add("--patience", type=_number(float, 0), default=60.0, help=(
        "Seconds for which --watch tries a file again that cannot be read."))  # fmt: skip
    add("--drift_alpha", type=_number(float, 0), default=0.01, metavar="ALPHA", help=(
        "Largest probability of ever raising a false alarm about drift; 0 for none."))  # fmt: skip
    add("--fail_on_anomaly", action="store_true", help=(
        "Exit with 3 if an image is anomalous, else with 4 if one is undecided."))  # fmt: skip
    return parser.parse_args(words)


def _number(kind: Callable[[str], float], low: float) -> Callable[[str], float]:
    def parse(text: str) -> float:
        if not kind(text) >= low:
            raise ValueError
        return kind(text)

    parse.__name__ = f"{kind.__name__} of at least {low:g}"  # for messages
    return parse


def _kinds(text: str) -> tuple[str, ...]:
    kinds = tuple(kind for kind in text.split(",") if kind)
    if not set(kinds) <= FOLDERS.keys():
        raise argparse.ArgumentTypeError(f"it takes {', '.join(FOLDERS)}, not '{text}'")
    return kinds


def main(bundle: Path, help: str, words: Sequence[str] | None = None) -> int:
    """Runs the command line of the detector in a folder; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    args = parse(help, words)
    try:
        return judge(bundle, args)
    except (UserError, OSError, MemoryError) as error:
        print(f"error: {printable(str(error) or 'out of memory')}", file=sys.stderr)
        return FAULTY
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 128 + signal.SIGINT


def judge(bundle: Path, args: argparse.Namespace) -> int:
    """Judges all images of the inputs, or those that arrive until a signal ends it.

    Raises:
      UserError, OSError: there is no detector, no image, or no place to write.
    """
    folder, named = Path(args.output), inputs.split(args.input)
    output.check(folder, args.watch)  # before a detector is loaded for nothing
    watcher = Watcher(named, folder, args.patience) if args.watch else None
    found = inputs.Found({}, {}) if watcher else inputs.find(named, folder)
    detector = Detector(bundle, args.backend, args.false_alarm_rate, args.threshold, args.threads)
    detector.batch_size = args.batch_size or detector.batch_size
    about = {"method": detector.name, "graph": detector.sha256}
    with output.owning(folder), receiving() as signals:
        drift = Drift(detector.normal, args.drift_alpha) if args.drift_alpha else None
        out = Output(folder, about, detector.thresholds, args.save, args.map_format, drift)
        job, before = Job(detector, out, signals, watcher), out.counts.copy()
        if watcher:
            watcher.settle_all(out.lines)
            print(f"watching {printable(', '.join(named))}; Ctrl-C ends it", file=sys.stderr)
            job.follow(args.interval)
            found.skipped.update(watcher.skipped)
        else:
            job.judge([*found.images.values()])
        counts = out.counts - before
        stopped = signals[0] if counts.total() < len(found.images) else 0
        out.write_summary([*map(str, found.skipped.values())], not stopped)
    kinds = ", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())) or "none"
    of = f" of {len(found.images)}" * bool(stopped)
    print(f"{counts.total()}{of} images: {kinds}; see {printable(args.output)}")
    if found.skipped:
        some = ", ".join(map(str, itertools.islice(found.skipped.values(), output.NAMED)))
        print(f"{len(found.skipped)} skipped, which are no images: {printable(some)}")
    if drift and counts:
        print(drift.describe())
    if stopped:
        return 128 + stopped
    if counts["unreadable"]:
        return FAULTY
    if not args.fail_on_anomaly:
        return DONE
    return ANOMALOUS if counts["anomalous"] else UNDECIDED if counts["undecided"] else DONE


@contextlib.contextmanager
def receiving() -> Iterator[list[int]]:
    """Gives a list for the first signal that asks to stop; a second one has its usual effect."""
    received: list[int] = []

    def receive(number: int, frame: Any) -> None:
        received.append(number)
        restore()

    def restore() -> None:
        for number, handler in usual.items():
            signal.signal(number, handler)

    usual = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        restore()


class Job:
    """Reads images, has them judged and writes what was found, until a signal is received."""

    def __init__(
        self, detector: Detector, out: Output, signals: list[int], watcher: Watcher | None
    ) -> None:
        """Takes who judges, where to write, and who finds images that arrive."""
        self._detector, self._output = detector, out
        self._signals, self._watcher = signals, watcher

    def follow(self, interval: float) -> None:
        """Judges images as they arrive, looking for them every ``interval`` seconds."""
        assert self._watcher is not None
        while not self._signals:
            self.judge(self._watcher.look())
            end = time.monotonic() + interval
            while not self._signals and (rest := end - time.monotonic()) > 0:
                time.sleep(min(NAP, rest))
        for state, (path, error) in [*self._watcher.postponed.items()]:
            if inputs.state_of(path) == state:
                self._write(path, state, error)

    def judge(self, paths: Sequence[Path]) -> None:
        """Judges images, as many at once as the detector computes."""
        rest, size = iter(paths), self._detector.batch_size
        while not self._signals and (batch := list(itertools.islice(rest, size))):
            with ThreadPoolExecutor(READERS) as pool:
                read = [one for one in pool.map(self._read, batch) if one]
            loaded = [image for _, _, image in read if isinstance(image, Loaded)]
            started, seconds = time.perf_counter(), 0.0
            predictions = self._detector.judge(loaded)
            for path, state, image in read:
                if isinstance(image, Loaded):
                    prediction = next(predictions)  # the first comes with the scores of all
                    seconds = seconds or (time.perf_counter() - started) / len(loaded)
                    self._write(path, state, prediction, seconds)
                elif not (self._watcher and state and self._watcher.postpone(state, path, image)):
                    self._write(path, state, image)
            self._output.write_summary()

    def _read(self, path: Path) -> tuple[Path, State | None, Loaded | str] | None:
        """Reads a file; None if it is watched and was written to meanwhile: it will come again."""
        state = inputs.state_of(path)
        loaded: Loaded | str
        try:
            loaded = self._detector.load(path)
        except UserError as error:
            loaded = str(error)
        is_changed = self._watcher and (not state or state != inputs.state_of(path))
        return None if is_changed else (path, state, loaded)

    def _write(
        self, path: Path, state: State | None, found: Prediction | str, seconds: float = 0.0
    ) -> None:
        pixels = None
        if isinstance(found, Prediction) and self._output.shows_images:
            try:
                pixels = self._detector.read(path)
                if pixels.shape[:2] != found.map.shape:
                    raise UserError(f"cannot judge '{path}': it changed meanwhile; judge it again")
            except UserError as error:
                found = str(error)
        self._output.add(path, found, pixels, seconds, state._asdict() if state else {})
        if self._watcher and state:
            self._watcher.settle(state)
        if isinstance(found, str):
            print(f"error: {printable(found)}", file=sys.stderr)
        elif self._watcher:
            print(f"{printable(str(path))}: {found.describe()}", flush=True)
            drift = self._output.drift
            if drift and drift.alarm and drift.alarm.number == drift.images:
                print(drift.describe(), file=sys.stderr)
