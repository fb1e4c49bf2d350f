"""The probe against scikit-learn and SciPy, on stores written by hand."""

from __future__ import annotations

import csv
import json
import math
import tracemalloc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import binomtest
from sklearn.calibration import calibration_curve
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, precision_recall_curve
from sklearn.preprocessing import normalize

from featkit.analyses.base import Result, check_requirements
from featkit.analyses.probe import Probe, ProbeConfig
from featkit.errors import UsageError
from featkit.ops.linear_classifier import LinearEvaluation
from featkit.ops.linear_probe import LinearProbe
from featkit.store.reader import FeatureTable, open_store
from tests.store.conftest import make_samples, make_table, seal_by_hand

DIGITS = load_digits()
NOISE = np.random.default_rng(0)
# twelve blurred views of the pixels, so that no probe is perfect
X = DIGITS.data @ NOISE.standard_normal((64, 12)) / 20
X = (X + 0.7 * NOISE.standard_normal(X.shape)).astype(np.float32)
Y = DIGITS.target
NAMES = [str(i) for i in range(10)]
TRAIN, TEST = slice(0, 800), slice(800, 1200)
PENALTIES = np.logspace(-6, 5, 45)


def table(
    store: Path, x: np.ndarray, y: Any, names: Sequence[str] = NAMES, name: str = "net/fc.none"
) -> FeatureTable:
    """Write a table; labels are whole numbers (n), or 0 and 1 (n, k)."""
    labels = np.asarray(y)
    manifest = make_samples(store, labels, list(names))
    if labels.ndim == 2:
        with h5py.File(store / "samples.h5", "r+") as file:
            del file["label"]
            file["label"] = labels.astype(np.uint8)
        seal_by_hand(store / "samples.h5", "featkit-samples")
    make_table(store, manifest, name, x)
    return open_store(store)[name.partition(".")[0]]


def run(train: Any, test: Any, protocol: Any = "unregularised", seed: int = 0) -> Result:
    """Probe by what is quickest, where the protocol does not matter."""
    sides = [side if isinstance(side, list) else [side] for side in (train, test)]
    return Probe(ProbeConfig(protocol, seed)).run({"train": sides[0], "test": sides[1]})


@pytest.fixture
def train(tmp_path: Path) -> FeatureTable:
    return table(tmp_path / "train", X[TRAIN], Y[TRAIN])


@pytest.fixture
def test(tmp_path: Path) -> FeatureTable:
    return table(tmp_path / "test", X[TEST], Y[TEST])


