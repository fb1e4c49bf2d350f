"""The embedding of models against scikit-learn, SciPy, sums by hand and metamorphoses."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy import stats
from sklearn.decomposition import PCA

from featkit.analyses.base import Result
from featkit.analyses.lce.analysis import LCE
from featkit.analyses.lce.config import LCEConfig
from featkit.errors import UsageError
from featkit.report.figures import draw_figures
from tests.analyses.dissections import CONCEPTS, MODELS, SIZES, write_dissection, write_models

NAMES = list(MODELS)
COUNTS = np.array([[found.get(name, 0) for name in CONCEPTS] for found in MODELS.values()])
DIVISORS = np.array([SIZES[name.split("/")[0]] for name in CONCEPTS], float)


def run(folders: list[Path], **config: Any) -> Result:
    results = [Result.load(folder, "dissect") for folder in folders]
    return LCE(LCEConfig(**config)).run({"dir": results})


def places(result: Result) -> np.ndarray:
    rows = result.tables["embedding"]
    return np.array([[row[f"pc{i}"] for i in (1, 2, 3)] for row in rows], float)


def write_csv(path: Path, *lines: str) -> str:
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    return write_models(tmp_path / "d")


def test_places_are_those_of_scikit_learn(folders: list[Path]) -> None:
    result = run(folders)
    wanted = PCA(3, svd_solver="full").fit(COUNTS / DIVISORS)
    found = places(result)
    turns = np.sign((found * wanted.transform(COUNTS / DIVISORS)).sum(0))
    np.testing.assert_allclose(found, wanted.transform(COUNTS / DIVISORS) * turns, atol=1e-10)
    assert [row["model"] for row in result.tables["embedding"]] == NAMES
    shares = wanted.explained_variance_ratio_
    assert result.scalars["explained"] == pytest.approx(shares.sum())
    parts = result.tables["components"]
    assert [row["component"] for row in parts] == ["pc1", "pc2", "pc3"]
    np.testing.assert_allclose([row["explained"] for row in parts], shares)
    np.testing.assert_allclose([row["variance"] for row in parts], wanted.explained_variance_)
    loadings = np.array([[row[f"pc{i}"] for row in result.tables["loadings"]] for i in (1, 2, 3)])
    np.testing.assert_allclose(loadings, wanted.components_ * turns[:, None], atol=1e-12)
    assert (loadings[range(3), np.abs(loadings).argmax(1)] > 0).all()
    np.testing.assert_array_equal(result.arrays["loadings"], loadings)


def test_profiles_are_the_detectors_that_were_written(folders: list[Path]) -> None:
    result = run(folders)
    rows = result.tables["profiles"]
    assert len(rows) == len(NAMES) * len(CONCEPTS)
    for row in rows:
        wanted = MODELS[row["model"]].get(f"{row['category']}/{row['concept']}", 0)
        assert row["units"] == wanted
    np.testing.assert_array_equal(result.arrays["counts"], COUNTS)
    np.testing.assert_allclose(result.arrays["profiles"], COUNTS / DIVISORS)
    assert result.arrays["concepts"].tolist() == [
        "car", "food (object)", "road", "sky", "car-left", "car-top", "food (material)", "wood",
        "blue", "red",
    ]  # fmt: skip
    assert [row["units"] for row in result.tables["loadings"]] == COUNTS.sum(0).tolist()
    embedding = result.tables["embedding"]
    assert [row["detectors"] for row in embedding] == [24, 17, 21, 21, 13, 0]
    assert [row["concepts"] for row in embedding] == [5, 5, 5, 4, 4, 0]
    assert {row["units"] for row in embedding} == {64}
    assert result.scalars["models"] == 6
    assert result.scalars["concepts"] == 10


def test_profiles_by_category_by_hand(folders: list[Path]) -> None:
    rows = {(r["model"], r["category"]): r for r in run(folders).tables["abstracted"]}
    assert list(dict.fromkeys(category for _, category in rows)) == list(SIZES)
    for model, category, units, unique in (
        ("ant", "object", 12, 2), ("ant", "part", 4, 1), ("ant", "material", 6, 1),
        ("bee", "part", 3, 2), ("cow", "object", 8, 2), ("cow", "color", 4, 2),
        ("dog", "color", 0, 0), ("fox", "object", 0, 0),
    ):  # fmt: skip
        row = rows[model, category]
        assert (row["units"], row["unique"]) == (units, unique)
        assert row["ratio"] == (unique / units if units else None)


def test_correlations_are_scipys(folders: list[Path], tmp_path: Path) -> None:
    scores = write_csv(
        tmp_path / "scores.csv",
        "model,top1, error ,epochs,few",
        "ant,0.9,0.1,100,", "bee,0.8,0.2,100,1", "dog,0.4,0.3,100,", "cow,0.7,,100,2",
        "elk,0.65,0.4,100,",
    )  # fmt: skip
    result = run(folders, scores=scores, concept=("car", "food"))
    axes = places(result)
    given = {
        ("scores", "top1"): [0.9, 0.8, 0.7, 0.4, 0.65, np.nan],
        ("scores", "error"): [0.1, 0.2, np.nan, 0.3, 0.4, np.nan],
        ("concepts", "car"): [9, 1, 0, 5, 0, 0],
        ("concepts", "food (material)"): [6, 0, 9, 1, 0, 0],
        ("profile", "units: object"): [12, 9, 8, 12, 2, 0],
        ("profile", "unique: part"): [1, 2, 0, 1, 2, 0],
        ("profile", "units: color"): [2, 5, 4, 0, 0, 0],
    }
    rows = {(r["family"], r["quantity"], r["component"]): r for r in result.tables["correlations"]}
    for (family, name), numbers in given.items():
        values = np.array(numbers, float)
        there = np.isfinite(values)
        for at in range(3):
            row = rows[family, name, f"pc{at + 1}"]
            x, y = axes[there, at], values[there]
            assert row["n"] == there.sum()
            assert row["pearson"] == pytest.approx(stats.pearsonr(x, y).statistic)
            assert row["spearman"] == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
            test = stats.permutation_test(
                (x,), lambda a, y=y: abs(np.corrcoef(a, y)[0, 1]), permutation_type="pairings",
                n_resamples=np.inf, alternative="greater",
            )  # fmt: skip
            assert row["pearson_p"] == pytest.approx(test.pvalue)
    assert {family for family, _, _ in rows} == {"profile", "concepts", "scores"}
    assert {name for family, name, _ in rows if family == "concepts"} == {
        "car", "food (object)", "food (material)"
    }  # fmt: skip
    for name, n in (("epochs", 5), ("few", 2)):
        for at in (1, 2, 3):
            row = rows["scores", name, f"pc{at}"]
            assert row["n"] == n
            assert all(row[c] is None for c in row if c.startswith(("pearson", "spearman")))
    assert "scores: epochs is the same in all models and correlates with nothing" in result.notes
    assert "scores: error is not known of cow, fox" in result.notes
    assert "scores: few of 2 models cannot be correlated: 3 can" in result.notes
    assert (
        "correlations stand on 6 models: look at the p of Holm before the coefficients"
        in result.notes
    )


def test_p_is_corrected_within_each_family(folders: list[Path], tmp_path: Path) -> None:
    lines = [f"{name},{i},{(i * 7) % 5}" for i, name in enumerate(NAMES)]
    scores = write_csv(tmp_path / "scores.csv", "model,rank,other", *lines)
    rows = run(folders, scores=scores).tables["correlations"]
    for family, tests in (("scores", 6), ("profile", 24)):
        for coefficient in ("pearson", "spearman"):
            mine = [row for row in rows if row["family"] == family]
            least = min(mine, key=lambda row: row[f"{coefficient}_p"])
            assert len(mine) == tests
            assert least[f"{coefficient}_holm"] == pytest.approx(
                min(1, tests * least[f"{coefficient}_p"])
            )
            assert all(row[f"{coefficient}_holm"] >= row[f"{coefficient}_p"] for row in mine)


def test_a_score_that_is_a_component_is_found(folders: list[Path], tmp_path: Path) -> None:
    axes = places(run(folders))
    lines = [f"{name},{-3 * axes[i, 1]:.12f}" for i, name in enumerate(NAMES)]
    result = run(folders, scores=write_csv(tmp_path / "s.csv", "model,twin", *lines))
    rows = {r["component"]: r for r in result.tables["correlations"] if r["family"] == "scores"}
    assert rows["pc2"]["pearson"] == pytest.approx(-1)
    assert rows["pc2"]["pearson_p"] == pytest.approx(1 / 720)  # its opposite order is no line
    assert rows["pc2"]["pearson_holm"] == pytest.approx(3 / 720)
    assert rows["pc2"]["spearman_p"] == pytest.approx(2 / 720)
    assert abs(rows["pc1"]["pearson"]) < 1e-9  # components do not correlate
    matrix = result.arrays["correlations/scores/pearson"]
    assert matrix.shape == (1, 3)
    assert result.arrays["correlations/scores/pearson_significant"].tolist() == [
        [False, True, False]
    ]
    assert matrix[0, 1] == rows["pc2"]["pearson"]


def test_any_order_of_models_gives_the_same(folders: list[Path]) -> None:
    one, other = run(folders), run(folders[::-1])
    np.testing.assert_allclose(places(one), places(other)[::-1], atol=1e-10)
    groups = [[row["group"] for row in r.tables["embedding"]] for r in (one, other)]
    together = [[a == b for a in g for b in g] for g in (groups[0], groups[1][::-1])]
    assert together[0] == together[1]
    assert groups[0][0] == groups[1][0] == "A"
    assert one.scalars["explained"] == pytest.approx(other.scalars["explained"])
    assert [row["label"] for row in one.tables["loadings"]] == [
        row["label"] for row in other.tables["loadings"]
    ]


def test_concepts_that_come_twice_shrink_the_embedding_and_nothing_else(
    folders: list[Path], tmp_path: Path
) -> None:
    doubled = {
        name: found | {f"{concept}-twin": count for concept, count in found.items()}
        for name, found in MODELS.items()
    }
    other = run(write_models(tmp_path / "twice", doubled))
    np.testing.assert_allclose(places(other), places(run(folders)) / np.sqrt(2), atol=1e-10)


def test_shares_take_the_width_out(folders: list[Path], tmp_path: Path) -> None:
    """A model with twice the units, of which twice as many detect each concept, stays in place."""
    wide = [
        write_dissection(
            tmp_path / "wide" / name,
            {concept: count * (2 if name == "bee" else 1) for concept, count in found.items()},
            units=128 if name == "bee" else 64,
        )
        for name, found in MODELS.items()
    ]
    plain = run(folders, counted="shares")
    np.testing.assert_allclose(places(plain), places(run(folders)) / 64, atol=1e-12)
    np.testing.assert_allclose(places(run(wide, counted="shares")), places(plain), atol=1e-12)
    units = run(wide)
    assert not np.allclose(places(units), places(run(folders)))
    assert any(note.startswith("models have 64 to 128 units") for note in units.notes)
    assert not any("units, and profiles" in note for note in plain.notes)
    rows = run(wide, counted="shares").tables["correlations"]
    assert rows == plain.tables["correlations"]


def test_chance_is_beside_what_is_explained(folders: list[Path]) -> None:
    result = run(folders, permutations=199, seed=3)
    chance = result.arrays["explained_by_chance"]
    assert chance.shape == (199, 3)
    sums = np.sort(chance.sum(1))
    assert sums[188] <= result.scalars["explained_null_95"] <= sums[189]
    assert result.scalars["explained_p"] == pytest.approx(
        (1 + (sums >= result.scalars["explained"]).sum()) / 200
    )
    for at, row in enumerate(result.tables["components"]):
        assert row["p"] == pytest.approx((1 + (chance[:, at] >= row["explained"]).sum()) / 200)
        assert row["null_95"] == pytest.approx(np.quantile(chance[:, at], 0.95))
    assert any("explain no more than where" in note for note in result.notes) == (
        result.scalars["explained_p"] > 0.05
    )


def test_models_of_two_kinds_fall_into_two_groups(tmp_path: Path) -> None:
    kinds = {f"a{i}": {"object/car": 20 + i, "color/red": 3} for i in range(3)}
    kinds |= {f"b{i}": {"object/sky": 30 - i, "color/red": 3 + i} for i in range(4)}
    folders = write_models(tmp_path / "d", kinds)
    result = run(folders)
    assert [row["group"] for row in result.tables["embedding"]] == list("AAABBBB")
    assert result.scalars["groups"] == 2
    assert 0.8 < result.scalars["silhouette"] < 1
    assert any(note.startswith("2 groups, the best silhouette of 2 to 4") for note in result.notes)
    assert [row["group"] for row in run(folders, k=1).tables["embedding"]] == ["A"] * 7
    assert len({row["group"] for row in run(folders, k=7).tables["embedding"]}) == 7
    with pytest.raises(UsageError, match="k is 8, and there are 7 models: give fewer groups"):
        run(folders, k=8)


def test_groups_of_the_user(folders: list[Path], tmp_path: Path) -> None:
    lines = [f"{name},{'wild' if name in ('elk', 'fox') else 'tame'}" for name in NAMES]
    result = run(folders, groups=write_csv(tmp_path / "g.csv", "model,group", *lines))
    assert [row["group"] for row in result.tables["embedding"]] == ["tame"] * 4 + ["wild"] * 2
    assert result.scalars["groups"] == 2
    assert "silhouette" not in result.scalars


def test_a_concept_is_drawn_against_the_component_it_goes_with(folders: list[Path]) -> None:
    result = run(folders, concept=("food", "car", "sky"))
    rows = result.tables["concepts"]
    assert len(rows) == 4 * len(NAMES)
    signs = set()
    for category, name, label in (
        ("object", "food", "food (object)"), ("material", "food", "food (material)"),
        ("object", "car", "car"), ("object", "sky", "sky"),
    ):  # fmt: skip
        mine = [r for r in rows if (r["concept"], r["category"]) == (name, category)]
        assert [r["units"] for r in mine] == [
            m.get(f"{category}/{name}", 0) for m in MODELS.values()
        ]
        found = {
            r["component"]: r["pearson"]
            for r in result.tables["correlations"]
            if r["quantity"] == label
        }
        (most,) = {r["component"] for r in mine}
        assert abs(found[most]) == max(map(abs, found.values()))
        signs.add(found[most] > 0)
        stem = re.sub(r"\W+", "-", label).strip("-")
        (figure,) = [f for f in result.figures if f.name == f"concept-{stem}"]
        assert (figure.x, figure.y) == (most, "units")
        assert figure.where == {"concept": name, "category": category}
    assert signs == {True, False}
    with pytest.raises(UsageError, match="concept 'raod': .* did you mean road"):
        run(folders, concept=("raod",))


def test_a_concept_as_frequent_everywhere_has_no_component(tmp_path: Path) -> None:
    models = {name: found | {"color/grey": 4} for name, found in MODELS.items()}
    result = run(write_models(tmp_path / "d", models), concept=("grey",))
    assert {row["component"] for row in result.tables["concepts"]} == {None}
    assert not [f for f in result.figures if f.name.startswith(("concept-", "correlations-conc"))]
    assert "concepts: grey is the same in all models and correlates with nothing" in result.notes
    assert [r["pc1"] for r in result.tables["loadings"] if r["label"] == "grey"] == [
        pytest.approx(0, abs=1e-12)
    ]


def bootstrapped(root: Path, draws: dict[str, list[dict[str, int]]]) -> list[Path]:
    return [
        write_dissection(root / name, found, draws=draws.get(name))
        for name, found in MODELS.items()
    ]


def test_regions_are_the_draws_in_the_axes_of_the_point_estimate(tmp_path: Path) -> None:
    """Draws are projected by scikit-learn's PCA of the point estimate."""
    rng = np.random.default_rng(0)
    draws = {
        name: [
            {c: int(v) for c, v in zip(CONCEPTS, rng.integers(0, 6, len(CONCEPTS)), strict=True)}
            for _ in range(5)
        ]
        for name in NAMES
    }
    draws["ant"][2] = {}
    folders = bootstrapped(tmp_path / "d", draws)
    result = run(folders)
    np.testing.assert_allclose(places(result), places(run(write_models(tmp_path / "plain"))))
    pca = PCA(3, svd_solver="full").fit(COUNTS / DIVISORS)
    for row, model in zip(result.tables["embedding"], NAMES, strict=True):
        counts = np.array([[draw.get(c, 0) for c in CONCEPTS] for draw in draws[model]])
        wanted = pca.transform(counts / DIVISORS)
        found = result.arrays[f"draws/{model}"]
        np.testing.assert_allclose(np.abs(found), np.abs(wanted), atol=1e-10)
        for at in range(3):
            assert row[f"pc{at + 1}_sd"] == pytest.approx(wanted[:, at].std(ddof=1))
    assert result.scalars["draws"] == 5
    flat = [f for f in result.figures if f.name == "embedding-pc1-pc3"]
    assert flat[0].spreads == {"pc1": "pc1_sd", "pc3": "pc3_sd"}
    shares = run(folders, counted="shares").tables["embedding"]
    assert shares[1]["pc2_sd"] == pytest.approx(result.tables["embedding"][1]["pc2_sd"] / 64)


