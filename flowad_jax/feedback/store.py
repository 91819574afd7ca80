"""An append-only file of judgements and of what operators say about them (SQLite).

It lies beside the detector. What was acknowledged survives a killed process; several processes may
write. A later verdict about an image counts, and the earlier one is kept.
"""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time as clock
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flowad_jax.errors import UserError

SUFFIX = ".feedback.sqlite"
GOOD, DEFECT = VERDICTS = ("good", "defect")
_APPLICATION, _VERSION = 0x666C6F77, 1  # how the file is known
_WAIT = 10.0  # seconds for another process that writes
_TABLES = """
CREATE TABLE judgements (
  id INTEGER PRIMARY KEY AUTOINCREMENT, time REAL NOT NULL, detector TEXT NOT NULL,
  image TEXT NOT NULL, name TEXT NOT NULL, scores TEXT NOT NULL, peak REAL, p_value REAL,
  anomalous INTEGER, brightness REAL, sharpness REAL);
CREATE TABLE verdicts (
  id INTEGER PRIMARY KEY AUTOINCREMENT, judgement INTEGER NOT NULL REFERENCES judgements (id),
  verdict TEXT NOT NULL CHECK (verdict IN ('good', 'defect')), time REAL NOT NULL);
CREATE INDEX verdicts_by_judgement ON verdicts (judgement);
CREATE INDEX judgements_by_image ON judgements (image);
CREATE TABLE resets (
  id INTEGER PRIMARY KEY AUTOINCREMENT, detector TEXT NOT NULL, after INTEGER NOT NULL,
  time REAL NOT NULL);
CREATE TABLE pictures (judgement INTEGER PRIMARY KEY REFERENCES judgements (id), content BLOB);
"""
_ROWS = """
SELECT j.*, v.verdict, v.time FROM judgements j LEFT JOIN verdicts v
  ON v.id = (SELECT max(id) FROM verdicts WHERE judgement = j.id)
"""


class Judgement(NamedTuple):
    """What a detector said about an image.

    Attributes:
      time: seconds since 1970.
      detector: SHA-256 of its graph or state.
      image: SHA-256 of the file.
      name: of the file.
      scores: by every part of the detector.
      peak: largest value of the map.
      p_value, anomalous: as in `Prediction`.
      brightness, sharpness: of the image on the canvas.
    """

    time: float
    detector: str
    image: str
    name: str
    scores: tuple[float, ...]
    peak: float
    p_value: float | None
    anomalous: bool | None
    brightness: float | None = None
    sharpness: float | None = None


class Row(NamedTuple):
    """A judgement, its number, and the latest verdict: ``"good"``, ``"defect"`` or None."""

    id: int
    judgement: Judgement
    verdict: str | None
    verdict_time: float | None


def beside(detector: str | Path) -> Path:
    """The file of a detector, as its path is given: links are not followed."""
    path = Path(detector)
    return path.with_name(path.name + SUFFIX)


