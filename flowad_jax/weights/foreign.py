"""Objects that a checkpoint holds beside its tensors, as placeholders that can do nothing.

Lightning and anomalib save settings together with weights: enums, paths, namespaces, OmegaConf
nodes, whole modules. Such an object becomes a `Foreign`, whatever its name.
"""

import re
from dataclasses import dataclass

# Packages whose objects were seen in checkpoints; in them any name is as inert as any other.
_ROOTS = {
    *("anomalib", "lightning", "lightning_fabric", "pytorch_lightning", "torch", "torchvision"),
    *("torchmetrics", "jsonargparse", "omegaconf", "numpy"),
    *("argparse", "collections", "datetime", "enum", "pathlib", "typing"),
}
# No name that starts with two underscores leads to an object that somebody saved.
_PART = re.compile(r"(?!__)[A-Za-z_]\w*", re.ASCII)
_BUILTINS = (
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list"),
    *("object", "range", "set", "slice", "str", "tuple"),
)
# Pickles of protocol 2 write bytes as a call of `_codecs.encode`, and builtins as `__builtin__`.
_NAMES = {"_codecs.encode", "functools.partial"} | {
    f"{module}.{name}" for module in ("builtins", "__builtin__") for name in _BUILTINS
}
# Built empty and filled item by item, as a dict is; `AttributeDict` moved around in Lightning.
DICTS = {
    *("builtins.dict", "collections.OrderedDict", "collections.defaultdict"),
    "lightning.fabric.utilities.data.AttributeDict",
    "lightning.pytorch.utilities.parsing.AttributeDict",
    "lightning_fabric.utilities.data.AttributeDict",
    "pytorch_lightning.utilities.parsing.AttributeDict",
}


class Global(str):
    """The dotted name of a permitted global; as a value, a dtype say, it is just that text."""

    __slots__ = ()


@dataclass(eq=False, slots=True)
class Foreign:
    """An object of a class that we do not have; what it would have been built from is dropped.

    Attributes:
      name: dotted name of the class, or of the function that would have returned the object.
    """

    name: str


def shown(value: object) -> str:
    """One short printable line for a value out of an untrusted file."""
    if not isinstance(value, str | int | float):
        return type(value).__name__
    text = ascii(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def is_permitted(name: str) -> bool:
    """Whether a pickle may mention a global."""
    root, *parts = name.split(".")
    return name in _NAMES or (root in _ROOTS and all(_PART.fullmatch(part) for part in parts))