def held_out(n: int, share: float = 0.2, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    drawn = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    return drawn[: round(share * n)], drawn[round(share * n) :]


def peer(penalty: float, x: np.ndarray, y: np.ndarray) -> Any:
    """Scikit-learn's optimum of Σ cross-entropy + λ/2 ‖W‖²."""
    strength = math.inf if penalty == 0 else 1 / penalty
    model = LogisticRegression(C=strength, solver="newton-cholesky", tol=1e-8, max_iter=1000)
    return model.fit(x.astype(float), y)


def best_temperature(logits: np.ndarray, labels: np.ndarray) -> float:
    def loss(inverse: float) -> float:
        return -float(log_softmax(logits * inverse, axis=1)[np.arange(len(labels)), labels].mean())

    found = minimize_scalar(loss, bounds=(1e-3, 10), method="bounded", options={"xatol": 1e-9})
    return float(1 / found.x)


def calibration_error(logits: np.ndarray, labels: np.ndarray) -> float:
    shares = softmax(logits, axis=1)
    sure, right = shares.max(1), shares.argmax(1) == labels
    accuracy, confidence = calibration_curve(right, sure, n_bins=15)
    n = np.histogram(sure, np.linspace(0, 1, 16))[0]
    return float((np.abs(accuracy - confidence) * n[n > 0]).sum() / len(sure))


def check_against(result: Result, model: Any, other: Any, rest: np.ndarray) -> None:
    """Hold the numbers on TEST against scikit-learn's model, T against its other model's logits."""
    row = result.tables["accuracy"][0]
    logits, truth = model.decision_function(X[TEST].astype(float)), Y[TEST]
    voted = logits.argmax(1)
    confusion = result.arrays["confusion/net/fc"]
    assert np.abs(confusion - confusion_matrix(truth, voted)).sum() <= 2  # one on the border
    right = confusion.diagonal().sum()
    assert row["top1"] == right / 400
    interval = binomtest(int(right), 400).proportion_ci(method="wilson")
    assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert row["mean_per_class"] == pytest.approx(balanced_accuracy_score(truth, voted), abs=4e-3)
    wanted = best_temperature(other.decision_function(X[TRAIN][rest].astype(float)), Y[TRAIN][rest])
    assert row["temperature"] == pytest.approx(wanted, rel=5e-3)
    assert row["ece"] == pytest.approx(calibration_error(logits, truth), abs=5e-3)
    scaled = calibration_error(logits / wanted, truth)
    assert row["ece_scaled"] == pytest.approx(scaled, abs=5e-3)


def test_logistic_is_scikit_learns_on_the_same_split(
    train: FeatureTable, test: FeatureTable
) -> None:
    result = run(train, test, "logistic")
    rest, kept = held_out(800)
    path = result.tables["path"]
    np.testing.assert_allclose([row["lambda"] for row in path], PENALTIES)
    np.testing.assert_allclose([row["log10_lambda"] for row in path], np.linspace(-6, 5, 45))
    scores = [row["validation"] for row in path]
    for q in range(4, 45, 8):  # on fewer it takes seconds
        model = peer(PENALTIES[q], X[TRAIN][kept], Y[TRAIN][kept])
        wanted = model.score(X[TRAIN][rest].astype(float), Y[TRAIN][rest])
        assert scores[q] == pytest.approx(wanted, abs=1.01 / 160)  # one on the border
    assert len(set(scores)) > 5
    row = result.tables["accuracy"][0]
    chosen = PENALTIES[int(np.argmax(scores))]
    assert row["lambda"] == pytest.approx(chosen)
    assert row["validation"] == max(scores)
    assert {**row, "protocol": "logistic", "features": "net/fc"} == row
    assert (row["n_train"], row["n_test"]) == (800, 400)
    model = peer(chosen, X[TRAIN], Y[TRAIN])
    check_against(result, model, peer(chosen, X[TRAIN][kept], Y[TRAIN][kept]), rest)
    assert result.scalars == {
        "top1": row["top1"],
        "mean_per_class": row["mean_per_class"],
        "lambda": row["lambda"],
        "classes": 10,
        "unreadable": 0,
        "in_both": 0,
    }
    assert (result.notes, result.analysis) == ([], "probe")


def test_unregularised_has_no_penalty(train: FeatureTable, test: FeatureTable) -> None:
    result = run(train, test)
    row = result.tables["accuracy"][0]
    rest, kept = held_out(800)
    other = peer(0.0, X[TRAIN][kept], Y[TRAIN][kept])
    check_against(result, peer(0.0, X[TRAIN], Y[TRAIN]), other, rest)
    assert row["lambda"] == result.scalars["lambda"] == 0
    wanted = other.score(X[TRAIN][rest].astype(float), Y[TRAIN][rest])
    assert row["validation"] == pytest.approx(wanted, abs=1.01 / 160)
    assert "path" not in result.tables
    assert [figure.name for figure in result.figures] == ["accuracy", "confusion", "reliability"]


def test_sgd_is_linear_evaluation_of_normalised_features(
    train: FeatureTable, test: FeatureTable, monkeypatch: pytest.MonkeyPatch
) -> None:
    usual = LinearEvaluation.__init__.__defaults__
    monkeypatch.setattr(LinearEvaluation.__init__, "__defaults__", (60, *usual[1:]))
    result = run(train, test, "sgd", 3)
    units = normalize(X)
    model = LinearEvaluation(random_state=3).fit(units[TRAIN], Y[TRAIN])
    row = result.tables["accuracy"][0]
    voted = model.predict(units[TEST])
    np.testing.assert_array_equal(
        result.arrays["confusion/net/fc"], confusion_matrix(Y[TEST], voted)
    )
    assert row["lambda"] == model.weight_decay_
    assert row["validation"] == model.validation_accuracy_.max()
    assert [r["validation"] for r in result.tables["path"]] == model.validation_accuracy_.tolist()
    assert [r["lambda"] for r in result.tables["path"]] == [1e-6, 1e-5, 1e-4, 1e-3, 1e-2]
    rest, kept = held_out(800, 0.1, 3)
    other = LinearEvaluation(weight_decays=(model.weight_decay_,), random_state=3)
    other.fit(units[TRAIN][kept], Y[TRAIN][kept])
    logits = units[TRAIN][rest] @ other.coef_.T + other.intercept_
    assert row["temperature"] == pytest.approx(best_temperature(logits, Y[TRAIN][rest]), rel=1e-4)
    assert result.provenance["features"] == "L2-normalised"
    assert result.provenance["held_out"] == 0.1


def test_store_path_equals_array_path(train: FeatureTable, test: FeatureTable) -> None:
    for seed in (0, 5):
        probe = LinearProbe(random_state=seed).fit(X[TRAIN], Y[TRAIN])
        row = run(train, test, "logistic", seed).tables["accuracy"][0]
        assert row["top1"] == probe.score(X[TEST], Y[TEST])
        assert row["lambda"] == probe.penalty_
        assert row["validation"] == probe.validation_scores_.max()


@pytest.mark.parametrize("protocol", ["logistic", "unregularised"])
def test_nothing_is_chosen_on_test(train: FeatureTable, tmp_path: Path, protocol: str) -> None:
    order = np.random.default_rng(0).permutation(400)
    results = [
        run(train, table(tmp_path / str(i), x, y), protocol=protocol)
        for i, (x, y) in enumerate(
            [
                (X[TEST], Y[TEST]),
                (X[TEST], Y[TEST][order]),
                (X[TEST][:50] + 100, Y[TEST][:50]),
            ]
        )
    ]
    rows = [result.tables["accuracy"][0] for result in results]
    for name in ("lambda", "validation", "temperature"):
        assert len({row[name] for row in rows}) == 1, name
    assert results[0].tables.get("path") == results[1].tables.get("path")
    assert rows[0]["top1"] > 0.6 > 0.3 > max(row["top1"] for row in rows[1:])


def test_per_class_and_reliability_add_up(train: FeatureTable, test: FeatureTable) -> None:
    result = run(train, test)
    row = result.tables["accuracy"][0]
    classes = result.tables["per_class"]
    confusion = result.arrays["confusion/net/fc"]
    assert [c["class"] for c in classes] == NAMES == result.arrays["classes"].tolist()
    assert [c["n"] for c in classes] == np.bincount(Y[TEST]).tolist()
    recall = confusion.diagonal() / confusion.sum(1)
    np.testing.assert_allclose([c["accuracy"] for c in classes], recall)
    assert row["mean_per_class"] == pytest.approx(recall.mean())
    bins = result.tables["reliability"]
    for title, error in (("T = 1", "ece"), (f"T = {row['temperature']:.3g}", "ece_scaled")):
        some = [b for b in bins if b["probabilities"] == title]
        assert sum(b["n"] for b in some) == 400
        gaps = [b["n"] * abs(b["accuracy"] - b["confidence"]) / 400 for b in some]
        assert sum(gaps) == pytest.approx(row[error])
        assert sum(b["n"] * b["accuracy"] for b in some) / 400 == pytest.approx(row["top1"])
        assert all(b["low"] < b["high"] for b in some)
    ends = [(b["confidence"], b["accuracy"]) for b in bins if b["probabilities"] == "calibrated"]
    assert ends == [(0, 0), (1, 1)]


def test_unreadable_rows_take_no_part(test: FeatureTable, tmp_path: Path) -> None:
    x = X[TRAIN].copy()
    x[[3, 150]] = np.nan
    keep = np.delete(np.arange(800), [3, 150])
    holes = table(tmp_path / "holes", x, Y[TRAIN])
    clean = table(tmp_path / "clean", X[TRAIN][keep], Y[TRAIN][keep])
    found = run(holes, test)
    assert found.tables == run(clean, test).tables
    assert found.scalars["unreadable"] == 2
    assert found.tables["accuracy"][0]["n_train"] == 798


def test_classes_are_matched_by_name(
    train: FeatureTable, test: FeatureTable, tmp_path: Path
) -> None:
    turned = table(tmp_path / "turned", X[TEST], 9 - Y[TEST], NAMES[::-1])
    wanted = run(train, test)
    found = run(train, turned)
    assert found.tables == wanted.tables
    some = np.flatnonzero(Y[TEST] >= 7)
    few = table(tmp_path / "few", X[TEST][some], Y[TEST][some] - 7, ["7", "8", "new"])
    result = run(train, few)
    row = result.tables["accuracy"][0]
    accuracy = {r["class"]: r["accuracy"] for r in result.tables["per_class"]}
    assert (accuracy["new"], accuracy["0"]) == (0, None)
    assert accuracy["7"] > 0.6
    assert row["mean_per_class"] == pytest.approx((accuracy["7"] + accuracy["8"]) / 3)
    assert result.arrays["confusion/net/fc"].shape == (11, 11)
    assert result.arrays["confusion/net/fc"].sum() == len(some)
    assert result.notes == ["TRAIN has no image of class new: always wrong there"]
    assert row["temperature"] == wanted.tables["accuracy"][0]["temperature"]


def test_a_class_without_images_is_not_learned(test: FeatureTable, tmp_path: Path) -> None:
    """The labels of TRAIN have gaps then, and the probe's outputs must be put in their places."""
    some = np.flatnonzero(Y[TRAIN] != 4)
    gap = table(tmp_path / "gap", X[TRAIN][some], Y[TRAIN][some])
    result = run(gap, test)
    model = LinearProbe().fit(X[TRAIN][some], Y[TRAIN][some])
    wanted = confusion_matrix(Y[TEST], model.predict(X[TEST]), labels=range(10))
    np.testing.assert_array_equal(result.arrays["confusion/net/fc"], wanted)
    assert not wanted[:, 4].any()
    assert result.notes == ["TRAIN has no image of class 4: always wrong there"]


def test_the_best_of_several_is_chosen_by_validation(tmp_path: Path) -> None:
    """What is good on TRAIN and useless on TEST is best all the same."""
    noise = np.random.default_rng(1).standard_normal(X.shape).astype(np.float32)
    sides = []
    for side, rows in (("train", TRAIN), ("test", TEST)):
        manifest = make_samples(tmp_path / side, Y[rows], NAMES)
        for name, x in (("coy", X if side == "train" else noise), ("even", X + noise)):
            make_table(tmp_path / side, manifest, f"{name}/fc.none", x[rows])
        sides.append(open_store(tmp_path / side).tables())
    result = run(*sides, "logistic")
    coy, even = result.tables["accuracy"]
    assert (coy["features"], even["features"]) == ("coy/fc", "even/fc")
    assert even["validation"] < coy["validation"]
    assert even["top1"] > coy["top1"] + 0.2
    assert list(result.scalars)[:4] == ["best", "top1", "mean_per_class", "lambda"]
    assert result.scalars["best"] == "coy/fc"
    for name in ("top1", "mean_per_class", "lambda"):
        assert result.scalars[name] == coy[name]
    figures = {figure.name: figure for figure in result.figures}
    assert list(figures) == ["accuracy", "confusion", "reliability", "path"]
    assert figures["confusion"].data == "confusion/coy/fc"
    assert figures["reliability"].title == "Reliability of coy/fc"
    assert figures["accuracy"].interval == ("low", "high")
    right = [r["accuracy"] * r["n"] for r in result.tables["reliability"] if r["n"]]
    assert sum(right) / 800 == pytest.approx(coy["top1"])
    assert len(result.tables["path"]) == 90
    assert {"confusion/even/fc", "confusion/coy/fc"} < result.arrays.keys()
    alone = run(sides[0][1], sides[1][1], "logistic")
    assert alone.tables["accuracy"] == [even]
    assert "best" not in alone.scalars


def several(rows: slice) -> np.ndarray:
    """Five things that can be said of a digit, more than one at a time."""
    y = Y[rows]
    facts = [y % 2 == 1, y > 6, np.isin(y, [2, 3, 5, 7]), y == 0, y < 9]
    return np.column_stack(facts).astype(np.uint8)


FACTS = ["odd", "large", "prime", "zero", "digit"]


def eleven_points(wanted: np.ndarray, scores: np.ndarray) -> float:
    precision, recall, _ = precision_recall_curve(wanted, scores)
    return float(np.mean([precision[:-1][recall[:-1] >= t / 10 - 1e-9].max() for t in range(11)]))


def test_several_labels_are_one_classifier_each(tmp_path: Path) -> None:
    train = table(tmp_path / "train", X[TRAIN], several(TRAIN), FACTS)
    test = table(tmp_path / "test", X[TEST], several(TEST), FACTS)
    check_requirements(Probe.requires, {"train": [train], "test": [test]})
    result = run(train, test, "logistic")
    row = result.tables["accuracy"][0]
    assert list(row) == [
        "features", "protocol", "lambda", "validation", "map", "n_train", "n_test"
    ]  # fmt: skip
    truth = several(TEST)
    wanted = [
        eleven_points(
            truth[:, k],
            peer(row["lambda"], X[TRAIN], several(TRAIN)[:, k]).decision_function(
                X[TEST].astype(float)
            ),
        )
        for k in range(5)
    ]
    found = result.tables["per_class"]
    assert [r["class"] for r in found] == FACTS
    assert [r["n"] for r in found] == truth.sum(0, dtype=int).tolist()
    np.testing.assert_allclose([r["average_precision"] for r in found], wanted, atol=5e-3)
    assert row["map"] == pytest.approx(np.mean([r["average_precision"] for r in found]))
    assert result.scalars["map"] == row["map"]
    assert result.scalars["lambda"] == row["lambda"]
    path = result.tables["path"]
    assert row["lambda"] == path[int(np.argmax([r["validation"] for r in path]))]["lambda"]
    assert [figure.name for figure in result.figures] == ["accuracy", "path"]
    assert list(result.arrays) == ["classes"]
    probe = LinearProbe().fit(X[TRAIN], several(TRAIN))
    assert row["lambda"] == probe.penalty_


def test_several_labels_without_penalty(tmp_path: Path) -> None:
    train = table(tmp_path / "train", X[TRAIN], several(TRAIN)[:, :3], FACTS[:3])
    test = table(tmp_path / "test", X[TEST], several(TEST)[:, :3], FACTS[:3])
    row = run(train, test).tables["accuracy"][0]
    rest, kept = held_out(800)
    x, y = X[TRAIN].astype(float), several(TRAIN)
    wanted = [
        eleven_points(y[rest, k], peer(0.0, x[kept], y[kept, k]).decision_function(x[rest]))
        for k in range(3)
    ]
    assert row["validation"] == pytest.approx(np.mean(wanted), abs=1e-3)
    assert row["lambda"] == 0


def test_several_labels_are_matched_by_name(tmp_path: Path) -> None:
    train = table(tmp_path / "train", X[TRAIN], several(TRAIN), FACTS)
    test = table(tmp_path / "test", X[TEST], several(TEST), FACTS)
    plain = {r["class"]: r for r in run(train, test).tables["per_class"]}
    new = (Y[TEST] == 5).astype(np.uint8)
    columns = np.column_stack([several(TEST)[:, [2, 0]], new, 0 * new])
    other = table(tmp_path / "other", X[TEST], columns, ["prime", "odd", "five", "none"])
    result = run(train, other)
    found = {r["class"]: r for r in result.tables["per_class"]}
    assert list(found) == [*FACTS, "five", "none"]
    assert found["odd"] == plain["odd"]
    assert found["prime"] == plain["prime"]
    assert found["five"]["average_precision"] == pytest.approx(new.mean())
    assert found["zero"] == {**plain["zero"], "n": 0, "average_precision": None}
    wanted = [found[name]["average_precision"] for name in ("odd", "prime", "five")]
    assert result.scalars["map"] == pytest.approx(np.mean(wanted))
    assert result.notes == ["TRAIN has no image of class five: as good as chance there"]


def test_labels_that_all_or_no_images_of_train_have_are_not_learned(tmp_path: Path) -> None:
    y, n = several(TRAIN)[:, :2], 800
    ones = np.ones((n, 1), np.uint8)
    names = ["always", "odd", "never", "large"]
    train = table(tmp_path / "a", X[TRAIN], np.hstack([ones, y[:, :1], 0 * ones, y[:, 1:]]), names)
    test = table(tmp_path / "b", X[TEST], several(TEST)[:, :2], ["odd", "large"])
    simple = table(tmp_path / "c", X[TRAIN], y, ["odd", "large"])
    assert run(train, test).scalars["map"] == run(simple, test).scalars["map"]


def test_the_limits_of_temperature_are_said(tmp_path: Path) -> None:
    far = (X[:200] + 100 * np.eye(12)[Y[:200]]).astype(np.float32)
    train = table(tmp_path / "train", far[:150], Y[:150])
    result = run(train, table(tmp_path / "test", far[150:], Y[150:200]))
    row = result.tables["accuracy"][0]
    assert (row["top1"], row["temperature"], row["ece_scaled"]) == (1, 0, 0)
    (note,) = (text for text in result.notes if "temperature" in text)
    assert note.startswith("net/fc: classifies the images held out all of them right")
    assert "T = 0" in {r["probabilities"] for r in result.tables["reliability"]}
    # two of three held out belie the rest
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=100)
    signs = (2 * y - 1) * np.where(np.isin(np.arange(100), held_out(100)[0][:14]), -1, 1)
    x = (signs[:, None] + 0.3 * rng.standard_normal((100, 2))).astype(np.float32)
    train = table(tmp_path / "lies", x, y, ["no", "yes"])
    result = run(
        train, table(tmp_path / "asked", x[:50], y[:50], ["no", "yes"]), protocol="unregularised"
    )
    row = result.tables["accuracy"][0]
    assert "temperature" not in row
    assert row["ece_scaled"] == pytest.approx(abs(row["top1"] - 0.5))
    assert "as by chance" in result.notes[0]
    assert "infinite" in result.notes[0]
    assert "null" not in json.dumps(json.loads(result.to_json())["tables"]["accuracy"])
    calibrated = [r for r in result.tables["reliability"] if r["probabilities"] == "calibrated"]
    assert [(r["confidence"], r["accuracy"]) for r in calibrated] == [(0, 0), (1, 1)]


