"""What diversity leaves out, and what it says before and after the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from featkit.analyses.diversity import analysis, weights
from featkit.analyses.diversity.analysis import Diversity
from featkit.analyses.diversity.comparison import corrected_spread
from featkit.analyses.diversity.config import DiversityConfig
from featkit.analyses.diversity.layers import choose_layers, last_features, reads_as_head
from featkit.backbones.resolve import load_backbone
from featkit.errors import UsageError
from featkit.extraction.pipeline import extract
from featkit.store.reader import Store, open_store
from tests.analyses.test_diversity import LABELS, family, measure, points, rows_of
from tests.conftest import NET
from tests.store.conftest import make_samples, make_table


def make_store(path: Path, **tables: np.ndarray) -> Store:
    """A store of tables ``backbone/tap.pooling``, written with ``__`` and ``___``."""
    manifest = make_samples(path, LABELS, ["ant", "bee", "cow"])
    for name, x in tables.items():
        backbone, tap, pooling = name.split("__")
        make_table(path, manifest, f"{backbone}/{tap}.{pooling}", x, weights=backbone)
    return open_store(path)


def test_a_table_given_twice_is_measured_once(tmp_path: Path) -> None:
    """Twice as many models would make any correlation certain."""
    path = tmp_path / "store"
    x = {f"net{n}__avgpool__avg": points(n, 6, offset=float(n)) for n in range(4)}
    make_store(path, **x)
    (tmp_path / "link").symlink_to(path)
    errors = "backbone,error\n" + "".join(f"net{n},0.{n + 1}\n" for n in range(4))
    asked = {"family": family(tmp_path, errors)}
    once = measure(open_store(path).tables(), **asked)
    for again in (path, tmp_path / "link"):
        twice = measure(open_store(path).tables() + open_store(again).tables(), **asked)
        assert twice.tables == once.tables
        (told,) = twice.provenance["inputs"].values()
        assert [one["key"] for one in told] == [table.key for table in open_store(path).tables()]
    mixed = open_store(path).tables() + open_store(tmp_path / "link").select("net0")
    assert measure(mixed, **asked).tables == once.tables
    assert {row["n"] for row in once.tables["correlations"]} == {4}


def test_a_backbone_is_in_a_correlation_once(tmp_path: Path) -> None:
    """An end stands at every pooling, unless it was pooled in several ways itself."""
    x: dict[str, Any] = {}
    for n in range(3):
        x[f"net{n}__conv1__none"] = points(n, 5, 2, 2, offset=float(n))
        x[f"net{n}__avgpool__avg"] = points(n, 6, offset=float(n))
        x[f"net{n}__avgpool__max"] = points(9 + n, 6, offset=float(n))
    errors = family(tmp_path, "backbone,error\nnet0,0.1\nnet1,0.2\nnet2,0.3\n")
    result = measure(make_store(tmp_path / "s", **x).tables(), family=errors)
    found = rows_of(result, "correlations", over="samples", layer="avgpool")
    assert [(row["pooling"], row["n"]) for row in found] == [("avg", 3), ("max", 3)]
    keys = ("over", "pooling", "power", "layer", "backbone")
    models = [tuple(row[key] for key in keys) for row in result.tables["models"]]
    assert len(set(models)) == len(models)


@pytest.mark.parametrize("power", [100.0, 150.0, 200.0, 250.0, 1000.0])
def test_energies_that_no_float_holds_are_left_out_and_said(tmp_path: Path, power: float) -> None:
    close = points(0, 6, offset=9.0)
    close[1] = close[0] + np.float32(1e-3)
    store = make_store(tmp_path / "s", net__conv1__avg=close, net__res2__avg=points(1, 6))
    result = measure(
        store.tables(), power=(1.0, power), over=("samples",), samples=100, repeats=3, seed=4
    )
    assert len(rows_of(result, power=1.0)) == 2
    for rows in result.tables.values():
        numbers = [v for row in rows for v in row.values() if isinstance(v, float)]
        assert np.isfinite(numbers).all()
    left = {row["tap"] for row in rows_of(result, power=power)}
    said = {note.split(",")[0] for note in result.notes if f"left out at s = {power:g}" in note}
    assert said == {f"net/{tap}.avg" for tap in {"conv1", "res2"} - left}
    assert "net/conv1.avg" in said
    assert len(rows_of(result, "most_diverse")) == 1 + (len(left) == 2)


def test_layers_that_are_the_same_are_one_wherever_they_stand(tmp_path: Path) -> None:
    maps = points(0, 5, 2, 2, offset=4.0)
    store = make_store(
        tmp_path / "s",
        net__conv1__none=points(1, 5, 2, 2, offset=0.0),
        net__res4__none=maps,
        net__avgpool__avg=maps.mean((2, 3)),
    )
    (row,) = rows_of(measure(store.tables(), over=("samples",)), "most_diverse", pooling="avg")
    assert row["layer"] == "conv1"
    assert set(row["next"].split(" = ")) == {"res4", "avgpool"}


def test_what_is_wrong_with_train_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def measured(*_: object) -> None:
        pytest.fail("a layer was measured")

    monkeypatch.setattr(analysis, "measure_energies", measured)
    monkeypatch.setattr(analysis, "correlate_units", measured)
    asked = make_store(tmp_path / "s", net__avgpool__avg=points(0, 4)).tables()
    other = make_store(tmp_path / "t", net__conv1__avg=points(0, 4)).tables()
    for train, says in {"same": (asked, "the images"), "other": (other, "no table")}.values():
        with pytest.raises(UsageError, match=f"--train has {says}"):
            Diversity(DiversityConfig()).run({"store": asked, "train": train})


def test_a_backbone_is_loaded_once_and_before_the_work(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    taps = ["conv1", "res2", "head"]
    store = extract(photos, backbones=[NET], store=tmp_path / "s", taps=taps, workers=0)
    done: list[str] = []
    measured = analysis.measure_energies
    monkeypatch.setattr(
        weights, "load_backbone", lambda spec: done.append("loaded") or load_backbone(spec)
    )
    monkeypatch.setattr(
        analysis, "measure_energies", lambda *a: done.append("measured") or measured(*a)
    )
    result = measure(store.tables(), over=("samples", "weights"))
    assert done[0] == "loaded"
    assert done.count("loaded") == 1
    assert len(rows_of(result, over="weights")) == 8


@pytest.mark.parametrize("spec", ["gone/net.pth", "ensemble of 3", f"{NET}&seed=1"])
def test_backbones_that_cannot_be_had_are_a_note(photos: Path, tmp_path: Path, spec: str) -> None:
    specs = [f"here={NET}", f"gone={NET}&seed=2"]
    store = extract(photos, backbones=specs, store=tmp_path / "s", taps=["conv1"], workers=0)
    tables = store.tables()
    (lost,) = (table for table in tables if table.backbone == "gone")
    lost.spec = spec
    result = measure(tables, over=("samples", "weights"))
    assert {row["backbone"] for row in rows_of(result, over="weights")} == {"here"}
    assert {row["backbone"] for row in rows_of(result, over="samples")} == {"here", "gone"}
    (note,) = (note for note in result.notes if "weights" in note)
    assert note.startswith("no weights of gone: ")
    with pytest.raises(UsageError, match="over weights: no weights of gone"):
        measure([lost], over=("weights",))


def test_points_that_the_energy_leaves_out_are_said(tmp_path: Path) -> None:
    x = points(0, 8)
    x[:, [1, 4]] = 0
    x[:, 7] = x[:, 0]
    x[3] = 2 * x[2]
    x[110:] = np.nan
    result = measure(make_store(tmp_path / "s", net__avgpool__avg=x).tables(), power=(0.0, 1.0))
    assert result.scalars["unreadable"] == 10
    assert sorted(result.notes) == [
        "net/avgpool.avg, samples: 2 of 11,990 ordered pairs of samples point the same way; "
        "left out",
        "net/avgpool.avg, units: 2 of 30 ordered pairs of units point the same way; left out",
        "net/avgpool.avg, units: 2 of 8 units are zero and have no direction; left out",
    ]


def test_zeros_of_some_draws_are_said_as_a_bound(tmp_path: Path) -> None:
    x = points(0, 8)
    x[5] = 0
    store = make_store(tmp_path / "s", net__avgpool__avg=x)
    (note,) = measure(store.tables(), over=("samples",), samples=30, repeats=8).notes
    assert note.startswith("net/avgpool.avg, samples: up to 1 of 30 samples are zero")


@pytest.mark.parametrize("drawn", [10, 100, 190])
def test_corrected_spread_is_that_of_draws_from_images_without_end(drawn: int) -> None:
    """The closed form for a mean of independent draws: S/√m, whatever part of the images is m."""
    rng = np.random.default_rng(0)
    images = rng.standard_normal(200)
    means = np.array([rng.permutation(images)[:drawn].mean() for _ in range(4000)])
    wanted = images.std(ddof=1) / np.sqrt(drawn)
    assert corrected_spread(means, drawn / 200) == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize(
    ("spec", "taps", "end"),
    [
        ("timm:vit_tiny_patch16_224?weights=none", ["blocks.3:cls", "norm:cls"], "norm"),
        ("timm:resnet10t?weights=none", ["layer3:avg", "layer4:avg"], "layer4"),  # as global_pool
        ("timm:resnet18?weights=none", ["layer4.0:avg", "layer4.1:avg"], "layer4.1"),
        (
            "torchvision:mobilenet_v3_small?weights=none",
            ["avgpool:avg", "classifier.1"],
            "classifier.1",
        ),
        (NET, ["avgpool", "layer1:avg"], "avgpool"),
    ],
)
def test_what_the_head_reads_is_known_from_the_network(
    photos: Path, tmp_path: Path, spec: str, taps: list[str], end: str
) -> None:
    """Of MobileNet the pooled maps are not what the head reads, though they are called avgpool."""
    store = extract(photos, backbones=[spec], store=tmp_path / "s", taps=taps, workers=0)
    (head,) = choose_layers(store.tables(), ["head"])[0]
    assert (head.table.tap, head.is_end) == (end, True)
    found = last_features(store.tables())
    assert found is not None
    assert found.tap == end
    tables = {table.tap: table for table in store.tables()}
    assert {tap: reads_as_head(table) for tap, table in tables.items()} == {
        tap: tap == end for tap in tables
    }
