"""Interprets the pickles of PyTorch checkpoints; nothing that a file names is imported or called.

Python's `pickle.Unpickler` with an allow-list in ``find_class`` would execute nothing either, but
eleven bytes make it reserve gigabytes (a memo index of 2^31), and 340 kB make it compute for a
minute (dict keys whose hashes are equal), before a method of ours is ever called. This machine
charges every operation to a `Budget`, and a file that exceeds it is refused.
"""

import pickletools
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flowad_jax.weights.foreign import DICTS, Foreign, Global, is_permitted, shown

MAX_OPERATIONS = 2_000_000  # about 30,000 tensors; keeps time to seconds, objects to 0.5 GB
MAX_INT_BITS = 128  # a tensor extent has 63 bits, the magic number of the legacy format 77
MAX_NAME = 100  # characters of a module, of a name in it, and of the key of a storage
MAX_KEY = 10_000  # characters of a dict key, which is compared with its equals
MAX_KEY_PARTS = 16  # of a tuple that is a dict key
COMPARISONS = 4  # of dict keys that cost as much as an operation

_EMPTY = object()  # an unused place of the memo


class RefusedError(ValueError):
    """A file is damaged or asks for something that it may not have."""


class Budget:
    """The operations that all pickles of one file may still take together.

    An operation creates at most about 100 bytes; what creates more, or takes longer, costs more.
    """

    def __init__(self) -> None:
        self._left = MAX_OPERATIONS

    def spend(self, count: int = 1) -> None:
        """Raises RefusedError where less than ``count`` operations are left."""
        self._left -= count
        if self._left < 0:
            raise RefusedError(f"has more than {MAX_OPERATIONS} pickle operations")


