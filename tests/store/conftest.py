"""Stores written from the format's description alone, with h5py and hashlib."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

MakeTable = Callable[..., Path]


def seal_by_hand(path: Path, kind: str) -> None:
    content = path.read_bytes()[512:]
    line = f"{kind} sha256:{hashlib.sha256(content).hexdigest()}\n".encode()
    path.write_bytes(line + bytes(512 - len(line)) + content)


def make_samples(store: Path, labels: Any, classes: list[str]) -> str:
    """Write samples.h5 and return its manifest hash."""
    store.mkdir(parents=True, exist_ok=True)
    paths = [f"{i:04d}.png" for i in range(len(labels))]
    contents = [hashlib.sha256(f"{store}/{path}".encode()).digest() for path in paths]
    manifest = hashlib.sha256(
        b"".join(p.encode() + b"\0" + c for p, c in zip(paths, contents, strict=True))
    ).hexdigest()
    with h5py.File(store / "samples.h5", "w", userblock_size=512) as file:
        file.attrs.update(
            {"format": "featkit-samples", "version": 1, "manifest": manifest, "source": "by hand"}
        )
        file.create_dataset("path", data=paths, dtype=h5py.string_dtype())
        file["digest"] = np.frombuffer(b"".join(contents), np.uint8).reshape(-1, 32)
        file["label"] = np.asarray(labels, np.int64)
        file.create_dataset("classes", data=classes, dtype=h5py.string_dtype())
    seal_by_hand(store / "samples.h5", "featkit-samples")
    return manifest


def make_table(
    store: Path, manifest: str, name: str, features: Any, weights: str = "w", **attributes: Any
) -> Path:
    """Write a table called ``backbone/tap.pooling``."""
    backbone, _, rest = name.partition("/")
    tap, _, pooling = rest.rpartition(".")
    features = np.asarray(features)
    provenance = {
        "backbone": {"architecture": "by hand", "weights": weights},
        "tap": tap,
        "pooling": pooling,
        "preprocessing": {"size": [1, 1]},
        "samples": manifest,
        "dtype": str(features.dtype),
        "precision": "fp32",
    }
    text = json.dumps(provenance, sort_keys=True, separators=(",", ":"))
    path = store / backbone / f"{rest}.h5"
    path.parent.mkdir(exist_ok=True)
    valid = np.isfinite(features.reshape(len(features), -1)).all(1)
    with h5py.File(path, "w", userblock_size=512) as file:
        file.attrs.update(
            {
                "format": "featkit-table",
                "version": 1,
                "key": hashlib.sha256(text.encode()).hexdigest(),
                "provenance": text,
                "backbone": backbone,
                "tap": tap,
                "pooling": pooling,
                "spec": "by hand",
                **attributes,
            }
        )
        file["features"] = features
        file["valid"] = valid
        bad = np.flatnonzero(~valid)
        file["failed_row"] = bad.astype(np.int64)
        file.create_dataset("failed_reason", data=["broken"] * len(bad), dtype=h5py.string_dtype())
    seal_by_hand(path, "featkit-table")
    return path


def spoil(path: Path, row: int) -> None:
    """Put infinity into a row that is marked as valid."""
    with h5py.File(path, "r+") as file:
        file["features"][row, 0] = np.inf


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Twelve samples of three classes, two backbones, three tables, one unreadable sample."""
    root = tmp_path / "store"
    rng = np.random.default_rng(0)
    manifest = make_samples(root, np.arange(12) % 3, ["ant", "bee", "cow"])
    vectors = rng.standard_normal((12, 5)).astype(np.float32)
    vectors[7] = np.nan
    maps = rng.standard_normal((12, 2, 3, 3)).astype(np.float16)
    maps[7] = np.nan
    make_table(root, manifest, "net_b/fc.none", vectors)
    make_table(root, manifest, "net_b/layer1.avg", vectors * 2)
    make_table(root, manifest, "net_a/layer1.none", maps)
    return root