@pytest.mark.parametrize("protocol", ["logistic", "unregularised", "sgd"])
def test_an_unreadable_image_changes_nothing_for_the_others(
    protocol: Any, test: FeatureTable, tmp_path: Path
) -> None:
    """Rows are left out where they lie: numbers are those of a table that never had them."""
    holes = X[TRAIN].copy()
    holes[[5, 700]] = np.nan
    kept = np.delete(np.arange(800), [5, 700])
    x, y = X[TRAIN][kept], Y[TRAIN][kept]
    found = run(table(tmp_path / "holes", holes, Y[TRAIN]), test, protocol)
    wanted = run(table(tmp_path / "without", x, y), test, protocol)
    assert found.tables == wanted.tables
    assert found.scalars == {**wanted.scalars, "unreadable": 2}


def test_a_table_with_an_unreadable_image_is_not_copied(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=20_000)
    x = rng.standard_normal((20_000, 128), np.float32)
    x[:, 0] += 4 * y
    x[7] = np.nan
    sides = [table(tmp_path / side, x, y, ["no", "yes"]) for side in ("train", "test")]
    del x
    tracemalloc.start()
    result = run(*sides)
    most = tracemalloc.get_traced_memory()[1]  # of NumPy
    tracemalloc.stop()
    assert result.scalars["top1"] > 0.9
    assert most < 20_000 * 128 * 4


