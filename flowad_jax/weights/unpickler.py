"""A pickle machine that can neither import nor call what a file names.

Python's own unpickler does both. Here a global stays a name; the caller lists the names that it
permits and the functions that some of them stand for, and everything else is refused. The
operations are those of binary pickles (protocol 2 and later), split by `pickletools`.
"""

import pickletools
from collections.abc import Callable, Mapping, Set
from typing import IO, Any

MAX_OPERATIONS = 2_000_000  # about 30,000 tensors; keeps time to seconds, objects to 0.5 GB
MAX_INT_BITS = 128  # a tensor extent has 63 bits, the magic number of the legacy format 77


class RefusedError(ValueError):
    """The pickle is damaged or asks for something that it may not have."""


class Global(str):
    """The dotted name of a permitted global; as a value, a dtype say, it is just that text."""

    __slots__ = ()


def shown(value: object) -> str:
    """One short printable line for a value out of an untrusted file."""
    if not isinstance(value, str | int | float):
        return type(value).__name__
    text = ascii(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def checked_dict(pairs: Any) -> dict[str | int, Any]:
    """Builds a dict whose keys cannot make hashing slow, as nested tuples or long ints do."""
    for key, _ in pairs:
        if type(key) is not str and not (type(key) is int and abs(key) < 2**60):
            raise RefusedError(f"has the dict key {shown(key)}")
    return dict(pairs)


def load(
    stream: IO[bytes],
    names: Set[str],
    calls: Mapping[str, Callable[..., Any]],
    persistent: Callable[[Any], Any],
) -> Any:
    """Interprets the pickle at the position of ``stream`` and stops right after it.

    Args:
      stream: binary file; no more of it is read than the pickle.
      names: permitted globals that are only names.
      calls: permitted globals that may be called, and what to call in their place.
      persistent: returns the object that a persistent identity stands for.

    Returns:
      Nested dict, list, tuple, str, int, float, bool and None, and what ``calls`` and
      ``persistent`` return. Containers may share parts or contain themselves, so a walk over
      them may never end.

    Raises:
      RefusedError: the pickle asks for anything else; the message names it.
      Exception: of many kinds, for a damaged stream.
    """
    machine = _Machine(names, calls, persistent)
    for count, (operation, argument, _) in enumerate(pickletools.genops(stream)):
        if count >= MAX_OPERATIONS:
            raise RefusedError(f"has more than {MAX_OPERATIONS} pickle operations")
        if operation.name == "STOP":
            break
        handler = _HANDLERS.get(operation.name)
        if handler is None:
            asked = "" if argument is None else f" {shown(argument)}"
            raise RefusedError(f"asks for the pickle operation {operation.name}{asked}")
        handler(machine, argument)
    return machine.stack.pop()


class _Machine:
    """The stack, the marks on it, and the memo."""

    def __init__(self, names, calls, persistent):
        self.names = names
        self.calls = calls
        self.persistent = persistent
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: dict[int, Any] = {}

    def push(self, value: Any) -> None:
        self.stack.append(value)

    def push_int(self, value: int) -> None:
        if value.bit_length() > MAX_INT_BITS:
            raise RefusedError(f"has an integer of {value.bit_length()} bits")
        self.stack.append(value)

    def push_python2_text(self, value: str) -> None:
        self.stack.append(value.encode("latin-1").decode("utf-8"))

    def push_tuple(self, length: int) -> None:
        items = [self.stack.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(items)))

    def push_global(self, module: Any, name: Any) -> None:
        if not (isinstance(module, str) and isinstance(name, str)):
            raise RefusedError(f"asks for a global named by {shown(module)} and {shown(name)}")
        full = f"{module}.{name}"
        if full not in self.names and full not in self.calls:
            raise RefusedError(
                f"asks for {shown(full)}, which is no tensor or plain container: refused; "
                "where it is your own file, save model.state_dict() instead"
            )
        self.stack.append(Global(full))

    def mark(self) -> None:
        self.marks.append(len(self.stack))

    def pop_to_mark(self) -> list[Any]:
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def append(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise RefusedError(f"appends to {shown(self.stack[-1])}")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not dict:
            raise RefusedError(f"sets an item of {shown(self.stack[-1])}")
        self.stack[-1].update(checked_dict(list(zip(items[::2], items[1::2], strict=True))))

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global) or function not in self.calls:
            raise RefusedError(f"calls {shown(function)}")
        if type(arguments) is not tuple:
            raise RefusedError(f"calls {shown(function)} with {shown(arguments)}")
        self.stack.append(self.calls[function](*arguments))

    def build(self) -> None:
        state, target = self.stack.pop(), self.stack[-1]
        # Module.state_dict() hangs its format versions, `_metadata`, on the dict as an attribute.
        if type(target) is not dict or type(state) is not dict or set(state) - {"_metadata"}:
            raise RefusedError(f"sets attributes of {shown(target)}")

    def push_persistent(self) -> None:
        self.stack.append(self.persistent(self.stack.pop()))

    def memoize(self, index: int) -> None:
        self.memo[index] = self.stack[-1]


_Handler = Callable[[_Machine, Any], None]

_HANDLERS: dict[str, _Handler] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.mark(),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4"), _Machine.push_int),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINFLOAT"), _Machine.push),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), _Machine.push_python2_text),
    "EMPTY_DICT": lambda machine, _: machine.push({}),
    "EMPTY_LIST": lambda machine, _: machine.push([]),
    "EMPTY_TUPLE": lambda machine, _: machine.push(()),
    "TUPLE": lambda machine, _: machine.push(tuple(machine.pop_to_mark())),
    "TUPLE1": lambda machine, _: machine.push_tuple(1),
    "TUPLE2": lambda machine, _: machine.push_tuple(2),
    "TUPLE3": lambda machine, _: machine.push_tuple(3),
    "APPEND": lambda machine, _: machine.append([machine.stack.pop()]),
    "APPENDS": lambda machine, _: machine.append(machine.pop_to_mark()),
    "SETITEM": lambda machine, _: machine.set_items([machine.stack.pop(-2), machine.stack.pop()]),
    "SETITEMS": lambda machine, _: machine.set_items(machine.pop_to_mark()),
    "MEMOIZE": lambda machine, _: machine.memoize(len(machine.memo)),
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), _Machine.memoize),
    **dict.fromkeys(
        ("BINGET", "LONG_BINGET"), lambda machine, index: machine.push(machine.memo[index])
    ),
    "GLOBAL": lambda machine, pair: machine.push_global(*pair.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.push_global(
        machine.stack.pop(-2), machine.stack.pop()
    ),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.push_persistent(),
}
