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
    clusters: int = option(10_000, "k: what the head tells apart.", _ORIGINAL)
    cycles: int = option(200, "N_c: times that the images are clustered and learned.", _ORIGINAL)
    cycle_epochs: int = option(1, "N_e: epochs of a cycle.", "sec. 4.2")
    halt: float | None = option(
        None,
        "Last cycle that clusters, 1 for the first; later ones keep labels and head. Below 1: a "
        "share of the cycles. Default: the last.",
    )
    pca: int = option(
        256, "Principal components that are whitened and clustered; 0: features as they are.",
        _ORIGINAL,
    )  # fmt: skip
    iterations: int = option(20, "Of k-means, in each cycle.", _ORIGINAL)
    fit_share: float = option(1.0, "Share of the images that k-means is fitted on.", _ORIGINAL)
    crop: float = option(0.08, "Least share of an image's area in a random crop.", "torchvision")
    select_init: int = option(
        1,
        "Start with the best of so many untrained networks: the one whose clusters of images and "
        "of views of them agree most. Needs no labels.",
    )

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        least = {"clusters": 2, "cycles": 1, "cycle_epochs": 1, "pca": 0, "iterations": 1}
        check_numbers(self, least | {"select_init": 1}, whole=True)
        check_numbers(self, {"fit_share": 0, "crop": 0})
        if self.pca == 1:
            raise UsageError("pca is 1: what has one dimension and length 1 is 1 or -1; give more")
        for name in ("fit_share", "crop"):
            if not 0 < getattr(self, name) <= 1:
                said = f"{name} is {getattr(self, name)!r}"
                raise UsageError(f"{said}: give a share above 0, up to 1")
        halt = self.halt
        is_number = isinstance(halt, int | float) and not isinstance(halt, bool)
        if halt is not None and not (
            is_number and (0 < halt < 1 or (1 <= halt <= self.cycles and halt % 1 == 0))
        ):
            raise UsageError(
                f"halt is {halt!r}: give the number of a cycle, 1 to {self.cycles}, or a share of "
                f"the cycles, above 0 and below 1"
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
        return max(1, round(self.halt * self.cycles)) if self.halt < 1 else int(self.halt)

    @property
    def architecture(self) -> str:
        """What is trained, by the name that :func:`featkit.backbones.architectures.build` knows."""
        return ALIASES.get(self.arch, self.arch)
