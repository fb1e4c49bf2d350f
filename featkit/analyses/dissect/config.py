"""What can be chosen in a dissection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from featkit.analyses.base import option
from featkit.analyses.dissect.variants import Name
from featkit.errors import UsageError


@dataclass(frozen=True)
class DissectConfig:
    """Options of a dissection, but for the network and the concepts.

    Raises:
        UsageError: A value is out of range.
    """

    variant: Name = option("dissect", "How masks and IoU are made.", "Bau et al. 2020")
    quantile: float | None = option(
        None, "Share of numbers above a unit's level. Default: 0.01 (dissect), 0.005 (the others)."
    )
    min_iou: float = option(0.04, "A unit detects a concept above this IoU.", "Bau et al. 2017")
    parts: Literal["quad"] | None = option(
        None, "quad adds top, left, bottom and right of each object."
    )
    top: int = option(5, "Images shown of a unit.")
    draws: int = option(100, "Of the bootstrap over images; 0 for none.")
    chance: int = option(
        3, "Networks of the same shape with random weights to compare with; 0 for none."
    )
    seed: int = option(0, "Of the bootstrap, of samples of places, and of random weights.")

    def __post_init__(self) -> None:
        if self.quantile is not None and not 0 < self.quantile < 1:
            raise UsageError(f"quantile {self.quantile}: give a share between 0 and 1, as 0.01")
        if not 0 <= self.min_iou < 1:
            raise UsageError(f"min_iou {self.min_iou}: give a number from 0 to 1, as 0.04")
        if min(self.top, self.draws, self.chance, self.seed) < 0:
            raise UsageError(
                f"top {self.top}, draws {self.draws}, chance {self.chance}, seed {self.seed}: give"
                " whole numbers, 0 or more"
            )
        if self.seed >= 2**63:
            raise UsageError(f"seed {self.seed}: give a number below 2**63")