def test_concepts_that_only_draws_have_are_left_out_and_told(tmp_path: Path) -> None:
    same = {name: [dict(found)] * 3 for name, found in MODELS.items()}
    same["bee"] = [dict(MODELS["bee"]) | {"object/ufo": 3}] * 3
    result = run(bootstrapped(tmp_path / "d", same))
    assert max(row["pc1_sd"] for row in result.tables["embedding"]) < 1e-12
    assert sum(note.startswith("3.03% of the detectors in the boots") for note in result.notes) == 1
    assert "ufo" not in result.arrays["concepts"]


def test_without_a_bootstrap_of_all_there_are_no_regions(tmp_path: Path) -> None:
    some = {name: [dict(found)] * 2 for name, found in MODELS.items() if name != "cow"}
    some["dog"] = some["dog"][:1]
    result = run(bootstrapped(tmp_path / "d", some))
    assert "no regions: cow, dog: no bootstrap of two draws or more" in result.notes
    assert not [column for column in result.tables["embedding"][0] if column.endswith("_sd")]
    assert "draws" not in result.scalars


def test_a_model_that_detects_nothing_is_told(folders: list[Path]) -> None:
    result = run(folders)
    assert "fox: none of its 64 units detects a concept: its profile is zero" in result.notes
    np.testing.assert_allclose(
        places(result)[-1], -result.arrays["loadings"] @ (COUNTS / DIVISORS).mean(0)
    )