class FeedbackStore:
    """An open file; safe to use from several threads."""

    def __init__(self, path: str | Path, create: bool = True):
        """Opens a file, or makes it.

        Raises:
          UserError: it cannot be opened, is no such file, or is missing and not to be made.
        """
        self.path = Path(path)
        if not create and not self.path.is_file():
            raise UserError(f"{self.path} is not there: nothing was judged by `flowad serve` yet")
        self._lock = threading.RLock()
        with self._explained():
            self._file = sqlite3.connect(
                self.path, timeout=_WAIT, isolation_level=None, check_same_thread=False
            )
            self._check()
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")

    def close(self) -> None:
        """Closes the file; what was acknowledged is in it."""
        with self._lock:
            self._file.close()

    def _check(self) -> None:
        number, version = (
            self._file.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        )
        if number == _APPLICATION and version == _VERSION:
            return
        if number == _APPLICATION:
            raise UserError(f"{self.path} is of a newer flowad_jax (version {version}): update it")
        with self._transaction():
            if self._file.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]:
                if self._file.execute("PRAGMA application_id").fetchone()[0] == _APPLICATION:
                    return  # another process made it meanwhile
                raise UserError(f"{self.path} is another program's database: move it away")
            for statement in filter(str.strip, _TABLES.split(";")):
                self._file.execute(statement)
            for table in ("judgements", "verdicts", "resets"):
                for what in ("UPDATE", "DELETE"):
                    self._file.execute(
                        f"CREATE TRIGGER no_{what}_{table} BEFORE {what} ON {table} "
                        "BEGIN SELECT RAISE(ABORT, 'this file is only added to'); END"
                    )
            self._file.execute(f"PRAGMA application_id = {_APPLICATION}")
            self._file.execute(f"PRAGMA user_version = {_VERSION}")

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """Turns what SQLite raises into one line."""
        try:
            with self._lock:
                yield
        except sqlite3.Error as error:
            raise UserError(f"{self.path}: {error}") from error

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """Writes all or nothing."""
        with self._explained():
            self._file.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._file.execute("COMMIT")
            except BaseException:
                if self._file.in_transaction:
                    self._file.execute("ROLLBACK")
                raise

    def add(self, judgements: Sequence[Judgement]) -> list[int]:
        """Adds judgements and returns their numbers, when they are on disk.

        Raises:
          UserError: the file cannot be written; none is added then.
        """
        marks = ", ".join("?" * len(Judgement._fields))
        command = f"INSERT INTO judgements ({', '.join(Judgement._fields)}) VALUES ({marks})"
        with self._transaction():
            rows = (x._replace(scores=json.dumps(x.scores)) for x in judgements)  # type: ignore[arg-type]
            return [int(self._file.execute(command, row).lastrowid or 0) for row in rows]

    def add_verdict(self, number: int, verdict: str) -> Row:
        """Adds what an operator says about a judgement; returns it when that is on disk.

        Raises:
          UserError: there is no such judgement or verdict, or the file cannot be written.
        """
        if verdict not in VERDICTS:
            raise UserError(f"verdict '{verdict}': choose good or defect")
        with self._transaction():
            self.row(number)
            self._file.execute(
                "INSERT INTO verdicts (judgement, verdict, time) VALUES (?, ?, ?)",
                (number, verdict, clock.time()),
            )
            return self.row(number)

    def row(self, number: int) -> Row:
        """Returns one judgement; a `UserError` if there is none of that number."""
        with self._explained():
            found = self._file.execute(f"{_ROWS} WHERE j.id = ?", (number,)).fetchone()
        if found is None:
            raise UserError(f"no image has the number {number}")
        return _row(found)

    def rows(
        self, after: int = 0, limit: int = -1, newest: bool = False, detector: str = "%"
    ) -> list[Row]:
        """Returns judgements with larger numbers, in order.

        Args:
          after: a number.
          limit: most of them; -1 for all.
          newest: whether the last ones are kept, not the first.
          detector: whose; all unless given.
        """
        command = (
            f"{_ROWS} WHERE j.id > ? AND j.detector LIKE ? ORDER BY j.id "
            f"{'DESC' if newest else 'ASC'} LIMIT ?"
        )
        with self._explained():
            found = [_row(x) for x in self._file.execute(command, (after, detector, limit))]
        return found[::-1] if newest else found

    def has(self, detector: str, image: str, name: str) -> bool:
        """Whether a detector has judged this file under this name."""
        command = "SELECT 1 FROM judgements WHERE image = ? AND detector = ? AND name = ? LIMIT 1"
        with self._explained():
            return self._file.execute(command, (image, detector, name)).fetchone() is not None

    def add_reset(self, detector: str) -> None:
        """Notes that the drift statistic of a detector starts anew."""
        with self._transaction():
            self._file.execute(
                "INSERT INTO resets (detector, after, time) "
                "SELECT ?, coalesce(max(id), 0), ? FROM judgements",
                (detector, clock.time()),
            )

    def since_reset(self, detector: str) -> list[Row]:
        """Returns the judgements of a detector since its last reset, in order."""
        command = "SELECT coalesce(max(after), 0) FROM resets WHERE detector = ?"
        with self._explained():
            after = self._file.execute(command, (detector,)).fetchone()[0]
        return self.rows(after, detector=detector)

    def keep_picture(self, number: int, content: bytes) -> None:
        """Keeps the file of an image."""
        with self._transaction():
            self._file.execute("INSERT OR REPLACE INTO pictures VALUES (?, ?)", (number, content))

    def picture(self, number: int) -> bytes | None:
        """Returns the file of an image, if it was kept."""
        command = "SELECT content FROM pictures WHERE judgement = ?"
        with self._explained():
            found = self._file.execute(command, (number,)).fetchone()
        return None if found is None else bytes(found[0])

    def drop_pictures(self, before: float) -> int:
        """Forgets the files of images that were judged before a time; returns how many."""
        command = (
            "DELETE FROM pictures WHERE judgement IN (SELECT id FROM judgements WHERE time < ?)"
        )
        with self._transaction():
            return self._file.execute(command, (before,)).rowcount


def _row(values: Sequence[Any]) -> Row:
    number, *fields, verdict, verdict_time = values
    found = Judgement(*fields)
    return Row(
        number,
        found._replace(
            scores=tuple(json.loads(fields[4])),
            anomalous=None if found.anomalous is None else bool(found.anomalous),
        ),
        verdict,
        verdict_time,
    )
