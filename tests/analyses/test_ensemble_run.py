"""Ensembles on stores written by hand, against scikit-learn, SciPy and NumPy."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from featkit.analyses.base import Result
from featkit.analyses.ensemble.representation import EnsembleRepresentation
from featkit.analyses.ensemble.run import fit_ensemble, transform_store
from featkit.analyses.ensemble.stored import StoredEnsemble, verify_ensemble
from featkit.analyses.ensemble.study import StudyConfig
from featkit.errors import ConflictError, DamagedError, SelectorError, StoreError, UsageError
from featkit.store.fingerprint import signed_json
from featkit.store.reader import Store, open_store
from featkit.store.verify import verify_store
from tests.processes import Forked, run_forked
from tests.store.conftest import make_samples, make_table
from tests.terminal import on_terminal

DIGITS = load_digits()
RNG = np.random.default_rng(0)
MIXES = [RNG.standard_normal((64, 12)) for _ in range(3)]
NAMES = [str(i) for i in range(10)]
TRAIN, TEST = slice(0, 400), slice(400, 600)


def features(j: int, rows: slice) -> np.ndarray:
    """What model j makes of digits: a random layer with a ReLU, blurred by noise of its own."""
    noise = np.random.default_rng(j).standard_normal((len(DIGITS.data), 12)) * 5
    return np.maximum(DIGITS.data @ MIXES[j] + noise, 0)[rows].astype(np.float32)


def make_store(path: Path, rows: slice, models: int = 3, **made: Any) -> Store:
    manifest = make_samples(path, DIGITS.target[rows], NAMES)
    for j in range(models):
        x = made.get("change", lambda _, x: x)(j, features(j, rows))
        make_table(path, manifest, f"net{j}/fc.none", x, weights=f"w{j}")
    return open_store(path)


def learner(**settings: Any) -> EnsembleRepresentation:
    return EnsembleRepresentation(**{"epochs": 4, "batch_size": 50, "lr": 3e-3, **settings})


@pytest.fixture
def train(tmp_path: Path) -> Store:
    return make_store(tmp_path / "train", TRAIN)


@pytest.fixture
def test(tmp_path: Path) -> Store:
    return make_store(tmp_path / "test", TEST)


def accuracies(result: Result, k: int) -> dict[str, dict[str, Any]]:
    return {row["features"]: row for row in result.tables["knn"] if row["k"] == k}


def voted(bank: np.ndarray, queries: np.ndarray, k: int = 1) -> np.ndarray:
    peer = KNeighborsClassifier(k, metric="cosine", algorithm="brute")
    return peer.fit(bank, DIGITS.target[TRAIN]).predict(queries)


def test_everything_is_judged_as_scikit_learn_does(
    train: Store, test: Store, tmp_path: Path
) -> None:
    result = fit_ensemble(train, tmp_path / "three", learner(), test)
    units = {
        side: [normalize(features(j, side_rows).astype(float)) for j in range(3)]
        for side, side_rows in (("train", TRAIN), ("test", TEST))
    }
    both = {
        **{f"individual:net{j}/fc": (units["train"][j], units["test"][j]) for j in range(3)},
        "average": (sum(units["train"]), sum(units["test"])),
        "concat": (np.hstack(units["train"]), np.hstack(units["test"])),
        "ensemble": (
            train["ensemble-three/psi"].numpy(),
            test["ensemble-three/psi"].numpy(),
        ),
    }
    found = accuracies(result, 1)
    assert list(found) == list(both)
    truth = DIGITS.target[TEST]
    ours = voted(*both["ensemble"]) == truth
    for name, (bank, queries) in both.items():
        right = voted(bank, queries) == truth
        row = found[name]
        assert row["top1"] == pytest.approx(right.mean())
        interval = binomtest(int(right.sum()), len(right)).proportion_ci(method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
        if name == "ensemble":
            assert row["p"] is None
        else:
            discordant = [int((right & ~ours).sum()), int((ours & ~right).sum())]
            assert row["p"] == pytest.approx(binomtest(discordant[0], sum(discordant)).pvalue)
    assert {row["k"] for row in result.tables["knn"]} == {1, 5, 20, 200}
    for name, (bank, queries) in both.items():
        order = np.argsort(-normalize(queries) @ normalize(bank).T, axis=1, kind="stable")
        right = []
        for labels, wanted in zip(DIGITS.target[TRAIN][order[:, :20]], truth, strict=True):
            counts = Counter(labels.tolist())
            most = [label for label in labels if counts[label] == max(counts.values())]
            right.append(most[0] == wanted)
        assert accuracies(result, 20)[name]["top1"] == pytest.approx(np.mean(right))
    assert result.notes == []


def test_what_is_stored_is_what_the_estimator_finds(
    train: Store, test: Store, tmp_path: Path
) -> None:
    fit_ensemble(train, tmp_path / "three", learner(), test)
    alone = learner()
    psi = alone.fit_transform([features(j, TRAIN) for j in range(3)])
    np.testing.assert_array_equal(train["ensemble-three/psi"].numpy(), psi)
    others = alone.transform([features(j, TEST) for j in range(3)])
    np.testing.assert_array_equal(test["ensemble-three/psi"].numpy(), others)
    for store in (train, test):
        assert not any(check.problems for check in verify_store(store.path))
    other = make_store(tmp_path / "more", slice(600, 650))
    assert transform_store(tmp_path / "three", other) == ("ensemble-three/psi.none", False)
    (other.path / ".partial" / "key.dropped").mkdir()  # as a kill leaves it
    assert transform_store(tmp_path / "three", other) == ("ensemble-three/psi.none", True)
    assert not list((other.path / ".partial").iterdir())
    np.testing.assert_array_equal(
        other["ensemble-three"].numpy(),
        alone.transform([features(j, slice(600, 650)) for j in range(3)]),
    )


def test_movement_spectrum_and_similarity(train: Store, test: Store, tmp_path: Path) -> None:
    result = fit_ensemble(train, tmp_path / "three", learner(), test)
    psi = train["ensemble-three"].numpy().astype(float)
    asked = test["ensemble-three"].numpy().astype(float)

    def start(rows: slice) -> np.ndarray:
        return normalize(sum(normalize(features(j, rows).astype(float)) for j in range(3)))

    moved = np.linalg.norm(psi - start(TRAIN), axis=1)
    np.testing.assert_allclose(result.arrays["moved"], moved, rtol=1e-4)
    assert result.scalars["moved"] == pytest.approx(np.median(moved), rel=1e-4)

    def neighbors(x: np.ndarray) -> np.ndarray:
        cosines = normalize(x) @ normalize(x).T
        np.fill_diagonal(cosines, -2)
        return np.argsort(-cosines, axis=1)[:, :20]

    before, after = neighbors(start(TRAIN)), neighbors(psi)
    changed = [1 - len(set(a) & set(b)) / 20 for a, b in zip(before, after, strict=True)]
    assert result.scalars["changed_neighbors"] == pytest.approx(np.mean(changed), abs=2e-3)
    for name, x, y in (("average", start(TRAIN), start(TEST)), ("ensemble", psi, asked)):
        values = np.linalg.svd(x, compute_uv=False)
        np.testing.assert_allclose(result.arrays[f"singular_values/{name}"], values, rtol=1e-3)
        cosines = normalize(x) @ normalize(x).T
        pairs = cosines[~np.eye(len(x), dtype=bool)]
        assert result.scalars[f"mean_similarity_{name}"] == pytest.approx(pairs.mean(), rel=1e-4)
        between = normalize(y) @ normalize(x).T
        nearest = between.max(1) / between.mean()
        np.testing.assert_allclose(result.arrays[f"maximum_similarity/{name}"], nearest, rtol=1e-4)
        assert result.scalars[f"maximum_similarity_{name}"] == pytest.approx(
            np.median(nearest), rel=1e-4
        )


def test_recovery_is_the_cosine_of_what_the_model_gives(
    train: Store, test: Store, tmp_path: Path
) -> None:
    result = fit_ensemble(train, tmp_path / "three", learner(), test)
    ensemble = EnsembleRepresentation.load(tmp_path / "three")
    psi = torch.tensor(test["ensemble-three"].numpy())
    for j, given in enumerate(ensemble.mappers_(psi)):
        x = normalize(features(j, TEST).astype(float))
        cosine = (normalize(given.double().numpy()) * x).sum(1).mean()
        row = result.tables["recovery"][j]
        assert row["model"] == f"net{j}/fc"
        assert row["inference"] == pytest.approx(cosine, abs=1e-5)
        assert 0 < row["after_warmup"] < row["final"] <= 1
    stages = {(row["model"], row["stage"]): row["cosine"] for row in result.tables["stages"]}
    for row in result.tables["recovery"]:
        for stage in ("after_warmup", "final", "inference"):
            assert stages[row["model"], stage] == row[stage]
        assert row["last_layer"] == "relu"
    bank = torch.tensor(train["ensemble-three"].numpy())
    for row, given in zip(result.tables["recovery"], ensemble.mappers_(bank), strict=True):
        x = normalize(features(int(row["model"][3]), TRAIN).astype(float))
        cosine = (normalize(given.double().numpy()) * x).sum(1).mean()
        assert row["final"] == pytest.approx(cosine, abs=1e-5)
    assert (result.scalars["start"], result.scalars["width"]) == ("average", 12)
    assert (result.scalars["bank"], result.scalars["queries"]) == (400, 200)


def test_linear_classifiers_are_near_scikit_learns(
    train: Store, test: Store, tmp_path: Path
) -> None:
    config = StudyConfig(linear=True)
    result = fit_ensemble(train, tmp_path / "three", learner(), test, config=config)
    rows = {row["features"]: row for row in result.tables["linear"]}
    assert len(rows) == 6
    units = [np.hstack([normalize(features(j, side)) for j in range(3)]) for side in (TRAIN, TEST)]
    row = rows["concat"]
    peer = LogisticRegression(C=1 / (400 * row["weight_decay"]), max_iter=5000)
    score = peer.fit(units[0], DIGITS.target[TRAIN]).score(units[1], DIGITS.target[TEST])
    assert row["top1"] == pytest.approx(score, abs=0.03)
    assert row["weight_decay"] in (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)
    assert row["low"] < row["top1"] < row["high"]


def test_without_a_test_set_every_image_is_asked_of_the_others(
    train: Store, tmp_path: Path
) -> None:
    result = fit_ensemble(
        train, tmp_path / "three", learner(), config=StudyConfig(k=(1,), linear=True)
    )
    x = features(0, TRAIN)
    cosines = normalize(x) @ normalize(x).T
    np.fill_diagonal(cosines, -2)
    right = DIGITS.target[TRAIN][cosines.argmax(1)] == DIGITS.target[TRAIN]
    assert accuracies(result, 1)["individual:net0/fc"]["top1"] == pytest.approx(right.mean())
    assert "linear" not in result.tables
    assert "no linear classifier" in " ".join(result.notes)
    assert result.tables["recovery"][0]["inference"] is None


def test_images_that_a_model_lacks_are_left_out_everywhere(tmp_path: Path, test: Store) -> None:
    def lose(j: int, x: np.ndarray) -> np.ndarray:
        x[[7, 30 + j]] = np.nan
        return x

    store = make_store(tmp_path / "holes", TRAIN, change=lose)
    result = fit_ensemble(store, tmp_path / "three", learner(), test)
    lost = [7, 30, 31, 32]
    kept = np.setdiff1d(np.arange(400), lost)
    table = store["ensemble-three"]
    assert np.flatnonzero(~table.valid).tolist() == lost
    assert np.isnan(table.numpy()[lost]).all()
    assert table.failures[31] == "net1/fc.none: broken"
    alone = learner().fit([features(j, TRAIN)[kept] for j in range(3)])
    np.testing.assert_array_equal(table.numpy()[kept], alone.embedding_)
    assert len(result.arrays["moved"]) == 396
    assert not any(check.problems for check in verify_store(store.path))


def test_the_order_of_features_is_the_order_of_models(train: Store, tmp_path: Path) -> None:
    fit_ensemble(train, tmp_path / "two", learner(), features=["net2/fc", "net0"])
    alone = learner().fit([features(j, TRAIN) for j in (2, 0)])
    np.testing.assert_array_equal(train["ensemble-two"].numpy(), alone.embedding_)
    result = fit_ensemble(train, tmp_path / "one", learner(), features=["net1"])
    names = {row["features"] for row in result.tables["knn"]}
    assert names == {"individual:net1/fc", "ensemble"}
    # ensembles are no members of an ensemble unless they are named
    result = fit_ensemble(train, tmp_path / "all", learner())
    assert [row["model"] for row in result.tables["recovery"]] == ["net0/fc", "net1/fc", "net2/fc"]


def test_models_of_other_widths_have_no_average(tmp_path: Path) -> None:
    store = make_store(tmp_path / "s", TRAIN, change=lambda j, x: x[:, : 12 - j], models=2)
    result = fit_ensemble(store, tmp_path / "two", learner(width=6))
    assert {row["features"] for row in result.tables["knn"]} == {
        "individual:net0/fc", "individual:net1/fc", "concat", "ensemble"
    }  # fmt: skip
    assert "singular_values/pca" in result.arrays
    assert store["ensemble-two"].shape == (400, 6)


def test_the_best_preset_starts_from_principal_components(train: Store, tmp_path: Path) -> None:
    best = EnsembleRepresentation.from_preset("best", epochs=4, batch_size=50, warmup=1.0)
    result = fit_ensemble(train, tmp_path / "three", best)
    assert (result.scalars["start"], result.scalars["width"]) == ("pca", 12)
    units = np.hstack([normalize(features(j, TRAIN).astype(float)) for j in range(3)])
    start = normalize(PCA(12, svd_solver="full").fit_transform(units))
    found = train["ensemble-three"].numpy()
    np.testing.assert_allclose(found @ found.T, start @ start.T, atol=1e-4)


def test_features_whose_mean_similarity_is_not_positive(tmp_path: Path) -> None:
    train = make_store(tmp_path / "train", TRAIN, change=lambda _, x: -x)
    test = make_store(tmp_path / "test", TEST)
    result = fit_ensemble(train, tmp_path / "e", learner(), test)
    assert "maximum_similarity/average" not in result.arrays
    assert any(note.startswith("average: the mean similarity") for note in result.notes)
    assert {row["last_layer"] for row in result.tables["recovery"]} == {"linear"}


def test_standing_still_is_said(train: Store, tmp_path: Path) -> None:
    result = fit_ensemble(train, tmp_path / "still", learner(warmup=1.0))
    assert result.scalars["moved"] == 0
    assert result.scalars["changed_neighbors"] == 0
    assert any("ψ moved by 0.00 %" in note or "0.00%" in note for note in result.notes)


def test_few_images(tmp_path: Path) -> None:
    store = make_store(tmp_path / "few", slice(0, 10))
    result = fit_ensemble(store, tmp_path / "e", learner())
    assert {row["k"] for row in result.tables["knn"]} == {1, 5}
    assert "k above 9 is left out" in " ".join(result.notes)
    one = make_store(tmp_path / "one", slice(0, 1))
    with pytest.raises(UsageError, match="k is 1 and there are 0 images to find"):
        fit_ensemble(one, tmp_path / "f", learner())


def test_without_labels(tmp_path: Path) -> None:
    import h5py

    from tests.store.conftest import seal_by_hand

    store = make_store(tmp_path / "s", TRAIN)
    with h5py.File(store.path / "samples.h5", "a") as file:
        del file["label"], file["classes"]
    seal_by_hand(store.path / "samples.h5", "featkit-samples")
    result = fit_ensemble(open_store(store.path), tmp_path / "e", learner())
    assert result.tables["knn"] == []
    assert result.notes == ["not one label a sample: neighbours are not judged"]
    assert len(result.tables["recovery"]) == 3


def test_what_does_not_belong_together(train: Store, tmp_path: Path) -> None:
    two = make_store(tmp_path / "two", TEST, models=2)
    with pytest.raises(SelectorError, match="net2/fc.none: no such table"):
        fit_ensemble(train, tmp_path / "e", learner(), two)
    manifest = make_samples(tmp_path / "other", DIGITS.target[TEST], NAMES)
    for j in range(3):
        make_table(tmp_path / "other", manifest, f"net{j}/fc.none", features(j, TEST), weights="x")
    other = open_store(tmp_path / "other")
    with pytest.raises(UsageError, match=r"other model.*backbone.weights: .*same backbone"):
        fit_ensemble(train, tmp_path / "e", learner(), other)
    with pytest.raises(UsageError, match="net0/fc.none: named twice"):
        fit_ensemble(train, tmp_path / "e", learner(), features=["net0", "net0/fc"])
    with pytest.raises(SelectorError, match="did you mean"):
        fit_ensemble(train, tmp_path / "e", learner(), features=["nte0"])
    with pytest.raises(UsageError, match="name 'a/b': use letters"):
        fit_ensemble(train, tmp_path / "e", learner(), name="a/b")
    assert not (tmp_path / "e").exists()
    assert len(train.tables()) == 3
    fit_ensemble(train, tmp_path / "e", learner())
    with pytest.raises(UsageError, match="other model"):
        transform_store(tmp_path / "e", other)


def test_nothing_is_replaced_unasked(train: Store, test: Store, tmp_path: Path) -> None:
    folder = tmp_path / "e"
    fit_ensemble(train, folder, learner(), test)
    before = train["ensemble-e"].path.read_bytes()
    with pytest.raises(UsageError, match="holds a finished ensemble"):
        fit_ensemble(train, folder, learner(), test)
    with pytest.raises(ConflictError, match="ensemble-e/psi.none.h5 is there, made from something"):
        fit_ensemble(train, tmp_path / "f", learner(random_state=1), name="e")
    assert not (tmp_path / "f").exists()
    assert train["ensemble-e"].path.read_bytes() == before
    # the bank's ψ was learned, not found
    with pytest.raises(ConflictError, match="choose another --name"):
        transform_store(folder, train)
    transform_store(folder, train, name="found")
    assert not np.array_equal(train["ensemble-found"].numpy(), train["ensemble-e"].numpy())
    fit_ensemble(train, folder, learner(random_state=1), test, overwrite=True)
    assert train["ensemble-e"].path.read_bytes() != before
    made = test["ensemble-e"].path.stat().st_mtime_ns
    assert transform_store(folder, test) == ("ensemble-e/psi.none", True)
    assert test["ensemble-e"].path.stat().st_mtime_ns == made


def test_one_set_of_images_is_not_two(train: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the same images: leave --test out"):
        fit_ensemble(train, tmp_path / "e", learner(), train)
    assert not (tmp_path / "e").exists()


def test_a_place_that_cannot_be_written_to_is_refused_at_once(
    train: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("it trained before it looked")

    monkeypatch.setattr(EnsembleRepresentation, "fit", never)
    (tmp_path / "file").write_text("in the way")
    Result("knn", {}).save(tmp_path / "other")
    for folder, message in (
        (tmp_path / "file", "cannot write to .*file"),
        (tmp_path / "other", "other holds a result of knn: give another folder"),
        (train.path, "lies in the store"),
        (train.path / "net0" / "deep", "lies in the store"),
    ):
        with pytest.raises(UsageError, match=message):
            fit_ensemble(train, folder, learner(), name="e")
    with pytest.raises(UsageError, match="holds a result of knn"):
        fit_ensemble(train, tmp_path / "other", learner(), name="e", overwrite=True)
    assert Result.load(tmp_path / "other", "knn").analysis == "knn"
    with pytest.raises(UsageError, match="k is 500 and there are 399 images"):
        fit_ensemble(train, tmp_path / "e", learner(), config=StudyConfig(k=(500,)))
    assert not (tmp_path / "e").exists()


def test_a_state_of_other_settings_goes_only_when_asked(train: Store, tmp_path: Path) -> None:
    folder = tmp_path / "e"
    kept = folder / ".unfinished"
    models = [features(j, TRAIN) for j in range(3)]
    learner(checkpoint=kept).fit(models)
    mine = kept / "thesis.txt"
    mine.write_text("mine")
    with pytest.raises(UsageError, match="unfinished run with other features or settings"):
        fit_ensemble(train, folder, learner(lr=1e-3))
    fit_ensemble(train, folder, learner(lr=1e-3), overwrite=True)
    alone = learner(lr=1e-3).fit(models)
    np.testing.assert_array_equal(train["ensemble-e"].numpy(), alone.embedding_)
    assert [path.name for path in kept.iterdir()] == ["thesis.txt"]


def test_classes_that_the_bank_lacks_are_named(tmp_path: Path) -> None:
    train = make_store(tmp_path / "train", TRAIN)
    test = make_store(tmp_path / "test", TEST)
    make_samples(tmp_path / "test", DIGITS.target[TEST], ["zero", *NAMES[1:]])
    result = fit_ensemble(train, tmp_path / "e", learner(), open_store(test.path))
    assert "TRAIN has no class zero: always wrong there" in result.notes
    zeros = np.mean(DIGITS.target[TEST] == 0)
    assert accuracies(result, 1)["concat"]["top1"] <= 1 - zeros


def test_maps_are_left_out_unless_they_are_named(train: Store, tmp_path: Path) -> None:
    maps = np.ones((400, 2, 3, 3), np.float32)
    make_table(train.path, train.samples.manifest, "maps/layer1.none", maps)
    result = fit_ensemble(train, tmp_path / "e", learner())
    assert len(result.tables["recovery"]) == 3
    with pytest.raises(UsageError, match="needs rows of d numbers"):
        fit_ensemble(train, tmp_path / "f", learner(), features=["maps"])


STOPPED = """
import sys
from featkit.analyses.ensemble.representation import EnsembleRepresentation
from tests.analyses.test_ensemble_run import fit_ensemble, learner, open_store
if sys.argv[3] == "stop":
    EnsembleRepresentation.save = lambda *_: sys.exit(3)
