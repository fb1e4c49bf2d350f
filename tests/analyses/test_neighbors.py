"""The k-NN analysis against scikit-learn, on stores written by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.metrics import confusion_matrix
from sklearn.neighbors import KNeighborsClassifier
from sklearn.preprocessing import normalize

from featkit.analyses.base import Result, check_requirements
from featkit.analyses.best_layer import AveragedTable
from featkit.analyses.neighbors import KNN, KNNConfig
from featkit.errors import UsageError
from featkit.ops.knn_classifier import KNNClassifier
from featkit.store.reader import FeatureTable, open_store
from tests.store.conftest import make_samples, make_table

DIGITS = load_digits()
NOISE = np.random.default_rng(0)
X = (DIGITS.data + NOISE.standard_normal(DIGITS.data.shape)).astype(np.float32)
Y = DIGITS.target
NAMES = [str(i) for i in range(10)]
TRAIN, TEST = slice(0, 1000), slice(1000, 1797)


def table(store: Path, x: np.ndarray, y: np.ndarray, names: list[str] = NAMES) -> FeatureTable:
    manifest = make_samples(store, y, names)
    make_table(store, manifest, "pixels/fc.none", x)
    return open_store(store)["pixels"]


def run(train: list[FeatureTable], test: list[FeatureTable], **config: object) -> Result:
    return KNN(KNNConfig(**config)).run({"train": train, "test": test})  # type: ignore[arg-type]


def test_majority_vote_is_scikit_learns(tmp_path: Path) -> None:
    train = table(tmp_path / "train", X[TRAIN], Y[TRAIN])
    test = table(tmp_path / "test", X[TEST], Y[TEST])
    result = run([train], [test], k=(1, 5))
    for row in result.tables["accuracy"]:
        peer = KNeighborsClassifier(row["k"], metric="cosine", algorithm="brute")
        peer.fit(X[TRAIN], Y[TRAIN])
        if row["k"] == 1:
            voted = peer.predict(X[TEST])
            assert row["top1"] == pytest.approx(np.mean(voted == Y[TEST]))
            found = result.arrays["confusion/pixels/fc/k1"]
            np.testing.assert_array_equal(found, confusion_matrix(Y[TEST], voted))
        # scikit-learn gives ties to the smaller class, we to the nearer one
        assert row["top1"] == pytest.approx(peer.score(X[TEST], Y[TEST]), abs=0.01)
    one = [row for row in result.tables["per_class"] if row["k"] == 1]
    assert [row["n"] for row in one] == np.bincount(Y[TEST]).tolist()
    assert np.average([r["accuracy"] for r in one], weights=[r["n"] for r in one]) == pytest.approx(
        result.tables["accuracy"][0]["top1"]
    )
    assert result.scalars == {
        "bank": 1000,
        "queries": 797,
        "classes": 10,
        "unreadable": 0,
        "in_both": 0,
        "leave_one_out": "no",
    }


def test_leave_one_out_is_a_loop_that_leaves_one_out(tmp_path: Path) -> None:
    x, y = X[:300], Y[:300]
    both = table(tmp_path / "s", x, y)
    right = 0
    for i in range(300):
        others = np.arange(300) != i
        peer = KNeighborsClassifier(1, metric="cosine", algorithm="brute")
        right += int(peer.fit(x[others], y[others]).predict(x[i : i + 1])[0] == y[i])
    nearest = run([both], [both], k=(1,))
    assert nearest.tables["accuracy"][0]["top1"] == pytest.approx(right / 300)
    assert nearest.tables["accuracy"][0]["top1"] < 1
    assert nearest.scalars["leave_one_out"] == "yes"


def test_the_picture_says_that_its_k_was_chosen_on_test(tmp_path: Path) -> None:
    sides = {"train": TRAIN, "test": TEST}
    tables = [[table(tmp_path / side, X[rows], Y[rows])] for side, rows in sides.items()]
    figures = {
        k: {figure.name: figure.title for figure in run(tables[0], tables[1], k=k).figures}
        for k in ((5,), (1, 5, 100))
    }
    assert figures[5,]["confusion"] == "Confusion of pixels/fc, k = 5"
    assert figures[1, 5, 100]["confusion"].endswith(" (best on TEST)")


def test_unreadable_rows_take_no_part(tmp_path: Path) -> None:
    x = X[:200].copy()
    x[[3, 150]] = np.nan
    keep = np.delete(np.arange(200), [3, 150])
    holes = table(tmp_path / "holes", x, Y[:200])
    clean = table(tmp_path / "clean", X[keep], Y[keep])
    queries = table(tmp_path / "q", X[TEST], Y[TEST])
    assert run([holes], [queries]).tables["accuracy"] == run([clean], [queries]).tables["accuracy"]
    assert run([holes], [holes]).tables == run([clean], [clean]).tables
    assert run([holes], [holes]).scalars["unreadable"] == 2


def test_classes_are_matched_by_name(tmp_path: Path) -> None:
    train = table(tmp_path / "train", X[TRAIN], Y[TRAIN])
    same = table(tmp_path / "same", X[TEST], Y[TEST])
    turned = table(tmp_path / "turned", X[TEST], 9 - Y[TEST], NAMES[::-1])
    some = np.flatnonzero(Y[TEST] >= 7)
    few = table(tmp_path / "few", X[TEST][some], Y[TEST][some] - 7, ["7", "8", "new"])
    wanted = run([train], [same]).tables["accuracy"]
    assert run([train], [turned]).tables["accuracy"] == wanted
    result = run([train], [few], k=(1,))
    assert result.scalars["classes"] == 11
    by_class = {row["class"]: row["accuracy"] for row in result.tables["per_class"]}
    assert by_class["new"] == 0
    assert by_class["7"] > 0.9
    assert by_class["0"] is None


def test_combinations_are_those_of_normalised_features(tmp_path: Path) -> None:
    manifest = make_samples(tmp_path / "s", Y[:400], NAMES)
    left, right = X[:400, :32] * 100, X[:400, 32:]
    make_table(tmp_path / "s", manifest, "left/fc.none", left)
    make_table(tmp_path / "s", manifest, "right/fc.none", right)
    tables = open_store(tmp_path / "s").tables()
    result = run(tables, tables, k=(1,), combine=("average", "concat"))
    assert [row["features"] for row in result.tables["accuracy"]] == [
        "left/fc",
        "right/fc",
        "average",
        "concat",
    ]
    joined = np.hstack([normalize(left), normalize(right)])
    added = normalize(left) + normalize(right)
    for name, x in (("concat", joined), ("average", added)):
        alone = table(tmp_path / name, x.astype(np.float32), Y[:400])
        wanted = run([alone], [alone], k=(1,)).tables["accuracy"][0]["top1"]
        found = next(r for r in result.tables["accuracy"] if r["features"] == name)
        assert found["top1"] == pytest.approx(wanted, abs=0.003)
    with pytest.raises(UsageError, match="two models or more"):
        run(tables[:1], tables[:1], combine=("concat",))


def test_dino_vote_prefers_near_neighbours(tmp_path: Path) -> None:
    bank = np.array([[1, 0], [0.6, 0.8], [0.6, 0.8]], np.float32)
    train = table(tmp_path / "a", bank, np.array([0, 1, 1]), ["near", "far"])
    query = table(tmp_path / "b", np.array([[1, 0.01]], np.float32), np.array([0]), ["near"])
    majority = run([train], [query], k=(3,)).tables["accuracy"][0]
    dino = run([train], [query], k=(3,), vote="dino").tables["accuracy"][0]
    assert (majority["top1"], dino["top1"]) == (0, 1)


def test_tables_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    one = table(tmp_path / "one", X[:50], Y[:50])
    manifest = make_samples(tmp_path / "two", Y[:50], NAMES)
    make_table(tmp_path / "two", manifest, "pixels/fc.none", X[:50], weights="other")
    other = open_store(tmp_path / "two")["pixels"]
    with pytest.raises(UsageError, match="their backbone differs"):
        run([one], [other])
    make_table(tmp_path / "two", manifest, "more/fc.none", X[:50])
    with pytest.raises(UsageError, match=r"more/fc\.none only on one side"):
        run([one], open_store(tmp_path / "two").tables())


def test_requirements_are_checked_before_any_work(tmp_path: Path) -> None:
    manifest = make_samples(tmp_path / "s", np.zeros(4), ["a"])
    make_table(tmp_path / "s", manifest, "maps/x.none", np.zeros((4, 2, 3, 3), np.float32))
    maps = open_store(tmp_path / "s").tables()
    with pytest.raises(UsageError, match=r"rows of d numbers.*\(2, 3, 3\)"):
        run(maps, maps)


def test_store_path_equals_array_path(tmp_path: Path) -> None:
    train = table(tmp_path / "train", X[TRAIN], Y[TRAIN])
    test = table(tmp_path / "test", X[TEST], Y[TEST])
    for vote in ("majority", "dino"):
        classifier = KNNClassifier(k=5, vote=vote).fit(X[TRAIN], Y[TRAIN])
        found = run([train], [test], k=(5,), vote=vote).tables["accuracy"][0]["top1"]
        assert found == classifier.score(X[TEST], Y[TEST])


def test_the_same_images_in_two_tables_leave_one_out(tmp_path: Path) -> None:
    """Rounded to float16 a table has another key, and every query would find itself."""
    manifest = make_samples(tmp_path / "s", Y[:300], NAMES)
    make_table(tmp_path / "s", manifest, "full/fc.none", X[:300])
    make_table(tmp_path / "s", manifest, "half/fc.none", X[:300].astype(np.float16))
    full, half = open_store(tmp_path / "s").tables()
    mixed = run([full], [half], k=(1,))
    assert mixed.scalars["leave_one_out"] == "yes"
    alone = run([full], [full], k=(1,)).tables["accuracy"][0]["top1"]
    assert mixed.tables["accuracy"][0]["top1"] == pytest.approx(alone, abs=0.02)
    assert alone < 1


def test_images_on_both_sides_are_counted(tmp_path: Path) -> None:
    train = table(tmp_path / "train", X[:100], Y[:100])
    test = table(tmp_path / "test", X[100:150], Y[100:150])
    train.digests[[3, 4, 5]] = test.digests[[0, 1, 2]]
    assert run([train], [test]).scalars["in_both"] == 3


def test_an_image_that_one_table_lacks_takes_no_part(tmp_path: Path) -> None:
    manifest = make_samples(tmp_path / "s", Y[:100], NAMES)
    holes = X[:100].copy()
    holes[7] = np.nan
    make_table(tmp_path / "s", manifest, "a/fc.none", X[:100])
    make_table(tmp_path / "s", manifest, "b/fc.none", holes)
    tables = open_store(tmp_path / "s").tables()
    result = run(tables, tables, k=(1,), combine=("concat",))
    assert result.scalars["queries"] == 99
    assert len(result.tables["accuracy"]) == 3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"k": ()}, "k is empty"),
        ({"k": (5, 0)}, "k is 5,0"),
        ({"vote": "loud"}, "use majority or dino"),
        ({"combine": ("sum",)}, "use average or concat"),
    ],
)
def test_options_that_mean_nothing(config: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        KNNConfig(**config)  # type: ignore[arg-type]


def test_a_requirement_that_does_not_exist(tmp_path: Path) -> None:
    one = table(tmp_path / "one", X[:50], Y[:50])
    with pytest.raises(UsageError, match="unknown requirement .*'label': did you mean labels"):
        check_requirements(frozenset({"label"}), {"train": [one]})
    with pytest.raises(UsageError, match="train: no table given"):
        run([], [one])


def layered(store: Path, rows: slice) -> list[FeatureTable]:
    """Two backbones, each with a layer of noise, a good one, and one that is good on TRAIN only."""
    manifest = make_samples(store, Y[rows], NAMES)
    rng = np.random.default_rng(len(Y[rows]))
    noise = rng.random(X[rows].shape).astype(np.float32)
    for name in ("one", "two"):
        make_table(store, manifest, f"{name}/conv1.avg", noise, weights=name)
        make_table(store, manifest, f"{name}/res2.avg", X[rows], weights=name)
        told = np.eye(10, dtype=np.float32)[Y[rows] if rows == TRAIN else rng.permutation(Y[rows])]
        make_table(store, manifest, f"{name}/res4.avg", told + noise[:, :10] / 9, weights=name)
    return open_store(store).tables()


def test_the_best_layer_is_chosen_without_the_images_that_judge_it(tmp_path: Path) -> None:
    train, test = layered(tmp_path / "train", TRAIN), layered(tmp_path / "test", TEST)
    result = run(train, test, taps=("conv1", "res2"), k=(1, 5))
    shown = {row["features"] for row in result.tables["accuracy"]}
    assert shown == {"one/res2", "two/res2"}
    rows = {row["features"]: row for row in result.tables["layers"]}
    assert set(rows) == {"one/conv1", "one/res2", "two/conv1", "two/res2"}
    alone = [run([train[1]], [train[1]], k=(k,)).tables["accuracy"][0]["top1"] for k in (1, 5)]
    assert train[1].name == "one/res2.avg"
    assert rows["one/res2"]["score"] == pytest.approx(np.mean(alone))
    assert rows["one/res2"]["chosen"] == "yes"
    # the layer that only TRAIN likes is taken all the same: TEST has no say
    fooled = run(train, test, taps=("all",), k=(1,))
    (row, _) = fooled.tables["accuracy"]
    assert row["features"] == "one/res4"
    assert row["top1"] < 0.3


def test_taps_that_cannot_be_chosen_among(tmp_path: Path) -> None:
    train, test = layered(tmp_path / "train", TRAIN), layered(tmp_path / "test", TEST)
    with pytest.raises(UsageError, match=r"one has no tap res5 .*: did you mean res4"):
        run(train, test, taps=("res5",))
    for taps in (("nope",), ("res2", "nope"), ("all", "nope")):
        with pytest.raises(UsageError) as error:
            run(train, test, taps=taps)
        assert "one has no tap nope" in str(error.value)
        assert "it has conv1, res2, res4; give some of these, or all" in str(error.value)
    with pytest.raises(UsageError, match="TEST has the images of TRAIN"):
        run(train, train, taps=("all",))


def mapped(store: Path, rows: slice, *more: str) -> list[FeatureTable]:
    """Maps, and tokens, whose averages are known; with some of those as tables."""
    manifest = make_samples(store, Y[rows], NAMES)
    rng = np.random.default_rng(5)
    spread = rng.standard_normal((len(Y[rows]), 64, 2, 3)).astype(np.float32) * 30
    spread -= spread.mean((2, 3), keepdims=True)
    maps = X[rows][:, :, None, None] + spread
    maps[4] = np.nan
    noise = rng.standard_normal((len(Y[rows]), 8)).astype(np.float32)
    made = {
        "avgpool.avg": noise,
        "conv1.none": maps,
        "conv1.avg": maps.astype(np.float64).mean((2, 3)).astype(np.float32),
        "block.none": np.moveaxis(maps.reshape(*maps.shape[:2], 6), 1, 2),
    }
    for name in ("avgpool.avg", *more):
        make_table(store, manifest, f"net/{name}", made[name])
    return open_store(store).tables()


@pytest.mark.parametrize("tap", ["conv1", "block"])
def test_maps_and_tokens_are_layers_by_their_average(tmp_path: Path, tap: str) -> None:
    """NumPy's mean in double precision, stored as a table, is judged alike."""
    train = mapped(tmp_path / "train", TRAIN, f"{tap}.none")
    test = mapped(tmp_path / "test", TEST, f"{tap}.none")
    result = run(train, test, taps=("all",), k=(1, 5))
    layers = {row["features"]: row for row in result.tables["layers"]}
    assert set(layers) == {"net/avgpool", f"net/{tap} (avg)"}
    assert [row["features"] for row in result.tables["accuracy"]] == [f"net/{tap} (avg)"] * 2
    known = [mapped(tmp_path / f"{side}2", rows, "conv1.avg") for side, rows in
             (("train", TRAIN), ("test", TEST))]  # fmt: skip
    wanted = run(*known, taps=("conv1",), k=(1, 5))
    score = wanted.tables["layers"][0]["score"]
    assert layers[f"net/{tap} (avg)"]["score"] == pytest.approx(score, abs=0.002)
    for row, other in zip(result.tables["accuracy"], wanted.tables["accuracy"], strict=True):
        assert row["top1"] == pytest.approx(other["top1"], abs=0.002)
        assert row["top1"] > 0.8
    assert result.scalars["unreadable"] == wanted.scalars["unreadable"] == 1
    with pytest.raises(UsageError, match="rows of d numbers"):
        run(train, test)