@pytest.mark.parametrize(("count", "found"), [(2, 1), (3, 2)])
def test_few_models_have_few_components(folders: list[Path], count: int, found: int) -> None:
    result = run(folders[:count])
    assert [row["component"] for row in result.tables["components"]] == ["pc1", "pc2"][:found]
    for row in (*result.tables["embedding"], *result.tables["loadings"]):
        assert [row[f"pc{i}"] is None for i in (1, 2, 3)] == [i > found for i in (1, 2, 3)]
    assert result.scalars["explained"] == pytest.approx(1)
    assert result.scalars["explained_null_95"] == pytest.approx(1)
    assert result.scalars["explained_p"] == 1
    assert f"the profiles of {count} models span {found} of 3 components" in result.notes
    if count == 2:
        assert draw_figures(result, folders[0].parent / "out")
        assert {row["pearson"] for row in result.tables["correlations"]} == {None}
        assert result.scalars["groups"] == 1


def test_four_models_always_fit(folders: list[Path]) -> None:
    result = run(folders[:4])
    assert "4 models fit 3 components whatever they detect" in result.notes
    assert result.scalars["explained_p"] == 1


def test_models_with_the_same_profile(tmp_path: Path) -> None:
    twins = {"one": MODELS["ant"], "two": MODELS["ant"], "three": MODELS["bee"]}
    folders = write_models(tmp_path / "d", twins)
    result = run(folders)
    assert result.scalars["explained"] == pytest.approx(1)
    assert [row["group"] for row in result.tables["embedding"]] == ["A", "A", "B"]
    with pytest.raises(UsageError, match="k is 3, and there are 3 models in 2 distinct places"):
        run(folders, k=3)
    with pytest.raises(UsageError, match="the profiles of all 2 models are the same"):
        run(folders[:2])


