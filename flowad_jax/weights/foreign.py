"""Objects that a checkpoint holds beside its tensors, as placeholders that can do nothing.

Lightning and anomalib save their settings together with the weights: enums, paths, namespaces,
OmegaConf nodes, sometimes whole modules. Here such an object becomes a `Foreign` that says what the
file would have built from what. Nothing is imported or called, whatever its name.
"""

import re
from collections.abc import Callable
from typing import Any

from flowad_jax.weights import unpickler
from flowad_jax.weights.unpickler import Global, Machine, RefusedError, shown

# Packages whose objects were seen in such files; everything in them is as inert as any other name.
ROOTS = {
    *("anomalib", "lightning", "lightning_fabric", "pytorch_lightning", "torch", "torchvision"),
    *("torchmetrics", "jsonargparse", "omegaconf", "numpy"),
    *("argparse", "collections", "datetime", "enum", "pathlib", "typing"),
}
_BUILTINS = (
    *("bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list"),
    *("object", "range", "set", "slice", "str", "tuple"),
)
# Pickles of protocol 2 write bytes as a call of `_codecs.encode`, and builtins as `__builtin__`.
NAMES = {"_codecs.encode", "functools.partial"} | {
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
MAX_KEY_PARTS = 16  # of a tuple that is a dict key

# No name that starts with two underscores leads to an object that somebody saved.
_PART = re.compile(r"(?!__)[A-Za-z_]\w*", re.ASCII)


class Foreign:
    """What a file says about an object of a class that we do not have.

    Two of them are equal only if they are the same.

    Attributes:
      name: dotted name of the class, or of the function that would have returned the object.
      arguments: tuple of what it was called with.
      keywords: dict of what it was called with by name.
      state: what it was to restore itself from, mostly the dict of its attributes; or None.
      items: list of the elements appended to it.
      pairs: list of the (key, value) that were set in it.
    """

    __slots__ = ("arguments", "items", "keywords", "name", "pairs", "state")

    def __init__(self, name: str, arguments: tuple = (), keywords: dict | None = None):
        self.name = name
        self.arguments = arguments
        self.keywords: dict[str, Any] = {} if keywords is None else keywords
        self.state: Any = None
        self.items: list[Any] = []
        self.pairs: list[tuple[Any, Any]] = []

    def __repr__(self) -> str:
        # One level deep: what it was built with may contain it, or itself a thousand times.
        first = [shown(argument) for argument in self.arguments[:4]]
        return f"<foreign {self.name}({', '.join(first + ['...'] * (len(self.arguments) > 4))})>"


class ForeignMachine(Machine):
    """Permits the names of this module, and builds a `Foreign` or a plain dict from them."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.handlers = {**unpickler.HANDLERS, **_HANDLERS}

    def permits(self, name: str) -> bool:
        """See `Machine.permits`."""
        if super().permits(name) or name in NAMES:
            return True
        root, *parts = name.split(".")
        return root in ROOTS and all(_PART.fullmatch(part) for part in parts)

    def call(self, function: Global, arguments: tuple) -> Any:
        """See `Machine.call`."""
        if function in self.calls:
            return super().call(function, arguments)
        return self._built(function, arguments)

    def new(self, keywords: Any = None) -> None:
        """Does ``class.__new__(class, *arguments, **keywords)``."""
        arguments, kind = self.stack.pop(), self.stack.pop()
        if not isinstance(kind, Global):
            raise RefusedError(f"makes an object of {shown(kind)}")
        if type(arguments) is not tuple or type(keywords) not in (dict, type(None)):
            raise RefusedError(f"makes a {shown(kind)} of {shown(arguments)} and {shown(keywords)}")
        self.stack.append(self._built(kind, arguments, keywords))

    def _built(self, kind: Global, arguments: tuple, keywords: dict | None = None) -> Any:
        name = kind.replace("__builtin__.", "builtins.", 1)
        has_content = keywords or len(arguments) > (name == "collections.defaultdict")
        if name in DICTS and not has_content:
            return {}
        return self._foreign(name, arguments, keywords)

    def _foreign(self, name: str, arguments: tuple = (), keywords: dict | None = None) -> Foreign:
        self.budget.spend(2)  # it takes about as many bytes as three other objects
        return Foreign(name, arguments, keywords)

    def push_set(self, *items: list[Any]) -> None:
        """Puts a set or, where it is given its items at once, a frozen one on the stack."""
        name = "builtins.frozenset" if items else "builtins.set"
        self.stack.append(self._foreign(name, items))

    def append(self, items: list[Any]) -> None:
        """See `Machine.append`."""
        if isinstance(self.stack[-1], Foreign):
            self.stack[-1].items.extend(items)
        else:
            super().append(items)

    def set_items(self, items: list[Any]) -> None:
        """See `Machine.set_items`."""
        target, pairs = self.stack[-1], zip(items[::2], items[1::2], strict=True)
        if isinstance(target, Foreign):
            target.pairs.extend(pairs)
        elif type(target) is dict:
            unpickler.set_keys(target, pairs, self.budget, _checked_key)
        else:
            raise RefusedError(f"sets an item of {shown(target)}")

    def build(self) -> None:
        """See `Machine.build`; the attributes of a dict are dropped."""
        state, target = self.stack.pop(), self.stack[-1]
        if isinstance(target, Foreign):
            target.state = state
        elif type(target) is not dict:
            raise RefusedError(f"sets attributes of {shown(target)}")

    def push_persistent(self) -> None:
        """See `Machine.push_persistent`; legacy files add the source of a module to its class."""
        identity = self.stack[-1]
        if type(identity) is tuple and len(identity) == 4 and identity[0] == "module":
            if not isinstance(identity[1], Global):
                raise RefusedError(f"has the source of {shown(identity[1])}")
            self.stack[-1] = identity[1]
        else:
            super().push_persistent()


def _checked_key(key: Any, inner: bool = False) -> Any:
    """Returns a dict key, or refuses one that takes long to hash or to compare."""
    if type(key) is tuple and not inner:
        texts = sum(len(part) for part in key[:MAX_KEY_PARTS] if isinstance(part, str | bytes))
        good = len(key) <= MAX_KEY_PARTS and texts <= unpickler.MAX_KEY
        good = good and all(_checked_key(part, True) is part for part in key)
    elif type(key) is int or isinstance(key, str | bytes):
        good = unpickler.is_short(key)
    else:
        good = key is None or isinstance(key, bool | float | Foreign)
    if not good:
        raise RefusedError(f"has the dict key {shown(key)}")
    return key


_HANDLERS: dict[str, Callable[[Any, Any], None]] = {
    "NEWOBJ": lambda machine, _: machine.new(),
    "NEWOBJ_EX": lambda machine, _: machine.new(machine.stack.pop()),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), Machine.push),
    "BYTEARRAY8": lambda machine, value: machine.push(bytes(value)),
    "EMPTY_SET": lambda machine, _: machine.push_set(),
    "FROZENSET": lambda machine, _: machine.push_set(machine.pop_to_mark()),
    "ADDITEMS": lambda machine, _: machine.append(machine.pop_to_mark()),
}
