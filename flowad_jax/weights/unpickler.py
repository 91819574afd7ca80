"""A pickle machine that can neither import nor call what a file names.

Python's own unpickler does both. Here a global stays a name; the caller lists the names that it
permits and the functions that some of them stand for, and everything else is refused. The
operations are those of binary pickles (protocol 2 and later), split by `pickletools`.
"""

import pickletools
from collections.abc import Callable, Iterable, Mapping, Set
from typing import Any

MAX_OPERATIONS = 2_000_000  # about 30,000 tensors; keeps time to seconds, objects to 0.5 GB
MAX_INT_BITS = 128  # a tensor extent has 63 bits, the magic number of the legacy format 77
MAX_NAME = 100  # characters of a module, of a name in it, and of the key of a storage
MAX_KEY = 10_000  # characters of a dict key, which is compared with its equals
COMPARISONS = 4  # of dict keys that cost as much as an operation

_NOTHING = object()  # in the memo


class RefusedError(ValueError):
    """The pickle is damaged or asks for something that it may not have."""


class Global(str):
    """The dotted name of a permitted global; as a value, a dtype say, it is just that text."""

    __slots__ = ()


class Budget:
    """What the pickles of one file may still do, all of them together.

    An operation creates at most about 100 bytes. What creates more costs more of them: a call that
    copies a container one for each element. So does what may take longer, see `set_keys`.
    """

    def __init__(self) -> None:
        self._left = MAX_OPERATIONS

    def spend(self, count: int = 1) -> None:
        """Raises RefusedError where less than ``count`` operations are left."""
        self._left -= count
        if self._left < 0:
            raise RefusedError(f"has more than {MAX_OPERATIONS} pickle operations")


def shown(value: object) -> str:
    """One short printable line for a value out of an untrusted file."""
    if not isinstance(value, str | int | float):
        return type(value).__name__
    text = ascii(value[:80] if isinstance(value, str) else value)
    return text if len(text) <= 80 else text[:77] + "..."


def is_short(key: Any) -> bool:
    """Whether a str or int is short enough for a dict key."""
    return abs(key) < 2**60 if type(key) is int else len(key) <= MAX_KEY


def checked_key(key: Any) -> Any:
    """Returns a dict key, or refuses one that is neither a short str nor a short int."""
    if type(key) not in (str, int) or not is_short(key):
        raise RefusedError(f"has the dict key {shown(key)}")
    return key