def test_a_tap_with_its_average_is_one_layer(tmp_path: Path) -> None:
    sides = [mapped(tmp_path / side, rows, "conv1.none", "conv1.avg") for side, rows in
             (("train", TRAIN), ("test", TEST))]  # fmt: skip
    result = run(*sides, taps=("all",))
    assert [row["features"] for row in result.tables["layers"]] == ["net/avgpool", "net/conv1"]
    (row,) = run(*sides, taps=("avgpool",)).tables["layers"]
    assert row["features"] == "net/avgpool"


def test_an_averaged_table_gives_its_rows_in_every_way(tmp_path: Path) -> None:
    """NumPy's mean in double precision."""
    tables = mapped(tmp_path / "s", slice(0, 40), "conv1.none", "conv1.avg")
    known, source = (next(t for t in tables if t.name == f"net/conv1.{p}") for p in ("avg", "none"))
    found = AveragedTable(source)
    assert (found.shape, found.dtype, found.tap) == (known.shape, np.float32, "conv1 (avg)")
    assert (found.name, source.tap, source.shape) == ("net/conv1.none", "conv1", (40, 64, 2, 3))
    for rows in (found.numpy(), found.torch().numpy(), np.asarray(found)):
        np.testing.assert_allclose(rows, known.numpy(), atol=2e-5)
    np.testing.assert_allclose(
        np.concatenate([rows for _, rows in found.blocks()]), known.numpy(), atol=2e-5
    )


def test_sides_without_a_common_class_are_refused(tmp_path: Path) -> None:
    """The names may be there: what counts is that images have them."""
    low, high = (np.flatnonzero(side) for side in (Y[TRAIN] < 6, Y[TEST] >= 6))
    train = table(tmp_path / "train", X[TRAIN][low], Y[TRAIN][low])
    test = table(tmp_path / "test", X[TEST][high], Y[TEST][high])
    wanted = "TRAIN has classes 0, 1, 2, 3, 4, … and TEST 6, 7, 8, 9, and none is in both: give"
    with pytest.raises(UsageError, match=wanted):
        run([train], [test])
    renamed = table(tmp_path / "renamed", X[TEST], Y[TEST], [f"n{name}" for name in NAMES])
    with pytest.raises(UsageError, match="and TEST n0, n1, n2, n3, n4, …, and none is in both"):
        run([train], [renamed])
