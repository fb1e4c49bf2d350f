"""x."""

from typing import Any


def claims_of(models: Any, epochs: Any, small: bool) -> Any:
    return []


def figures_of(models: Any, epochs: Any) -> Any:
    return []
