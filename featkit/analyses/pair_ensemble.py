"""Do two models know more than the better of them: the soft vote of their probes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, combinations_with_replacement
from typing import Any, ClassVar, get_args

import numpy as np
from numpy.typing import NDArray
from scipy.special import softmax  # type: ignore[import-untyped]

from featkit.analyses.base import (
    Figure,
    Input,
    Result,
    check_requirements,
    describe_run,
    option,
    short_names,
)
from featkit.analyses.sides import (
    Split,
    check_several_classes,
    pair_tables,
    split_samples,
)
from featkit.errors import UsageError
from featkit.ops.pair_means import pair_means
from featkit.ops.probe_protocols import HELD_OUT, LearnedProbe, Protocol, learn_probe
from featkit.ops.proportions import paired_interval, paired_test, proportion_interval
from featkit.ops.soft_voting import Rule, pair_votes, pair_weights
from featkit.store.reader import FeatureTable
from featkit.store.selectors import match_tables

_CELLS = 2**23
"""Probabilities of all models held at once: 64 MiB."""

_NAMED = 4
"""Names in a note."""


@dataclass(frozen=True)
class PairEnsembleConfig:
    """Options of :class:`PairEnsemble`."""

    weights: Rule = option(
        "printed",
        "printed: 0.5 ± the difference of the two accuracies, less than 0 for the weaker where they"
        " differ by more than 0.5; convex: cut at 0 and 1.",
        "Mustapha 2021, sec. 3.5.4",
    )
    protocol: Protocol = option(
        "logistic",
        "Of the probes: logistic, the best of 45 penalties; unregularised: none; sgd: the best of 5"
        " weight decays, features L2-normalised (arXiv:2110.10293, appendix A.2).",
        "Ericsson et al. 2021, arXiv:2011.13377",
    )
    seed: int = option(0, "Draws the images that are held out.", "as Ericsson et al.")
    features: tuple[str, ...] = option(
        (), "Models to pair, as BACKBONE or BACKBONE/TAP; default: every table."
    )

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name, kind in (("weights", Rule), ("protocol", Protocol)):
            value = getattr(self, name)
            if value not in get_args(kind):
                raise UsageError(f"{name} {value!r}: use {' or '.join(get_args(kind))}")
        if not 0 <= self.seed < 2**32:
            raise UsageError(f"seed is {self.seed}: give a whole number from 0 to 2^32 - 1")


class PairEnsemble:
    """What two models gain over the better one, by soft vote of their probes.

    Each model is a probe trained on TRAIN. What a model weighs comes from its accuracy on the
    images of TRAIN that are held out; TEST is only judged.
    """

    inputs: ClassVar[tuple[Input, ...]] = (
        Input("TRAIN", "tables to train on, of two models or more"),
        Input("TEST", "tables of other images, made by the same backbones"),
        Input(
            "GROUPS",
            "Folder of a result of lce, to average the gains by its groups of models.",
            optional=True,
            of="lce",
        ),
    )
    requires: ClassVar[frozenset[str]] = frozenset({"labels"})
    Config: ClassVar[type[Any]] = PairEnsembleConfig

    def __init__(self, config: PairEnsembleConfig | None = None) -> None:
        self.config = config or PairEnsembleConfig()

    def run(self, inputs: Mapping[str, Sequence[Any]]) -> Result:
        """Let every two models vote, and compare with the better of the two.

        The vote is ``w_1 m_1(x) + w_2 m_2(x)`` of the probes' probabilities as they are, without a
        temperature; :func:`featkit.ops.soft_voting.pair_weights` says how the weights follow from
        the two performances. The source does not say on which images they are measured. Here it is
        the accuracy on the images held out of TRAIN, by the probe that has not seen them: measured
        on TEST they would choose what TEST then judges. A backbone that was itself trained on the
        images of TRAIN looks better there than it is, and weighs more.

        The better one is the better one on TEST, so that a gain is one over both models. It is
        known only afterwards, which favours the single model.

        Args:
            inputs: ``train`` and ``test``, tables of the same names made by the same backbones;
                ``groups``, a result of lce, may be left out.

        Returns:
            Table ``models``: features, group (where groups are given; None without one), validation
            (accuracy on the images held out), top1, low, high (its 95 % interval). Table ``pairs``:
            one, other, weight_one, weight_other, top1, better (top1 of the better one), gain (their
            difference), low, high (its 95 % interval), p (exact McNemar test against the better
            one; of one pair, not corrected for the number of pairs). Table ``groups``: one, other,
            pairs, gain (mean), for those groups that have pairs.

            Arrays ``gain`` (m, m), 0 on the diagonal, and ``names`` (m); ``group_gain`` (g, g), NaN
            where there is no pair, ``group_pairs`` (g, g) and ``group_names`` (g), in the order of
            the result of lce.

            Scalars ``pairs``, ``mean_gain``, ``gaining`` (pairs with a gain above 0), ``classes``,
            ``unreadable``, ``in_both`` (images of TEST whose very content is in TRAIN too).

        Raises:
            UsageError: There are fewer than two models, the two sides do not belong together, TRAIN
                is too small, or no model is in a group.
        """
        told: dict[str, None] = {}
        sides = {
            side: _chosen(inputs[side], self.config.features, told) for side in ("train", "test")
        }
        if len(sides["train"]) < 2:
            raise UsageError(f"{sides['train'][0].path} is the only model: give two or more")
        check_requirements(self.requires | {"vectors"}, sides)
        pairs = pair_tables(sides["train"], sides["test"])
        split = split_samples(pairs)
        _check(split)
        tables = [train for train, _ in pairs]
        names = short_names(tables)
        groups = _groups(inputs["groups"][0]) if "groups" in inputs else {}
        members, unmatched = _matched(tables, names, groups) if groups else (None, [])
        probes = [
            learn_probe(
                train.numpy(),
                split.bank_labels,
                self.config.protocol,
                self.config.seed,
                rows=np.flatnonzero(split.bank_rows),
            )
            for train in tables
        ]
        weights = pair_weights([probe.validation for probe in probes], self.config.weights)
        right = _answers(probes, [test for _, test in pairs], split, weights)
        result = self._begin(sides, inputs, split)
        _tell_models(result, names, members, probes, right)
        _tell_pairs(result, names, weights, right)
        if members is not None:
            _tell_groups(result, members, groups)
        result.shown = {"models": (), "pairs": (), "groups": ()}
        result.notes += [*told, *unmatched]
        self._add_notes(result, names, probes, split)
        return result

    def _begin(
        self,
        sides: Mapping[str, Sequence[FeatureTable]],
        inputs: Mapping[str, Sequence[Any]],
        split: Split,
    ) -> Result:
        config, provenance = describe_run(self.config, sides, ("torch", "scikit-learn", "scipy"))
        provenance |= {"seed": self.config.seed, "held_out": HELD_OUT[self.config.protocol]}
        if "groups" in inputs:
            provenance["groups"] = inputs["groups"][0].provenance
        result = Result("pair-ensemble", config, provenance=provenance)
        result.scalars = {
            "classes": len(split.classes),
            "unreadable": int((~split.bank_rows).sum() + (~split.query_rows).sum()),
            "in_both": split.in_both,
        }
        return result

    def _add_notes(
        self,
        result: Result,
        names: Sequence[str],
        probes: Sequence[LearnedProbe],
        split: Split,
    ) -> None:
        strange = [split.classes[c] for c in np.setdiff1d(split.query_labels, split.bank_labels)]
        if strange:
            result.notes.append(
                f"TRAIN has no image of class {_listed(strange)}: always wrong there"
            )
        for name, probe in zip(names, probes, strict=True):
            if probe.converged is False:
                result.notes.append(f"{name}: the optimum was not reached")
        apart = [
            f"{names[i]} and {names[j]}"
            for i, j in combinations(range(len(names)), 2)
            if abs(probes[i].validation - probes[j].validation) > 0.5
        ]
        if apart:
            how = (
                "the weaker counts negatively there, and --weights convex leaves it out"
                if self.config.weights == "printed"
                else "the better answers alone there"
            )
            result.notes.append(f"more than 0.5 apart in accuracy: {_listed(apart)}: {how}")


def _chosen(
    tables: Sequence[FeatureTable], patterns: Sequence[str], told: dict[str, None]
) -> list[FeatureTable]:
    """Return the tables that the patterns name, each once; all without patterns.

    What names no tap means vectors, if there are any; ``told`` takes a note on what is left out.
    """
    by_name = {table.name: table for table in tables}
    store = str(tables[0].path.parents[1])
    chosen: dict[str, FeatureTable] = {}
    left: set[str] = set()
    for pattern in patterns or (None,):
        names = match_tables(list(by_name), pattern, store)
        vectors = [name for name in names if len(by_name[name].shape) == 2]
        if vectors and "/" not in (pattern or ""):
            left |= set(names) - set(vectors)
            names = vectors
        chosen |= {name: by_name[name] for name in names}
    left -= chosen.keys()
    if left:
        count = f"{len(left):,} table{'s' * (len(left) > 1)}"
        told[f"{store}: {count} of maps or tokens left out"] = None
    return list(chosen.values())


def _check(split: Split) -> None:
    """Refuse, before hours of work, what cannot be learned or judged."""
    if split.leave_one_out:
        raise UsageError(
            "TRAIN and TEST are the same images, and a probe cannot leave one out: "
            "give a store of other images as TEST"
        )
    check_several_classes(split)


def _groups(lce: Result) -> dict[str, str]:
    """Return the group of each model of lce that has one."""
    groups = {
        str(row["model"]): str(row["group"])
        for row in lce.tables.get("embedding", [])
        if row.get("group") is not None
    }
    if not groups:
        raise UsageError(
            "GROUPS: that result of lce puts no model in a group: give one with groups"
        )
    return groups


def _matched(
    tables: Sequence[FeatureTable], names: Sequence[str], groups: Mapping[str, str]
) -> tuple[list[str | None], list[str]]:
    """Return the group of each table, None without one, and notes on what has no counterpart.

    A model of lce is called BACKBONE, or BACKBONE/TAP where it has several taps of one. A table
    belongs to the model of its own name, or else of its backbone's; where lce has that backbone at
    other taps only, to their group if they share one.
    """
    found: list[str | None] = []
    used: set[str] = set()
    for table in tables:
        own = [name for name in (f"{table.backbone}/{table.tap}", table.backbone) if name in groups]
        models = own[:1] or [m for m in groups if m.startswith(f"{table.backbone}/")]
        used.update(models)
        shared = {groups[model] for model in models}
        found.append(shared.pop() if len(shared) == 1 else None)
    without = [name for name, group in zip(names, found, strict=True) if group is None]
    if len(without) == len(names):
        raise UsageError(
            f"GROUPS: none of {_listed(names)} is in a group; in groups are"
            f" {_listed(list(groups))}: give the result of lce for these backbones"
        )
    notes = []
    if without:
        notes.append(f"in no group, or in several: {_listed(without)}: in no mean over groups")
    unused = [model for model in groups if model not in used]
    if unused:
        notes.append(f"in the groups and not among the tables: {_listed(unused)}")
    return found, notes


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (", …" if len(names) > _NAMED else "")


def _answers(
    probes: Sequence[LearnedProbe],
    tests: Sequence[FeatureTable],
    split: Split,
    weights: NDArray[np.float64],
) -> NDArray[np.bool_]:
    """Return whether two models are right together, (m, m, q); on the diagonal each alone."""
    features = [table.numpy() for table in tests]
    classes = probes[0].classes
    rows = np.flatnonzero(split.query_rows)
    right = np.empty((len(probes), len(probes), len(rows)), bool)
    step = max(1, _CELLS // (len(probes) * len(classes)))
    for start in range(0, len(rows), step):
        part = slice(start, start + step)
        probabilities = [
            softmax(probe.logits(x, rows[part]), axis=1)
            for probe, x in zip(probes, features, strict=True)
        ]
        votes = pair_votes(np.stack(probabilities), weights)
        right[:, :, part] = classes[votes] == split.query_labels[part]
    return right


def _tell_models(
    result: Result,
    names: Sequence[str],
    members: Sequence[str | None] | None,
    probes: Sequence[LearnedProbe],
    right: NDArray[np.bool_],
) -> None:
    rows = []
    for i, (name, probe) in enumerate(zip(names, probes, strict=True)):
        alone = right[i, i]
        low, high = proportion_interval(int(alone.sum()), len(alone))
        group = {} if members is None else {"group": members[i]}
        score = {"validation": probe.validation, "top1": float(alone.mean())}
        rows.append({"features": name} | group | score | {"low": low, "high": high})
    result.tables["models"] = rows


def _tell_pairs(
    result: Result,
    names: Sequence[str],
    weights: NDArray[np.float64],
    right: NDArray[np.bool_],
) -> None:
    top1 = right.mean(2)
    alone = top1.diagonal()
    gain = top1 - np.maximum(alone[:, None], alone)
    rows: list[dict[str, Any]] = []
    for i, j in combinations(range(len(names)), 2):
        together, better = right[i, j], max(alone[i], alone[j])
        # of two that are equally good the one that differs more: less is sure
        rivals = [right[k, k] for k in (i, j) if alone[k] == better]
        rival = max(rivals, key=lambda single: int((single ^ together).sum()))
        low, high = paired_interval(together, rival)
        rows.append(
            {
                "one": names[i],
                "other": names[j],
                "weight_one": float(weights[i, j]),
                "weight_other": float(weights[j, i]),
                "top1": float(top1[i, j]),
                "better": float(better),
                "gain": float(gain[i, j]),
                "low": low,
                "high": high,
                "p": paired_test(together, rival),
            }
        )
    result.tables["pairs"] = rows
    result.arrays |= {"gain": gain, "names": np.array(names)}
    gains = gain[np.triu_indices_from(gain, 1)]
    result.scalars = {
        "pairs": len(rows),
        "mean_gain": float(gains.mean()),
        "gaining": int((gains > 0).sum()),
        **result.scalars,
    }
    title = "Gain over the better of two models"
    result.figures.append(
        Figure("gain", "heatmap", "gain", title, "", "", labels="names", diagonal=False, center=0)
    )


def _tell_groups(result: Result, members: Sequence[str | None], groups: Mapping[str, str]) -> None:
    """Average the gains of pairs by the groups of their models."""
    names = [group for group in dict.fromkeys(groups.values()) if group in members]
    places = [-1 if member is None else names.index(member) for member in members]
    means, counts = pair_means(result.arrays["gain"], places, len(names))
    result.arrays |= {"group_gain": means, "group_pairs": counts, "group_names": np.array(names)}
    result.tables["groups"] = [
        {"one": names[g], "other": names[h], "pairs": int(counts[g, h]), "gain": float(means[g, h])}
        for g, h in combinations_with_replacement(range(len(names)), 2)
        if counts[g, h]
    ]
    result.figures.append(
        Figure(
            "groups",
            "heatmap",
            "group_gain",
            "Mean gain over the better of two, by group (pairs)",
            "",
            "",
            labels="group_names",
            center=0,
            counts="group_pairs",
        )
    )