def test_a_class_that_only_the_images_held_out_have(test: FeatureTable, tmp_path: Path) -> None:
    rest, kept = held_out(800)
    y = np.where(Y[TRAIN] == 9, 3, Y[TRAIN])
    y[rest[0]] = 9
    result = run(table(tmp_path / "one", X[TRAIN], y), test)
    others = rest[y[rest] != 9]
    model = peer(0.0, X[TRAIN][kept], y[kept])
    wanted = best_temperature(model.decision_function(X[TRAIN][others].astype(float)), y[others])
    assert result.tables["accuracy"][0]["temperature"] == pytest.approx(wanted, rel=5e-3)


def test_everything_is_saved_as_it_was_found(
    train: FeatureTable, test: FeatureTable, tmp_path: Path
) -> None:
    result = run(train, test)
    result.save(tmp_path / "out")
    with (tmp_path / "out" / "accuracy.csv").open(newline="") as file:
        (row,) = csv.DictReader(file)
    assert float(row["top1"]) == result.scalars["top1"]
    wanted = {"protocol": "unregularised", "seed": 0, "taps": (), "max_memory": None}
    assert result.config == wanted
    assert result.provenance["seed"] == 0
    assert result.provenance["held_out"] == 0.2
    assert result.provenance["inputs"]["train"][0]["key"] == train.key


