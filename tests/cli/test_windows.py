"""Windows of maps from ``--tap`` to the accuracy of a probe."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from featkit.store.reader import open_store
from tests.cli.conftest import Run

LENET = "lenet5?weights=none"
QUICK = ("--precision", "fp32", "--workers", 0, "--quiet")


@pytest.fixture
def store(run: Run, photos: Path, tmp_path: Path) -> Path:
    """LeNet-5 with 6 maps of 28 x 28 and 16 of 10 x 10 in windows, and the means of the latter."""
    folder = tmp_path / "store"
    taps = ("conv1:AVG7s7p0", "conv2:avg4s4p1", "conv2:avg")
    asked = [word for tap in taps for word in ("--tap", tap)]
    code, _, said = run("extract", photos, "-b", LENET, *asked, "-o", folder, *QUICK)
    assert (code, said) == (0, "")
    return folder


def test_tables_hold_the_means_of_windows(run: Run, photos: Path, store: Path) -> None:
    maps = ("--tap", "conv1:none", "--tap", "conv2:none")
    assert run("extract", photos, "-b", LENET, *maps, "-o", store, *QUICK)[0] == 0
    tables = open_store(store)
    for tap, pooling, layer in (
        ("conv1", "avg7s7", nn.AvgPool2d(7, 7)),
        ("conv2", "avg4s4p1", nn.AvgPool2d(4, 4, 1)),
    ):
        table = tables[f"lenet5/{tap}.{pooling}"]
        whole = torch.from_numpy(np.array(tables[f"lenet5/{tap}.none"].numpy()))
        wanted = layer(whole).flatten(1).numpy()
        np.testing.assert_allclose(table.numpy(), wanted, rtol=1e-5, atol=1e-6)
        assert (table.pooling, table.provenance["pooling"]) == (pooling, pooling)
        assert table.path == store / "lenet5" / f"{tap}.{pooling}.h5"


def test_a_dry_run_says_the_sizes(run: Run, photos: Path, tmp_path: Path) -> None:
    taps = ("--tap", "conv1:avg7s7", "--tap", "conv2:avg4s4p1")
    code, out, _ = run(
        "extract", photos, "-b", LENET, *taps, "-o", tmp_path / "s", *QUICK, "--dry-run"
    )
    assert code == 0
    assert "lenet5/conv1.avg7s7" in out
    assert f"40 × {6 * 4 * 4} × float32" in out
    assert f"40 × {16 * 3 * 3} × float32" in out
    assert not (tmp_path / "s").exists()


def test_nothing_is_computed_twice_under_another_spelling(
    run: Run, photos: Path, store: Path
) -> None:
    again = ("--tap", "conv1:avg7s7", "--tap", "conv2:avg4s4P1")
    code, out, _ = run("extract", photos, "-b", LENET, *again, "-o", store, *QUICK)
    assert code == 0
    assert "nothing to do: every table was there" in out


def test_a_store_with_windows_is_whole(run: Run, store: Path) -> None:
    assert run("verify", store)[0] == 0
    assert "lenet5/conv2.avg4s4p1" in run("ls", store)[1]


def test_a_probe_reads_them_by_selector_and_among_all_layers(
    run: Run, photos: Path, store: Path, tmp_path: Path
) -> None:
    others = tmp_path / "others"
    for path in photos.rglob("*.png"):
        target = others / path.relative_to(photos)
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.open(path).rotate(90).save(target)
    test = tmp_path / "test"
    taps = ("--tap", "conv1:avg7s7", "--tap", "conv2:avg4s4p1", "--tap", "conv2:avg")
    assert run("extract", others, "-b", LENET, *taps, "-o", test, *QUICK)[0] == 0
    one, same = (f"{folder}:lenet5/conv2.avg4s4p1" for folder in (store, test))
    code, out, _ = run("probe", one, same, "--json")
    assert code == 0
    (row,) = json.loads(out)["tables"]["accuracy"]
    assert (row["features"], row["n_test"]) == ("lenet5/conv2", 40)
    code, out, _ = run("probe", store, test, "--taps", "all", "--json")
    assert code == 0
    layers = [row["features"] for row in json.loads(out)["tables"]["layers"]]
    assert layers == ["lenet5/conv1", "lenet5/conv2.avg4s4p1", "lenet5/conv2.avg"]