def test_one_backbone_at_two_taps_is_two_models(tmp_path: Path) -> None:
    folders = [
        write_dissection(tmp_path / "x", MODELS["ant"], backbone="net", tap="layer3"),
        write_dissection(tmp_path / "y", MODELS["bee"], backbone="net", tap="layer4"),
        write_dissection(tmp_path / "z", MODELS["cow"], backbone="other"),
    ]
    rows = run(folders).tables["embedding"]
    assert [row["model"] for row in rows] == ["net/layer3", "net/layer4", "other"]


def test_options_that_may_differ_are_told(tmp_path: Path) -> None:
    folders = [
        write_dissection(tmp_path / "a", MODELS["ant"], size=224),
        write_dissection(tmp_path / "b", MODELS["bee"], size=32),
    ]
    (note,) = [note for note in run(folders).notes if "differs" in note]
    assert note == (
        f"size differs between the dissections: 224 in {tmp_path / 'a'}, 32 in {tmp_path / 'b'}"
    )


@pytest.mark.parametrize(
    ("one", "other", "says"),
    [
        ({}, {"backbone": "a"}, "a and .*b are both of a/layer4: give each model once"),
        ({}, {"weights": "weights of a"}, None),
        ({}, {"concepts": ["color"]}, "a has masks:labels, color, and .*b has color: dissect"),
        ({}, {"concepts": []}, "b has none: dissect all models with the same sources"),
        ({}, {"variant": "netdissect"}, "variant: dissect in .*a, netdissect in .*b: dissect all"),
        ({"quantile": 0.99}, {"quantile": 0.995}, "quantile: 0.99 in .*a, 0.995 in .*b"),
        ({}, {"images": 50}, "a is of 101 images and .*b of 50: dissect all models over the same"),
        ({"concepts": ["color", "masks:labels"]}, {}, None),
    ],
)
def test_results_that_do_not_belong_together(
    one: dict[str, Any], other: dict[str, Any], says: str | None, tmp_path: Path
) -> None:
    folders = [
        write_dissection(tmp_path / "a", MODELS["ant"], **one),
        write_dissection(tmp_path / "b", MODELS["bee"], **other),
    ]
    if says is None:
        assert run(folders).scalars["models"] == 2
        return
    with pytest.raises(UsageError, match=says) as error:
        run(folders)
    assert "\n" not in str(error.value)