def set_keys(
    target: dict, pairs: Iterable[Any], budget: Budget, check: Callable[[Any], Any] = checked_key
) -> None:
    """Sets pairs in a dict, in a time that the budget bounds.

    Python randomises the hashes of str and bytes, others can be chosen so that each new key is
    compared with all that are there. Such a key costs the operations that this may take. The next
    integer of those that count from 0 is found at once and costs nothing.

    Args:
      target: the dict.
      pairs: (key, value) of it.
      budget: of the file.
      check: returns a key, or refuses it.
    """
    for key, value in pairs:
        if not isinstance(check(key), str | bytes) and key != len(target):
            parts = len(key) if type(key) is tuple else 1
            budget.spend(parts - 1 + parts * len(target) // COMPARISONS)
        target[key] = value


class Machine:
    """Interprets one pickle: the stack, the marks on it, and the memo.

    Args:
      names: permitted globals that are only names.
      calls: permitted globals that may be called, and what to call in their place.
      persistent: returns the object that a persistent identity stands for.
      budget: shared by the pickles of a file.
    """

    def __init__(
        self,
        names: Set[str],
        calls: Mapping[str, Callable[..., Any]],
        persistent: Callable[[Any], Any],
        budget: Budget,
    ):
        self.handlers: Mapping[str, Callable[[Any, Any], None]] = HANDLERS
        self.names = names
        self.calls = calls
        self.persistent = persistent
        self.budget = budget
        self.stack: list[Any] = []
        self.marks: list[int] = []
        self.memo: list[Any] = []  # no dict: a file chooses the numbers

    def run(self, stream: Any) -> Any:
        """Interprets the pickle at the position of ``stream`` and stops right after it.

        Args:
          stream: binary file or `mmap`; no more of it is read than the pickle.

        Returns:
          Nested dict, list, tuple, str, int, float, bool and None, and what ``calls`` and
          ``persistent`` return. Containers may share parts or contain themselves, so a walk over
          them may never end.

        Raises:
          RefusedError: the pickle asks for anything else; the message names it.
          Exception: of many kinds, for a damaged stream.
        """
        for operation, argument, _ in pickletools.genops(stream):
            self.budget.spend()
            if operation.name == "STOP":
                break
            handler = self.handlers.get(operation.name)
            if handler is None:
                asked = "" if argument is None else f" {shown(argument)}"
                raise RefusedError(f"asks for the pickle operation {operation.name}{asked}")
            handler(self, argument)
        return self.stack.pop()

    def permits(self, name: str) -> bool:
        """Whether the pickle may mention the global ``name``."""
        return name in self.names or name in self.calls

    def call(self, function: Global, arguments: tuple) -> Any:
        """Returns what the call of a permitted global stands for."""
        if function not in self.calls:
            raise RefusedError(f"calls {shown(function)}")
        return self.calls[function](*arguments)

    def push(self, value: Any) -> None:
        """Puts a value on the stack."""
        self.stack.append(value)

    def push_int(self, value: int) -> None:
        """Puts an integer of at most `MAX_INT_BITS` on the stack."""
        if value.bit_length() > MAX_INT_BITS:
            raise RefusedError(f"has an integer of {value.bit_length()} bits")
        self.stack.append(value)

    def push_python2_text(self, value: str) -> None:
        """Puts a string on the stack that Python 2 wrote, in UTF-8."""
        self.stack.append(value.encode("latin-1").decode("utf-8"))

    def push_tuple(self, length: int) -> None:
        """Replaces the last values by a tuple of them."""
        items = [self.stack.pop() for _ in range(length)]
        self.stack.append(tuple(reversed(items)))

    def push_global(self, module: Any, name: Any) -> None:
        """Puts the name of a permitted global on the stack."""
        if not (isinstance(module, str) and isinstance(name, str)):
            raise RefusedError(f"asks for a global named by {shown(module)} and {shown(name)}")
        # Cut before they are joined: long texts cost a byte once, not with every mention.
        full = f"{module[:MAX_NAME]}.{name[:MAX_NAME]}"
        if max(len(module), len(name)) > MAX_NAME or not self.permits(full):
            raise RefusedError(
                f"asks for {shown(full)}, which is no tensor or plain container: refused; "
                "where it is your own file, save model.state_dict() instead"
            )
        self.stack.append(Global(full))

    def mark(self) -> None:
        """Remembers the height of the stack."""
        self.marks.append(len(self.stack))

    def pop_to_mark(self) -> list[Any]:
        """Takes everything above the last mark."""
        start = self.marks.pop()
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def append(self, items: list[Any]) -> None:
        """Appends to the list on top of the stack."""
        if type(self.stack[-1]) is not list:
            raise RefusedError(f"appends to {shown(self.stack[-1])}")
        self.stack[-1].extend(items)

    def set_items(self, items: list[Any]) -> None:
        """Sets keys and values, given in turn, of the dict on top."""
        if type(self.stack[-1]) is not dict:
            raise RefusedError(f"sets an item of {shown(self.stack[-1])}")
        set_keys(self.stack[-1], zip(items[::2], items[1::2], strict=True), self.budget)

    def reduce(self) -> None:
        """Calls a global with a tuple of arguments."""
        arguments, function = self.stack.pop(), self.stack.pop()
        if not isinstance(function, Global):
            raise RefusedError(f"calls {shown(function)}")
        if type(arguments) is not tuple:
            raise RefusedError(f"calls {shown(function)} with {shown(arguments)}")
        self.stack.append(self.call(function, arguments))

    def build(self) -> None:
        """Sets attributes of the object on top."""
        state, target = self.stack.pop(), self.stack[-1]
        # Module.state_dict() hangs its format versions, `_metadata`, on the dict as an attribute.
        if type(target) is not dict or type(state) is not dict or not state.keys() <= {"_metadata"}:
            raise RefusedError(f"sets attributes of {shown(target)}")

    def push_persistent(self) -> None:
        """Replaces an identity by the object that it stands for."""
        self.stack.append(self.persistent(self.stack.pop()))

    def memoize(self, index: int) -> None:
        """Keeps what is on top for later."""
        if index >= MAX_OPERATIONS:
            raise RefusedError(f"keeps a value under the number {index}")
        if index >= len(self.memo):
            self.memo.extend([_NOTHING] * (index + 1 - len(self.memo)))
        self.memo[index] = self.stack[-1]

    def recall(self, index: int) -> None:
        """Puts what was kept on the stack."""
        if self.memo[index] is _NOTHING:
            raise RefusedError(f"asks for a value that it has not kept, number {index}")
        self.stack.append(self.memo[index])


HANDLERS: dict[str, Callable[[Any, Any], None]] = {
    "PROTO": lambda machine, _: None,
    "FRAME": lambda machine, _: None,
    "MARK": lambda machine, _: machine.mark(),
    "NONE": lambda machine, _: machine.push(None),
    "NEWTRUE": lambda machine, _: machine.push(True),
    "NEWFALSE": lambda machine, _: machine.push(False),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1", "LONG4"), Machine.push_int),
    **dict.fromkeys(("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8", "BINFLOAT"), Machine.push),
    **dict.fromkeys(("BINSTRING", "SHORT_BINSTRING"), Machine.push_python2_text),
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
    **dict.fromkeys(("BINPUT", "LONG_BINPUT"), Machine.memoize),
    **dict.fromkeys(("BINGET", "LONG_BINGET"), Machine.recall),
    "GLOBAL": lambda machine, pair: machine.push_global(*pair.split(" ", 1)),
    "STACK_GLOBAL": lambda machine, _: machine.push_global(
        machine.stack.pop(-2), machine.stack.pop()
    ),
    "REDUCE": lambda machine, _: machine.reduce(),
    "BUILD": lambda machine, _: machine.build(),
    "BINPERSID": lambda machine, _: machine.push_persistent(),
}
