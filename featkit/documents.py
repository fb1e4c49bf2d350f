"""JSON that anyone may have written."""

from __future__ import annotations

import json
import re
from itertools import chain
from typing import Any

DEPTH = 100
"""Lists and objects within each other that a text may have: less than what recursion stands."""

_HALF = re.compile(r"\\u[dD][89a-fA-F]")


def parse_json(content: str | bytes) -> Any:
    """Return what a JSON text holds.

    Args:
        content: The text, or its UTF-8.

    Raises:
        ValueError: It is no JSON, no UTF-8, nested too deeply, or holds text that is none (half of
            a pair of surrogates).

    Example:
        >>> parse_json('{"a": [1, null]}')
        {'a': [1, None]}
        >>> parse_json("[" * 101 + "]" * 101)
        Traceback (most recent call last):
        ValueError: nested too deeply
    """
    text = content if isinstance(content, str) else content.decode("utf-8")
    try:
        value = json.loads(text)
        if _HALF.search(text):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if _is_deeper(value, DEPTH):
        raise ValueError("nested too deeply")
    return value


def _is_deeper(value: Any, most: int) -> bool:
    level = [value]
    for _ in range(most):
        inside = (x.values() if isinstance(x, dict) else x for x in level if _is_nested(x))
        level = list(chain.from_iterable(inside))
    return any(map(_is_nested, level))


def _is_nested(value: object) -> bool:
    return isinstance(value, dict | list)
