"""How models relate by the concepts that their units detect."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import Input, Result, describe_run
from featkit.analyses.lce.config import LCEConfig
from featkit.analyses.lce.correlations import correlate_components
from featkit.analyses.lce.figures import abstracted_figures, embedding_figures, loading_figures
from featkit.analyses.lce.model_csv import read_groups, read_scores
from featkit.analyses.lce.profiles import Profiles, read_profiles
from featkit.analyses.lce.tables import (
    COMPONENTS,
    abstracted_rows,
    add_concepts,
    embedding_rows,
    find_families,
    loading_rows,
    profile_rows,
)
from featkit.errors import UsageError
from featkit.ops.concept_profile import normalize_profiles
from featkit.ops.grouping import distinct_points, group_points
from featkit.ops.learned_concepts import LearnedConceptsEmbedding, explained_by_chance

Doubles: TypeAlias = NDArray[np.float64]

_MOST_TRIED = 4
"""Groups that the silhouette chooses among go up to this."""

_LEVEL = 0.05

_ROUNDING = 1e-12
"""Shares that differ by less are the same."""

_SHOWN: Mapping[str, tuple[str, ...]] = {"embedding": (), "components": ()}

_SHOWN_TESTS = {
    "correlations": (
        "family", "quantity", "component", "n", "pearson", "pearson_holm", "spearman",
        "spearman_holm",
    )
}  # fmt: skip


class LCE:
    """How models relate by the concepts that their units detect: the Learned Concepts Embedding.

    Principal components of how many units of each model detect each concept. Models are called by
    their backbone, with the tap where one backbone is dissected at several.
    """

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("DIR", "folders that featkit dissect -o has written", several=True, of="dissect"),
    )
    requires: ClassVar[frozenset[str]] = frozenset()
    Config: ClassVar[type[Any]] = LCEConfig

    def __init__(self, config: LCEConfig | None = None) -> None:
        self.config = config or LCEConfig()

    def run(self, inputs: Mapping[str, Sequence[Result]]) -> Result:
        """Embed the models, and say what the components go with.

        Args:
            inputs: ``dir``, results of ``dissect`` over the same images and concepts, one a model.

        Returns:
            Tables ``embedding`` (model, pc1, pc2, pc3, group; units, detectors, concepts; pc1_sd, …
            where all results have a bootstrap), ``components`` (explained share, its 95th
            percentile and p among permuted profiles), ``profiles`` (units of each concept),
            ``abstracted`` (units, unique concepts, their ratio by category), ``loadings``,
            ``correlations`` and, where concepts are named, ``concepts``; arrays ``counts`` (m, c)
            and ``profiles`` (normalised) with ``models``, ``concepts``, ``categories``,
            ``loadings`` (k, c), ``explained_by_chance`` (permutations, k) and ``draws/MODEL``
            (d, k); scalars ``explained`` and ``explained_null_95`` (of all components together),
            ``explained_p``, ``models``, ``concepts``, ``groups``, ``silhouette``, ``draws``.
            Components that profiles do not span are None.

        Raises:
            UsageError: The results do not belong together, or there is nothing to compare.
        """
        config = self.config
        profiles = read_profiles(inputs["dir"])
        asked = profiles.find(config.concept)
        scores = read_scores(config.scores, profiles.models) if config.scores else {}
        groups = read_groups(config.groups, profiles.models) if config.groups else []
        options, provenance = describe_run(
            config, {"dir": inputs["dir"]}, ("numpy", "scipy", "scikit-learn")
        )
        provenance["signs"] = "the largest loading of each component is positive"
        result = Result("lce", options, provenance=provenance, notes=list(profiles.notes))
        scale = profiles.units if config.counted == "shares" else np.ones(len(profiles.models))
        values = profiles.counts / scale[:, None]
        lce = LearnedConceptsEmbedding(profiles.categories, len(COMPONENTS))
        places = lce.fit_transform(values)
        normalized = normalize_profiles(values, profiles.categories)
        self._explain(normalized, lce, result)
        groups = groups or self._group(places, result)
        result.scalars["groups"] = len(set(groups))
        spreads = _spreads(profiles, lce, scale, result)
        result.arrays |= {
            "counts": profiles.counts,
            "profiles": normalized,
            "models": np.array(profiles.models),
            "concepts": np.array(profiles.labels()),
            "categories": np.array(profiles.categories),
        }
        result.tables = {
            "embedding": embedding_rows(profiles, places, groups, spreads),
            "components": result.tables["components"],
            "profiles": profile_rows(profiles),
            "abstracted": abstracted_rows(profiles),
            "loadings": loading_rows(profiles, lce.components_),
        }
        shares = lce.explained_variance_ratio_.tolist()
        result.figures = [
            *embedding_figures(shares, spreads is not None),
            *loading_figures(len(shares)),
            *abstracted_figures(),
        ]
        families = find_families(profiles, values, asked, scores)
        correlate_components(result, places, families, profiles.models, config.seed)
        add_concepts(profiles, asked, result)
        self._add_notes(profiles, len(shares), result)
        result.shown = {**_SHOWN, **(_SHOWN_TESTS if asked or scores else {})}
        return result

    def _explain(self, profiles: Doubles, lce: LearnedConceptsEmbedding, result: Result) -> None:
        """Add what the components explain, beside what they would by chance."""
        shares, config = lce.explained_variance_ratio_, self.config
        chance = explained_by_chance(profiles, len(shares), config.permutations, config.seed)
        result.tables["components"] = [
            {"component": name, "variance": variance, **_beside_chance(share, drawn)}
            for name, variance, share, drawn in zip(
                COMPONENTS, lce.explained_variance_.tolist(), shares, chance.T, strict=False
            )
        ]
        whole = _beside_chance(shares.sum(), chance.sum(1))
        result.scalars = {
            "models": len(profiles),
            "concepts": profiles.shape[1],
            "explained": whole["explained"],
            "explained_null_95": whole["null_95"],
            "explained_p": whole["p"],
        }
        result.arrays |= {
            "components": np.array(COMPONENTS[: len(shares)]),
            "loadings": lce.components_,
            "explained_by_chance": chance,
        }

    def _group(self, places: Doubles, result: Result) -> list[str]:
        """Return the group of each model, found by k-means."""
        k, models, different = self.config.k, len(places), distinct_points(places)
        if k is not None and k > different:
            alike = f" in {different} distinct places" if different < models else ""
            raise UsageError(f"k is {k}, and there are {models} models{alike}: give fewer groups")
        most = min(_MOST_TRIED, models - 1, different)
        tried = tuple(range(2, most + 1)) or (1,)
        found = group_points(places, tried if k is None else (k,), self.config.seed)
        if found.silhouette is not None:
            result.scalars["silhouette"] = found.silhouette
        if k is None and len(tried) > 1:
            result.notes.append(
                f"{found.count} groups, the best silhouette of 2 to {most}, which cannot "
                "say that there are no groups"
            )
        return [string.ascii_uppercase[label] for label in found.labels]

    def _add_notes(self, profiles: Profiles, found: int, result: Result) -> None:
        models, units = len(profiles.models), profiles.units
        if found < len(COMPONENTS):
            result.notes.append(
                f"the profiles of {models} models span {found} of {len(COMPONENTS)} components"
            )
        elif models == len(COMPONENTS) + 1:
            result.notes.append(f"{models} models fit {found} components whatever they detect")
        elif (p := float(result.scalars["explained_p"])) > _LEVEL:
            result.notes.append(
                f"the components explain no more than where no concepts go together (p = {p:.2g})"
            )
        if self.config.counted == "units" and units.min() < units.max():
            result.notes.append(
                f"models have {units.min():,} to {units.max():,} units, and profiles count them: "
                "the components may be of width; --counted shares divides by it"
            )


def _spreads(
    profiles: Profiles, lce: LearnedConceptsEmbedding, scale: NDArray[Any], result: Result
) -> Doubles | None:
    """Add the places of each model in the draws; return their standard deviations, (m, k)."""
    if not profiles.draws:
        return None
    for model, draws, units in zip(profiles.models, profiles.draws, scale, strict=True):
        result.arrays[f"draws/{model}"] = lce.transform(draws / units)
    result.scalars["draws"] = min(map(len, profiles.draws))
    return np.array([result.arrays[f"draws/{m}"].std(0, ddof=1) for m in profiles.models])


def _beside_chance(explained: float, chance: Doubles) -> dict[str, float]:
    as_large = int((chance >= explained - _ROUNDING).sum())
    return {
        "explained": float(explained),
        "null_95": float(np.quantile(chance, 0.95)),
        "p": (as_large + 1) / (len(chance) + 1),
    }
