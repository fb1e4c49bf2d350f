"""What can be chosen in a saliency analysis."""

from __future__ import annotations

from dataclasses import dataclass

from featkit.analyses.base import option
from featkit.errors import UsageError

COLOURS = ("red", "green", "blue")
"""Of the leaves that are laid over each other."""


@dataclass(frozen=True)
class SaliencyConfig:
    """Options of a saliency analysis, but for the network and the images.

    Raises:
        UsageError: A value is out of range.
    """

    images: int = option(500, "Images that leaves are judged by, drawn evenly over classes.")
    shown: int = option(10, "Of these, images that are shown, likewise.")
    overlay: tuple[int, ...] = option(
        (),
        "Leaves that are red, green and blue, by number from 0. Default: the three that are right "
        "most often.",
    )
    chance: int = option(1, "Networks with random weights to compare with.")
    shap: bool = option(
        False, "Attribute the score of the true class to pixels, by DeepLIFT-SHAP.", "sec. 7.2"
    )
    baselines: int = option(20, "Images that --shap compares with.")
    seed: int = option(0, "Of the images, and of random weights.")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name, least in {"images": 1, "shown": 1, "chance": 1, "baselines": 2}.items():
            if getattr(self, name) < least:
                raise UsageError(
                    f"{name} is {getattr(self, name)}: give a whole number, {least} or more"
                )
        if not 0 <= self.seed < 2**63:
            raise UsageError(f"seed is {self.seed}: give a whole number, 0 or more, below 2**63")
        different = len(set(self.overlay))
        if different not in (0, 2, 3) or different < len(self.overlay):
            raise UsageError(
                f"overlay is {','.join(map(str, self.overlay))}: give two or three different leaves"
            )

    def check_leaves(self, count: int) -> None:
        """Refuse an overlay of leaves that a network of ``count`` does not have."""
        for leaf in self.overlay:
            if not 0 <= leaf < count:
                raise UsageError(f"overlay has leaf {leaf}: there are {count}, numbered from 0")
