"""Diversity on stores written by hand, against SciPy's distances and closed forms."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from scipy.spatial.distance import pdist
from scipy.stats import binomtest, spearmanr
from sklearn.linear_model import LogisticRegression

from featkit.analyses.base import Figure, Result
from featkit.analyses.diversity import probe_error
from featkit.analyses.diversity.analysis import Diversity
from featkit.analyses.diversity.comparison import compare_models, repeats_name
from featkit.analyses.diversity.config import DiversityConfig
from featkit.analyses.diversity.family import Model, describe_model, read_family
from featkit.backbones.resolve import load_backbone
from featkit.errors import UsageError
from featkit.extraction.pipeline import extract
from featkit.ops.linear_probe import LinearProbe
from featkit.report.figures import draw_figures
from featkit.store.reader import FeatureTable, Store, open_store
from tests.conftest import NET
from tests.store.conftest import make_samples, make_table, seal_by_hand

N = 120
LABELS = np.arange(N) % 3


def points(seed: int, *shape: int, offset: float = 3.0) -> np.ndarray:
    """Features in a cone, as ReLUs make them."""
    rng = np.random.default_rng(seed)
    return (offset + np.abs(rng.standard_normal((N, *shape)))).astype(np.float32)


def measure(tables: list[FeatureTable], **config: Any) -> Result:
    return Diversity(DiversityConfig(**{"probe": False, **config})).run({"store": tables})


def energy(x: np.ndarray, power: float) -> tuple[float, float]:
    """Sum over ordered pairs and mean, by SciPy."""
    x = x.astype(np.float64)
    distances = pdist(x / np.linalg.norm(x, axis=1, keepdims=True))
    each = -np.log(distances) if power == 0 else distances**-power
    return 2 * each.sum(), each.mean()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Two models, each with two layers of maps and a vector at the end."""
    path = tmp_path / "store"
    manifest = make_samples(path, LABELS, ["ant", "bee", "cow"])
    for number, name in enumerate(("small", "large")):
        for seed, (tap, shape) in enumerate(
            {"conv1": (4, 3, 2), "res2": (5, 2, 2), "avgpool": (6,)}.items()
        ):
            x = points(10 * number + seed, *shape, offset=2.0 - seed)
            pooling = "none" if len(shape) > 1 else "avg"
            make_table(path, manifest, f"{name}/{tap}.{pooling}", x, weights=name)
    return open_store(path)


def rows_of(result: Result, table: str = "energy", **where: Any) -> list[dict[str, Any]]:
    return [r for r in result.tables[table] if all(r[k] == v for k, v in where.items())]


def test_energies_are_scipys_for_every_kind_of_point(store: Store) -> None:
    result = measure(store.tables(), power=(0.0, 1.0, 2.0), samples=N)
    maps = store["small/conv1"].numpy()
    views = {
        ("samples", "avg"): maps.mean((2, 3)),
        ("samples", "flatten"): maps.reshape(N, -1),
        ("units", "avg"): maps.mean((2, 3)).T,
        ("units", "flatten"): np.moveaxis(maps, 1, 0).reshape(4, -1),
    }
    for (over, pooling), x in views.items():
        for power in (0.0, 1.0, 2.0):
            (row,) = rows_of(
                result, backbone="small", layer="conv1", over=over, pooling=pooling, power=power
            )
            total, mean = energy(x, power)
            assert row["energy"] == pytest.approx(total, rel=1e-6)
            assert row["mean_energy"] == pytest.approx(mean, rel=1e-6)
            assert row["diversity"] == -row["energy"]
            assert row["mean_diversity"] == -row["mean_energy"]
            assert (row["n"], row["d"]) == x.shape
            assert (row["space"], row["kernel"], row["tap"]) == ("full", "euclidean", "conv1")
            assert row["spread"] is None  # one draw, of all images
    correlations = np.abs(np.corrcoef(views["samples", "avg"], rowvar=False))
    wanted = (correlations.sum() - 4) / 12
    (row,) = rows_of(
        result, backbone="small", layer="conv1", over="samples", pooling="avg", power=1.0
    )
    assert row["correlation"] == pytest.approx(wanted, rel=1e-5)
    counts = {"backbones": 2, "layers": 6, "samples": N, "repeats": 1, "unreadable": 0}
    assert result.scalars == counts


