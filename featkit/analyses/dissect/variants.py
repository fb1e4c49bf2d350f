"""The published ways to dissect a network, which differ in more than a constant."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from featkit.ops.concept_tally import Union
from featkit.ops.upsampling import Border

Name: TypeAlias = Literal["dissect", "netdissect", "netdissect-lite"]


@dataclass(frozen=True)
class Variant:
    """How activations become masks, and what they are divided by.

    Attributes:
        share: Of the numbers that decide a unit's level, how many exceed it.
        upsampled: Whether these numbers are those of the cells, or of the map's own places.
        border: How maps are brought to the cells.
        pixels: Of the network's input, a cell's height and width.
        union: Which active places an intersection is divided by.
    """

    share: float
    upsampled: bool
    border: Border
    pixels: int
    union: Union


VARIANTS: Mapping[Name, Variant] = {
    "dissect": Variant(0.01, True, "fade", 4, "everywhere"),
    # entry round(1000 · 0.005) of a table of 1,000 quantiles from the largest down, counted from 1
    "netdissect": Variant(5 / 999, False, "corner", 2, "category"),
    "netdissect-lite": Variant(5 / 999, False, "clamp", 2, "category under the mask"),
}
"""By name.

Deviations: a place counts once for a concept that several layers have there (NetDissect-Lite counts
it for each); the first published code counts label 0 (unlabelled) as a concept, which is left out
here. Levels are exact where places are not too many, and else those of a sample, whose error is
stated; the published code approximates all of them, with a sketch or a table.

Source: Bau et al. 2020, arXiv:2009.05041 (davidbau/dissect at 9421eaa); Bau et al. 2017,
arXiv:1704.05796 (CSAILVision/NetDissect and NetDissect-Lite).
"""
