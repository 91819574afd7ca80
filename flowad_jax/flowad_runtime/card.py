"""What an exported detector says about itself, ``detector.json``, and what its graph is.

Both may come from strangers: the card is checked key by key, and nothing but the graph is run.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from . import decisions
from .canvas import FILTERS, FITS
from .errors import UserError

CARD, ONNX = "detector.json", "model.onnx"
LONGEST, SIDE = 2**26, 2**14  # bytes of a card, pixels of a side
REMEDY = "export the detector again"


class Rule(NamedTuple):
    """What a value must be, and in words."""

    holds: Callable[[Any], bool]
    words: str


def number(low: float = -math.inf, high: float = math.inf, null: bool = False) -> Rule:
    """A finite number within bounds, or null if that is allowed."""
    words = f"a finite number from {low:g} to {high:g}" + " or null" * null

    def holds(value: Any) -> bool:
        if type(value) not in (int, float):
            return null and value is None
        return math.isfinite(value) and low <= value <= high

    return Rule(holds, words)


def whole(low: int, high: int) -> Rule:
    """A whole number within bounds."""
    return Rule(lambda x: type(x) is int and low <= x <= high, f"a whole number {low} to {high}")


def one_of(*values: Any) -> Rule:
    """One of some words."""
    return Rule(lambda x: type(x) is str and x in values, f"one of {', '.join(values)}")


def are_scores(value: Any) -> bool:
    """Whether something is a list of at least one list of finite numbers."""
    rows = value if isinstance(value, list) and value else [None]
    holds = number().holds
    return all(isinstance(row, list) and all(map(holds, row)) for row in rows)


TEXT = Rule(lambda x: type(x) is str, "text")
BOOLEAN = Rule(lambda x: type(x) is bool, "true or false")
SCORES = Rule(are_scores, "a list of lists of finite numbers")
RULES: dict[str, Any] = {
    "format": whole(1, 1),
    "name": TEXT,
    "image": {
        "height": whole(1, SIDE),
        "width": whole(1, SIDE),
        "fit": one_of(*FITS),
        "filter": one_of(*FILTERS),
        "white": whole(1, 2**16),
    },
    "batch": {"dynamic": BOOLEAN, "most": whole(1, 2**16)},
    "calibration": {
        "kind": one_of(*decisions.KINDS),
        "false_alarm_rate": Rule(lambda x: type(x) is float and 0 < x < 1, "between 0 and 1"),
        "image": SCORES,
        "peak": SCORES,
    },
    "threshold": number(null=True),
    "card": Rule(lambda x: isinstance(x, dict), "a table"),
    "position": number(0),
    "min_region": number(0, null=True),
    "files": {ONNX: {"sha256": TEXT}},
}


def read(folder: Path) -> dict[str, Any]:
    """Reads the card of a detector.

    Raises:
      UserError: it is missing, or not what `flowad export` writes.
    """
    path = folder / CARD
    try:
        with open(path, "rb") as file:
            content = file.read(LONGEST + 1)
        if len(content) > LONGEST:
            raise ValueError(f"it has more than {LONGEST} bytes")
        card = json.loads(content)
    except (OSError, ValueError, RecursionError) as error:
        hint = "unpack it first" if folder.is_file() else getattr(error, "strerror", None) or error
        raise UserError(f"{path} cannot be read ({hint}): {REMEDY}") from None
    check(card, RULES, path)
    folds = card["calibration"]
    if [*map(len, folds["image"])] != [*map(len, folds["peak"])]:
        raise UserError(f"{path}: calibration.peak has other lengths than image: {REMEDY}")
    for name in ("image", "peak"):
        folds[name] = [np.array(row, np.float64) for row in folds[name]]
    check_decisions(card, path)
    return card


def check(value: Any, rules: Any, path: Path, key: str = "") -> None:
    """Raises a `UserError` that names the first key whose value is not what its rule says."""
    if isinstance(rules, Rule):
        if not rules.holds(value):
            raise UserError(f"{path}: {key}={value!r:.80} must be {rules.words}: {REMEDY}")
        return
    for name, rule in rules.items():
        inner = f"{key}.{name}" if key else name
        if not isinstance(value, dict) or name not in value:
            raise UserError(f"{path} has no {inner}: {REMEDY}")
        check(value[name], rule, path, inner)


def check_decisions(card: Mapping[str, Any], path: Path) -> None:
    """Raises a `UserError` unless the thresholds are those of the scores beside them."""
    folds, stored = card["calibration"], card["card"]
    scores = (folds["image"], folds["peak"], folds["false_alarm_rate"], folds["kind"])
    made = decisions.make_card(*scores, card["threshold"])
    for key in made.keys() | (stored.keys() if not made else set()):
        one, other = made.get(key), stored.get(key)
        is_number = type(one) is float and type(other) in (int, float)
        same = math.isclose(one, other, rel_tol=1e-9) if is_number else one == other
        if key not in stored or not same:
            raise UserError(f"{path}: card.{key}={other!r:.80} is not {one!r}: {REMEDY}")


def read_graph(folder: Path, card: Mapping[str, Any]) -> bytes:
    """Returns the bytes of the ONNX file.

    Raises:
      UserError: it is missing, not the one that was exported, or keeps weights in other files,
        which its checksum does not cover.
    """
    path = folder / ONNX
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}): copy it again") from None
    if hashlib.sha256(content).hexdigest() != card["files"][ONNX]["sha256"]:
        raise UserError(f"{path} is not the file that was exported: copy it again")
    # Every reference to another file has this key, with its length before it.
    if re.search(rb"[\0\x08]location", content):
        raise UserError(f"{path} keeps weights in other files, which is not allowed: {REMEDY}")
    return content
