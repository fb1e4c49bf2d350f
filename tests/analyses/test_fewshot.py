"""The few-shot analysis against arrays and scikit-learn, on stores written by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.neighbors import NearestCentroid

from featkit.analyses.base import Result
from featkit.analyses.fewshot import FewShot, FewShotConfig
from featkit.errors import UsageError
from featkit.ops.few_shot import mean_interval, prototype_accuracy, sample_episodes
from featkit.store.reader import FeatureTable, open_store
from tests.store.conftest import make_samples, make_table

DIGITS = load_digits()
NOISE = np.random.default_rng(0)
X = (DIGITS.data + NOISE.standard_normal(DIGITS.data.shape)).astype(np.float32)
Y = DIGITS.target
NAMES = [str(i) for i in range(10)]
TRAIN, TEST = slice(0, 1000), slice(1000, 1797)


def make(
    store: Path, tables: dict[str, Any], y: Any, names: list[str] = NAMES
) -> list[FeatureTable]:
    manifest = make_samples(store, y, names)
    for name, x in tables.items():
        make_table(store, manifest, f"{name}/fc.none", x)
    return open_store(store).tables()


def one(store: Path, x: Any, y: Any, names: list[str] = NAMES) -> list[FeatureTable]:
    return make(store, {"pixels": x}, y, names)


def run(train: list[FeatureTable], test: list[FeatureTable], **config: Any) -> Result:
    return FewShot(FewShotConfig(**{"episodes": 100} | config)).run({"train": train, "test": test})


@pytest.fixture
def digits(tmp_path: Path) -> tuple[list[FeatureTable], list[FeatureTable]]:
    return one(tmp_path / "train", X[TRAIN], Y[TRAIN]), one(tmp_path / "test", X[TEST], Y[TEST])


Sides = tuple[list[FeatureTable], list[FeatureTable]]


def test_store_path_equals_array_path(digits: Sides) -> None:
    result = run(*digits, ways=4, shots=(3,), queries=6, seed=5)
    sizes = {"ways": 4, "shots": 3, "queries": 6, "episodes": 100, "generator": 5}
    wanted = prototype_accuracy(X[TRAIN], X[TEST], sample_episodes(Y[TRAIN], Y[TEST], **sizes))
    np.testing.assert_array_equal(result.arrays["episodes/pixels/fc/s3"], wanted)
    mean, ci95 = mean_interval(wanted)
    assert 0.7 < mean < 1
    assert result.tables["accuracy"] == [
        {
            "features": "pixels/fc", "ways": 4, "shots": 3, "queries": 6, "episodes": 100,
            "accuracy": mean, "ci95": ci95, "low": mean - ci95, "high": mean + ci95,
        }
    ]  # fmt: skip
    assert result.scalars == {
        "accuracy": mean, "ci95": ci95, "classes": 10, "support_images": 1000, "query_images": 797,
        "unreadable": 0, "in_both": 0, "merged": "no",
    }  # fmt: skip
    assert result.notes == []
    assert result.provenance["seed"] == 5


def test_merged_and_equal_sides_are_one_array(digits: Sides, tmp_path: Path) -> None:
    everything = one(tmp_path / "all", X, Y)
    wanted = prototype_accuracy(X, X, sample_episodes(Y, episodes=100))
    for result in (
        run(*digits, merge=True),
        *(run(everything, everything, merge=m) for m in (0, 1)),
    ):
        np.testing.assert_array_equal(result.arrays["episodes/pixels/fc/s5"], wanted)
        assert result.scalars["merged"] == "yes"
        assert result.scalars["repeated"] == 0
        assert result.scalars["support_images"] == result.scalars["query_images"] == 1797
    assert wanted.mean() < 1


def test_all_support_there_is_makes_sklearns_nearest_centroid(tmp_path: Path) -> None:
    """With every image of TRAIN as support and all of TEST as queries, episodes are alike."""
    train = np.concatenate([np.flatnonzero(Y[TRAIN] == c)[:90] for c in range(10)])
    test = 1000 + np.concatenate([np.flatnonzero(Y[TEST] == c)[:70] for c in range(10)])
    sides = one(tmp_path / "a", X[train], Y[train]), one(tmp_path / "b", X[test], Y[test])
    result = run(*sides, ways=10, shots=(90,), queries=70, episodes=5)
    wanted = NearestCentroid().fit(X[train], Y[train]).score(X[test], Y[test])
    assert 0.8 < wanted < 1
    np.testing.assert_allclose(result.arrays["episodes/pixels/fc/s90"], wanted, rtol=1e-12)
    assert result.scalars["ci95"] == pytest.approx(0, abs=1e-12)


def test_unreadable_images_take_no_part(tmp_path: Path) -> None:
    keep = np.delete(np.arange(1797), [3, 700, 1500])
    x = X.copy()
    x[[3, 700, 1500]] = np.nan
    holes = one(tmp_path / "h0", x[TRAIN], Y[TRAIN]), one(tmp_path / "h1", x[TEST], Y[TEST])
    a, b = keep[keep < 1000], keep[keep >= 1000]
    clean = one(tmp_path / "c0", X[a], Y[a]), one(tmp_path / "c1", X[b], Y[b])
    for merge in (False, True):
        found, wanted = run(*holes, merge=merge), run(*clean, merge=merge)
        assert found.tables == wanted.tables
        assert found.scalars == wanted.scalars | {"unreadable": 3}
    both = run(holes[0], holes[0])
    assert both.tables == run(clean[0], clean[0]).tables
    assert both.scalars["unreadable"] == 2


def test_an_image_that_one_table_lacks_takes_no_part_in_any(tmp_path: Path) -> None:
    x = X[:400].copy()
    x[7] = np.nan
    tables = make(tmp_path / "s", {"a": X[:400], "b": x}, Y[:400])
    result = run(tables, tables, queries=10)
    assert result.scalars["support_images"] == 399
    one, other = result.tables["accuracy"]
    assert one["accuracy"] == other["accuracy"]


def test_classes_are_matched_by_name(digits: Sides, tmp_path: Path) -> None:
    turned = one(tmp_path / "turned", X[TEST], 9 - Y[TEST], NAMES[::-1])
    wanted = run(*digits)
    assert run(digits[0], turned).tables == wanted.tables
    assert run(digits[0], turned, merge=True).tables == run(*digits, merge=True).tables


def test_classes_on_one_side_only_are_named(digits: Sides, tmp_path: Path) -> None:
    some = np.flatnonzero(Y[TEST] >= 7)
    few = one(tmp_path / "few", X[TEST][some], Y[TEST][some] - 7, ["7", "8", "new"])
    result = run(digits[0], few, ways=2)
    assert result.scalars["classes"] == 2
    assert result.notes == ["classes on one side only take no part: 0, 1, 2, 3, 4 and 4 more"]
    assert run(digits[0], few, ways=2, merge=True).scalars["classes"] == 11
    with pytest.raises(UsageError, match=r"ways is 5, and 2 class\(es\) .*: 7, 8: lower ways"):
        run(digits[0], few)


def test_sides_without_a_common_class_are_refused(digits: Sides, tmp_path: Path) -> None:
    strange = one(tmp_path / "strange", X[TEST], Y[TEST], [f"n{name}" for name in NAMES])
    with pytest.raises(UsageError, match="and TEST n0, n1, n2, n3, n4, …, and none is in both"):
        run(digits[0], strange)
    assert run(digits[0], strange, merge=True).scalars["classes"] == 20


def test_all_tables_see_the_same_episodes(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).standard_normal(X.shape) * 6
    tables = {"sharp": X, "noisy": (X + noise).astype(np.float32), "same": X * 2}
    train = make(tmp_path / "a", {n: x[TRAIN] for n, x in tables.items()}, Y[TRAIN])
    test = make(tmp_path / "b", {n: x[TEST] for n, x in tables.items()}, Y[TEST])
    result = run(train, test, shots=(5, 1, 5))
    rows = {(row["features"], row["shots"]): row for row in result.tables["accuracy"]}
    assert list(rows) == [(f"{n}/fc", s) for n in sorted(tables) for s in (1, 5)]
    for s in (1, 5):
        found = {name: result.arrays[f"episodes/{name}/fc/s{s}"] for name in tables}
        noisy, sharp, same = (rows[f"{name}/fc", s] for name in ("noisy", "sharp", "same"))
        np.testing.assert_array_equal(found["same"], found["sharp"])
        apart = found["sharp"] - found["noisy"]
        assert noisy["behind"] == pytest.approx(sharp["accuracy"] - noisy["accuracy"], abs=1e-12)
        assert noisy["behind_ci95"] == pytest.approx(1.96 * apart.std() / 10)
        assert 0 < noisy["behind_ci95"] < (noisy["ci95"] ** 2 + sharp["ci95"] ** 2) ** 0.5
        assert same["behind"] is None  # the first of the best
        assert (sharp["behind"], sharp["behind_ci95"]) == (0, 0)
    assert result.scalars["test_best"] == "same/fc/s5"
    for name in ("accuracy", "ci95"):
        assert result.scalars[f"test_best_{name}"] == rows["same/fc", 5][name]
    assert not {"best", "accuracy", "ci95"} & result.scalars.keys()
    for sides, shots in (((train[2:], test[2:]), (1, 5)), ((train, test), (1,))):
        several = run(*sides, shots=shots).scalars
        assert several["test_best"] == f"{'sharp' if len(shots) > 1 else 'same'}/fc/s{shots[-1]}"
        assert not {"accuracy", "ci95"} & several.keys()
    alone = run(train[2:], test[2:], shots=(1,))  # fewer shots, fewer tables, the same episodes
    np.testing.assert_array_equal(
        alone.arrays["episodes/sharp/fc/s1"], result.arrays["episodes/sharp/fc/s1"]
    )
    (row,) = alone.tables["accuracy"]
    assert (alone.scalars["accuracy"], alone.scalars["ci95"]) == (row["accuracy"], row["ci95"])
    assert not [name for name in alone.scalars if "best" in name]
    assert "behind" not in alone.tables["accuracy"][0]


def test_no_table_is_before_the_best(tmp_path: Path) -> None:
    rng = np.random.default_rng(3)
    tables = {f"n{i}": X + 4 * rng.standard_normal(X.shape).astype(np.float32) for i in range(6)}
    both = make(tmp_path / "s", tables, Y)
    rows = run(both, both, shots=(1, 5), episodes=20).tables["accuracy"]
    for shots in (1, 5):
        accuracies = [row["accuracy"] for row in rows if row["shots"] == shots]
        behind = [row["behind"] or 0 for row in rows if row["shots"] == shots]
        np.testing.assert_allclose(behind, max(accuracies) - np.array(accuracies), atol=1e-12)
        assert len(set(accuracies)) > 3


def test_an_image_is_never_support_and_query_at_once(tmp_path: Path) -> None:
    """Features know each image and nothing of its class: whoever meets it again is right."""
    x = np.random.default_rng(1).standard_normal((120, 50)).astype(np.float32)
    y = np.arange(120) % 4
    names = NAMES[:4]
    train, test = one(tmp_path / "a", x, y, names), one(tmp_path / "b", x[:60], y[:60], names)
    test[0].digests[:] = train[0].digests[:60]
    train[0].digests[119] = train[0].digests[115]  # a copy on the same side, of the same class
    config = {"ways": 4, "shots": (14,), "queries": 14, "episodes": 200}
    shown = run(train, test, **config)
    assert shown.scalars["in_both"] == 60
    assert shown.notes == [
        "60 images of TEST are in TRAIN too (same content), and one may be support and query at"
        " once; --merge takes each once"
    ]
    merged = run(train, test, merge=True, **config)
    assert merged.scalars["repeated"] == 61
    assert merged.scalars["support_images"] == 119
    assert merged.notes == [
        "61 of the images have the content of another one and are left out, so that no image is"
        " support and query at once"
    ]
    assert shown.scalars["accuracy"] > 0.4
    chance = merged.scalars
    assert chance["accuracy"] == pytest.approx(1 / 4, abs=0.04)
    same = run(train, train, **config)
    assert same.scalars["repeated"] == 1
    np.testing.assert_array_equal(
        same.arrays["episodes/pixels/fc/s14"], merged.arrays["episodes/pixels/fc/s14"]
    )


def test_the_same_images_in_two_tables_stay_disjoint(tmp_path: Path) -> None:
    """Rounded to float16 a table has another key; support is of the one, queries of the other."""
    x = 20 + np.random.default_rng(2).standard_normal((160, 30)).astype(np.float32)
    tables = {"full": x, "half": x.astype(np.float16)}
    full, half = make(tmp_path / "s", tables, np.arange(160) % 8, NAMES[:8])
    episodes = sample_episodes(np.arange(160) % 8, ways=8, episodes=100)
    wanted = prototype_accuracy(x, x.astype(np.float16), episodes)
    for merge in (False, True):
        result = run([full], [half], ways=8, merge=merge)
        assert result.scalars["merged"] == "yes"
        assert result.scalars["accuracy"] == pytest.approx(1 / 8, abs=0.03)
        np.testing.assert_array_equal(result.arrays["episodes/full/fc/s5"], wanted)


def test_tables_are_read_where_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    x = X.copy()
    x[[3, 1500]] = np.nan  # without which a table would be all of its rows anyway
    digits = one(tmp_path / "a", x[TRAIN], Y[TRAIN]), one(tmp_path / "b", x[TEST], Y[TEST])
    seen: list[Any] = []

    def look(support: Any, queries: Any, episodes: Any) -> Any:
        seen.extend([support, queries])
        return np.zeros(2)

    monkeypatch.setattr("featkit.analyses.fewshot.prototype_accuracy", look)
    run(*digits)
    run(*digits, merge=True)
    parts = [part for given in seen for part in getattr(given, "parts", (given,))]
    assert len(parts) == 6
    assert all(isinstance(part, np.memmap) for part in parts)


@pytest.mark.parametrize(("shots", "kind"), [((5,), "bar"), ((5, 5), "bar"), ((1, 10), "line")])
def test_figures(shots: tuple[int, ...], kind: str, digits: Sides) -> None:
    (figure,) = run(*digits, shots=shots, episodes=3).figures
    assert (figure.kind, figure.data, figure.y) == (kind, "accuracy", "accuracy")
    assert figure.interval == ("low", "high")
    assert figure.log_x == (kind == "line")
    assert figure.x == {"bar": "features", "line": "shots"}[kind]
    assert figure.hue == {"bar": None, "line": "features"}[kind]
    assert figure.title == "Nearest class mean, 5-way" + " 5-shot" * (kind == "bar")


def test_intervals_stay_within_0_and_1(tmp_path: Path) -> None:
    x = np.eye(3, dtype=np.float32)[np.arange(300) % 3]
    x[0] = x[1]
    sides = [one(tmp_path / "s", x, np.arange(300) % 3, NAMES[:3])] * 2
    rows = [run(*sides, ways=3, episodes=4, seed=s).tables["accuracy"][0] for s in range(20)]
    assert any(row["accuracy"] < 1 for row in rows)
    assert max(row["accuracy"] + row["ci95"] for row in rows) > 1
    for row in rows:
        assert row["high"] == min(row["accuracy"] + row["ci95"], 1)
        assert row["low"] == row["accuracy"] - row["ci95"]


def test_classes_that_are_too_small_are_named(digits: Sides, tmp_path: Path) -> None:
    few = one(tmp_path / "few", X[:60], Y[:60])
    with pytest.raises(UsageError, match="10 of 10 classes are too small: 0 [(]8 support and 79"):
        run(few, digits[1], shots=(1, 10))
    with pytest.raises(UsageError, match=r"each needs 17 rows, 2 for support and 15 for queries"):
        run(few, few, shots=(2,))


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"shots": ()}, "shots is empty: give whole numbers, at least 1"),
        ({"shots": (5, 0)}, "shots is 5,0"),
        ({"ways": 1}, "ways is 1: give a whole number, at least 2"),
        ({"queries": 0}, "queries is 0: give a whole number, at least 1"),
        ({"episodes": 1}, "episodes is 1: give a whole number, at least 2"),
        ({"seed": -1}, "seed is -1: give a whole number, at least 0"),
    ],
)
def test_options_that_mean_nothing(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        FewShotConfig(**config)


def test_defaults_are_the_published_protocol() -> None:
    assert FewShotConfig() == FewShotConfig(
        ways=5, shots=(5,), queries=15, episodes=600, seed=0, merge=False
    )


def test_tables_that_do_not_belong_together_are_refused(digits: Sides, tmp_path: Path) -> None:
    manifest = make_samples(tmp_path / "two", Y[TEST], NAMES)
    make_table(tmp_path / "two", manifest, "pixels/fc.none", X[TEST], weights="other")
    with pytest.raises(UsageError, match="their backbone differs"):
        run(digits[0], open_store(tmp_path / "two").tables())
    maps = make(tmp_path / "maps", {"maps": X[TRAIN].reshape(-1, 1, 8, 8)}, Y[TRAIN])
    with pytest.raises(UsageError, match="rows of d numbers"):
        run(maps, maps)
