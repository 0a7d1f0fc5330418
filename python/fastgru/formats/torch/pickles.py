"""A reader and writer of the subset of pickle that state_dicts use, which executes no code of the file.

A pickle is a program for a stack machine. This machine supports only the instructions that make plain data: numbers,
strings, tuples, lists and dicts. A class or function is represented by its name, and a call looks this name up in a
table of the caller. All other instructions and names raise an error.

The machine does not use recursion, so deep nesting is harmless. Values may contain themselves, so code that walks
through them must not recurse either.
"""

from __future__ import annotations

import io
import pickletools
import struct
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

#: The size of one pickle. A state_dict of 1,000 tensors takes 200 KB; one byte may become 100 bytes of objects.
_MOST_BYTES = 2**20


class PickleError(ValueError):
    """The data are not a pickle of plain data; the message gives the reason."""


class ForeignError(PickleError):
    """The pickle contains more than a state_dict; the message names what to save instead."""

    def __init__(self, problem: str) -> None:
        super().__init__(f"{problem}: save model.state_dict() alone")


@dataclass(frozen=True)
class Global:
    """The name of a class or function."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


@dataclass(frozen=True)
class Call:
    """A call of a function; used for writing only."""

    function: Global
    arguments: tuple[Any, ...]


@dataclass(frozen=True)
class Persistent:
    """The identity of an object outside of the pickle; used for writing only."""

    identity: Any


# --- Reading ------------------------------------------------------------------------------------------------------


def load(
    stream: io.BytesIO,
    *,
    calls: Mapping[str, Callable[[tuple[Any, ...]], Any]],
    names: Collection[str],
    persistent: Callable[[Any], Any],
) -> Any:
    """Read the pickle at the current position of the stream, which is left after its end.

    Parameters
    ----------
    stream : BytesIO
    calls : mapping
        ``module.name`` of each function that may be called -> a function from the tuple of arguments to the result.
    names : collection of str
        Other names that may occur.
    persistent : callable
        Returns an object outside of the pickle from its identity.

    Raises
    ------
    PickleError
        The pickle is damaged, or holds more than plain data. The given functions raise it as well.
    """
    machine = _Machine(calls, {*calls, *names}, persistent)
    try:
        for instruction, argument in _instructions(stream):
            machine.do(instruction, argument)
    except PickleError:
        raise
    except (ValueError, LookupError) as error:  # no UTF-8, an empty stack
        raise PickleError(f"damaged: {error}") from None
    return machine.result()


def _instructions(stream: io.BytesIO) -> Iterator[tuple[str, Any]]:
    """The instructions with their arguments; an unsupported one raises before its argument is read."""
    end = stream.tell() + _MOST_BYTES
    instruction = ""
    while instruction != "STOP":
        instruction = _NAMES.get(_taken(stream, 1), "of an unknown code")
        if instruction not in _FOLLOWED:
            raise ForeignError(f"holds more than plain data: the instruction {instruction} is not supported")
        yield instruction, _argument(stream, instruction)
        if stream.tell() > end:
            raise PickleError(
                f"expected a pickle of at most {_MOST_BYTES:,} bytes because a state_dict is smaller, got a larger one"
            )


def _argument(stream: io.BytesIO, instruction: str) -> Any:
    if instruction in _NUMBERS:
        return _number(stream, _NUMBERS[instruction])
    if instruction in _SIZES:
        content = _taken(stream, int(_number(stream, _SIZES[instruction])))
        return int.from_bytes(content, "little", signed=True) if instruction == "LONG1" else content.decode()
    if instruction == "GLOBAL":
        return tuple(stream.readline().decode().removesuffix("\n") for _ in range(2))
    return None


def _number(stream: io.BytesIO, layout: str) -> int | float:
    (value,) = struct.unpack(layout, _taken(stream, struct.calcsize(layout)))
    return value  # type: ignore[no-any-return]


def _taken(stream: io.BytesIO, size: int) -> bytes:
    content = stream.read(min(size, _MOST_BYTES))
    if len(content) < size:
        raise PickleError("damaged: it ends too early")
    return content


class _Machine:
    """The stack and the memo of a pickle machine, and its instructions."""

    def __init__(
        self,
        calls: Mapping[str, Callable[[tuple[Any, ...]], Any]],
        names: Collection[str],
        persistent: Callable[[Any], Any],
    ) -> None:
        self._calls, self._names, self._persistent = calls, names, persistent
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def do(self, instruction: str, argument: Any) -> None:
        if instruction in _LITERALS:
            self._stack.append(argument)
        elif instruction in _CONSTANTS:
            self._stack.append(_CONSTANTS[instruction])
        elif instruction in _TUPLES:
            self._gather(len(self._stack) - _TUPLES[instruction])
        elif instruction in _ACTIONS:
            _ACTIONS[instruction](self, argument)

    def result(self) -> Any:
        if len(self._stack) != 1:
            raise PickleError(f"damaged: expected one value at its end, got {len(self._stack)}")
        return self._stack[0]

    def _mark(self, _: None) -> None:
        self._marks.append(len(self._stack))

    def _since_mark(self) -> list[Any]:
        begin = self._marks.pop()
        values = self._stack[begin:]
        del self._stack[begin:]
        return values

    def _gather(self, begin: int) -> None:
        if begin < 0:
            raise PickleError("damaged: its stack is empty")
        self._stack[begin:] = [tuple(self._stack[begin:])]

    def _tuple(self, _: None) -> None:
        self._stack.append(tuple(self._since_mark()))

    def _append(self, _: None) -> None:
        self._extend([self._stack.pop()])

    def _appends(self, _: None) -> None:
        self._extend(self._since_mark())

    def _extend(self, values: list[Any]) -> None:
        self._top(list).extend(values)

    def _set_item(self, _: None) -> None:
        value, key = self._stack.pop(), self._stack.pop()
        self._update([key, value])

    def _set_items(self, _: None) -> None:
        self._update(self._since_mark())

    def _update(self, flat: list[Any]) -> None:
        target = self._top(dict)
        for key, value in zip(flat[::2], flat[1::2], strict=True):
            if type(key) not in (str, int):  # hashing a deep tuple would recurse
                raise PickleError(f"expected strings and integers as keys, got a {type(key).__name__}")
            target[key] = value

    def _top(self, kind: type) -> Any:
        if type(self._stack[-1]) is not kind:
            raise PickleError(f"damaged: expected a {kind.__name__}, got a {type(self._stack[-1]).__name__}")
        return self._stack[-1]

    def _put(self, index: int) -> None:
        self._memo[index] = self._stack[-1]

    def _memoize(self, _: None) -> None:
        self._put(len(self._memo))

    def _get(self, index: int) -> None:
        self._stack.append(self._memo[index])

    def _global(self, argument: tuple[str, str]) -> None:
        self._name(*argument)

    def _stack_global(self, _: None) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise PickleError("damaged: expected the name of a class or function as strings")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        found = Global(module, name)
        if str(found) not in self._names:
            printable = str(found).encode("unicode_escape").decode()
            raise ForeignError(f"holds a {printable:.200}, which is not plain data")
        self._stack.append(found)

    def _reduce(self, _: None) -> None:
        arguments, function = self._stack.pop(), self._stack.pop()
        if not isinstance(function, Global) or str(function) not in self._calls or type(arguments) is not tuple:
            raise ForeignError("holds more than plain data: a call that is not supported")
        self._stack.append(self._calls[str(function)](arguments))

    def _build(self, _: None) -> None:
        """Discard the attributes of an OrderedDict; those of a state_dict are ``_metadata``."""
        del self._stack[-1]
        self._top(dict)

    def _persistent_id(self, _: None) -> None:
        self._stack.append(self._persistent(self._stack.pop()))


_NAMES = {opcode.code.encode("latin-1"): opcode.name for opcode in pickletools.opcodes}
#: Instruction -> the layout of its argument, a number.
_NUMBERS = {
    "BININT": "<i",
    "BININT1": "<B",
    "BININT2": "<H",
    "BINFLOAT": ">d",
    "BINPUT": "<B",
    "LONG_BINPUT": "<I",
    "BINGET": "<B",
    "LONG_BINGET": "<I",
    "PROTO": "<B",
    "FRAME": "<Q",
}
#: Instruction -> the layout of the size that precedes its argument.
_SIZES = {"LONG1": "<B", "SHORT_BINUNICODE": "<B", "BINUNICODE": "<I", "BINUNICODE8": "<Q"}
#: Instructions whose argument is the value.
_LITERALS = frozenset(
    ["BININT", "BININT1", "BININT2", "LONG1", "BINFLOAT", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"]
)
_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
#: Instruction -> the number of values that it combines into a tuple.
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_ACTIONS: dict[str, Callable[[_Machine, Any], None]] = {
    "EMPTY_DICT": lambda machine, _: machine._stack.append({}),
    "EMPTY_LIST": lambda machine, _: machine._stack.append([]),
    "MARK": _Machine._mark,
    "TUPLE": _Machine._tuple,
    "APPEND": _Machine._append,
    "APPENDS": _Machine._appends,
    "SETITEM": _Machine._set_item,
    "SETITEMS": _Machine._set_items,
    "BINPUT": _Machine._put,
    "LONG_BINPUT": _Machine._put,
    "MEMOIZE": _Machine._memoize,
    "BINGET": _Machine._get,
    "LONG_BINGET": _Machine._get,
    "GLOBAL": _Machine._global,
    "STACK_GLOBAL": _Machine._stack_global,
    "REDUCE": _Machine._reduce,
    "BUILD": _Machine._build,
    "BINPERSID": _Machine._persistent_id,
}
_FOLLOWED = frozenset({"PROTO", "FRAME", "STOP"}).union(_LITERALS, _CONSTANTS, _TUPLES, _ACTIONS)


# --- Writing ------------------------------------------------------------------------------------------------------


def dump(value: Any) -> bytes:
    """A pickle (protocol 2) of booleans, integers, strings, tuples, dicts, and the classes of this module."""
    return b"\x80\x02" + _encoded(value) + b"."


def _encoded(value: Any) -> bytes:
    match value:
        case bool():
            return b"\x88" if value else b"\x89"
        case int():
            return _encoded_integer(value)
        case str():
            text = value.encode()
            return b"X" + struct.pack("<I", len(text)) + text
        case tuple():
            return b"(" + b"".join(map(_encoded, value)) + b"t"
        case dict():
            return b"}(" + b"".join(_encoded(key) + _encoded(item) for key, item in value.items()) + b"u"
        case Global(module, name):
            return f"c{module}\n{name}\n".encode()
        case Call(function, arguments):
            return _encoded(function) + _encoded(arguments) + b"R"
        case Persistent(identity):
            return _encoded(identity) + b"Q"
        case _:
            raise TypeError(f"value: expected plain data, got {type(value).__name__}")


def _encoded_integer(value: int) -> bytes:
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    content = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(content)]) + content