def set_keys(target: dict[Any, Any], pairs: Iterable[Any], budget: Budget) -> None:
    """Sets (key, value) pairs in a dict, in a time that the budget bounds.

    Python randomises the hashes of str and bytes; others can be chosen so that each new key is
    compared with all that are there. Such a key costs the operations that this may take. The next
    integer of those that count from 0 is found at once and costs nothing.

    Raises:
      RefusedError: a key takes long to hash or to compare, or the budget is spent.
    """
    for key, value in pairs:
        if not (_is_key(key) or (type(key) is tuple and _is_tuple_key(key))):
            raise RefusedError(f"has the dict key {shown(key)}")
        if not isinstance(key, str | bytes) and key != len(target):
            parts = len(key) if type(key) is tuple else 1
            budget.spend(parts - 1 + parts * len(target) // COMPARISONS)
        target[key] = value


def _is_key(key: Any) -> bool:
    if type(key) is int:
        return abs(key) < 2**60
    if isinstance(key, str | bytes):
        return len(key) <= MAX_KEY
    return key is None or isinstance(key, bool | float | Foreign)


def _is_tuple_key(key: tuple[Any, ...]) -> bool:
    texts = sum(len(part) for part in key[:MAX_KEY_PARTS] if isinstance(part, str | bytes))
    return len(key) <= MAX_KEY_PARTS and texts <= MAX_KEY and all(map(_is_key, key))


def interpret(
    stream: Any,
    calls: Mapping[str, Callable[..., Any]],
    persistent: Callable[[Any], Any],
    budget: Budget,
) -> Any:
    """Interprets the pickle at the position of a file or `mmap` and stops right after it.

    Args:
      stream: what is read.
      calls: functions to call in the place of those that a pickle names.
      persistent: returns the object that a persistent identity stands for.
      budget: shared by the pickles of a file.

    Returns:
      Plain containers and values, `Foreign`, and what ``calls`` and ``persistent`` return. A walk
      over containers may never end: they may contain themselves.

    Raises:
      RefusedError: the pickle asks for anything else; the message names it.
      Exception: of many kinds, for a damaged stream.
    """
    machine = _Machine(calls, persistent, budget)
    for operation, argument, _ in pickletools.genops(stream):
        budget.spend()
        if operation.name == "STOP":
            break
        handler = _HANDLERS.get(operation.name)
        if handler is None:
            asked = "" if argument is None else f" {shown(argument)}"
            raise RefusedError(f"asks for the pickle operation {operation.name}{asked}")
        handler(machine, argument)
    return machine.stack.pop()


class _Machine:
    """The stack of a pickle, the marks on it, and the memo."""

    def __init__(
        self,
        calls: Mapping[str, Callable[..., Any]],
        persistent: Callable[[Any], Any],
        budget: Budget,
    ):
        self._calls, self._persistent, self._budget = calls, persistent, budget
        self.stack: list[Any] = []
        self._marks: list[int] = []
        self.memo: list[Any] = []  # no dict: a file chooses the numbers

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_int(self, value: int) -> None:
        if value.bit_length() > MAX_INT_BITS:
            raise RefusedError(f"has an integer of {value.bit_length()} bits")
        self.stack.append(value)

    def push_tuple(self, length: int) -> None:
        items = [self.stack.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(items)))

    def push_global(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise RefusedError(f"asks for a global named by {shown(module)} and {shown(name)}")
        # Cut before they are joined: long texts cost a byte once, not with every mention.
        full = f"{module[:MAX_NAME]}.{name[:MAX_NAME]}"
        if max(len(module), len(name)) > MAX_NAME or not is_permitted(full):
            raise RefusedError(
                f"asks for {shown(full)}, which is no tensor or plain container: refused; "
                "where it is your own file, save model.state_dict() instead"
            )
        self.stack.append(Global(full))

    def push_foreign(self, name: str) -> None:
        self._budget.spend(2)  # it takes about as many bytes as three other objects
        self.stack.append(Foreign(name))

    def push_frozenset(self) -> None:
        self.pop_to_mark()
        self.push_foreign("builtins.frozenset")

    def mark(self) -> None:
        self._marks.append(len(self.stack))

    def pop_to_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if type(target) is list:
            target.extend(items)
        elif not isinstance(target, Foreign):
            raise RefusedError(f"appends to {shown(target)}")

    def set_items(self, items: list[Any]) -> None:
        target = self.stack[-1]
        if len(items) % 2:
            raise RefusedError(f"sets a key of {shown(target)} without a value")
        if type(target) is dict:
            set_keys(target, zip(items[::2], items[1::2], strict=True), self._budget)
        elif not isinstance(target, Foreign):
            raise RefusedError(f"sets an item of {shown(target)}")

    def set_state(self) -> None:
        self.stack.pop()
        target = self.stack[-1]
        # state_dict() hangs its `_metadata` on a dict.
        if not (type(target) is dict or isinstance(target, Foreign)):
            raise RefusedError(f"sets attributes of {shown(target)}")

    def call(self, keywords: Any = None, *, new: bool = False) -> None:
        """Builds what a global returns; ``new``: what its ``__new__`` does."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global):
            raise RefusedError(f"calls {shown(function)}")
        if type(arguments) is not tuple or type(keywords) not in (dict, type(None)):
            raise RefusedError(
                f"calls {shown(function)} with {shown(arguments)} and {shown(keywords)}"
            )
        name = function.replace("__builtin__.", "builtins.", 1)
        has_content = keywords or len(arguments) > (name == "collections.defaultdict")
        if function in self._calls and not new:
            self.stack.append(self._calls[function](*arguments))
        elif name in DICTS and not has_content:
            self.stack.append({})
        else:
            self.push_foreign(name)

    def push_persistent(self) -> None:
        identity = self.stack.pop()
        # Legacy files add the source of a module to its class.
        if type(identity) is tuple and len(identity) == 4 and identity[0] == "module":
            if not isinstance(identity[1], Global):
                raise RefusedError(f"has the source of {shown(identity[1])}")
            self.stack.append(identity[1])
        else:
            self.stack.append(self._persistent(identity))

    def memoize(self, index: int) -> None:
        if index >= MAX_OPERATIONS:
            raise RefusedError(f"keeps a value under the number {index}")
        if index >= len(self.memo):
            self.memo.extend([_EMPTY] * (index + 1 - len(self.memo)))
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        if self.memo[index] is _EMPTY:
            raise RefusedError(f"asks for a value that it has not kept, number {index}")
        self.stack.append(self.memo[index])


_HANDLERS: dict[str, Callable[[_Machine, Any], None]] = {
    **dict.fromkeys(("PROTO", "FRAME"), lambda machine, _: None),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4"), _Machine.push_int),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINFLOAT"), _Machine.push),
    **dict.fromkeys(("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"), _Machine.push),
    "BYTEARRAY8": lambda machine, value: machine.push(bytes(value)),
    **dict.fromkeys(  # of Python 2, in UTF-8
        ("BINSTRING", "SHORT_BINSTRING"),
        lambda machine, text: machine.push(text.encode("latin-1").decode("utf-8")),
    ),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "EMPTY_SET": lambda machine, _: machine.push_foreign("builtins.set"),
    "FROZENSET": lambda machine, _: machine.push_frozenset(),
    "MARK": lambda machine, _: machine.mark(),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    **dict.fromkeys(("APPENDS", "ADDITEMS"), lambda m, _: m.append(m.pop_to_mark())),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "MEMOIZE": lambda machine, _: machine.memoize(len(machine.memo)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.memoize),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), _Machine.recall),
    "GLOBAL": lambda machine, pair: machine.push_global(*pair.split(" ", 1)),
    "STACK_GLOBAL": lambda m, _: m.push_global(m.stack.pop(-2), m.stack.pop()),
    "REDUCE": lambda machine, _: machine.call(),
    "NEWOBJ": lambda machine, _: machine.call(new=True),
    "NEWOBJ_EX": lambda machine, _: machine.call(machine.stack.pop(), new=True),
    "BUILD": lambda machine, _: machine.set_state(),
    "BINPERSID": lambda machine, _: machine.push_persistent(),
}