def test_half_precision_is_probed_too(test: FeatureTable, tmp_path: Path) -> None:
    half = X.astype(np.float16)
    sides = [table(tmp_path / str(rows), half[rows], Y[rows]) for rows in (TRAIN, TEST)]
    whole = [
        table(tmp_path / f"{rows}32", half[rows].astype(np.float32), Y[rows])
        for rows in (TRAIN, TEST)
    ]
    found, wanted = (run(*pair).tables["accuracy"][0] for pair in (sides, whole))
    assert found["top1"] == pytest.approx(wanted["top1"], abs=1.01 / 400)
    assert found["lambda"] == wanted["lambda"]


def test_images_on_both_sides_are_counted(train: FeatureTable, test: FeatureTable) -> None:
    train.digests[[3, 4, 5]] = test.digests[[0, 1, 2]]
    assert run(train, test).scalars["in_both"] == 3


def test_the_same_images_cannot_be_left_out(train: FeatureTable) -> None:
    with pytest.raises(UsageError, match="the same images, and a probe cannot leave one out: give"):
        run(train, train)


def test_labels_are_needed(train: FeatureTable, test: FeatureTable, tmp_path: Path) -> None:
    table(tmp_path / "plain", X[TEST], Y[TEST])
    with h5py.File(tmp_path / "plain" / "samples.h5", "r+") as file:
        del file["label"], file["classes"]
    seal_by_hand(tmp_path / "plain" / "samples.h5", "featkit-samples")
    bare = open_store(tmp_path / "plain")["net"]
    with pytest.raises(UsageError, match="needs labels, and its images have none: extract from"):
        run(train, bare)
    one = table(tmp_path / "one", X[:40], np.zeros(40), ["cat"])
    with pytest.raises(
        UsageError, match="TRAIN has images of one class, cat: give images of two or more"
    ):
        run(one, test)
    manifest = make_samples(tmp_path / "maps", np.zeros(4), ["a"])
    make_table(tmp_path / "maps", manifest, "net/fc.none", np.zeros((4, 2, 3, 3), np.float32))
    maps = open_store(tmp_path / "maps").tables()
    with pytest.raises(UsageError, match=r"rows of d numbers.*\(2, 3, 3\)"):
        run(maps, maps)


