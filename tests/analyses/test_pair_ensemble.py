"""Pairs of probes against scikit-learn's VotingClassifier, on stores written by hand."""

from __future__ import annotations

import math
from itertools import combinations
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn.datasets import load_digits
from sklearn.ensemble import VotingClassifier
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer

from featkit.analyses import pair_ensemble
from featkit.analyses.base import Result, check_requirements
from featkit.analyses.pair_ensemble import PairEnsemble, PairEnsembleConfig
from featkit.errors import UsageError
from featkit.ops.linear_probe import LinearProbe
from featkit.ops.soft_voting import pair_votes, pair_weights
from featkit.report.figures import draw_figures
from featkit.store.reader import FeatureTable, open_store
from tests.store.conftest import make_samples, make_table, seal_by_hand

DIGITS = load_digits()
RNG = np.random.default_rng(0)
Y = DIGITS.target[:1200]
CLASSES = [str(i) for i in range(10)]
N, Q = 800, 400


def view(width: int, noise: float) -> np.ndarray:
    """A blurred look at the digits."""
    x = DIGITS.data[:1200] @ RNG.standard_normal((64, width)) / 20
    return (x + noise * RNG.standard_normal(x.shape)).astype(np.float32)


MODELS = {
    "sharp": view(12, 0.7),
    "dim": view(9, 0.9),
    "narrow": view(4, 0.5),
    "blind": RNG.standard_normal((1200, 3)).astype(np.float32),
}
NAMES = [f"{name}/fc" for name in MODELS]
PAIRS = list(combinations(range(4), 2))


def side(
    path: Path, rows: slice, models: dict[str, np.ndarray] = MODELS, labels: np.ndarray = Y
) -> list[FeatureTable]:
    manifest = make_samples(path, labels[rows], CLASSES)
    for name, x in models.items():
        make_table(path, manifest, f"{name}/fc.none", x[rows], weights=name)
    return [open_store(path)[name] for name in models]


def sides(path: Path, **changes: Any) -> dict[str, list[Any]]:
    return {
        "train": side(path / "train", slice(0, N), **changes),
        "test": side(path / "test", slice(N, N + Q), **changes),
    }


def run(inputs: dict[str, list[Any]], **config: Any) -> Result:
    """Pair probes by what is quickest, where the protocol does not matter."""
    config = {"protocol": "unregularised"} | config
    return PairEnsemble(PairEnsembleConfig(**config)).run(inputs)


@pytest.fixture
def inputs(tmp_path: Path) -> dict[str, list[Any]]:
    return sides(tmp_path)


def grouped(groups: dict[str, Any]) -> list[Result]:
    """What the analysis of lce gives, as far as it is read."""
    rows = [{"model": model, "pc1": 0.5, "group": group} for model, group in groups.items()]
    return [Result("lce", {}, tables={"embedding": rows}, provenance={"made": "by hand"})]


