"""What is told of the clusterings of a training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from featkit.ops.agreement import cluster_agreement
from featkit.ops.neighbors import Integers

FACTS = (
    "clusters",
    "effective_clusters",
    "smallest",
    "median",
    "largest",
    "nmi_previous",
    "ami_previous",
    "nmi_labels",
    "ami_labels",
    "feature_seconds",
    "cluster_seconds",
)
"""What :func:`clustering_facts` and the times of a clustering are called."""

UNTOLD = -9.0
"""In place of a fact that there is not; below all that there can be."""

_COUNTS = ("clusters", "smallest", "largest")
_AGREEMENTS = {
    "nmi_previous": "NMI, clustering before",
    "ami_previous": "AMI, clustering before",
    "nmi_labels": "NMI, labels",
    "ami_labels": "AMI, labels",
}
_TIMES = {
    "feature_seconds": "features",
    "cluster_seconds": "clustering",
    "training_seconds": "training",
}

Row = dict[str, Any]


def clustering_facts(
    labels: Integers, before: Integers | None, truth: Integers | None
) -> dict[str, float]:
    """Describe a clustering.

    Args:
        labels: (n) cluster of each image.
        before: Those of the clustering before; None for none.
        truth: Classes of the images; None for none.

    Returns:
        ``clusters`` that hold images; ``effective_clusters``, how many of equal size would be as
        uneven, exp(entropy of the shares); images in the ``smallest`` that holds any, in the
        ``median`` and in the ``largest`` of these; ``nmi_previous``, ``ami_previous``,
        ``nmi_labels``, ``ami_labels`` where they can be.

    Example:
        >>> facts = clustering_facts(np.array([0, 0, 3, 3]), None, np.array([1, 1, 0, 0]))
        >>> facts["clusters"], facts["effective_clusters"], facts["nmi_labels"]
        (2, 2.0, 1.0)
    """
    _, sizes = np.unique(labels, return_counts=True)
    shares = sizes / len(labels)
    found = {
        "clusters": len(sizes),
        "effective_clusters": float(np.exp(-(shares * np.log(shares)).sum())),
        "smallest": int(sizes.min()),
        "median": float(np.median(sizes)),
        "largest": int(sizes.max()),
    }
    for name, other in (("previous", before), ("labels", truth)):
        if other is not None:
            agreement = cluster_agreement(labels, other)
            found |= {f"nmi_{name}": agreement.nmi, f"ami_{name}": agreement.ami}
    return found


def read_facts(values: Sequence[float]) -> Row:
    """Name the values of :data:`FACTS`; what is untold is None.

    Example:
        >>> read_facts([2.0, 2.0, 1.0, 1.5, 2.0] + [UNTOLD] * 6)["smallest"]
        1
    """
    told: Row = {n: None if v == UNTOLD else v for n, v in zip(FACTS, values, strict=True)}
    return told | {name: int(told[name]) for name in _COUNTS if told[name] is not None}


def cycle_rows(epochs: Sequence[Mapping[str, Any]], cycle_epochs: int) -> list[Row]:
    """Make a row for each cycle, of those of its epochs; the last may be under way.

    A cycle that has not clustered has no facts, and no times but that of its training.
    """
    rows = []
    learned = [row for row in epochs if row["epoch"]]
    for start in range(0, len(learned), cycle_epochs):
        own = learned[start : start + cycle_epochs]
        cycle = start // cycle_epochs + 1
        is_clustered = own[0]["clustered_in"] == cycle
        facts = {name: own[0][name] if is_clustered else None for name in FACTS}
        for name in ("feature_seconds", "cluster_seconds"):
            facts[name] = round(sum(row[name] for row in own), 3)
        rows.append(
            {
                "cycle": cycle,
                "loss": own[-1]["loss"],
                **facts,
                "training_seconds": round(sum(row["seconds"] for row in own), 3),
            }
        )
    return rows


def curves_of(cycles: Sequence[Mapping[str, Any]]) -> dict[str, list[Row]]:
    """Return the tables ``agreement`` and ``times``: a row for each point of each line."""
    agreement = [
        {"cycle": row["cycle"], "with": called, "agreement": row[name]}
        for name, called in _AGREEMENTS.items()
        for row in cycles
        if row[name] is not None
    ]
    times = [
        {"cycle": row["cycle"], "spent on": called, "seconds": row[name]}
        for name, called in _TIMES.items()
        for row in cycles
    ]
    return {"agreement": agreement, "times": times}
