"""JSON that somebody else may have written: read, bounded and checked in one place.

    POINT = table({"x": number(), "y": number(low=0)}, optional={"label": TEXT})
    point = read(folder / "point.json", POINT, "delete it, and it is computed anew")

What does not have the shape of the schema is a `UserError` of one line that names the file, the key
and the remedy: text that is no JSON or no UTF-8, a folder or a pipe in place of the file, a file
above `LIMIT`, nesting deeper than `DEPTH`, the same key twice, NaN, infinity or a number beyond 64
bits, a missing key, a value of the wrong type or out of range. A schema stands beside the code that
writes the file. It is a plain JSON Schema; a ``description`` replaces the words in which a value is
refused ("must be ...").
"""

from __future__ import annotations

import collections
import json
import math
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator, ValidationError, validators

from flowad_jax import files
from flowad_jax.errors import UserError

Schema = Mapping[str, Any]

LIMIT = 2**26  # bytes of a file
DEPTH = 32  # tables and lists inside one another
_DIGITS = 20  # of a whole number

TEXT: Schema = {"type": "string"}
BOOLEAN: Schema = {"type": "boolean"}
ANYTHING: Schema = {}


class _Bounds(dict[str, Any]):
    """A part of a schema that may stand in an annotation, which Python has to hash."""

    def __hash__(self) -> int:  # type: ignore[override]
        return hash(tuple(self.items()))


def within(low: float | None = None, high: float | None = None) -> Schema:
    """The bounds of a number, without its type."""
    bounds = (("minimum", low), ("maximum", high))
    return _Bounds({k: v for k, v in bounds if v is not None})


def integer(low: int | None = None, high: int | None = None) -> Schema:
    """A whole number in [low, high]."""
    return {"type": "integer", **within(low, high)}


def number(
    low: float | None = None, high: float | None = None, above: float | None = None
) -> Schema:
    """A finite number in [low, high], or greater than ``above``."""
    exclusive = {} if above is None else {"exclusiveMinimum": above}
    return {"type": "number", **exclusive, **within(low, high)}


def array(item: Schema, least: int = 0, most: int | None = None) -> Schema:
    """A list; in a config also a tuple."""
    longest = {} if most is None else {"maxItems": most}
    return {"type": "array", "minItems": least, **longest, "items": item}


def table(
    required: Mapping[str, Schema],
    optional: Mapping[str, Schema] | None = None,
    others: bool | Schema = True,
) -> Schema:
    """An object; ``others`` says whether it may have more keys, or what their values must be."""
    return {
        "type": "object",
        "required": list(required),
        "properties": {**required, **(optional or {})},
        "additionalProperties": others,
    }


def nullable(schema: Schema) -> Schema:
    """The same or null."""
    return {**schema, "type": [schema["type"], "null"]}


def read(path: str | Path, schema: Schema, remedy: str) -> Any:
    """Reads a JSON file.

    Args:
      path: of a regular file of at most `LIMIT` bytes.
      schema: what it must hold.
      remedy: ends the message where it does not, e.g. ``"train anew"``.

    Raises:
      UserError: it cannot be read, or holds something else.
    """
    return parse(_bytes(Path(path), remedy), path, schema, remedy)


def read_lines(path: str | Path, schema: Schema, remedy: str) -> list[Any]:
    """Reads a file of JSON lines, see `read`; a last line that a crash cut off is left out."""
    *lines, last = _bytes(Path(path), remedy).split(b"\n")
    rows = [
        parse(line, f"{path} line {number}", schema, remedy)
        for number, line in enumerate(lines, start=1)
    ]
    try:
        final = _load(last, path, remedy)
    except UserError:
        return rows
    check(final, path, schema, remedy)
    return [*rows, final]


def parse(text: str | bytes, source: str | Path, schema: Schema, remedy: str) -> Any:
    """Reads JSON that is at hand, see `read`; ``source`` is what messages call it."""
    value = _load(text, source, remedy)
    check(value, source, schema, remedy)
    return value


def check(value: Any, source: str | Path, schema: Schema, remedy: str = "") -> None:
    """Raises a `UserError` where a value, of tuples too, is not what the schema describes.

    Without a ``source`` the message speaks of the config of a command.
    """
    error = next(_Validator(schema).iter_errors(value), None)
    if error is not None:
        raise UserError(_complaint(error, source, remedy))