def test_tokens_are_units_at_every_position(tmp_path: Path) -> None:
    path = tmp_path / "store"
    manifest = make_samples(path, LABELS, ["ant", "bee", "cow"])
    tokens = points(0, 3, 5)
    make_table(path, manifest, "vit/norm.none", tokens)
    result = measure(open_store(path).tables())
    views = {
        ("samples", "avg"): tokens.mean(1),
        ("samples", "flatten"): tokens.reshape(N, -1),
        ("units", "avg"): tokens.mean(1).T,
        ("units", "flatten"): tokens.reshape(-1, 5).T,
    }
    for (over, pooling), x in views.items():
        (row,) = rows_of(result, over=over, pooling=pooling)
        assert row["energy"] == pytest.approx(energy(x, 1)[0], rel=1e-6)
        assert (row["n"], row["d"]) == x.shape
        correlations = np.abs(np.corrcoef(views["units", pooling]))
        assert row["correlation"] == pytest.approx((correlations.sum() - 5) / 20, rel=1e-5)


def test_repeats_draw_other_images_and_every_layer_the_same(store: Store) -> None:
    asked = {"samples": 20, "repeats": 6, "taps": ("res2", "head"), "over": ("samples",)}
    result = measure(store.tables(), **asked)
    (row,) = rows_of(result, backbone="small", layer="res2", pooling="flatten")
    flat = store["small/res2"].numpy().reshape(N, -1)
    rng = np.random.default_rng(0)
    means = [energy(flat[rng.permutation(N)[:20]], 1)[1] for _ in range(6)]
    assert row["mean_energy"] == pytest.approx(np.mean(means), rel=1e-6)
    assert row["spread"] == pytest.approx(np.std(means, ddof=1) / np.sqrt(100 / 120), rel=1e-4)
    assert row["share"] == pytest.approx(20 / 120)
    assert row["repeats"] == 6
    again, other = measure(store.tables(), **asked), measure(store.tables(), **asked, seed=1)
    assert again.tables == result.tables
    assert other.tables["energy"][0]["mean_energy"] != row["mean_energy"]


def test_layers_are_told_apart_by_their_difference_on_the_same_images(tmp_path: Path) -> None:
    """Images of which some are far from all others: a draw has more or fewer of them in any layer.

    The energies of both layers rise and fall together, and much more than they are apart.
    """
    path = tmp_path / "store"
    manifest = make_samples(path, LABELS, ["ant", "bee", "cow"])
    rng = np.random.default_rng(0)
    wild = rng.random((N, 1)) < 0.3
    shared = 4 + np.where(wild, 4.0, 0.5) * rng.standard_normal((N, 12))
    tables = {"conv1": shared, "res2": shared + 0.1 * rng.standard_normal((N, 12))}
    for tap, x in tables.items():
        make_table(path, manifest, f"net/{tap}.avg", x.astype(np.float32))
    asked: dict[str, Any] = {"samples": 30, "repeats": 8, "over": ("samples",), "power": (0.0, 1.0)}
    result = measure(open_store(path).tables(), **asked)
    rng = np.random.default_rng(0)
    draws = [rng.permutation(N)[:30] for _ in range(8)]
    for power in (0.0, 1.0):
        means = {
            tap: np.array([energy(x.astype(np.float32)[rows], power)[1] for rows in draws])
            for tap, x in tables.items()
        }
        for row in rows_of(result, power=power):
            found = result.arrays[repeats_name(row)]
            np.testing.assert_allclose(found, means[row["tap"]], rtol=1e-6)
            assert row["mean_energy"] == pytest.approx(found.mean())
            assert row["spread"] == pytest.approx(found.std(ddof=1) / np.sqrt(90 / 120))
        (most,) = rows_of(result, "most_diverse", power=power)
        assert (most["layer"], most["next"]) == ("res2", "conv1")
        apart = means["conv1"] - means["res2"]
        paired = apart.mean() / apart.std(ddof=1) * np.sqrt(90 / 120)
        alone = apart.mean() / np.hypot(*(x.std(ddof=1) for x in means.values()))
        assert most["spreads_apart"] == pytest.approx(paired, rel=1e-3)
        assert alone < 1 < 2 < paired


