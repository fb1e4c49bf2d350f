"""Options of the Learned Concepts Embedding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from featkit.analyses.base import option
from featkit.errors import UsageError

Counted = Literal["units", "shares"]

_THESIS = "Mustapha 2021, sec. 3.4"

_LEAST = 19
"""Permutations of which one is 5 %, with what was seen itself."""

MOST_GROUPS = 26
"""They are called by letters."""


@dataclass(frozen=True)
class LCEConfig:
    """Options of :class:`featkit.analyses.lce.analysis.LCE`."""

    counted: Counted = option(
        "units",
        "What profiles hold: units of each concept, or their shares of all units of the model "
        "(for models of different widths).",
        _THESIS,
    )
    k: int | None = option(
        None, "Groups, found by k-means; by default 2 to 4, whichever has the best silhouette."
    )
    groups: str | None = option(None, "CSV with your own groups: model, group.")
    concept: tuple[str, ...] = option(
        (), "Concepts to hold against the components one by one; can be given several times."
    )
    scores: str | None = option(
        None, "CSV of downstream scores or hyper-parameters: model, and columns of numbers."
    )
    permutations: int = option(
        1000, "Of every column, for what components explain where no concepts go together."
    )
    seed: int = option(0, "Of permutations and k-means.")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        if self.counted not in get_args(Counted):
            raise UsageError(f"counted {self.counted!r}: use {' or '.join(get_args(Counted))}")
        if self.k is not None and self.groups is not None:
            raise UsageError("k and groups: give one of them")
        if self.k is not None and not 1 <= self.k <= MOST_GROUPS:
            raise UsageError(f"k is {self.k}: give a whole number from 1 to {MOST_GROUPS}")
        if self.permutations < _LEAST:
            raise UsageError(f"permutations is {self.permutations}: give {_LEAST} or more")
        if self.seed < 0:
            raise UsageError(f"seed is {self.seed}: give a whole number, at least 0")
