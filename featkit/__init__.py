"""Analyse the features of pretrained vision backbones.

Extract once, answer every question from the cache. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featkit.analyses.ensemble.representation import EnsembleRepresentation
    from featkit.backbones.base import Backbone, Network
    from featkit.backbones.resolve import load_backbone
    from featkit.data.preprocessing import Preprocessing
    from featkit.data.sources import open_source
    from featkit.errors import FeatkitError
    from featkit.extraction.pipeline import extract
    from featkit.ops.hyperspherical_energy import hyperspherical_energy
    from featkit.ops.hyperspherical_loss import HypersphericalLoss
    from featkit.ops.knn_classifier import KNNClassifier
    from featkit.ops.learned_concepts import LearnedConceptsEmbedding
    from featkit.ops.linear_probe import LinearProbe
    from featkit.store.reader import FeatureTable, Store, open_store

_HOME = {
    "Backbone": "featkit.backbones.base",
    "EnsembleRepresentation": "featkit.analyses.ensemble.representation",
    "FeatkitError": "featkit.errors",
    "FeatureTable": "featkit.store.reader",
    "HypersphericalLoss": "featkit.ops.hyperspherical_loss",
    "KNNClassifier": "featkit.ops.knn_classifier",
    "LearnedConceptsEmbedding": "featkit.ops.learned_concepts",
    "LinearProbe": "featkit.ops.linear_probe",
    "Network": "featkit.backbones.base",
    "Preprocessing": "featkit.data.preprocessing",
    "Store": "featkit.store.reader",
    "extract": "featkit.extraction.pipeline",
    "hyperspherical_energy": "featkit.ops.hyperspherical_energy",
    "load_backbone": "featkit.backbones.resolve",
    "open_source": "featkit.data.sources",
    "open_store": "featkit.store.reader",
}

__all__ = [
    "Backbone",
    "EnsembleRepresentation",
    "FeatkitError",
    "FeatureTable",
    "HypersphericalLoss",
    "KNNClassifier",
    "LearnedConceptsEmbedding",
    "LinearProbe",
    "Network",
    "Preprocessing",
    "Store",
    "__version__",
    "extract",
    "hyperspherical_energy",
    "load_backbone",
    "open_source",
    "open_store",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("featkit")
    if name not in _HOME:
        raise AttributeError(f"module 'featkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(_HOME[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