def _load(text: str | bytes, source: str | Path, remedy: str) -> Any:
    try:
        value = json.loads(
            text.decode("utf-8") if isinstance(text, bytes) else text,
            object_pairs_hook=_table,
            parse_int=_integer,
            parse_float=_float,
            parse_constant=_float,
        )
        _check_depth(value)
    except (ValueError, RecursionError) as error:
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        raise _unreadable(source, reason, remedy) from None
    return value


def _is_integer(_: Any, value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


_Validator = validators.extend(
    Draft202012Validator,
    type_checker=Draft202012Validator.TYPE_CHECKER.redefine_many(
        {
            "integer": _is_integer,
            "number": lambda _, value: (
                _is_integer(_, value) or (isinstance(value, float) and math.isfinite(value))
            ),
            "array": lambda _, value: isinstance(value, list | tuple),
        }
    ),
)
_TYPES = {
    "string": "text",
    "boolean": "true or false",
    "integer": "a whole number",
    "number": "a finite number",
    "array": "a list",
    "object": "a table",
    "null": "null",
}
_RANGES = {
    "minimum": "{} or more",
    "maximum": "{} or less",
    "exclusiveMinimum": "greater than {}",
    "exclusiveMaximum": "less than {}",
    "minItems": "a list of {} or more",
    "maxItems": "a list of {} or fewer",
}


def _unreadable(source: str | Path, reason: object, remedy: str) -> UserError:
    return UserError(f"{source} cannot be read ({reason})" + f": {remedy}" * bool(remedy))


def _complaint(error: ValidationError, source: str | Path, remedy: str) -> str:
    """What is wrong with a value, with its dotted key."""
    path, prefix = [str(step) for step in error.absolute_path], f"{source}: " * bool(source)
    if error.validator == "required":
        missing = sorted(set(error.validator_value) - error.instance.keys())
        what = f"has no {', '.join('.'.join([*path, name]) for name in missing)}"
        return f"{source or 'the config'} {what}" + f": {remedy}" * bool(remedy)
    if error.validator == "additionalProperties":
        known = error.schema["properties"]
        unknown = next(name for name in error.instance if name not in known)
        return f"{prefix}unknown key {'.'.join([*path, unknown])}" + f": {remedy}" * bool(remedy)
    if not path:
        reason = f"it is {_short(error.instance)}, but must be {_wanted(error)}"
        return str(_unreadable(source, reason, remedy))
    what = f"{'.'.join(path)}={_short(error.instance)}: must be {_wanted(error)}"
    return prefix + what + f"; {remedy}" * bool(remedy)


def _wanted(error: ValidationError) -> str:
    if "description" in error.schema:
        return error.schema["description"]
    if error.validator == "type":
        types = error.validator_value
        return " or ".join(_TYPES[name] for name in ([types] if isinstance(types, str) else types))
    if error.validator == "enum":
        return f"one of {', '.join(map(repr, error.validator_value))}"
    return _RANGES[error.validator].format(error.validator_value)


_REPR = reprlib.Repr()
_REPR.maxstring = _REPR.maxother = 80


def _short(value: Any) -> str:
    return _REPR.repr(value)


def _bytes(path: Path, remedy: str) -> bytes:
    try:
        with files.open_regular(path) as file:
            content = file.read(LIMIT + 1)
        if len(content) > LIMIT:
            raise ValueError(f"it has more than {LIMIT // 2**20} MiB")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise _unreadable(path, reason, remedy) from None
    return content


def _table(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        twice = collections.Counter(name for name, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"it has the key {_short(twice)} twice")
    return made


def _integer(digits: str) -> int:
    if len(digits) > _DIGITS or not -(2**63) <= int(digits) < 2**64:
        raise ValueError(f"the number {_short(digits)} is too large")
    return int(digits)


def _float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{_short(digits)} is no finite number")
    return value


def _check_depth(value: Any) -> None:
    level = [value]
    for _ in range(DEPTH):
        level = [
            item
            for container in level
            if isinstance(container, dict | list)
            for item in (container.values() if isinstance(container, dict) else container)
        ]
        if not level:
            return
    raise RecursionError