def test_a_network_under_two_names_and_a_folder_given_twice(
    folders: list[Path], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="d/bee and .*d/bee are both of bee/layer4"):
        run([folders[0], folders[1], folders[1]])
    other = write_dissection(tmp_path / "renamed", MODELS["ant"])
    path = other / "result.json"
    path.write_text(path.read_text().replace("cifar_renamed", "cifar_ant").replace(
        "weights of renamed", "weights of ant"
    ))  # fmt: skip
    with pytest.raises(UsageError, match="ant and .*renamed are of the same network"):
        run([folders[0], folders[1], other])
    path.write_text(path.read_text().replace('"layer4"', '"layer3"'))
    assert run([folders[0], folders[1], other]).scalars["models"] == 3


def test_other_thresholds_show_in_the_detectors(folders: list[Path], tmp_path: Path) -> None:
    other = write_dissection(tmp_path / "strict", MODELS["cow"])
    content = json.loads((other / "result.json").read_text())
    content["tables"]["units"][0]["iou"] = 0.06
    (other / "result.json").write_text(json.dumps(content))
    with pytest.raises(
        UsageError,
        match=r"takes a unit of IoU 0.05\d* for a detector, and .*strict not one of 0.06",
    ):
        run([folders[0], other])


@pytest.mark.parametrize(
    "damage",
    [
        lambda c: c["tables"].pop("units"),
        lambda c: c["tables"].update(units=[]),
        lambda c: c["tables"]["units"][-1].pop("concept"),
        lambda c: c["tables"]["units"][-1].update(category=None),
        lambda c: c["tables"]["units"][0].update(detector="no"),
        lambda c: c["config"].pop("tap"),
        lambda c: c["provenance"].pop("backbone"),
        lambda c: c["provenance"].update(backbone="ant"),
        lambda c: c["tables"].update(bootstrap=[{"unit": 0, "detector": False}]),
        lambda c: c["tables"]["units"][-1].update(iou=[0.5]),
        lambda c: c["tables"].update(
            bootstrap=[{"draw": 0, "units": 10**400, "concept": "car", "category": "object"}]
        ),
    ],
)
def test_results_that_are_not_whole(folders: list[Path], damage: Any) -> None:
    path = folders[0] / "result.json"
    content = json.loads(path.read_text())
    damage(content)
    path.write_text(json.dumps(content))
    with pytest.raises(UsageError, match="d/ant: its result lacks what a dissection has"):
        run(folders)


