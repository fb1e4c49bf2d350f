"""Which lines there are to be run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from types import CodeType

from tests.fuzzing.target import Target


def _functions(code: CodeType, inside: bool = False) -> Iterator[CodeType]:
    """Yield the code of all functions, which importing a module does not run."""
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            is_function = bool(constant.co_flags & 2)  # a class body has no fast locals
            if is_function:
                yield constant
            yield from _functions(constant, is_function)


def body_lines(file: str) -> set[int]:
    """Return the lines in the bodies of a file's functions."""
    code = compile(Path(file).read_text("utf-8"), file, "exec")
    return {
        line
        for function in _functions(code)
        for _, _, line in function.co_lines()
        if line is not None and line != function.co_firstlineno
    }


def share(target: Target, hit: Iterable[tuple[str, int]]) -> tuple[int, int]:
    """Return how many lines of a target's modules were run, and how many there are."""
    there = {(file, line) for file in target.files() for line in body_lines(file)}
    return len(there & set(hit)), len(there)
