"""All of CIFAR-10 through four published ResNets, and the accuracy of their neighbours."""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

import featkit
from benchmarks.harness import command_line, save
from featkit.analyses.neighbors import KNN, KNNConfig

WANTED = {20: 0.835, 32: 0.843, 44: 0.846, 56: 0.852}


def main() -> None:
    """Extract, vote, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, metavar="CIFAR10", help="with train/ and test/")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="with resnet20-*.th, …")
    given = parser.parse_args()
    backbones = [
        f"resnet{depth}={next(given.weights.glob(f'resnet{depth}-*'))}?arch=cifar_resnet{depth}"
        for depth in WANTED
    ]
    stores, seconds = {}, {}
    with tempfile.TemporaryDirectory() as scratch:
        for part in ("train", "test"):
            started = time.perf_counter()
            stores[part] = featkit.extract(
                given.images / part, backbones, Path(scratch) / part, batch_size=128, progress=True
            )
            seconds[part] = round(time.perf_counter() - started, 1)
        tables = {part: store.tables() for part, store in stores.items()}
        started = time.perf_counter()
        result = KNN(KNNConfig(combine=("average", "concat"))).run(tables)
        seconds["knn"] = round(time.perf_counter() - started, 1)
        precisions = {table.backbone: table.provenance["precision"] for table in tables["test"]}
    accuracy = {row["features"]: float(row["top1"]) for row in result.tables["accuracy"]}
    claims = [
        {
            "what": f"k-NN accuracy of CIFAR ResNet-{depth}, k = 20, majority",
            "measured": f"{accuracy[f'resnet{depth}/avgpool']:.2%}",
            "target": f"{wanted:.1%} ± 0.2",
            "met": abs(accuracy[f"resnet{depth}/avgpool"] - wanted) <= 0.002,
            "sized": "50,000 bank, 10,000 queries, all of CIFAR-10 coded as JPEG; "
            f"{precisions[f'resnet{depth}']}",
        }
        for depth, wanted in WANTED.items()
    ]
    claims += [
        {
            "what": f"the same of all four together, {how}",
            "measured": f"{accuracy[how]:.2%}",
            "target": "—",
            "met": None,
            "sized": "as above",
        }
        for how in ("average", "concat")
    ]
    save("cifar10", command_line(parser, given), claims, accuracy=accuracy, seconds=seconds)


if __name__ == "__main__":
    main()
