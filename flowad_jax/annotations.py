"""Type annotations as schemas, by which values of a config are checked."""

import types
import typing
from collections.abc import Sequence
from typing import Any

from flowad_jax import schema

_PLAIN: dict[Any, schema.Schema] = {
    bool: schema.BOOLEAN,
    int: {"type": "integer"},
    float: {"type": "number"},
    str: schema.TEXT,
    type(None): {"type": "null"},
}


def schema_of(hint: Any) -> schema.Schema:
    """The schema of a type annotation; that of anything where it is none of the plain types.

    What ``Annotated[int, within(0, 9)]`` adds holds beside the type.
    """
    if isinstance(hint, type) and hint in _PLAIN:
        return _PLAIN[hint]
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return {**schema_of(inner[0]), **inner[1]}
    if origin is dict:
        return schema.table({}, others=schema_of(inner[1]))
    if origin in (tuple, list, Sequence) and inner:
        exact = origin is tuple and inner[-1] is not ...
        most = {"maxItems": len(inner), "minItems": len(inner)} if exact else {}
        same = all(part in (inner[0], ...) for part in inner)
        return {**schema.array(schema_of(inner[0]) if same else schema.ANYTHING), **most}
    if origin in (types.UnionType, typing.Union):
        parts = [schema_of(part) for part in inner]
        if all(isinstance(part.get("type"), str) for part in parts):
            kinds = [part["type"] for part in parts]
            return {k: v for part in parts for k, v in part.items()} | {"type": kinds}
    return schema.ANYTHING