def test_nothing_to_compare(folders: list[Path], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="d/ant is the only result: give those of two models"):
        run(folders[:1])
    blind = write_models(tmp_path / "blind", {"one": {}, "two": {}})
    with pytest.raises(UsageError, match="no unit of any model detects a concept"):
        run(blind)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["model,x", "amt,1"], "line 2: no model 'amt': did you mean ant"),
        (["model,x", "ant,1", "ant,2"], "line 3: ant comes twice"),
        (["model,x", "ant,1,2"], "line 2: has more cells than there are columns"),
        (["model,x,x", "ant,1,2"], "column 'x' comes twice"),
        (["name,x", "ant,1"], "no column model: give a column model and a row for each"),
        (["model,", "ant,1"], "a column without a name: name it"),
        (["model", "ant"], "give a column of numbers beside model"),
        (["model,x", "ant,good"], "x of ant is 'good': give a number, or leave the cell empty"),
        (["model,x", "ant,nan"], "x of ant is 'nan': give a number"),
        (['model,x', 'ant,"1'], r"cannot be read \(not a CSV in UTF-8\)"),
        ([], "no column model"),
    ],
)  # fmt: skip
def test_scores_that_cannot_be_used(
    folders: list[Path], tmp_path: Path, lines: list[str], says: str
) -> None:
    path = write_csv(tmp_path / "s.csv", *lines)
    with pytest.raises(UsageError, match=f"^scores .*s.csv.*{says}") as error:
        run(folders, scores=path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["model,group", "ant,A"], "no group of bee, cow, dog, elk, fox: give every model one"),
        (["model,kind", "ant,A"], "give the columns model and group, and no others"),
        (["model,group,x", "ant,A,1"], "give the columns model and group, and no others"),
        (["model,group", *(f"{name}," for name in NAMES)], "no group of ant, bee"),
    ],
)
def test_groups_that_cannot_be_used(
    folders: list[Path], tmp_path: Path, lines: list[str], says: str
) -> None:
    with pytest.raises(UsageError, match=f"^groups .*g.csv: {says}"):
        run(folders, groups=write_csv(tmp_path / "g.csv", *lines))