@pytest.mark.parametrize(
    ("following", "apart", "told"),
    [
        ([2.0, 1.0, 4.0], (4 / 3) / np.std([1.0, -1.0, 4.0], ddof=1), False),  # against each other
        ([3.0, 4.0, 1.0], (5 / 3) / np.sqrt(7 / 3 - 2), True),  # 2, 2, 1
        ([2.0, 3.0, 1.0], None, None),  # always the same
    ],
)
def test_spreads_apart_are_of_differences(
    following: list[float], apart: float | None, told: bool | None
) -> None:
    energies = {"a": [1.0, 2.0, 0.0], "b": following}
    result = Result("diversity", {})
    for layer, means in energies.items():
        row = {
            "backbone": "net", "tap": layer, "layer": layer, "pooling": "avg", "over": "samples",
            "power": 1.0, "mean_energy": np.mean(means), "spread": np.std(means, ddof=1),
            "share": 0.0,
        }  # fmt: skip
        result.tables.setdefault("energy", []).append(row)
        result.arrays[repeats_name(row)] = np.array(means)
    compare_models(result, {"net": Model()}, set())
    (most,) = result.tables["most_diverse"]
    assert most["next_mean_energy"] > most["mean_energy"]
    assert most["spreads_apart"] == (None if apart is None else pytest.approx(apart))
    assert most["apart"] is told


def test_one_draw_has_no_repeats(store: Store) -> None:
    result = measure(store.tables())
    assert result.arrays == {}
    assert {row["spreads_apart"] for row in result.tables["most_diverse"]} == {None}


def test_avgpool_stands_for_a_head_that_is_not_there(store: Store) -> None:
    result = measure(store.tables(), taps=("conv1", "head"))
    assert "no head in large, small: avgpool stands for it" in result.notes
    assert {row["tap"] for row in rows_of(result, layer="head")} == {"avgpool"}
    with pytest.raises(UsageError, match=r"large has no res4 in .*it has avgpool, conv1, res2:"):
        measure(store.tables(), taps=("res4",))


def test_the_end_is_compared_at_every_pooling(store: Store) -> None:
    """The offsets of the layers fall, so that the last one has the least energy."""
    result = measure(store.tables(), power=(0.0, 1.0))
    for pooling in ("avg", "flatten"):
        found = rows_of(result, "most_diverse", over="samples", pooling=pooling)
        assert len(found) == 4
        assert {row["layer"] for row in found} == {"avgpool"}
        for row in found:
            energies = {
                r["layer"]: r["mean_energy"]
                for r in rows_of(
                    result, "models", over="samples", pooling=pooling,
                    power=row["power"], backbone=row["backbone"],
                )
            }  # fmt: skip
            assert set(energies) == {"conv1", "res2", "avgpool"}
            assert sorted(energies, key=energies.__getitem__)[:2] == [row["layer"], row["next"]]


def test_weights_come_from_the_backbone(photos: Path, tmp_path: Path) -> None:
    spec = f"{NET}&seed=3"
    store = extract(
        photos, backbones=[spec], store=tmp_path / "s", taps=["conv1:none", "res2", "head"],
        workers=0, precision="fp32",
    )  # fmt: skip
    result = measure(store.tables(), over=("weights", "samples"), power=(2.0,))
    network = load_backbone(spec).module
    found = {row["tap"]: row for row in rows_of(result, over="weights")}
    stage = {f"layer1.{i}.conv{j}" for i in range(3) for j in (1, 2)}
    assert set(found) == {"conv1", "linear"} | stage
    for name, row in found.items():
        weight = network.get_submodule(name).weight.detach().flatten(1).numpy()
        total, mean = energy(weight, 2)
        assert row["energy"] == pytest.approx(total, rel=1e-6)
        assert row["mean_energy"] == pytest.approx(mean, rel=1e-6)
        assert (row["n"], row["d"]) == weight.shape
        assert row["layer"] == {"conv1": "conv1", "linear": "head"}.get(name, "res2")
    named = {row["layer"] for row in rows_of(result, "models", over="weights")}
    assert named == {"conv1", "head"} | stage


