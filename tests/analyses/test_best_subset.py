"""The best tables together against scikit-learn, on stores written by hand."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from featkit.analyses.base import Result, check_requirements
from featkit.analyses.best_subset import BestSubset, BestSubsetConfig
from featkit.errors import UsageError
from featkit.ops.combine import combine
from featkit.ops.knn_classifier import KNNClassifier
from featkit.ops.linear_probe import LinearProbe
from featkit.report.figures import draw_figures
from featkit.store.reader import FeatureTable, open_store
from tests.store.conftest import make_samples, make_table, seal_by_hand

DIGITS = load_digits()
RNG = np.random.default_rng(0)
N, Q = 600, 300
Y = DIGITS.target[: N + Q]
CLASSES = [str(i) for i in range(10)]


def view(width: int, noise: float) -> np.ndarray:
    """A blurred look at the digits."""
    x = DIGITS.data[: N + Q] @ RNG.standard_normal((64, width)) / 20
    return (x + noise * RNG.standard_normal(x.shape)).astype(np.float32)


LEAVES = {
    "leaf.0": RNG.standard_normal((N + Q, 4)).astype(np.float32),
    "leaf.1": view(5, 0.8),
    "leaf.2": view(7, 0.6) * 30,
    "leaf.3": view(3, 0.6),
    "leaf.4": RNG.standard_normal((N + Q, 2)).astype(np.float32),
}
SEEING = {"leaf.1", "leaf.2", "leaf.3"}  # the others are noise


def side(
    path: Path, rows: Any, leaves: dict[str, np.ndarray] = LEAVES, labels: np.ndarray = Y
) -> list[FeatureTable]:
    manifest = make_samples(path, labels[rows], CLASSES)
    for name, x in leaves.items():
        make_table(path, manifest, f"tree/{name}.none", x[rows])
    return [open_store(path)[f"tree/{name}"] for name in leaves]


def sides(path: Path, **changes: Any) -> dict[str, list[Any]]:
    return {
        "train": side(path / "train", slice(0, N), **changes),
        "test": side(path / "test", slice(N, N + Q), **changes),
    }


def run(inputs: dict[str, list[Any]], **config: Any) -> Result:
    return BestSubset(BestSubsetConfig(**config)).run(inputs)


def held_out(n: int = N, share: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    return drawn[: round(n * share)], drawn[round(n * share) :]


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, list[Any]]:
    return sides(tmp_path)


@pytest.fixture
def few_penalties(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = LinearProbe.__init__.__defaults__
    monkeypatch.setattr(LinearProbe.__init__, "__defaults__", ((1e-2, 1.0, 1e2), *usual[1:]))


@pytest.mark.parametrize(("share", "seed"), [(0.2, 0), (0.3, 4)])
def test_neighbours_are_scikit_learns_of_the_same_concatenations(
    inputs: dict[str, list[Any]], share: float, seed: int
) -> None:
    result = run(inputs, k=1, held_out=share, seed=seed)  # of one neighbour there are no ties
    rest, kept = held_out(N, share, seed)

    def score(names: list[str], known: Any, asked: Any) -> float:
        x = np.hstack([normalize(LEAVES[name]) for name in names])
        peer = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
        return float(peer.fit(x[known], Y[known]).score(x[asked], Y[asked]))

    alone = {name: score([name], kept, rest) for name in LEAVES}
    ranked = sorted(LEAVES, key=lambda name: -alone[name])
    assert set(ranked[:3]) == SEEING
    rows = result.tables["individual"]
    assert [row["features"] for row in rows] == [f"tree/{name}" for name in ranked]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["held_out"] for row in rows] == pytest.approx([alone[name] for name in ranked])
    together = [score(ranked[:size], kept, rest) for size in range(1, 6)]
    rows = result.tables["sizes"]
    assert [row["tables"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["held_out"] for row in rows] == pytest.approx(together)
    chosen = int(np.argmax(together)) + 1
    assert chosen == 3
    assert [row["chosen"] for row in rows] == ["no", "no", "yes", "no", "no"]
    assert [r["chosen"] for r in result.tables["individual"]] == ["yes"] * 3 + ["no"] * 2
    rows = result.tables["accuracy"]
    known, asked = np.arange(N), np.arange(N, N + Q)
    assert [(row["features"], row["tables"]) for row in rows] == [
        ("best single", 1), ("best subset", 3), ("all", 5),
    ]  # fmt: skip
    for row in rows:
        top1 = score(ranked[: row["tables"]], known, asked)
        assert row["top1"] == pytest.approx(top1)
        interval = binomtest(round(top1 * Q), Q).proportion_ci(method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert rows[1]["p"] is None
    assert rows[0]["p"] < 0.01
    assert result.scalars == {
        "top1": rows[1]["top1"], "chosen": 3, "tables": 5, "n_train": N, "n_held_out": len(rest),
        "n_test": Q, "classes": 10, "unreadable": 0, "in_both": 0,
    }  # fmt: skip
    assert (result.notes, result.analysis) == ([], "best-subset")


@pytest.mark.usefixtures("few_penalties")
def test_the_probe_is_scikit_learns_of_the_same_concatenations(tmp_path: Path) -> None:
    leaves = {name: LEAVES[name] for name in ("leaf.0", "leaf.1", "leaf.2")}
    result = run(sides(tmp_path, leaves=leaves), judge="probe", seed=2)
    rest, kept = held_out(seed=2)

    @cache
    def fitted(*names: str) -> tuple[float, float, float]:
        """λ, chosen among the images kept; accuracy on those held out, and on TEST."""
        x = np.hstack([LEAVES[name] for name in names])
        penalty = LinearProbe(random_state=2).fit(x[kept], Y[kept]).penalty_
        peer = LogisticRegression(C=1 / penalty, solver="newton-cholesky", tol=1e-8, max_iter=1000)
        first = peer.fit(x[kept].astype(float), Y[kept]).score(x[rest].astype(float), Y[rest])
        again = peer.fit(x[:N].astype(float), Y[:N]).score(x[N:].astype(float), Y[N:])
        return penalty, float(first), float(again)

    rows = result.tables["individual"]
    ranked = [row["features"].removeprefix("tree/") for row in rows]
    assert ranked[2] == "leaf.0"
    border = 1.01  # an image between two classes
    for row, name in zip(rows, ranked, strict=True):
        assert row["held_out"] == pytest.approx(fitted(name)[1], abs=border / len(rest))
    for row in result.tables["sizes"]:
        accuracy = fitted(*ranked[: row["tables"]])[1]
        assert row["held_out"] == pytest.approx(accuracy, abs=border / len(rest))
    single, subset, every = result.tables["accuracy"]
    for row in (single, subset, every):
        penalty, _, top1 = fitted(*ranked[: row["tables"]])
        assert row["lambda"] == penalty
        assert row["top1"] == pytest.approx(top1, abs=border / Q)
    assert subset["tables"] == result.scalars["chosen"] > 1
    assert subset["top1"] > single["top1"] + 0.05
    assert result.provenance["features"] == "as stored"


def test_store_path_equals_array_path(inputs: dict[str, list[Any]]) -> None:
    result = run(inputs)
    rest, kept = held_out()

    def score(names: list[str], known: Any, asked: Any) -> float:
        x = [LEAVES[name] for name in names]
        bank, queries = (combine([leaf[rows] for leaf in x], "concat") for rows in (known, asked))
        return KNNClassifier(20).fit(bank, Y[known]).score(queries, Y[asked])

    ranked = [row["features"].removeprefix("tree/") for row in result.tables["individual"]]
    for row in result.tables["sizes"]:
        assert row["held_out"] == score(ranked[: row["tables"]], kept, rest)
    for row in result.tables["accuracy"]:
        names = ranked[: row["tables"]]
        assert row["top1"] == score(names, np.arange(N), np.arange(N, N + Q))


@pytest.mark.parametrize(("judge", "noise"), [("knn", 6), ("probe", 2)])
@pytest.mark.usefixtures("few_penalties")
def test_tables_that_complete_each_other_are_found_and_noise_left_out(
    judge: str, noise: int, tmp_path: Path
) -> None:
    """Each of two tables tells one half of what tells four classes apart."""
    rng = np.random.default_rng(0)
    y = np.arange(N + Q) % 4
    leaves = {f"noise.{i}": rng.standard_normal((N + Q, 3)) for i in range(noise)}
    for name, half in (("odd", y % 2), ("upper", y // 2)):
        leaves[name] = rng.standard_normal((N + Q, 2)) + 8 * np.eye(2)[half]
    leaves = {name: x.astype(np.float32) for name, x in leaves.items()}
    result = run(sides(tmp_path, leaves=leaves, labels=y), judge=judge)
    chosen = [row["features"] for row in result.tables["individual"] if row["chosen"] == "yes"]
    assert sorted(chosen) == ["tree/odd", "tree/upper"]
    single, subset, every = (row["top1"] for row in result.tables["accuracy"])
    assert single < 0.6
    assert 0.99 < subset >= every


def test_the_order_of_tables_does_not_matter(inputs: dict[str, list[Any]]) -> None:
    result = run(inputs)
    accuracies = [row["held_out"] for row in result.tables["individual"]]
    assert len(set(accuracies)) == 5
    for order in ([4, 3, 2, 1, 0], [2, 0, 4, 1, 3]):
        train = [inputs["train"][place] for place in order]
        turned = run({**inputs, "train": train})
        assert (turned.tables, turned.scalars) == (result.tables, result.scalars)


def test_nothing_is_chosen_on_test(tmp_path: Path, inputs: dict[str, list[Any]]) -> None:
    """Other labels of TEST change what is found, and not what is chosen."""
    labels = np.concatenate([Y[:N], np.random.default_rng(1).permutation(Y[N:])])
    result = run(inputs)
    other = run({**inputs, "test": side(tmp_path / "other", slice(N, N + Q), labels=labels)})
    for name in ("individual", "sizes"):
        assert other.tables[name] == result.tables[name]
    for a, b in zip(result.tables["accuracy"], other.tables["accuracy"], strict=True):
        assert a["tables"] == b["tables"]
        assert abs(b["top1"] - 0.1) < 0.06


def test_of_equal_tables_the_first_and_of_equal_numbers_the_least(tmp_path: Path) -> None:
    copies = {f"leaf.{name}": LEAVES["leaf.2"] for name in ("b", "a", "c")}
    result = run(sides(tmp_path, leaves=copies), k=1)
    rows = result.tables["individual"]
    assert [row["features"] for row in rows] == ["tree/leaf.b", "tree/leaf.a", "tree/leaf.c"]
    assert [row["chosen"] for row in rows] == ["yes", "no", "no"]
    single, subset, every = result.tables["accuracy"]
    assert single | {"features": "best subset"} == subset
    assert subset["p"] is None
    assert (every["tables"], every["p"]) == (3, 1)


def test_of_many_tables_some_numbers_are_tried_and_all(tmp_path: Path) -> None:
    many = {f"leaf.{i}": LEAVES[f"leaf.{i % 5}"] for i in range(10)}
    result = run(sides(tmp_path, leaves=many))
    assert [row["tables"] for row in result.tables["sizes"]] == [1, 2, 3, 4, 6, 8, 10]
    assert result.scalars["tables"] == 10


def test_an_image_that_one_table_lacks_takes_no_part(tmp_path: Path) -> None:
    holes = {name: x.copy() for name, x in LEAVES.items()}
    holes["leaf.3"][[5, 700]] = np.nan
    holes["leaf.0"][[5, 6, 701]] = np.nan
    keep = np.delete(np.arange(N + Q), [5, 6, 700, 701])
    one = run(sides(tmp_path / "holes", leaves=holes))
    clean = {name: x[keep] for name, x in LEAVES.items()}
    train = side(tmp_path / "train", slice(0, N - 2), clean, Y[keep])
    test = side(tmp_path / "test", slice(N - 2, None), clean, Y[keep])
    other = run({"train": train, "test": test})
    assert one.tables == other.tables
    assert one.scalars == {**other.scalars, "unreadable": 4}


def test_classes_that_train_lacks(tmp_path: Path, inputs: dict[str, list[Any]]) -> None:
    few = side(tmp_path / "few", np.flatnonzero(Y[:N] > 1))
    result = run({**inputs, "train": few})
    assert result.notes == ["TRAIN has no image of class 0, 1: always wrong there"]
    assert 0.4 < result.scalars["top1"] <= (Y[N:] > 1).mean()


def test_an_optimum_that_was_not_reached_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LinearProbe.__init__, "__defaults__", ((1e-2,), 0.2, 1e-9, 1, 0, None))
    leaves = {name: LEAVES[name] for name in ("leaf.0", "leaf.1")}
    notes = run(sides(tmp_path, leaves=leaves), judge="probe").notes
    assert "the probe of the best table: the optimum was not reached" in notes
    assert "the probe of 2 tables: the optimum was not reached" in notes


def test_figures(inputs: dict[str, list[Any]], tmp_path: Path) -> None:
    result = run(inputs)
    about = [(f.name, f.kind, f.data, f.x, f.y, f.hue, f.interval) for f in result.figures]
    assert about == [
        ("sizes", "line", "sizes", "tables", "held_out", None, None),
        ("individual", "bar", "individual", "features", "held_out", "chosen", None),
        ("accuracy", "bar", "accuracy", "features", "top1", None, ("low", "high")),
    ]
    assert len(draw_figures(result, tmp_path / "out")) == 3


def test_what_cannot_be_chosen_among(tmp_path: Path, inputs: dict[str, list[Any]]) -> None:
    def refused(message: str, **changes: Any) -> None:
        config = changes.pop("config", {})
        with pytest.raises(UsageError) as raised:
            run({**inputs, **changes}, **config)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)

    one = {name: tables[:1] for name, tables in inputs.items()}
    refused("leaf.0.none.h5 is the only table: give two or more", **one)
    refused("tree/leaf.4.none only on one side", test=inputs["test"][:4])
    refused("TRAIN and TEST are the same images", test=inputs["train"])
    refused("k is 481 and there are 480 rows", config={"k": 481})
    refused("too few to hold out 0% and learn", config={"held_out": 1e-4})
    ones = side(tmp_path / "ones", slice(0, N), labels=np.full(N + Q, 3))
    refused("TRAIN has images of one class, 3: give images of two or more", train=ones)
    two = side(tmp_path / "two", slice(0, 2))
    refused("TRAIN has 2 images, too few to hold out 20%", train=two)
    maps = {name: np.zeros((N, 2, 3, 3), np.float32) for name in ("leaf.0", "leaf.1")}
    refused("these are (2, 3, 3)", train=side(tmp_path / "maps", slice(0, N), maps))
    for labels, count in ((np.eye(10, dtype=np.uint8)[Y[:N]], "several"), (None, "none")):
        with h5py.File(tmp_path / "train" / "samples.h5", "r+") as file:
            del file["label"]
            if labels is not None:
                file["label"] = labels
        seal_by_hand(tmp_path / "train" / "samples.h5", "featkit-samples")
        train = open_store(tmp_path / "train").tables()
        refused(f"needs one label a sample, and its images have {count}: extract", train=train)
        with pytest.raises(UsageError, match="needs one label a sample"):
            check_requirements(BestSubset.requires, {"train": train})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"judge": "svm"}, "judge 'svm': use knn or probe"),
        ({"k": 0}, "k is 0: give a whole number, at least 1"),
        ({"held_out": 1.0}, "held_out is 1.0: give a share between 0 and 1"),
        ({"held_out": float("nan")}, "held_out is nan: give a share between 0 and 1"),
        ({"seed": -1}, "seed is -1: give a whole number"),
    ],
)
def test_options_that_mean_nothing(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        BestSubsetConfig(**config)
