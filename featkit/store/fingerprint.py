"""What a table's numbers depend on, as a key that two runs can compare."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

Provenance = Mapping[str, Any]
"""JSON-able description of all that decides the numbers of a table."""


def canonical_json(value: object) -> str:
    """Return the one JSON text of a value: sorted keys, no spaces, no NaN.

    Example:
        >>> canonical_json({"b": 1, "a": [1.5, None]})
        '{"a":[1.5,null],"b":1}'
    """
    return json.dumps(
        value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False
    )


def fingerprint(provenance: Provenance) -> str:
    """Return the sha256 of the canonical JSON, as 64 hexadecimal digits.

    Example:
        >>> fingerprint({"a": 1}) == fingerprint(dict(a=1))
        True
        >>> fingerprint({"a": 1})[:8]
        '015abd7f'
    """
    return hashlib.sha256(canonical_json(provenance).encode()).hexdigest()


def signed_json(content: Mapping[str, Any]) -> str:
    """Return the text of a JSON file that has the sha256 of all of it, for :func:`check_digest`.

    Args:
        content: Of kinds that JSON has, and finite numbers.

    Example:
        >>> check_digest(json.loads(signed_json({"a": (1, 2)})))
        {'a': [1, 2]}
    """
    plain = json.loads(json.dumps(content, allow_nan=False))
    return json.dumps({**plain, "sha256": fingerprint(plain)}, indent=1) + "\n"


def check_digest(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the content of a JSON file without its sha256; one that has none is taken as it is.

    Raises:
        ValueError: It says other than what was written.

    Example:
        >>> check_digest(json.loads(signed_json({"a": 1})) | {"a": 2})
        Traceback (most recent call last):
        ValueError: it does not say what was written (its sha256 differs)
    """
    rest = {name: value for name, value in content.items() if name != "sha256"}
    if content.get("sha256") not in (None, fingerprint(rest)):
        raise ValueError("it does not say what was written (its sha256 differs)")
    return rest


def differences(old: Provenance, new: Provenance) -> list[str]:
    """Say in words where two provenances differ, one clause a field.

    Example:
        >>> differences({"tap": "fc", "size": [1, 2]}, {"tap": "fc", "size": [1, 3]})
        ['size: [1,2] there, [1,3] asked']
    """
    before, after = _flatten(old), _flatten(new)
    return [
        f"{name}: {_short(before.get(name))} there, {_short(after.get(name))} asked"
        for name in sorted(before | after)
        if before.get(name) != after.get(name)
    ]


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, item in value.items():
        if isinstance(item, Mapping):
            flat |= _flatten(item, f"{prefix}{name}.")
        else:
            flat[prefix + name] = item
    return flat


def _short(value: object) -> str:
    text = value if isinstance(value, str) else canonical_json(value)
    is_digest = len(text) == 64 and all(c in "0123456789abcdef" for c in text)
    return f"{text[:12]}…" if is_digest else text
