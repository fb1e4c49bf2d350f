"""From what a user writes after ``--concepts`` to a source of labelled pixels."""

from __future__ import annotations

import re
from collections.abc import Sequence

from featkit.backbones.segmenters.network import NetworkConcepts
from featkit.backbones.segmenters.upp import open_upp
from featkit.data.concepts.base import ConceptSource
from featkit.data.concepts.merge import MergedConcepts
from featkit.data.concepts.quads import QuadParts
from featkit.data.concepts.sources import LABELLED
from featkit.errors import SourceError, UsageError
from featkit.registry import did_you_mean

_NETWORKS = ("torchvision", "hf", "upp")
_WANTED = (
    "concepts are masks:DIR, panoptic:JSON, color, texture, torchvision:NAME, hf:OWNER/REPO or "
    "upp:CHECKPOINT"
)


def open_concepts(
    specs: str | Sequence[str], parts: str | None = None, device: str = "cpu"
) -> ConceptSource:
    """Open one source of concepts or several as one.

    Args:
        specs: Each of

            - ``masks:DIR``, label maps called like the images: see
              :func:`featkit.data.concepts.layouts.open_masks`,
            - ``panoptic:JSON`` (``?masks=DIR``), COCO panoptic annotations,
            - ``color``, the eleven basic colours,
            - ``texture``, edge orientation and blur,
            - ``torchvision:NAME``, a segmentation network (``?weights=none&seed=0``: random),
            - ``hf:OWNER/REPO`` (``?revision=``), one of transformers,
            - ``upp:CHECKPOINT`` (``?labels=JSON``), Unified Perceptual Parsing.
        parts: ``quad`` adds the top, left, bottom and right part of each object.
        device: Where networks run.

    Returns:
        The source; several give their layers in the order of ``specs``.

    Raises:
        SourceError: A source does not exist or cannot be understood.
        BackboneError: A network does not exist or cannot be loaded.
        UsageError: ``parts`` is unknown, or there is no source.

    Example:
        >>> [c.name for c in open_concepts("color").concepts][:3]
        ['black', 'blue', 'brown']
        >>> open_concepts("colour")
        Traceback (most recent call last):
        featkit.errors.SourceError: 'colour': did you mean color?
    """
    if parts not in (None, "quad"):
        raise UsageError(f"parts {parts!r} of objects are unknown: there is quad")
    sources = [_open(spec, device) for spec in ([specs] if isinstance(specs, str) else specs)]
    if not sources:
        raise UsageError(f"no concepts are given; {_WANTED}")
    source = sources[0] if len(sources) == 1 else MergedConcepts(sources)
    return source if parts is None else QuadParts(source)


def _open(spec: str, device: str) -> ConceptSource:
    kind = re.split("[:?]", spec, maxsplit=1)[0]
    if kind in LABELLED:
        return LABELLED[kind](spec)
    if kind == "torchvision":
        from featkit.backbones.segmenters.torchvision_networks import open_torchvision_segmenter

        return open_torchvision_segmenter(spec, device)
    if kind == "hf":
        from featkit.backbones.segmenters.transformers_networks import open_transformers_segmenter

        return open_transformers_segmenter(spec, device)
    if kind == "upp":
        return open_upp(spec, device)
    hint = did_you_mean(kind, [*LABELLED, *_NETWORKS])
    told = f"{hint.removesuffix('?')}{spec[len(kind) :]}?" if "did you mean" in hint else _WANTED
    raise SourceError(f"{spec!r}: {told}")


def runs_network(source: ConceptSource) -> bool:
    """Whether labelling runs a network, which must not be done in a process of its own."""
    inner = getattr(source, "source", None)
    parts = getattr(source, "sources", () if inner is None else (inner,))
    return isinstance(source, NetworkConcepts) or any(map(runs_network, parts))