def test_labels_of_both_kinds_do_not_go_together(train: FeatureTable, tmp_path: Path) -> None:
    facts = table(tmp_path / "facts", X[TEST], several(TEST), FACTS)
    with pytest.raises(UsageError, match="TRAIN has one label a sample and TEST several labels"):
        run(train, facts)
    with pytest.raises(UsageError, match="TRAIN has several labels a sample and TEST one label"):
        run(facts, train)
    other = table(tmp_path / "other", X[TRAIN], several(TRAIN), FACTS)
    with pytest.raises(UsageError, match="sgd learns one label a sample, and these have several"):
        run(facts, other, protocol="sgd")
    empty = table(tmp_path / "empty", X[TRAIN], 0 * several(TRAIN), FACTS)
    with pytest.raises(UsageError, match="TEST: none of its images has a label"):
        run(facts, empty)


@pytest.mark.parametrize("protocol", ["logistic", "unregularised", "sgd"])
@pytest.mark.parametrize("n", [2, 3, 10])
def test_too_few_images(test: FeatureTable, tmp_path: Path, n: int, protocol: str) -> None:
    """Ten images of ten classes: those held out are of classes that the rest has not."""
    few = table(tmp_path / "few", X[:n], np.arange(n))
    with pytest.raises(UsageError, match=f"^{n} samples to train on are too few to hold out") as e:
        run(few, test, protocol=protocol)
    assert "\n" not in str(e.value)


