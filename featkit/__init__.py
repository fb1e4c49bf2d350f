"""Analyse the features of pretrained vision backbones.

Extract once, answer every question from the cache. Nothing heavy is imported before it is used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from featkit.analyses.dissect.analysis import dissect
    from featkit.analyses.dissect.config import DissectConfig
    from featkit.analyses.ensemble.representation import EnsembleRepresentation
    from featkit.analyses.saliency.analysis import saliency
    from featkit.analyses.saliency.config import SaliencyConfig
    from featkit.backbones.base import Backbone, Network
    from featkit.backbones.resolve import load_backbone
    from featkit.data.preprocessing import Preprocessing
    from featkit.data.sources import open_source
    from featkit.errors import FeatkitError
    from featkit.extraction.pipeline import extract
    from featkit.ops.approximate import ApproximateNeighbors
    from featkit.ops.average_precision import eleven_point_average_precision
    from featkit.ops.byol_loss import byol_loss
    from featkit.ops.calibration import expected_calibration_error, fit_temperature
    from featkit.ops.cka import linear_cka
    from featkit.ops.dino_loss import dino_loss
    from featkit.ops.few_shot import mean_interval, prototype_accuracy, sample_episodes
    from featkit.ops.hyperspherical_energy import hyperspherical_energy
    from featkit.ops.hyperspherical_loss import HypersphericalLoss
    from featkit.ops.knn_classifier import KNNClassifier
    from featkit.ops.leaf_losses import leaf_contrastive, leaf_cosine
    from featkit.ops.learned_concepts import LearnedConceptsEmbedding
    from featkit.ops.linear_classifier import LinearEvaluation
    from featkit.ops.linear_probe import LinearProbe
    from featkit.ops.neighbors import nearest_neighbors
    from featkit.ops.nt_xent import nt_xent
    from featkit.ops.probe_protocols import learn_probe
    from featkit.ops.projection import project
    from featkit.ops.proportions import paired_test, proportion_interval
    from featkit.ops.rank_correlation import rank_correlation
    from featkit.ops.row_sources import SelectedRows
    from featkit.ops.sampled_energy import sample_energy
    from featkit.ops.similarity import neighbor_overlap
    from featkit.ops.spectrum import (
        decay_exponent,
        effective_rank,
        participation_ratio,
        singular_values,
    )
    from featkit.ops.uniformity import alignment, uniformity
    from featkit.ops.unit_correlation import mean_absolute_correlation, spectral_evenness
    from featkit.report.page import write_report
    from featkit.store.reader import FeatureTable, Store, open_store
    from featkit.trainers.alignment import initial_alignment
    from featkit.trainers.training import train

_HOME = {
    "ApproximateNeighbors": "featkit.ops.approximate",
    "Backbone": "featkit.backbones.base",
    "DissectConfig": "featkit.analyses.dissect.config",
    "EnsembleRepresentation": "featkit.analyses.ensemble.representation",
    "FeatkitError": "featkit.errors",
    "FeatureTable": "featkit.store.reader",
    "HypersphericalLoss": "featkit.ops.hyperspherical_loss",
    "KNNClassifier": "featkit.ops.knn_classifier",
    "LearnedConceptsEmbedding": "featkit.ops.learned_concepts",
    "LinearEvaluation": "featkit.ops.linear_classifier",
    "LinearProbe": "featkit.ops.linear_probe",
    "Network": "featkit.backbones.base",
    "Preprocessing": "featkit.data.preprocessing",
    "SaliencyConfig": "featkit.analyses.saliency.config",
    "SelectedRows": "featkit.ops.row_sources",
    "Store": "featkit.store.reader",
    "alignment": "featkit.ops.uniformity",
    "byol_loss": "featkit.ops.byol_loss",
    "decay_exponent": "featkit.ops.spectrum",
    "dino_loss": "featkit.ops.dino_loss",
    "dissect": "featkit.analyses.dissect.analysis",
    "effective_rank": "featkit.ops.spectrum",
    "eleven_point_average_precision": "featkit.ops.average_precision",
    "expected_calibration_error": "featkit.ops.calibration",
    "extract": "featkit.extraction.pipeline",
    "fit_temperature": "featkit.ops.calibration",
    "hyperspherical_energy": "featkit.ops.hyperspherical_energy",
    "initial_alignment": "featkit.trainers.alignment",
    "leaf_contrastive": "featkit.ops.leaf_losses",
    "leaf_cosine": "featkit.ops.leaf_losses",
    "learn_probe": "featkit.ops.probe_protocols",
    "linear_cka": "featkit.ops.cka",
    "load_backbone": "featkit.backbones.resolve",
    "mean_absolute_correlation": "featkit.ops.unit_correlation",
    "mean_interval": "featkit.ops.few_shot",
    "nearest_neighbors": "featkit.ops.neighbors",
    "neighbor_overlap": "featkit.ops.similarity",
    "nt_xent": "featkit.ops.nt_xent",
    "open_source": "featkit.data.sources",
    "open_store": "featkit.store.reader",
    "paired_test": "featkit.ops.proportions",
    "participation_ratio": "featkit.ops.spectrum",
    "project": "featkit.ops.projection",
    "proportion_interval": "featkit.ops.proportions",
    "prototype_accuracy": "featkit.ops.few_shot",
    "rank_correlation": "featkit.ops.rank_correlation",
    "saliency": "featkit.analyses.saliency.analysis",
    "sample_energy": "featkit.ops.sampled_energy",
    "sample_episodes": "featkit.ops.few_shot",
    "singular_values": "featkit.ops.spectrum",
    "spectral_evenness": "featkit.ops.unit_correlation",
    "train": "featkit.trainers.training",
    "uniformity": "featkit.ops.uniformity",
    "write_report": "featkit.report.page",
}

__all__ = [
    "ApproximateNeighbors",
    "Backbone",
    "DissectConfig",
    "EnsembleRepresentation",
    "FeatkitError",
    "FeatureTable",
    "HypersphericalLoss",
    "KNNClassifier",
    "LearnedConceptsEmbedding",
    "LinearEvaluation",
    "LinearProbe",
    "Network",
    "Preprocessing",
    "SaliencyConfig",
    "SelectedRows",
    "Store",
    "__version__",
    "alignment",
    "byol_loss",
    "decay_exponent",
    "dino_loss",
    "dissect",
    "effective_rank",
    "eleven_point_average_precision",
    "expected_calibration_error",
    "extract",
    "fit_temperature",
    "hyperspherical_energy",
    "initial_alignment",
    "leaf_contrastive",
    "leaf_cosine",
    "learn_probe",
    "linear_cka",
    "load_backbone",
    "mean_absolute_correlation",
    "mean_interval",
    "nearest_neighbors",
    "neighbor_overlap",
    "nt_xent",
    "open_source",
    "open_store",
    "paired_test",
    "participation_ratio",
    "project",
    "proportion_interval",
    "prototype_accuracy",
    "rank_correlation",
    "saliency",
    "sample_energy",
    "sample_episodes",
    "singular_values",
    "spectral_evenness",
    "train",
    "uniformity",
    "write_report",
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
