"""φ learned on one set of images and frozen, ψ learned on another; paper, section 4."""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import featkit
from benchmarks.harness import command_line, save
from featkit.analyses.ensemble.stored import StoredEnsemble
from featkit.ops.combine import combine
from featkit.ops.neighbors import nearest_neighbors
from featkit.ops.proportions import paired_test
from featkit.ops.votes import majority_vote

K = (1, 5, 20, 200)
BANK = 1000


def main() -> None:
    """Judge frozen ensembles beside those fitted there."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", help="of the models together")
    parser.add_argument("store", type=Path, metavar="STORE", help="other images, with labels")
    parser.add_argument("fits", type=Path, metavar="WORK", help="of benchmarks.ensemble_knn")
    parser.add_argument("--presets", default="paper-stable,best")
    parser.add_argument("--seeds", type=int, default=3)
    given = parser.parse_args()
    store = featkit.open_store(given.store)
    labels = np.asarray(store.samples.labels)
    bank, queries = slice(0, BANK), slice(BANK, len(store))

    def right(x: NDArray[Any], y: NDArray[Any]) -> dict[int, NDArray[np.bool_]]:
        similarities, rows = nearest_neighbors(y, x, max(K))
        votes = majority_vote(similarities, labels[bank][rows], int(labels.max()) + 1, K)
        return {k: votes[k] == labels[queries] for k in K}

    claims: list[dict[str, Any]] = []
    details: list[dict[str, Any]] = []
    baselines: dict[str, dict[int, NDArray[np.bool_]]] = {}

    def add(what: str, found: dict[int, NDArray[np.bool_]], **facts: Any) -> None:
        p = {
            name: {k: paired_test(found[k], other[k]) for k in K}
            for name, other in baselines.items()
        }
        text = "".join(
            f"; p against {name}: {', '.join(f'{x:.1g}' for x in values.values())}"
            for name, values in p.items()
            if facts
        )
        claims.append(
            {
                "what": f"transfer, {given.name}: {what}",
                "measured": ", ".join(f"{found[k].mean():.2%}" for k in K),
                "target": "—",
                "met": None,
                "sized": f"k = {', '.join(map(str, K))}; {BANK:,} bank, "
                f"{len(store) - BANK:,} queries{text}",
            }
        )
        top1 = {k: float(found[k].mean()) for k in K}
        details.append({"features": what, "top1": top1, "p": p, **facts})

    for preset, seed in itertools.product(given.presets.split(","), range(given.seeds)):
        stored = StoredEnsemble.load(given.fits / f"{given.name}-{preset}-{seed}")
        models = stored.side(store).features()
        x, y = [model[bank] for model in models], [model[queries] for model in models]
        if not baselines:
            for member, one, other in zip(stored.members, x, y, strict=True):
                add(member.table, right(one, other))
                if len(models) == 1:
                    baselines["the model"] = right(one, other)
            widths = {model.shape[1] for model in models}
            for how in ("average", "concat") if len(models) > 1 else ():
                if how == "concat" or len(widths) == 1:
                    found = right(combine(x, how), combine(y, how))
                    add(how, found)
                    baselines[how] = found
        frozen = stored.ensemble
        found = right(frozen.transform(x), frozen.transform(y))
        add(f"ψ ({preset}), φ frozen (seed {seed})", found, recovery=frozen.recovery_)
        here = featkit.EnsembleRepresentation.from_preset(preset, random_state=seed).fit(x)
        found = right(here.embedding_, here.transform(y))
        add(f"ψ ({preset}), φ fitted there (seed {seed})", found, recovery=here.recovery_)
    save(
        f"ensemble_transfer_{given.name}",
        command_line(parser, given),
        claims,
        rows=details,
    )


if __name__ == "__main__":
    main()