def test_weights_that_are_no_longer_the_tables(photos: Path, tmp_path: Path) -> None:
    store = extract(photos, backbones=[NET], store=tmp_path / "s", taps=["res2"], workers=0)
    (table,) = store.tables()
    table.spec = f"{NET}&seed=1"
    with pytest.raises(UsageError, match="not those that made"):
        measure([table], over=("weights",))


def family(tmp_path: Path, text: str) -> str:
    (tmp_path / "family.csv").write_text(text)
    return str(tmp_path / "family.csv")


def make_family(path: Path) -> Store:
    """Two trainings of three epochs, of which the later are the more diverse."""
    manifest = make_samples(path, LABELS, ["ant", "bee", "cow"])
    for width in (1, 2):
        for epoch in (1, 2, 3):
            x = points(width, 6, offset=5.0 / epoch)
            make_table(path, manifest, f"w{width}e{epoch}/avgpool.avg", x, weights=f"{x.sum()}")
    return open_store(path)


def test_a_family_gives_correlations_early_stopping_and_figures(tmp_path: Path) -> None:
    store = make_family(tmp_path / "store")
    table = "backbone,epochs,width,parameters,error,method\n" + "".join(
        f"w{w}e{e},{e},{w},{w * 1000},{error},{'DINO' if w == 1 else 'SimCLR'}\n"
        for (w, e), error in zip(
            [(1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (2, 3)],
            [0.5, 0.3, 0.4, 0.45, 0.25, 0.2],
            strict=True,
        )
    )
    result = measure(store.tables(), family=family(tmp_path, table), taps=("head",))
    rows = rows_of(result, "models", over="samples")
    assert {row["backbone"] for row in rows if row["least_test_error"]} == {"w1e2", "w2e3"}
    (found,) = rows_of(result, "correlations", over="samples")
    wanted = spearmanr([row["mean_diversity"] for row in rows], [row["error"] for row in rows])
    assert found["rho"] == pytest.approx(wanted.statistic)
    assert found["n"] == 6
    assert found["low"] < found["rho"] < found["high"]
    assert any("stand on 6 models" in note for note in result.notes)
    names = {figure.name for figure in result.figures}
    assert {
        "layers-samples-none", "error-samples-none-width-1-DINO", "error-samples-none",
        "error-samples-none-width-2-SimCLR", "error-parameters",
        "diversity-parameters-samples-none",
    } <= names  # fmt: skip
    assert {path.stem for path in draw_figures(result, tmp_path / "drawn")} == names


def figures_of(*models: Model) -> tuple[dict[str, Figure], dict[str, set[str]]]:
    """Figures of models with two layers by name, and the backbones that each draws."""
    family = {f"net{n}": model for n, model in enumerate(models)}
    result = Result("diversity", {})
    result.tables["energy"] = [
        {
            "backbone": name, "tap": layer, "layer": layer, "pooling": "none", "over": "samples",
            "power": 1.0, "mean_energy": float(n), "spread": 0.1, "share": 0.5,
        }
        for n, name in enumerate(family) for layer in ("conv1", "head")
    ]  # fmt: skip
    compare_models(result, family, set())
    figures = {figure.name: figure for figure in result.figures}
    drawn = {
        name: {row["backbone"] for row in rows_of(result, "models", **dict(figure.where or {}))}
        for name, figure in figures.items()
    }
    return figures, drawn


def test_a_picture_of_each_training_joins_its_epochs_and_marks_the_least_error() -> None:
    figures, drawn = figures_of(
        Model(epochs=1, width=1, error=0.5, norm="batch"),
        Model(epochs=2, width=1, error=0.4, norm="batch"),
        Model(epochs=3, width=1, error=0.45, norm="batch"),
        Model(epochs=1, width=2, error=0.3, norm="batch"),
        Model(epochs=2, width=2, error=0.35, norm="batch"),
        Model(epochs=9, width=4, error=0.6, norm="batch"),
    )
    stem = "error-samples-none"
    assert drawn[f"{stem}-width-1"] == {"net0", "net1", "net2"}
    assert drawn[f"{stem}-width-2"] == {"net3", "net4"}
    for number in "12":
        figure = figures[f"{stem}-width-{number}"]
        assert (figure.path, figure.mark, figure.hue) == ("epochs", "least_test_error", "layer")
        assert figure.title.endswith(f"width {number}")
    assert f"{stem}-width-4" not in drawn
    stopped = {"net1", "net3", "net5"}
    assert drawn[stem] == drawn["layers-samples-none"] == stopped
    assert figures[stem].path == "width"
    for name in (stem, f"{stem}-width-1", "layers-samples-none"):
        assert figures[name].spreads == {"mean_diversity": "spread"}


def test_a_model_of_another_training_is_not_on_the_path() -> None:
    _, drawn = figures_of(
        Model(epochs=1, depth=50, error=0.5),
        Model(epochs=2, depth=50, error=0.4),
        Model(epochs=2, depth=101, error=0.3),
    )
    assert drawn["error-samples-none-depth-50"] == {"net0", "net1"}
    assert not any(name.startswith("error-samples-none-depth-101") for name in drawn)


def test_one_training_is_one_picture() -> None:
    figures, drawn = figures_of(Model(epochs=1, error=0.5), Model(epochs=2, error=0.4))
    assert drawn["error-samples-none-epochs"] == {"net0", "net1"}
    assert "error-samples-none" not in figures
    assert not any("error" in name for name in figures_of(Model(epochs=1), Model(epochs=2))[0])


@pytest.mark.parametrize(
    ("models", "path"),
    [
        ([Model(depth=20, width=1, error=0.2), Model(depth=56, width=1, error=0.1)], "depth"),
        ([Model(depth=20, width=1, error=0.2), Model(depth=56, width=2, error=0.1)], None),
        (
            [Model(depth=20, norm="batch", error=0.2), Model(depth=20, norm="layer", error=0.1)],
            None,
        ),
        ([Model(depth=20, error=0.2), Model(error=0.1)], None),
        ([Model(error=0.2), Model(error=0.1)], None),
    ],
)
def test_models_that_differ_in_size_alone_are_joined_by_it(
    models: list[Model], path: str | None
) -> None:
    figures, drawn = figures_of(*models)
    assert drawn["error-samples-none"] == {"net0", "net1"}
    assert figures["error-samples-none"].path == path


def test_methods_are_compared_at_one_width() -> None:
    models = [Model(width=w, method=m, error=0.1) for w in (1, 2) for m in ("BYOL", "DINO")]
    figures, drawn = figures_of(*models, Model(width=4, method="DINO", error=0.3))
    assert drawn["method-samples-none-width-1"] == {"net0", "net1"}
    assert drawn["method-samples-none-width-2"] == {"net2", "net3"}
    assert figures["method-samples-none-width-2"].title.endswith("width 2")
    assert [name for name in figures if name.startswith("method")] == [
        "method-samples-none-width-1", "method-samples-none-width-2",
    ]  # fmt: skip
    assert "method-samples-none" in figures_of(*models[:2])[0]


def test_points_have_the_names_of_backbones_where_there_is_room() -> None:
    size = {"norm": "batch", "error": 0.1}
    few = [Model(parameters=n, method=f"m{n}", **size) for n in range(1, 9)]
    drawn = ("error-samples-none", "diversity-parameters-samples-none", "error-parameters")
    figures = figures_of(*few)[0]
    assert {figures[name].names for name in drawn} == {"backbone"}
    assert figures["method-samples-none"].names == "backbone"


def test_layers_that_are_one_are_drawn_once(tmp_path: Path) -> None:
    """A layer that is another in one model only is drawn for both."""
    path = tmp_path / "store"
    manifest = make_samples(path, LABELS, ["ant", "bee", "cow"])
    for seed, name in enumerate(("small", "large")):
        maps = points(seed, 5, 2, 2)
        tables = {"res2.none": maps if seed else points(7, 5, 2, 2), "res4.none": maps}
        for tap, x in {**tables, "avgpool.avg": maps.mean((2, 3))}.items():
            make_table(path, manifest, f"{name}/{tap}", x, weights=name)
    errors = family(tmp_path, "backbone,error\nsmall,0.1\nlarge,0.2\n")
    taps = ("res2", "res4", "avgpool")
    result = measure(open_store(path).tables(), family=errors, over=("samples",), taps=taps)
    same = {(r["pooling"], r["layer"]): r["same_as"] for r in result.tables["models"]}
    assert {key: first for key, first in same.items() if first} == {("avg", "avgpool"): "res4"}
    for figure in result.figures:
        rows = rows_of(result, "models", **dict(figure.where or {}))
        wanted = {"avg": {"res2", "res4"}, "flatten": {"res2", "res4", "avgpool"}}
        if figure.name != "error-parameters":
            assert {row["layer"] for row in rows} == wanted[rows[0]["pooling"]]
    assert len({row["layer"] for row in result.tables["models"]}) == 3


def test_names_of_methods_make_names_of_files() -> None:
    models = [
        Model(epochs=epochs, method=method, error=1 / epochs / len(method))
        for method in ("MoCo v2/v3", "..\\DINO") for epochs in (1, 2)
    ]  # fmt: skip
    assert {"error-samples-none-MoCo-v2-v3", "error-samples-none-..-DINO"} <= set(
        figures_of(*models)[0]
    )


def test_the_probes_error_is_a_classifiers(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    sides = {}
    for side, n in (("train", 300), ("test", 150)):
        labels = np.arange(n) % 3
        manifest = make_samples(tmp_path / side, labels, ["ant", "bee", "cow"])
        for name, noise in (("sharp", 0.4), ("blunt", 1.5)):
            x = (np.eye(3, 5)[labels] + noise * rng.standard_normal((n, 5))).astype(np.float32)
            make_table(tmp_path / side, manifest, f"{name}/avgpool.avg", x, weights=name)
        sides[side] = open_store(tmp_path / side)
    tables = {"store": sides["test"].tables(), "train": sides["train"].tables()}
    result = Diversity(DiversityConfig()).run(tables)
    errors = {row["backbone"]: row["error"] for row in result.tables["family"]}
    for name, error in errors.items():
        one, other = (sides[side][name] for side in ("train", "test"))
        peer = LogisticRegression(max_iter=1000).fit(one.numpy(), one.labels)
        assert error == pytest.approx(1 - peer.score(other.numpy(), other.labels), abs=0.03)
    assert errors["sharp"] + 0.1 < errors["blunt"]
    assert {row["error"] for row in result.tables["energy"]} == set(errors.values())
    for row in result.tables["family"]:
        interval = binomtest(round(150 * row["error"]), 150).proportion_ci(method="wilson")
        assert (row["error_low"], row["error_high"]) == pytest.approx(tuple(interval))
    assert set(result.shown["family"]) <= set(result.tables["family"][0])
    with pytest.raises(UsageError, match="--train has the images of STORE"):
        Diversity(DiversityConfig()).run({"store": tables["store"], "train": tables["store"]})
    alone = Diversity(DiversityConfig()).run({"store": tables["store"]})
    assert any("error: of a fifth of STORE" in note for note in alone.notes)
    others = [
        Diversity(DiversityConfig(seed=seed)).run({"store": tables["store"]}).tables["family"]
        for seed in range(1, 6)
    ]
    assert len({str(rows) for rows in others}) > 1  # other images are held out
    with pytest.raises(UsageError, match=r"--train has no table (blunt|sharp)/avgpool.avg"):
        Diversity(DiversityConfig()).run({"store": tables["store"], "train": tables["train"][:1]})
    given = family(tmp_path, "backbone,error\nsharp,0.125\n")
    told = Diversity(DiversityConfig(family=given)).run(tables)
    assert {row["backbone"]: row["error"] for row in told.tables["family"]} == errors | {
        "sharp": 0.125
    }


def test_a_probe_without_an_optimum_is_said(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probe_error, "LinearProbe", partial(LinearProbe, max_iter=1, tol=1e-12))
    notes = Diversity(DiversityConfig()).run({"store": store.tables()}).notes
    assert [note for note in notes if "optimum" in note] == [
        f"{name}: error of a probe that did not reach its optimum" for name in ("large", "small")
    ]


def test_the_seed_is_the_probes_too(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def made(**given: Any) -> LinearProbe:
        seen.append(given["random_state"])
        return LinearProbe(penalties=(1.0,), **given)

    monkeypatch.setattr(probe_error, "LinearProbe", made)
    Diversity(DiversityConfig(seed=7)).run({"store": store.tables()})
    assert seen == [7, 7]


def test_a_layer_without_an_energy_in_its_only_draw_is_said(tmp_path: Path) -> None:
    path = tmp_path / "store"
    manifest = make_samples(path, LABELS, ["ant", "bee", "cow"])
    make_table(path, manifest, "net/flat.avg", np.ones((N, 4), np.float32))
    make_table(path, manifest, "net/avgpool.avg", points(0, 4))
    result = measure(open_store(path).tables(), repeats=1, samples=20, over=("samples",))
    assert {row["layer"] for row in result.tables["energy"]} == {"avgpool"}
    (note,) = result.notes
    assert note.startswith("net/flat.avg, samples: all 20 samples point the same way")


def test_labels_missing_and_layers_without_an_energy_are_said(tmp_path: Path) -> None:
    path = tmp_path / "store"
    manifest = make_samples(path, LABELS, ["ant", "bee", "cow"])
    with h5py.File(path / "samples.h5", "r+") as file:
        del file["label"], file["classes"]
    seal_by_hand(path / "samples.h5", "featkit-samples")
    make_table(path, manifest, "still/avgpool.avg", np.ones((N, 4), np.float32))
    result = Diversity(DiversityConfig()).run({"store": open_store(path).tables()})
    assert any("still: no error, since the images of" in x for x in result.notes)
    for noun, count in {"samples": N, "units": 4}.items():
        said = f"still/avgpool.avg, {noun}: all {count} {noun} point the same way"
        assert any(note.startswith(said) for note in result.notes)
    assert result.tables["energy"] == []
    assert draw_figures(result, tmp_path) == []


def test_unreadable_images_take_no_part(store: Store) -> None:
    tables = store.select("small/conv1") + store.select("large/conv1")
    tables[0].valid = np.arange(N) >= 100
    result = measure(tables, over=("samples",))
    found = rows_of(result, backbone="large", pooling="flatten")
    flat = store["large/conv1"].numpy().reshape(N, -1)[100:]
    assert found[0]["energy"] == pytest.approx(energy(flat, 1)[0], rel=1e-6)
    tables[1].valid = np.arange(N) < 101
    with pytest.raises(UsageError, match=r"1 readable image\(s\)"):
        measure(tables)


def test_what_a_model_is_is_read_off_its_architecture(photos: Path, tmp_path: Path) -> None:
    specs = ["twice=resnet18w2?weights=none&size=64", NET]
    store = extract(photos, backbones=specs, store=tmp_path / "s", taps=["avgpool"], workers=0)
    wide, small = (describe_model(table) for table in store.tables())
    assert (wide.depth, wide.width, wide.norm) == (18, 2, "batch")
    network = load_backbone(NET).module
    whole = sum(p.numel() for p in network.parameters())
    assert small.parameters == whole - sum(p.numel() for p in network.linear.parameters())
    assert small == Model(depth=20, width=1, norm="batch", parameters=small.parameters)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "give a column backbone"),
        ("epochs\n3\n", "give a column backbone"),
        ("backbone,epoch\na,3\n", "unknown column 'epoch'.*epochs"),
        ("backbone,epochs\na,many\n", "line 2: epochs is 'many'"),
        ("backbone,error\na,12\n", r"line 2: error is '12': give a share"),
        ("backbone,epochs\na,1\na,2\n", "line 3: a comes twice"),
        ("backbone,error,error\na,0,1\n", "column 'error' comes twice"),
        ("backbone,epochs\n,2\n", "line 2: no backbone"),
        ("backbone,epochs\na,2,3\n", "line 2: has more cells"),
        ("backbone;epochs\na;1;2\n", "line 2: has more cells"),
        ("backbone|epochs\na|1\n", r"unknown column 'backbone\|epochs'"),
        ("PK\x03\n", "family .*PK"),
    ],
)
def test_family_files_that_mean_nothing(tmp_path: Path, text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        read_family(family(tmp_path, text))


@pytest.mark.parametrize(
    "text",
    [
        "backbone , epochs, error,method\nsmall ,30, 0.25,SimCLR\n",
        "backbone;epochs;error;method\r\nsmall;30;0,25;SimCLR\r\n",
        "\ufeffbackbone\tepochs\terror\tmethod\nsmall\t30\t0.25\tSimCLR\n",
    ],
)
def test_family_files_as_spreadsheets_write_them(tmp_path: Path, text: str) -> None:
    (tmp_path / "family.csv").write_bytes(text.encode())
    wanted = {"small": Model(epochs=30, error=0.25, method="SimCLR")}
    assert read_family(tmp_path / "family.csv") == wanted


def test_a_family_may_leave_cells_empty_and_must_name_what_is_there(
    tmp_path: Path, store: Store
) -> None:
    path = family(tmp_path, "backbone,epochs,method\nsmall,,\nlarge, 30 ,BYOL\n")
    assert read_family(path) == {"small": Model(), "large": Model(epochs=30, method="BYOL")}
    with pytest.raises(UsageError, match="cannot be read"):
        read_family(tmp_path / "none.csv")
    with pytest.raises(UsageError, match="no backbone 'huge' among the tables"):
        measure(store.tables(), family=family(tmp_path, "backbone\nhuge\n"))


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"samples": 1}, "samples is 1"),
        ({"repeats": 0}, "repeats is 0"),
        ({"power": (-1.0,)}, "power is -1"),
        ({"power": ()}, "at least one"),
        ({"over": ("images",)}, "over 'images'"),
        ({"space": "quarter"}, "space 'quarter'"),
        ({"seed": -1}, "seed is -1"),
    ],
)
def test_options_that_mean_nothing(config: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        DiversityConfig(**config)


def test_two_stores_may_not_have_one_backbone(store: Store, tmp_path: Path) -> None:
    other = tmp_path / "other"
    make_table(
        other, make_samples(other, LABELS, ["ant", "bee", "cow"]), "small/fc.none", points(1, 3)
    )
    with pytest.raises(UsageError, match="both have a backbone small"):
        measure([*store.tables(), *open_store(other).tables()])


def test_an_error_that_cannot_be_measured_is_said(tmp_path: Path) -> None:
    one = tmp_path / "one"
    make_table(one, make_samples(one, [0] * N, ["ant"]), "net/avgpool.avg", points(0, 4))
    result = Diversity(DiversityConfig()).run({"store": open_store(one).tables()})
    assert any(
        "net: no error, since a probe cannot be learned (one class" in x for x in result.notes
    )
    other = tmp_path / "other"
    manifest = make_samples(other, LABELS, ["ant", "bee", "cow"])
    make_table(other, manifest, "net/avgpool.avg", points(1, 4))
    with h5py.File(other / "samples.h5", "r+") as file:
        del file["label"], file["classes"]
    seal_by_hand(other / "samples.h5", "featkit-samples")
    sides = {"store": open_store(one).tables(), "train": open_store(other).tables()}
    notes = Diversity(DiversityConfig()).run(sides).notes
    assert any("have no labels" in note for note in notes)


def test_what_is_asked_twice_is_measured_once(store: Store) -> None:
    once = measure(store.tables(), taps=("conv1",), samples=30, repeats=3)
    twice = measure(
        store.tables(), taps=("conv1", "conv1"), samples=30, repeats=3, power=(1.0, 1.0),
        over=("samples", "samples", "units"),
    )  # fmt: skip
    assert twice.tables["energy"] == once.tables["energy"]


def test_the_average_of_the_last_map_is_the_avgpool(tmp_path: Path) -> None:
    path = tmp_path / "store"
    manifest = make_samples(path, LABELS, ["ant", "bee", "cow"])
    maps = points(0, 5, 2, 2, offset=0.5)
    make_table(path, manifest, "net/conv1.none", points(1, 5, 2, 2, offset=4.0))
    make_table(path, manifest, "net/res4.none", maps)
    make_table(path, manifest, "net/avgpool.avg", maps.mean((2, 3)))
    result = measure(open_store(path).tables(), over=("samples",))
    (row,) = rows_of(result, "most_diverse", pooling="avg")
    assert set(row["layer"].split(" = ")) == {"res4", "avgpool"}
    assert row["next"] == "conv1"


def test_the_only_vector_stands_for_a_head(tmp_path: Path) -> None:
    path = tmp_path / "store"
    manifest = make_samples(path, LABELS, ["ant", "bee", "cow"])
    make_table(path, manifest, "vit/norm.cls", points(0, 6))
    result = measure(open_store(path).tables(), taps=("head",))
    assert result.notes == ["no head in vit: norm stands for it"]