def test_a_file_that_is_not_there(folders: list[Path]) -> None:
    with pytest.raises(UsageError, match=r"scores nowhere.csv: cannot be read \(No such file"):
        run(folders, scores="nowhere.csv")


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"counted": "all"}, "counted 'all': use units or shares"),
        ({"k": 0}, "k is 0: give a whole number from 1 to 26"),
        ({"k": 27}, "k is 27: give a whole number from 1 to 26"),
        ({"k": 2, "groups": "g.csv"}, "k and groups: give one of them"),
        ({"permutations": 18}, "permutations is 18: give 19 or more"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_options_that_mean_nothing(config: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        LCEConfig(**config)


def test_what_was_read_is_told_and_all_is_saved(folders: list[Path], tmp_path: Path) -> None:
    result = run(folders, concept=("car",))
    assert result.provenance["inputs"] == {
        "dir": [
            {
                "result": str(folder),
                "sha256": hashlib.sha256((folder / "result.json").read_bytes()).hexdigest(),
            }
            for folder in folders
        ]
    }
    assert result.provenance["signs"] == "the largest loading of each component is positive"
    result.save(tmp_path / "out")
    saved = Result.load(tmp_path / "out", "lce")
    assert saved.tables["embedding"] == result.tables["embedding"]
    assert saved.tables.keys() == {
        "embedding", "components", "profiles", "abstracted", "loadings", "correlations", "concepts"
    }  # fmt: skip
    with h5py.File(tmp_path / "out" / "arrays.h5") as file:
        assert file["models"].asstr()[...].tolist() == NAMES
        assert file["counts"].shape == (6, 10)
    assert {figure.name for figure in result.figures} == {
        "embedding-3d", "embedding-pc1-pc2", "embedding-pc1-pc3", "embedding-pc2-pc3",
        "loadings-pc1", "loadings-pc2", "loadings-pc3", "abstracted-units", "abstracted-unique",
        "abstracted-ratio", "correlations-profile-pearson", "correlations-profile-spearman",
        "correlations-concepts-pearson", "correlations-concepts-spearman", "concept-car",
    }  # fmt: skip
