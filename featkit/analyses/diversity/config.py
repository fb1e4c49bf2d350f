"""Options of the diversity analysis."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from featkit.analyses.base import option
from featkit.errors import UsageError
from featkit.ops.hyperspherical_energy import Kernel, Space, check_potential

Over = Literal["samples", "units", "weights"]

_PAPER = "Malviya and Sudhakar, Feature diversity in self-supervised learning, sec. 3"


@dataclass(frozen=True)
class DiversityConfig:
    """Options of :class:`featkit.analyses.diversity.analysis.Diversity`."""

    taps: tuple[str, ...] = option(
        (), "Layers, such as conv1,res2,res4,head; all there are if none is named."
    )
    samples: int = option(
        500, "Images that the energy is taken over; all, if there are fewer.", _PAPER
    )
    repeats: int = option(10, "Times that other images are drawn.")
    seed: int = option(0, "Of the drawing, and of the probe's.")
    over: tuple[Over, ...] = option(
        ("samples", "units"), "What the points are: samples, units, weights (of the backbone)."
    )
    power: tuple[float, ...] = option((1.0,), "s, one energy each; 0 is the logarithm.")
    space: Space = option("full", "half also takes the opposite of every point.")
    kernel: Kernel = option("euclidean", "Distance, or angle.")
    family: str | None = option(
        None, "CSV: backbone, and any of epochs, width, depth, norm, method, parameters, error."
    )
    probe: bool = option(True, "Where there are labels, measure the error of a linear probe.")

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name, least in (("samples", 2), ("repeats", 1)):
            if getattr(self, name) < least:
                raise UsageError(f"{name} is {getattr(self, name)}: at least {least}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed is {self.seed}: give a whole number from 0 to 2^32 - 1")
        if not self.over or not self.power:
            raise UsageError("over and power: give at least one of each")
        for over in self.over:
            if over not in get_args(Over):
                raise UsageError(f"over {over!r}: use {', '.join(get_args(Over))}")
        for power in self.power:
            check_potential(power, self.space, self.kernel)
