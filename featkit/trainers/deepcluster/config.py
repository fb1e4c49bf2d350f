"""What DeepCluster can be told."""

from __future__ import annotations

from dataclasses import dataclass

from featkit.analyses.base import option
from featkit.errors import UsageError
from featkit.trainers.settings import check_numbers

_ORIGINAL = "DeepCluster, main.py and clustering.py"

ALIASES = {"alexnet": "alexnet96_bn_sobel"}
"""Networks that are called otherwise here than elsewhere: DeepCluster's AlexNet."""


@dataclass(frozen=True)
class DeepClusterConfig:
    """Network, clustering and views of DeepCluster."""

    arch: str = option(
        "alexnet",
        "alexnet (sobel, batch normalisation), alexnet96_bn, alexnet32, alexnet32_sobel, lenet5; "
        "any other of featkit's, torchvision:NAME, timm:NAME.",
        "sec. 4.4.1",
    )
    clusters: int = option(10_000, "k.", _ORIGINAL)
    cycles: int = option(200, "N_c: times that the images are clustered and learned.", _ORIGINAL)
    cycle_epochs: int = option(1, "N_e: epochs of a cycle.", "sec. 4.2")
    halt: float | None = option(
        None,
        "Last cycle that clusters; later ones keep labels and head. Below 1: a share of the "
        "cycles. Default: the last.",
    )
    pca: int = option(256, "Dimensions that are whitened and clustered; 0: as they are.", _ORIGINAL)
    iterations: int = option(20, "Of k-means.", _ORIGINAL)
    fit_share: float = option(1.0, "Share of the images that k-means is fitted on.", _ORIGINAL)
    crop: float = option(0.08, "Least share of an image's area in a view.", "torchvision")
    select_init: int = option(
        1, "Untrained networks of which the one whose features look best, without labels, is taken."
    )

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        least = {"clusters": 2, "cycles": 1, "cycle_epochs": 1, "pca": 0, "iterations": 1}
        check_numbers(self, least | {"select_init": 1}, whole=True)
        check_numbers(self, {"halt": 0, "fit_share": 0, "crop": 0})
        for name in ("fit_share", "crop"):
            if not 0 < getattr(self, name) <= 1:
                said = f"{name} is {getattr(self, name)!r}"
                raise UsageError(f"{said}: give a share above 0, up to 1")
        if self.halt is not None and (not self.halt or (self.halt > 1 and self.halt % 1)):
            raise UsageError(
                f"halt is {self.halt!r}: give the number of a cycle, 1 or more, or a share of the "
                f"cycles, above 0 and below 1"
            )

    @property
    def epochs(self) -> int:
        """Of the training."""
        return self.cycles * self.cycle_epochs

    @property
    def clusterings(self) -> int:
        """How many cycles cluster, 1 to all.

        Example:
            >>> thesis = {"cycles": 150, "halt": 2 / 3}
            >>> DeepClusterConfig(**thesis).clusterings, DeepClusterConfig(halt=15).clusterings
            (100, 15)
        """
        if self.halt is None:
            return self.cycles
        last = round(self.halt * self.cycles) if self.halt < 1 else int(self.halt)
        return max(1, min(last, self.cycles))

    @property
    def architecture(self) -> str:
        """What is trained, by the name that :func:`featkit.backbones.architectures.build` knows."""
        return ALIASES.get(self.arch, self.arch)
