"""The verdicts of the study of families, on networks whose answers are known."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.families_claims import claims_of, interval, verdict

EPOCHS = (0, 5, 30)
BASE = {"conv1": -2.0, "res2": -3.0, "res4": -2.5, "avgpool": -2.5, "head": -1.0}


def network(depth: int, width: int, norm: str, seed: int, sign: float) -> dict[str, Any]:
    """One whose numbers follow the paper's claims at sign 1, and their opposites at -1."""
    rows = []
    for number, epoch in enumerate(EPOCHS):
        gain = {"head": -0.1 * number, "conv1": 1e-3 * number - 1e-4 * depth * width}
        better = 0.05 * number + 0.02 * (norm == "layer") - 0.001 * depth
        energies = [
            {
                "layer": layer,
                "pooling": pooling,
                "power": power,
                "mean_diversity": value
                + sign * gain.get(layer, 0.1 * number)
                + sign * 0.2 * (width - 1) * (layer != "conv1")
                + sign * 0.1 * (norm == "layer")
                + 0.001 * seed,
            }
            for layer, value in BASE.items()
            for pooling in ("avg", "flatten")
            for power in (0.0, 1.0, 2.0)
        ]
        ranked = [
            {"pooling": p, "power": s, "layer": "head" if sign > 0 else "conv1", "apart": True}
            for p in ("avg", "flatten")
            for s in (0.0, 1.0, 2.0)
        ]
        rows.append(
            {
                "epoch": epoch,
                "method": "SimCLR" if epoch else "untrained",
                "parameters": 1000 * depth * width**2,
                "error": 0.6 - sign * better + 0.002 * seed,
                "held_out_knn": 0.3 + 0.01 * number,
                "energy": energies,
                "most_diverse": ranked,
            }
        )
    about = {"depth": depth, "width": width, "norm": norm, "seed": seed, "method": "SimCLR"}
    return {**about, "name": f"{depth}-{width}-{norm}-{seed}", "rows": rows}


def verdicts(sign: float) -> dict[str, str]:
    shapes = [(8, 1, "batch"), (8, 2, "batch"), (8, 4, "batch"), (8, 1, "layer")]
    shapes += [(20, 1, "batch"), (20, 1, "layer")]
    models = [network(*shape, seed, sign) for shape in shapes for seed in range(3)]
    models.append({**network(20, 1, "batch", 0, sign), "name": "method-simclr"})
    supervised = network(20, 1, "batch", 0, sign)
    last = {**supervised["rows"][-1], "method": "supervised", "error": 0.1 if sign > 0 else 0.9}
    models.append({**supervised, "name": "method-supervised", "rows": [{**last, "epoch": 200}]})
    return {claim["what"]: claim["holds"] for claim in claims_of(models, EPOCHS, "made up")}


CLAIMS = [
    "the last layer is the most diverse: avg, s = 1",
    "error falls, width 1: epoch 5 to 30",
    "while the head's diversity falls: epoch 5 to 30",
    "width raises diversity: head",
    "width raises diversity: res4, flatten",
    "LayerNorm has less error than BatchNorm early: epoch 5",
    "LayerNorm has more diversity in the head: epoch 30",
    "deeper networks have more error after few epochs: 20 against 8 layers",
]


@pytest.mark.parametrize("claim", CLAIMS)
def test_a_claim_holds_where_it_was_built_in(claim: str) -> None:
    assert verdicts(1.0)[claim] == "yes"


@pytest.mark.parametrize("claim", CLAIMS[1:])
def test_and_is_reversed_where_the_opposite_was(claim: str) -> None:
    assert verdicts(-1.0)[claim] == "no, the reverse"


def test_what_is_counted_or_ranked() -> None:
    holds, opposite = verdicts(1.0), verdicts(-1.0)
    assert opposite[CLAIMS[0]] == "in 0 of 36"  # 18 networks, two epochs of training
    ahead = "supervised training gives the most diverse features, with the least error"
    assert opposite[ahead] == "no"
    assert holds["conv1 is more diverse than res2: avg"] == "yes"
    assert holds["width does not raise diversity: conv1, avg"] == "yes"
    assert opposite["width does not raise diversity: conv1, avg"] == "no, it does"


def test_the_interval_is_students() -> None:
    """Three values: mean ± 4.303 · s / √3 (any table of t, two degrees of freedom)."""
    mean, half = interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.303 / 3**0.5, rel=1e-3))
    assert verdict([1.0, 2.0, 3.0]) == "not told apart"
    assert verdict([2.0, 2.1, 2.2]) == "yes"
    assert verdict([-2.0, -2.1, -2.2]) == "no, the reverse"
