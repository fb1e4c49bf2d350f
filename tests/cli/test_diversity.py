"""``diversity`` as a user runs it."""

from __future__ import annotations

import json
from pathlib import Path

import h5py
import numpy as np
import pytest

from featkit.analyses.diversity.comparison import repeats_name
from tests.cli.conftest import Run
from tests.store.conftest import make_samples, make_table


def make(path: Path, count: int, seed: int) -> Path:
    """Two models of which one has wider features, each with a layer of maps and a vector."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    manifest = make_samples(path, labels, ["ant", "bee", "cow"])
    for name, offset in (("narrow", 5.0), ("wide", 0.5)):
        maps = offset + rng.random((count, 4, 2, 2))
        ends = np.eye(3, 6)[labels] + offset + rng.random((count, 6))
        make_table(path, manifest, f"{name}/conv1.none", maps.astype(np.float32), weights=name)
        make_table(path, manifest, f"{name}/avgpool.avg", ends.astype(np.float32), weights=name)
    return path


def test_from_two_models_to_their_energies(run: Run, tmp_path: Path) -> None:
    train, test = make(tmp_path / "train", 120, 0), make(tmp_path / "test", 90, 1)
    asked = ["--taps", "conv1,head", "--samples", 40, "--repeats", 3, "--power", "0,1"]
    folder = tmp_path / "out"
    status, out, err = run("diversity", test, "--train", train, *asked, "-o", folder)
    assert status == 0
    assert err == "note: no head in narrow, wide: avgpool stands for it\n"
    energies, most, errors, end = out.split("\n\n")
    assert errors.splitlines()[0].split() == ["backbone", "error", "error_low", "error_high"]
    header = energies.splitlines()[0].split()
    assert header[:4] == ["backbone", "tap", "pooling", "over"]
    assert {"mean_energy", "spread", "mean_diversity", "error"} <= set(header)
    assert "diversity" not in header
    assert most.splitlines()[0].split()[:5] == ["over", "pooling", "power", "backbone", "layer"]
    assert end.startswith("backbones 2, layers 4, samples 40, repeats 3")
    content = json.loads((folder / "result.json").read_text())
    rows = content["tables"]["energy"]
    assert all(row["diversity"] == -row["energy"] for row in rows)
    assert len(rows) == 2 * 3 * 2 * 2  # models; conv1 twice and avgpool; kinds of point; powers
    by_model = {
        name: [r["mean_energy"] for r in rows if r["backbone"] == name and r["over"] == "samples"]
        for name in ("narrow", "wide")
    }
    assert all(a > b for a, b in zip(by_model["narrow"], by_model["wide"], strict=True))
    assert (folder / "layers-samples-avg.png").exists()
    with h5py.File(folder / "arrays.h5") as file:
        for row in rows:
            energies = file[repeats_name(row)][...]
            assert energies.shape == (3,)
            assert row["mean_energy"] == pytest.approx(energies.mean())


def test_mistakes_are_one_line(run: Run, tmp_path: Path) -> None:
    store = make(tmp_path / "store", 30, 0)
    for asked, says in {
        ("--taps", "res9"): "has no res9",
        ("--seed", "-1"): "seed is -1",
        ("--train", str(store)): "--train has the images of STORE",
        ("--family", str(tmp_path / "none.csv")): "cannot be read",
        ("--power", "-2"): "power is -2",
    }.items():
        status, out, err = run("diversity", store, *asked)
        assert (status, out) == (2, "")
        assert says in err.splitlines()[-1]
        assert "Traceback" not in err