fit_ensemble(open_store(sys.argv[1]), sys.argv[2], learner(), features=sys.argv[4].split(","),
             name="e", overwrite=True)
"""


def test_a_model_is_never_mixed_of_two(train: Store, test: Store, tmp_path: Path) -> None:
    def run(stop: str, names: str) -> int:
        return run_forked(STOPPED, train.path, tmp_path / "e", stop, names).returncode

    assert run("go", "net0,net1") == 0
    assert run("stop", "net1,net0") == 3
    # what is there is whole, and still the first
    transform_store(tmp_path / "e", test)
    alone = learner().fit([features(j, TRAIN) for j in (0, 1)])
    wanted = alone.transform([features(j, TEST) for j in (0, 1)])
    np.testing.assert_array_equal(test["ensemble-e"].numpy(), wanted)
    other = learner(random_state=1).fit([features(j, TRAIN) for j in (1, 0)])
    other.save(tmp_path / "e")  # as if it had been stopped after this
    with pytest.raises(DamagedError, match=r"another model than model\.safetensors"):
        transform_store(tmp_path / "e", test, overwrite=True)
    assert run("go", "net1,net0") == 0
    transform_store(tmp_path / "e", test, overwrite=True)


def test_a_damaged_folder(train: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no ensemble"):
        transform_store(tmp_path / "none", train)
    fit_ensemble(train, tmp_path / "e", learner())
    about = json.loads((tmp_path / "e" / "members.json").read_text())
    assert about["name"] == "e"
    assert [member["table"] for member in about["members"]] == [
        "net0/fc.none", "net1/fc.none", "net2/fc.none"
    ]  # fmt: skip
    assert [check.problems for check in verify_ensemble(tmp_path / "e")] == [(), (), ()]
    for name, spoil in (
        ("model.json", lambda data: data.replace(b'"idle": ', b'"idle": 1')),
        ("model.safetensors", lambda data: data[:-1] + bytes([data[-1] ^ 1])),
        ("members.json", lambda data: data.replace(b"net1/fc", b"net1/fd")),
        ("members.json", lambda _: b'{"members": ' + b"[" * 100_000),
        ("members.json", lambda _: b"[1]"),
        ("members.json", lambda data: resealed(data, members=[{"table": 1, "made_by": {}}] * 3)),
        ("members.json", lambda data: resealed(data, fitted_on=[1])),
    ):
        path = tmp_path / "e" / name
        whole = path.read_bytes()
        path.write_bytes(spoil(whole))
        with pytest.raises(DamagedError, match="a damaged ensemble .* with --overwrite"):
            StoredEnsemble.load(tmp_path / "e")
        checks = verify_ensemble(tmp_path / "e")
        assert [check.name for check in checks if check.problems] == [name]
        path.write_bytes(whole)
    (tmp_path / "e" / "members.json").write_text("{}")
    with pytest.raises(DamagedError, match="a damaged ensemble"):
        transform_store(tmp_path / "e", train)
    (tmp_path / "e" / "members.json").unlink()
    with pytest.raises(UsageError, match="does not say which tables"):
        transform_store(tmp_path / "e", train)


def resealed(data: bytes, **changes: object) -> bytes:
    content = json.loads(data)
    del content["sha256"]
    return signed_json(content | changes).encode()


def command(train: Store, test: Store, folder: Path) -> list[str]:
    settings = ["--epochs", "20", "--batch-size", "20", "--lr", "3e-3", "--k", "1,5"]
    return [
        "ensemble-fit", str(train.path), "--test", str(test.path), "-o", str(folder), "--name", "e",
        *settings,
    ]  # fmt: skip


def test_killed_twice_it_goes_on_to_the_same_bytes(tmp_path: Path) -> None:
    def stores(name: str) -> tuple[Store, Store]:
        here = tmp_path / name
        here.mkdir()
        return make_store(here / "train", TRAIN), make_store(here / "test", TEST)

    whole, cut = stores("a"), stores("a2")
    installed = [sys.executable, "-m", "featkit_cli", *command(*whole, tmp_path / "a" / "e")]
    subprocess.run(installed, check=True, capture_output=True)
    folder = tmp_path / "a2" / "e"
    again = [sys.executable, "-m", "featkit_cli", *command(*cut, folder)]
    for epoch in (3, 12):
        with on_terminal(again) as process:
            process.read_until(f" {epoch}/20 ".encode())
            process.kill()
            process.wait()
        assert not (folder / "model.json").exists()
    with on_terminal(again) as process:
        said = process.read_to_end()
    assert process.returncode == 0
    assert int(re.search(r"(\d+)/20", said)[1]) >= 12  # type: ignore[index]
    for one, other in zip(whole, cut, strict=True):
        np.testing.assert_array_equal(one["ensemble-e"].numpy(), other["ensemble-e"].numpy())
    weights = [(tmp_path / name / "e" / "model.safetensors").read_bytes() for name in ("a", "a2")]
    assert weights[0] == weights[1]
    assert not (folder / ".unfinished").exists()


def test_two_writers_do_not_mix(train: Store, tmp_path: Path) -> None:
    holds = (
        "import sys, time, pathlib; from featkit.store.writer import writing\n"
        "with writing(pathlib.Path(sys.argv[1])):\n print('held', flush=True); time.sleep(60)"
    )
    process = Forked(holds, train.path)
    assert process.stdout.readline() == b"held\n"
    with pytest.raises(StoreError, match="another process is writing"):
        fit_ensemble(train, tmp_path / "e", learner())
    process.kill()
    process.communicate()
    ensemble = learner()
    fit_ensemble(train, tmp_path / "e", ensemble)
    np.testing.assert_array_equal(train["ensemble-e"].numpy(), ensemble.embedding_)


def test_stopped_while_figures_are_drawn_it_goes_on(train: Store, tmp_path: Path) -> None:
    folder = tmp_path / "m"

    def stopped(_result: Result, _folder: Path) -> None:
        with pytest.raises(StoreError, match="another process is making a result there"):
            fit_ensemble(train, folder, learner())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_ensemble(train, folder, learner(), draw=stopped)
    (folder / ".unfinished" / "state.safetensors.tmp").write_text("as a kill leaves it")
    drawn: list[Path] = []
    fit_ensemble(train, folder, learner(), draw=lambda _, place: drawn.append(place))
    assert drawn == [folder]
    assert not (folder / ".unfinished").exists()
    with pytest.raises(UsageError, match="holds a finished ensemble"):
        fit_ensemble(train, folder, learner())
