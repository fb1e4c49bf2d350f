"""All of CIFAR-10 through four published ResNets, and the accuracy of their neighbours."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import featkit
from benchmarks.harness import command_line, save

WANTED = {20: 0.835, 32: 0.843, 44: 0.846, 56: 0.852}


def main() -> None:
    """Extract, vote, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, metavar="CIFAR10", help="with train/ and test/")
    parser.add_argument("weights", type=Path, metavar="WEIGHTS", help="with resnet20-*.th, …")
    given = parser.parse_args()
    backbones = []
    for depth in WANTED:
        file = next(given.weights.glob(f"resnet{depth}-*"))
        backbones += ["-b", f"resnet{depth}={file}?arch=cifar_resnet{depth}"]
    seconds: dict[str, float] = {}

    def featkit_command(name: str, *arguments: object) -> str:
        started = time.perf_counter()
        command = [sys.executable, "-m", "featkit_cli", *map(str, arguments)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        seconds[name] = round(time.perf_counter() - started, 1)
        return done.stdout

    with tempfile.TemporaryDirectory() as scratch:
        train, test = f"{scratch}/train", f"{scratch}/test"
        for name, store in (("train", train), ("test", test)):
            options = [*backbones, "-o", store, "--batch-size", 128]
            print(featkit_command(name, "extract", given.images / name, *options), file=sys.stderr)
        result = json.loads(
            featkit_command("knn", "knn", train, test, "--combine", "average,concat", "--json")
        )
        precisions = {
            table.backbone: table.provenance["precision"]
            for table in featkit.open_store(test).tables()
        }
    accuracy = {row["features"]: row["top1"] for row in result["tables"]["accuracy"]}
    claims = [
        {
            "what": f"`featkit knn` of CIFAR ResNet-{depth}, k = 20, majority",
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
