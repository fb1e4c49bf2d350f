"""How near the forward comes to the machine's own matrix products."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import torch
from torchvision import models

from benchmarks.harness import command_line, save
from featkit.backbones.precision import computing_in

GFLOP = 8.18
"""Of one ResNet-50 forward at 224 px: 4.09 billion multiply-adds (torchvision's model card)."""


def best(run: Callable[[], object], repeats: int) -> float:
    """Return the shortest of some runs, after one that is not counted."""
    times = []
    for _ in range(repeats + 1):
        started = time.perf_counter()
        run()
        times.append(time.perf_counter() - started)
    return min(times[1:])


def main() -> None:
    """Measure products and forwards, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    device = torch.device("cpu")
    peak = {}
    for name, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        square = torch.randn(2048, 2048).to(dtype)
        peak[name] = 2 * 2048**3 / best(lambda x=square: x @ x, given.repeats) / 1e9
    network = models.resnet50(weights=None).eval()
    images = torch.randn(given.batch, 3, 224, 224)
    rates = {}

    def measure(name: str, precision: str, run: Callable[[torch.Tensor], object]) -> None:
        with computing_in(precision, device):
            rates[name] = round(given.batch / best(lambda: run(images), given.repeats), 1)

    measure("eager fp32", "fp32", network)
    network = network.to(memory_format=torch.channels_last)
    images = images.to(memory_format=torch.channels_last)
    measure("channels last fp32", "fp32", network)
    measure("channels last bf16", "bf16", network)
    measure("compiled bf16", "bf16", torch.compile(network))
    claims = [
        {
            "what": f"ResNet-50 forward, {name}",
            "measured": f"{rate} images/s, {rate * GFLOP / peak[name[-4:]]:.0%} of the floor",
            "target": "—",
            "met": None,
            "sized": f"224 px, batch {given.batch}, best of {given.repeats}; floor: "
            f"{peak[name[-4:]] / GFLOP:.0f} images/s at {peak[name[-4:]]:.0f} GFLOP/s",
        }
        for name, rate in rates.items()
    ]
    save("forward", command_line(parser, given), claims, gflops=peak, images_per_second=rates)


if __name__ == "__main__":
    main()
