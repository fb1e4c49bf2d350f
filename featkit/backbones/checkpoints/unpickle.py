"""Pickles read as plain data: nothing is imported, nothing is called.

A pickle is a program for a machine that imports and calls what it is told to. Here the standard
library's ``pickletools`` splits it into instructions, and a machine of our own carries out those
that make plain values. What names a class or function, or would call one, becomes a :class:`Stub`
that remembers how it was made.
"""

from __future__ import annotations

import pickletools
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from featkit.errors import CheckpointError, one_line

MOST_INSTRUCTIONS = 2_000_000
"""More than any checkpoint has; bounds the time and memory that a hostile pickle can take."""

_MOST_PLACES = 2**32
"""Of the memo: as many as the binary instructions reach."""

_LONGEST_NAME = 10_000
"""Of classes and functions."""


@dataclass(eq=False, repr=False, slots=True)
class Stub:
    """An object that was not made, and a class or function that was not imported.

    Attributes:
        name: Its class, or the function that would make it, as ``module.name``.
        args: What that would have been called with; None for the class or function itself.
        state: What the object would have been given to restore itself.
        elements: What would have been appended to it.
        entries: What would have been put into it by key.
    """

    name: str
    args: tuple[Any, ...] | None = None
    state: Any = None
    elements: list[Any] = field(default_factory=list)
    entries: dict[Any, Any] = field(default_factory=dict)


@dataclass(eq=False, repr=False, slots=True)
class Reference:
    """What a pickle says lies outside of it, such as the bytes of a tensor."""

    key: Any


@dataclass(eq=False, repr=False, slots=True)
class OtherKey:
    """A dictionary's key that is no string: what others hash to is for the file to choose.

    A hundred thousand numbers of one hash take hours to put into a dictionary; a tuple that holds
    itself twice, sixty times over, takes forever to hash.
    """

    key: Any


def unpickle(stream: BinaryIO, references: list[Reference] | None = None) -> Any:
    """Read one pickle and leave the stream behind its end.

    Args:
        stream: At the start of a pickle of any protocol.
        references: Gets every reference of the pickle appended.

    Returns:
        Numbers, strings, bytes, tuples, lists and dictionaries as they were, but for keys that are
        no strings (:class:`OtherKey`); sets as lists; everything else as :class:`Stub` or
        :class:`Reference`.

    Raises:
        CheckpointError: The bytes are no pickle, or have more than ``MOST_INSTRUCTIONS``.

    Cost:
        About 1 µs an instruction; memory in proportion to the pickle.

    Example:
        >>> import io, pickle, fractions
        >>> stub = unpickle(io.BytesIO(pickle.dumps(fractions.Fraction(1, 3))))
        >>> stub.name, stub.args
        ('fractions.Fraction', (1, 3))
    """
    machine = _Machine([] if references is None else references)
    try:
        for count, (instruction, argument, _) in enumerate(pickletools.genops(stream)):
            if count > MOST_INSTRUCTIONS:
                raise OverflowError(f"more than {MOST_INSTRUCTIONS:,} instructions")  # noqa: TRY301
            machine.step(instruction.name, argument)
        return machine.stack.pop()
    except Exception as error:  # damaged bytes can break any step
        raise CheckpointError(f"not a pickle, or damaged ({one_line(error, most=100)})") from error


class _Machine:
    """The pickle machine: its stack, the stacks below its marks, its memo."""

    def __init__(self, references: list[Reference]) -> None:
        self.references = references
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.named: dict[str, Stub] = {}

    def step(self, name: str, argument: Any) -> None:  # noqa: C901, PLR0912, PLR0915 - a table
        """Carry out one instruction."""
        match name:
            case "BINPUT" | "LONG_BINPUT" | "PUT":
                if not 0 <= argument < _MOST_PLACES:
                    raise ValueError("its memo has no such place")
                self.memo[argument] = self.stack[-1]
            case "MEMOIZE":
                self.memo[len(self.memo)] = self.stack[-1]
            case "BINGET" | "LONG_BINGET" | "GET":
                if argument not in self.memo:
                    raise ValueError("its memo has no such place")
                self.stack.append(self.memo[argument])
            case "MARK":
                self.below.append(self.stack)
                self.stack = []
            case "EMPTY_TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                items = self._take(int(name[-1]) if name[-1].isdigit() else 0)
                self.stack.append(tuple(items))
            case "TUPLE":
                items = self._since_mark()
                self.stack.append(tuple(items))
            case "LIST" | "FROZENSET":
                items = self._since_mark()
                self.stack.append(items)
            case "EMPTY_LIST" | "EMPTY_SET":
                self.stack.append([])
            case "APPEND":
                self._append(self._take(1))
            case "APPENDS" | "ADDITEMS":
                self._append(self._since_mark())
            case "EMPTY_DICT":
                self.stack.append({})
            case "DICT":
                items = self._since_mark()
                self.stack.append(_entries(items))
            case "SETITEM":
                self._put(self._take(2))
            case "SETITEMS":
                self._put(self._since_mark())
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                self.stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[name])
            case "GLOBAL":
                self._name(argument.replace(" ", "."))
            case "STACK_GLOBAL":
                self._name(".".join(self._take(2)))
            case "EXT1" | "EXT2" | "EXT4":
                self._name(f"extension.{argument}")
            case "REDUCE" | "NEWOBJ":
                self._make(*self._take(2))
            case "NEWOBJ_EX":
                self._make(*self._take(3)[:2])
            case "OBJ":
                maker, *items = self._since_mark()
                self._make(maker, tuple(items))
            case "INST":
                items = self._since_mark()
                self._make(Stub(argument.replace(" ", ".")), tuple(items))
            case "BUILD":
                (state,) = self._take(1)
                if isinstance(self.stack[-1], Stub):
                    self.stack[-1].state = state
            case "BINPERSID" | "PERSID":
                key = argument if name == "PERSID" else self.stack.pop()
                self.references.append(Reference(key))
                self.stack.append(self.references[-1])
            case "DUP":
                self.stack.append(self.stack[-1])
            case "POP" if self.stack:
                self.stack.pop()
            case "POP" | "POP_MARK":
                self._since_mark()
            case "NEXT_BUFFER" | "READONLY_BUFFER":
                raise ValueError("its buffers lie elsewhere")
            case "PROTO" | "FRAME" | "STOP":
                pass
            case _:
                self.stack.append(argument)

    def _since_mark(self) -> list[Any]:
        items = self.stack
        self.stack = self.below.pop()
        return items

    def _take(self, count: int) -> list[Any]:
        start = len(self.stack) - count
        if start < 0:
            raise ValueError("its stack is empty")
        items = self.stack[start:]
        del self.stack[start:]
        return items

    def _name(self, name: str) -> None:
        if len(name) > _LONGEST_NAME:
            raise ValueError(f"a class of a name of {len(name):,} characters")
        if name not in self.named:
            self.named[name] = Stub(name)
        self.stack.append(self.named[name])

    def _make(self, maker: Any, args: Any) -> None:
        name = maker.name if isinstance(maker, Stub) else type(maker).__name__
        self.stack.append(Stub(name, args if isinstance(args, tuple) else (args,)))

    def _append(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.elements if isinstance(target, Stub) else target).extend(items)

    def _put(self, items: list[Any]) -> None:
        target = self.stack[-1]
        (target.entries if isinstance(target, Stub) else target).update(_entries(items))


def _entries(items: list[Any]) -> dict[Any, Any]:
    keys = (key if isinstance(key, str) else OtherKey(key) for key in items[::2])
    return dict(zip(keys, items[1::2], strict=True))