def test_too_few_images_of_several_labels(tmp_path: Path) -> None:
    test = table(tmp_path / "test", X[TEST], several(TEST), FACTS)
    y = np.zeros((20, 5), np.uint8)
    y[held_out(20)[0]] = 1
    train = table(tmp_path / "train", X[:20], y, FACTS)
    with pytest.raises(UsageError, match="20 samples to train on are too few"):
        run(train, test)


def test_images_that_cannot_be_read(test: FeatureTable, tmp_path: Path) -> None:
    none = table(tmp_path / "none", np.full((9, 12), np.nan, np.float32), np.arange(9))
    with pytest.raises(UsageError, match="TRAIN: none of its 9 images could be read"):
        run(none, test)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"protocol": "svm"}, "use logistic or unregularised or sgd"),
        ({"seed": -1}, "seed is -1: give a whole number from 0"),
        ({"seed": 2**32}, "seed is 4294967296"),
    ],
)
def test_options_that_mean_nothing(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ProbeConfig(**config)


def test_it_is_said_where_there_is_no_optimum(tmp_path: Path) -> None:
    far = (X[:200] + 20 * np.eye(12)[Y[:200]]).astype(np.float32)
    train = table(tmp_path / "train", far[:150], Y[:150])
    test = table(tmp_path / "test", far[150:], Y[150:200])
    assert "net/fc: the optimum was not reached: classes that hyperplanes part have none" in (
        run(train, test).notes
    )
    assert not any("optimum" in note for note in run(train, test, "logistic").notes)


def test_the_best_layer_is_chosen_on_train(tmp_path: Path) -> None:
    sides = []
    for side, rows in (("train", TRAIN), ("test", TEST)):
        manifest = make_samples(tmp_path / side, Y[rows], NAMES)
        noise = np.random.default_rng(len(Y[rows])).random((len(Y[rows]), 4)).astype(np.float32)
        for tap, x in (("conv1", noise), ("res2", X[rows]), ("res4", X[rows][:, :3])):
            make_table(tmp_path / side, manifest, f"net/{tap}.avg", x)
        sides.append(open_store(tmp_path / side).tables())
    inputs = dict(zip(("train", "test"), sides, strict=True))
    result = Probe(ProbeConfig("unregularised", taps=("all",))).run(inputs)
    assert [row["features"] for row in result.tables["accuracy"]] == ["net/res2"]
    scores = {row["features"]: row["score"] for row in result.tables["layers"]}
    every = Probe(ProbeConfig("unregularised")).run(inputs).tables["accuracy"]
    assert scores == {row["features"]: row["validation"] for row in every}
    assert result.scalars["top1"] == next(r["top1"] for r in every if r["features"] == "net/res2")
    two = Probe(ProbeConfig("unregularised", taps=("conv1", "res4"))).run(inputs)
    assert [row["features"] for row in two.tables["accuracy"]] == ["net/res4"]


def test_sides_without_a_common_class_are_refused(tmp_path: Path) -> None:
    """The names may be there: what counts is that images have them."""
    low, high = (np.flatnonzero(side) for side in (Y[TRAIN] < 6, Y[TEST] >= 6))
    train = table(tmp_path / "train", X[TRAIN][low], Y[TRAIN][low])
    test = table(tmp_path / "test", X[TEST][high], Y[TEST][high])
    wanted = "TRAIN has classes 0, 1, 2, 3, 4, … and TEST 6, 7, 8, 9, and none is in both: give"
    with pytest.raises(UsageError, match=wanted):
        run(train, test)
    renamed = table(tmp_path / "renamed", X[TEST], Y[TEST], [f"n{name}" for name in NAMES])
    with pytest.raises(UsageError, match="and TEST n0, n1, n2, n3, n4, …, and none is in both"):
        run(train, renamed)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"max_memory": 0.0}, "max_memory is 0.0: give GB, a number above 0"),
        ({"max_memory": float("nan")}, "max_memory is nan: give GB"),
        ({"max_memory": 1.0, "protocol": "sgd"}, "max_memory: sgd holds all rows"),
    ],
)
def test_bounds_that_mean_nothing(given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        ProbeConfig(**given)