def validation_by_scikit_learn(x: np.ndarray) -> float:
    drawn = torch.randperm(N, generator=torch.Generator().manual_seed(0)).numpy()
    rest, kept = drawn[: N // 5], drawn[N // 5 :]
    model = LogisticRegression(C=math.inf, solver="newton-cholesky", tol=1e-8, max_iter=1000)
    return float(model.fit(x[kept].astype(float), Y[kept]).score(x[rest].astype(float), Y[rest]))


def test_pairs_are_scikit_learns_voting_classifiers(inputs: dict[str, list[Any]]) -> None:
    result = run(inputs)
    models = result.tables["models"]
    assert [row["features"] for row in models] == NAMES
    for row, x in zip(models, MODELS.values(), strict=True):
        # one image on the border between two classes
        assert row["validation"] == pytest.approx(validation_by_scikit_learn(x), abs=1.01 / 160)
    accuracy = [row["validation"] for row in models]
    assert accuracy[0] > accuracy[1] > accuracy[2] > 0.5 > 0.2 > accuracy[3]
    peers = []
    for at in range(4):
        before = sum(x.shape[1] for x in list(MODELS.values())[:at])
        columns = slice(before, before + list(MODELS.values())[at].shape[1])
        peers.append(
            make_pipeline(
                FunctionTransformer(lambda x, columns=columns: x[:, columns]),
                LogisticRegression(C=math.inf, solver="newton-cholesky", tol=1e-8, max_iter=1000),
            )
        )
    x = np.concatenate(list(MODELS.values()), axis=1).astype(float)
    for (i, j), row in zip(PAIRS, result.tables["pairs"], strict=True):
        assert (row["one"], row["other"]) == (NAMES[i], NAMES[j])
        first = 0.5 + abs(accuracy[i] - accuracy[j])  # i is the better in each pair
        assert (row["weight_one"], row["weight_other"]) == pytest.approx((first, 1 - first))
        peer = VotingClassifier(
            [("one", peers[i]), ("other", peers[j])], voting="soft", weights=[first, 1 - first]
        ).fit(x[:N], Y[:N])
        together = peer.score(x[N:], Y[N:])
        assert row["top1"] == pytest.approx(together, abs=1.01 / Q)
        alone = [model.score(x[N:], Y[N:]) for model in peer.estimators_]
        assert row["better"] == pytest.approx(max(alone), abs=1.01 / Q)
        assert row["gain"] == pytest.approx(row["top1"] - row["better"])
    gains = {(row["one"], row["other"]): row["gain"] for row in result.tables["pairs"]}
    assert gains["sharp/fc", "dim/fc"] > 0.02
    assert result.scalars == {
        "pairs": 6,
        "mean_gain": pytest.approx(np.mean(list(gains.values()))),
        "gaining": sum(gain > 0 for gain in gains.values()),
        "classes": 10,
        "unreadable": 0,
        "in_both": 0,
    }


@pytest.mark.parametrize("weights", ["printed", "convex"])
def test_store_path_equals_array_path(inputs: dict[str, list[Any]], weights: Any) -> None:
    result = run(inputs, weights=weights, protocol="logistic", seed=3)
    probes = [LinearProbe(random_state=3).fit(x[:N], Y[:N]) for x in MODELS.values()]
    p = np.stack([m.predict_proba(x[N:]) for m, x in zip(probes, MODELS.values(), strict=True)])
    factors = pair_weights([max(m.validation_scores_) for m in probes], weights)
    right = pair_votes(p, factors) == Y[N:]
    for row, alone, i in zip(result.tables["models"], probes, range(4), strict=True):
        assert row["validation"] == max(alone.validation_scores_)
        assert row["top1"] == alone.score(MODELS[NAMES[i][:-3]][N:], Y[N:])
        interval = binomtest(int(right[i, i].sum()), Q).proportion_ci(method="wilson")
        assert (row["low"], row["high"]) == pytest.approx((interval.low, interval.high))
    assert result.arrays["names"].tolist() == NAMES
    for (i, j), row in zip(PAIRS, result.tables["pairs"], strict=True):
        assert (row["weight_one"], row["weight_other"]) == (factors[i, j], factors[j, i])
        assert row["top1"] == right[i, j].mean()
        rival = max((right[i, i], right[j, j]), key=np.mean)
        assert row["gain"] == pytest.approx(right[i, j].mean() - rival.mean())
        lost, won = int((rival & ~right[i, j]).sum()), int((right[i, j] & ~rival).sum())
        assert row["p"] == pytest.approx(binomtest(won, won + lost).pvalue if won + lost else 1)
        assert row["low"] <= (won - lost) / (Q + 2) <= row["high"]
        gain = result.arrays["gain"]
        assert gain[i, j] == gain[j, i] == row["gain"]
    np.testing.assert_array_equal(result.arrays["gain"].diagonal(), 0)


def test_weights_that_leave_0_to_1(inputs: dict[str, list[Any]]) -> None:
    printed, convex = run(inputs), run(inputs, weights="convex")
    rows = {w: {(r["one"], r["other"]): r for r in result.tables["pairs"]}
            for w, result in (("printed", printed), ("convex", convex))}  # fmt: skip
    blind = ("sharp/fc", "blind/fc")
    assert rows["printed"][blind]["weight_one"] > 1
    assert rows["printed"][blind]["weight_other"] < 0
    row = rows["convex"][blind]
    assert (row["weight_one"], row["weight_other"]) == (1, 0)
    assert (row["gain"], row["p"]) == (0, 1)
    assert row["low"] < 0 < row["high"]
    good = ("sharp/fc", "dim/fc")
    assert rows["printed"][good] == rows["convex"][good]
    (note,) = printed.notes
    assert note.startswith("more than 0.5 apart in accuracy: sharp/fc and blind/fc, ")
    assert note.endswith("the weaker counts negatively there, and --weights convex leaves it out")
    assert convex.notes == [note.partition(": the weaker")[0] + ": the better answers alone there"]
    assert not run({s: tables[:3] for s, tables in inputs.items()}).notes


def test_the_order_of_models_does_not_matter(inputs: dict[str, list[Any]]) -> None:
    result = run(inputs)
    turned = run({name: tables[::-1] for name, tables in inputs.items()})
    np.testing.assert_array_equal(turned.arrays["gain"], result.arrays["gain"][::-1, ::-1])
    assert turned.scalars == {**result.scalars, "mean_gain": turned.scalars["mean_gain"]}
    assert turned.tables["models"] == result.tables["models"][::-1]
    swapped = {"one": "other", "weight_one": "weight_other"}
    swapped |= {new: old for old, new in swapped.items()}
    back = [{swapped.get(k, k): v for k, v in row.items()} for row in turned.tables["pairs"]]
    key = lambda row: (row["one"], row["other"])  # noqa: E731
    assert sorted(back, key=key) == sorted(
        [{**row} for row in result.tables["pairs"]], key=key
    )  # fmt: skip


def test_nothing_is_chosen_on_test(tmp_path: Path, inputs: dict[str, list[Any]]) -> None:
    """Other labels of TEST change what is found, and not what the models weigh."""
    labels = np.concatenate([Y[:N], np.random.default_rng(1).permutation(Y[N:])])
    other = run({**inputs, "test": side(tmp_path / "other", slice(N, N + Q), labels=labels)})
    result = run(inputs)
    chosen = ("weight_one", "weight_other")
    for a, b in zip(result.tables["pairs"], other.tables["pairs"], strict=True):
        assert [a[name] for name in chosen] == [b[name] for name in chosen]
        assert abs(b["top1"] - 0.1) < 0.06
    for a, b in zip(result.tables["models"], other.tables["models"], strict=True):
        assert a["validation"] == b["validation"]


def test_equally_good_models_count_half_each(tmp_path: Path) -> None:
    twins = {"one": MODELS["sharp"], "two": MODELS["sharp"].copy()}
    (row,) = run(sides(tmp_path, models=twins)).tables["pairs"]
    assert (row["weight_one"], row["weight_other"]) == (0.5, 0.5)
    assert (row["gain"], row["p"]) == (0, 1)


def test_blocks_of_test_do_not_matter(
    inputs: dict[str, list[Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(inputs)
    monkeypatch.setattr(pair_ensemble, "_CELLS", 4 * 10 * 33)
    parts = run(inputs)
    assert parts.tables == whole.tables


def test_an_image_that_one_model_lacks_takes_no_part(tmp_path: Path) -> None:
    holes = {name: x.copy() for name, x in MODELS.items()}
    holes["dim"][[5, 900]] = np.nan
    holes["blind"][[5, 6, 901]] = np.nan
    keep = np.delete(np.arange(1200), [5, 6, 900, 901])
    one = run(sides(tmp_path / "holes", models=holes))
    clean = {name: x[keep] for name, x in MODELS.items()}
    other = run(
        {
            "train": side(tmp_path / "train", slice(0, N - 2), clean, Y[keep]),
            "test": side(tmp_path / "test", slice(N - 2, None), clean, Y[keep]),
        }
    )
    assert one.tables == other.tables
    assert one.scalars == {**other.scalars, "unreadable": 4}


def test_gains_by_group(inputs: dict[str, list[Any]]) -> None:
    groups = {"blind": 2, "sharp": 0, "narrow/fc": 1, "dim": 0}
    result = run({**inputs, "groups": grouped(groups)})
    assert [row["group"] for row in result.tables["models"]] == ["0", "0", "1", "2"]
    gain = {frozenset((r["one"], r["other"])): r["gain"] for r in result.tables["pairs"]}
    names = result.arrays["group_names"].tolist()
    assert names == ["2", "0", "1"]  # as in lce
    inside = gain[frozenset(("sharp/fc", "dim/fc"))]
    narrow = [gain[frozenset((one, "narrow/fc"))] for one in ("sharp/fc", "dim/fc")]
    blind = [gain[frozenset((one, "blind/fc"))] for one in ("sharp/fc", "dim/fc")]
    wanted = {
        ("2", "0"): (2, np.mean(blind)),
        ("2", "1"): (1, gain[frozenset(("narrow/fc", "blind/fc"))]),
        ("0", "0"): (1, inside),
        ("0", "1"): (2, np.mean(narrow)),
    }
    rows = result.tables["groups"]
    assert [(row["one"], row["other"]) for row in rows] == list(wanted)
    for row in rows:
        pairs, mean = wanted[row["one"], row["other"]]
        assert (row["pairs"], row["gain"]) == (pairs, pytest.approx(mean))
        i, j = names.index(row["one"]), names.index(row["other"])
        assert result.arrays["group_pairs"][i, j] == result.arrays["group_pairs"][j, i] == pairs
        assert result.arrays["group_gain"][i, j] == result.arrays["group_gain"][j, i] == row["gain"]
    # neither the blind nor the narrow one has another of its group
    assert np.isnan(result.arrays["group_gain"]).sum() == 2
    assert result.provenance["groups"] == {"made": "by hand"}
    ungrouped = run(inputs)
    assert ungrouped.tables["pairs"] == result.tables["pairs"]
    assert "groups" not in ungrouped.tables
    assert "group" not in ungrouped.tables["models"][0]


@pytest.mark.parametrize(
    ("groups", "found", "notes"),
    [
        ({"sharp": "A", "dim": "A", "narrow": "B", "blind": "B"}, ["A", "A", "B", "B"], []),
        # the name with its tap says more than the backbone's
        (
            {"sharp": "A", "sharp/fc": "B", "dim": "A", "narrow": "A", "blind": "A"},
            ["B", "A", "A", "A"],
            ["in the groups and not among the tables: sharp"],
        ),
        # dissected at other taps: one group or several
        (
            {"sharp/l1": "A", "sharp/l2": "A", "dim/l1": "A", "dim/l2": "B", "narrow": "C"},
            ["A", None, "C", None],
            ["in no group, or in several: dim/fc, blind/fc: in no mean over groups"],
        ),
        (
            {"sharp": "A", "dim": None, "gone": "B", "sharper": "A", "narrow": "B", "blind": "B"},
            ["A", None, "B", "B"],
            [
                "in no group, or in several: dim/fc: in no mean over groups",
                "in the groups and not among the tables: gone, sharper",
            ],
        ),
    ],
)
def test_models_of_lce_are_found_among_the_tables(
    inputs: dict[str, list[Any]], groups: dict[str, Any], found: list[Any], notes: list[str]
) -> None:
    result = run({**inputs, "groups": grouped(groups)})
    assert [row["group"] for row in result.tables["models"]] == found
    assert [note for note in result.notes if "group" in note] == notes
    order = [group for group in dict.fromkeys(groups.values()) if group in found and group]
    assert result.arrays["group_names"].tolist() == order
    members = sum(group is not None for group in found)
    assert np.triu(result.arrays["group_pairs"]).sum() == math.comb(members, 2)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([Result("lce", {})], "puts no model in a group: give one with groups"),
        (grouped({"sharp": None}), "puts no model in a group"),
        (
            grouped({"vgg": "A", "other/fc": "B"}),
            "none of sharp/fc, dim/fc, narrow/fc, blind/fc is in a group; in groups are vgg, other",
        ),
    ],
)
def test_groups_of_other_models(
    inputs: dict[str, list[Any]], groups: list[Result], message: str
) -> None:
    with pytest.raises(UsageError) as raised:
        run({**inputs, "groups": groups})
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def test_figures(inputs: dict[str, list[Any]], tmp_path: Path) -> None:
    groups = {"sharp": "A", "dim": "A", "narrow": "A", "blind": "B"}
    result = run({**inputs, "groups": grouped(groups)})
    about = [(f.name, f.kind, f.data, f.labels, f.diagonal, f.center, f.counts)
             for f in result.figures]  # fmt: skip
    assert about == [
        ("gain", "heatmap", "gain", "names", False, 0, None),
        ("groups", "heatmap", "group_gain", "group_names", True, 0, "group_pairs"),
    ]
    assert [path.name for path in draw_figures(result, tmp_path / "out")] == [
        "gain.png", "groups.png",
    ]  # fmt: skip


def test_features_choose_the_models_and_their_order(inputs: dict[str, list[Any]]) -> None:
    result = run(inputs, features=("narrow", "sharp/fc", "narrow/fc"))
    (row,) = result.tables["pairs"]
    assert (row["one"], row["other"]) == ("narrow/fc", "sharp/fc")
    whole = run(inputs)
    assert row["gain"] == whole.arrays["gain"][2, 0]
    read = result.provenance["inputs"]["test"]
    assert [Path(table["table"]).parent.name for table in read] == ["narrow", "sharp"]
    with pytest.raises(UsageError, match="shrap: no such table; did you mean"):
        run(inputs, features=("shrap", "dim"))
    with pytest.raises(UsageError, match="test:blind: no such table"):
        run({**inputs, "test": inputs["test"][:3]}, features=("blind", "dim"))


def test_classes_that_train_lacks(tmp_path: Path, inputs: dict[str, list[Any]]) -> None:
    known = Y[:N] > 1
    few = {name: x[:N][known] for name, x in MODELS.items()}
    train = side(tmp_path / "few", slice(None), few, Y[:N][known])
    result = run({**inputs, "train": train}, features=("sharp", "dim"))
    assert result.notes == ["TRAIN has no image of class 0, 1: always wrong there"]
    (row,) = result.tables["pairs"]
    assert 0.6 < row["top1"] <= (Y[N:] > 1).mean()


def test_what_cannot_be_paired(tmp_path: Path, inputs: dict[str, list[Any]]) -> None:
    def refused(message: str, **changes: Any) -> None:
        config = changes.pop("config", {})
        with pytest.raises(UsageError) as raised:
            run({**inputs, **changes}, **config)
        assert message in str(raised.value)
        assert "\n" not in str(raised.value)

    one = {name: tables[:1] for name, tables in inputs.items()}
    refused("fc.none.h5 is the only model: give two or more", **one)
    refused("is the only model", config={"features": ("dim",)})
    refused("blind/fc.none only on one side", test=inputs["test"][:3])
    refused("TRAIN and TEST are the same images", test=inputs["train"])
    ones = side(tmp_path / "ones", slice(0, N), labels=np.full(1200, 3))
    refused("TRAIN has images of one class, 3: give images of two or more", train=ones)
    with h5py.File(tmp_path / "train" / "samples.h5", "r+") as file:
        del file["label"]
        file["label"] = np.eye(10, dtype=np.uint8)[Y[:N]]
    seal_by_hand(tmp_path / "train" / "samples.h5", "featkit-samples")
    train = [open_store(tmp_path / "train")[name] for name in MODELS]
    refused("needs one label a sample, and its images have several", train=train)
    with pytest.raises(UsageError, match="needs one label a sample"):
        check_requirements(PairEnsemble.requires, {"train": train})


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"weights": "equal"}, "weights 'equal': use printed or convex"),
        ({"protocol": "svm"}, "protocol 'svm': use logistic or unregularised or sgd"),
        ({"seed": -1}, "seed is -1: give a whole number"),
    ],
)
def test_options_that_mean_nothing(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        PairEnsembleConfig(**config)
