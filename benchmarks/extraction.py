"""Extraction end to end against the loop that everyone writes, and where its time goes."""

from __future__ import annotations

import argparse
import shutil
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset
from torchvision import models
from torchvision.transforms import v2

import featkit
from benchmarks.harness import command_line, interleaved, median_ratio, save
from featkit.backbones import taps
from featkit.backbones.base import Backbone
from featkit.backbones.precision import agreement
from featkit.backbones.resolve import load_backbone
from featkit.extraction import pipeline

SPEC = "torchvision:resnet50?weights=none"
BATCH = 32


class Photos(Dataset):
    """The data set that everyone writes."""

    def __init__(self, files: list[Path]) -> None:
        from PIL import Image

        self.files = files
        self.open = Image.open
        self.transform = v2.Compose(
            [
                v2.Resize(232),
                v2.CenterCrop(224),
                v2.PILToTensor(),
                v2.ToDtype(torch.float32, scale=True),
                v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
            ]
        )

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, row: int) -> torch.Tensor:
        return self.transform(self.open(self.files[row]).convert("RGB"))


def plain_loop(files: list[Path], network: torch.nn.Module, out: Path, workers: int) -> float:
    """Eager fp32, a forward hook, a DataLoader, a list, ``np.save``."""
    started = time.perf_counter()
    rows: list[torch.Tensor] = []
    hook = network.avgpool.register_forward_hook(lambda m, i, o: rows.append(o.flatten(1)))
    with torch.no_grad():
        for images in DataLoader(Photos(files), BATCH, num_workers=workers):
            network(images)
    hook.remove()
    np.save(out, torch.cat(rows).numpy())
    return time.perf_counter() - started


def featkit_run(folder: Path, backbone: Backbone, store: Path, **options: object) -> float:
    """One extraction into a new store."""
    shutil.rmtree(store, ignore_errors=True)
    started = time.perf_counter()
    featkit.extract(folder, [backbone], store, **options)  # type: ignore[arg-type]
    return time.perf_counter() - started


def overhead(folder: Path, backbone: Backbone, store: Path, **options: object) -> float:
    """Share of a run that is neither decoding nor the forward.

    The forward and the waiting for decoded images are timed inside the pipeline; what remains is
    everything else: hashing, planning, hooks and their pooling, copies, writing, joining.
    """
    spent = {"forward": 0.0, "waiting": 0.0}
    run_network, load, pool = backbone.module.forward, pipeline.load_batches, taps.pool

    def pooling(*arguments: object) -> torch.Tensor:
        started = time.perf_counter()
        rows = pool(*arguments)  # type: ignore[arg-type]
        spent["forward"] -= time.perf_counter() - started
        return rows

    def forward(images: torch.Tensor) -> torch.Tensor:
        started = time.perf_counter()
        try:
            return run_network(images)
        finally:
            spent["forward"] += time.perf_counter() - started

    def batches(*arguments: object) -> object:
        loaded = iter(load(*arguments))  # type: ignore[arg-type]
        while True:
            started = time.perf_counter()
            batch = next(loaded, None)
            spent["waiting"] += time.perf_counter() - started
            if batch is None:
                return
            yield batch

    backbone.module.forward = forward  # type: ignore[method-assign]
    pipeline.load_batches = batches  # type: ignore[assignment]
    taps.pool = pooling
    try:
        total = featkit_run(folder, backbone, store, **options)
    finally:
        backbone.module.forward = run_network  # type: ignore[method-assign]
        pipeline.load_batches = load
        taps.pool = pool
    return (total - sum(spent.values())) / total


def main() -> None:
    """Measure, compare the features, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("photos", type=Path, metavar="PHOTOS", help="flat folder of JPEGs")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    files = sorted(given.photos.glob("*.jpg"))
    backbone = load_backbone(SPEC)
    torch.manual_seed(0)
    plain = models.resnet50(weights=None).eval()
    plain.load_state_dict(backbone.module.state_dict())
    with tempfile.TemporaryDirectory() as scratch:
        out, store = Path(scratch) / "plain.npy", Path(scratch) / "store"
        common = {"workers": given.workers, "batch_size": BATCH}
        seconds = interleaved(
            {
                "plain loop": lambda: plain_loop(files, plain, out, given.workers),
                "featkit fp32": lambda: featkit_run(
                    given.photos, backbone, store / "fp32", precision="fp32", **common
                ),
                "featkit auto": lambda: featkit_run(
                    given.photos, backbone, store / "auto", **common
                ),
            },
            given.repeats,
        )
        reference = np.load(out)
        tables = {kind: featkit.open_store(store / kind)["resnet50"] for kind in ("fp32", "auto")}
        difference = np.abs(tables["fp32"].numpy() - reference).max() / np.abs(reference).max()
        cosine = agreement([tables["auto"].torch()], [torch.from_numpy(reference)])[0]
        precision = tables["auto"].provenance["precision"]
        shares = {
            kind: [
                overhead(given.photos, backbone, store / "timed", precision=kind, **common)
                for _ in range(given.repeats)
            ]
            for kind in ("fp32", "auto")
        }
    sized = f"{len(files)} JPEGs, ResNet-50 at 224 px, batch {BATCH}, {given.repeats} rounds"
    rows = [
        *speed_claims(seconds, precision),
        (
            "largest difference of fp32 features, relative",
            f"{difference:.1e}",
            "≤ 1e-4",
            difference <= 1e-4,
        ),
        (
            f"least cosine of {precision} features with fp32",
            f"{cosine:.5f}",
            "≥ 0.999",
            cosine >= 0.999,
        ),
        *share_claims(shares),
    ]
    names = ("what", "measured", "target", "met")
    save(
        "extraction",
        command_line(parser, given),
        [
            {**dict(zip(names, row, strict=True)), "met": bool(row[3]), "sized": sized}
            for row in rows
        ],
        shares=shares,
        seconds=seconds,
        images_per_second={
            name: round(len(files) / statistics.median(times), 1) for name, times in seconds.items()
        },
    )


def speed_claims(seconds: dict[str, list[float]], precision: str) -> list[tuple[object, ...]]:
    """Compare the whole commands: what, measured, target, met."""
    auto = median_ratio(seconds["plain loop"], seconds["featkit auto"])
    fp32 = median_ratio(seconds["plain loop"], seconds["featkit fp32"])
    over = "speed-up over the plain loop"
    return [
        (f"{over}, precision auto ({precision} ran)", f"{auto:.2f}×", "≥ 2.3×", auto >= 2.3),
        (f"{over}, fp32", f"{fp32:.2f}×", "≥ 1.25×", fp32 >= 1.25),
    ]


def share_claims(shares: dict[str, list[float]]) -> list[tuple[object, ...]]:
    """Say how much is neither decoding nor the forward: what, measured, target, met."""
    what = "share that is neither decoding nor the forward"
    medians = {kind: statistics.median(share) for kind, share in shares.items()}
    return [
        (f"{what}, {k}", f"{share:.1%}", "≤ 5 %", share <= 0.05) for k, share in medians.items()
    ]


if __name__ == "__main__":
    main()
