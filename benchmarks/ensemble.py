"""Learn an ensemble: a step of featkit's against the paper's algorithm written out in torch."""

from __future__ import annotations

import argparse
import itertools
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.harness import command_line, interleaved, median_ratio, save
from featkit.analyses.ensemble.learning import Learner
from featkit.analyses.ensemble.representation import EnsembleRepresentation
from featkit.analyses.ensemble.space import Space
from featkit.analyses.ensemble.targets import Targets
from featkit.ops.mappers import Mappers

SEED = 0
TARGETS = {("first", "bf16"): 1.7, ("second", "bf16"): 4.0, ("second", "fp32"): 2.3}
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}


def random_features(n: int, d: int, m: int) -> list[Any]:
    """Non-negative features; their values do not matter to the time."""
    generator = torch.Generator().manual_seed(SEED)
    return [torch.rand(n, d, generator=generator).numpy() for _ in range(m)]


class Literal:
    """Algorithm 1: a loop over perceptrons, and one Adam over the whole bank."""

    def __init__(self, features: Sequence[Any], start: Tensor, mappers: Mappers) -> None:
        self.targets = [torch.from_numpy(x) for x in features]
        for z in self.targets:
            functional.normalize(z, out=z)
        self.bank = nn.Parameter(start.clone())
        d = start.shape[1]
        self.mlps = [
            nn.Sequential(nn.Linear(d, d), nn.ReLU(), nn.Linear(d, d), nn.ReLU()) for _ in features
        ]
        for j, mlp in enumerate(self.mlps):
            mlp[0].weight.data = mappers.weights[0].data[j].T.contiguous()
            mlp[0].bias.data = mappers.biases[0].data[j, 0].clone()
            mlp[2].weight.data = mappers.last_weights[0].data[j].T.contiguous()
            mlp[2].bias.data = mappers.last_biases[0].data[j, 0].clone()
        weights = [p for mlp in self.mlps for p in mlp.parameters()]
        self.first = torch.optim.Adam(weights, lr=3e-4, fused=True)
        self.second = torch.optim.Adam([self.bank], lr=3e-4, fused=True)

    def double(self) -> None:
        """Go on in float64."""
        self.targets = [z.double() for z in self.targets]
        self.bank.data = self.bank.data.double()
        for mlp in self.mlps:
            mlp.double()

    def step(self, index: Tensor, moves: bool) -> None:
        """Take one step."""
        psi = self.bank[index] if moves else self.bank.detach()[index]
        cosines = [
            functional.cosine_similarity(mlp(psi), z[index])
            for mlp, z in zip(self.mlps, self.targets, strict=True)
        ]
        self.first.zero_grad()
        self.second.zero_grad()
        (1 - torch.stack(cosines)).mean().backward()
        self.first.step()
        if moves:
            self.second.step()


def learner(features: Sequence[Any], precision: Any, most: float | None = None) -> Learner:
    """Return featkit's, with its weights drawn from the seed.

    Args:
        features: Of the models.
        precision: Of the products.
        most: Bytes of memory for ψ and its moments.
    """
    targets = Targets(list(features))
    torch.manual_seed(SEED)
    mappers = Mappers(targets.widths[0], targets.widths, targets.non_negative)
    settings = EnsembleRepresentation(precision=precision).settings()
    space = Space(most)
    start = space.zeros(len(targets), targets.widths[0])
    targets.average(start)
    return Learner(targets, start, mappers, settings, space.zeros)


def settle(one: Learner) -> None:
    """Put the bank where it is after some epochs: every row was visited, a while ago."""
    generator, bank = torch.Generator().manual_seed(SEED), one.bank
    bank.steps = 900
    bank.last.copy_(torch.randint(600, 900, bank.last.shape, generator=generator))
    bank.first.normal_(generator=generator).mul_(1e-7)
    bank.second.uniform_(1e-15, 1e-13, generator=generator)


def memory(kind: str, n: int, d: int, m: int, batch: int) -> int:
    """Return the memory of a process beyond the features, in bytes.

    That of its own, at its peak; what is mapped from files is not counted.
    """
    code = f"""
import re, threading
from pathlib import Path
from benchmarks.ensemble import *
def own():
    return 1024 * int(re.search(r"RssAnon:\\s+(\\d+)", Path("/proc/self/status").read_text())[1])
features = random_features({n}, {d}, {m})
before = most = own()
def watch():
    global most
    while not done.wait(0.01): most = max(most, own())
done = threading.Event()
watcher = threading.Thread(target=watch)
watcher.start()
one = learner(features, "fp32", {0 if kind == "mapped" else None})
orders = torch.randperm({n}).split({batch})
if {kind!r} == "literal":
    start, mappers = one.bank.rows, one.mappers
    del one
    one = Literal(features, start, mappers)
    del start, mappers
    most = own()
for index in orders[:3]: one.step(index, True)
done.set()
watcher.join()
print(most - before)
"""
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return int(done.stdout)


def gemm_rate(dtype: torch.dtype, batch: int, d: int) -> float:
    """Return the machine's rate for products of this shape, operations a second."""
    a, b = torch.rand(batch, d).to(dtype), torch.rand(d, d).to(dtype)
    a @ b
    times = []
    for _ in range(10):
        started = time.perf_counter()
        for _ in range(8):
            a @ b
        times.append(time.perf_counter() - started)
    return 8 * 2 * batch * d * d / min(times)


def agreement(features: Sequence[Any], batch: int, epochs: int) -> dict[str, float]:
    """Return how far ψ is from float64's after some epochs of moving, for featkit and torch.

    Median over the images of the relative difference. Where rounding tips a ReLU over, Adam makes
    steps of a vanishing gradient, and all that comes after goes another way: in torch too.
    """
    few = [x[:2000] for x in features]
    ours = learner(few, "fp32")
    literal, exact = (Literal(few, ours.bank.rows, ours.mappers) for _ in range(2))
    exact.double()
    for epoch in range(epochs):
        order = torch.randperm(len(few[0]), generator=torch.Generator().manual_seed(epoch))
        for index in torch.split(order, batch):
            ours.step(index, moves=True)
            literal.step(index, moves=True)
            exact.step(index, moves=True)
    ours.bank.flush()
    wanted = exact.bank.detach()
    return {
        name: float(((bank - wanted).norm(dim=1) / wanted.norm(dim=1)).median())
        for name, bank in (("featkit", ours.bank.rows), ("torch", literal.bank.detach()))
    }


def speed(given: argparse.Namespace, features: Sequence[Any], sized: str) -> list[dict[str, Any]]:
    """Time a step of each, in turn, in both halves of the training."""
    n, d, m, batch = given.images, given.dims, given.models, given.batch
    ours = {name: learner(features, name) for name in DTYPES}
    literal = Literal(features, ours["fp32"].bank.rows, ours["fp32"].mappers)
    rates = {name: gemm_rate(dtype, batch, d) for name, dtype in DTYPES.items()}
    order = itertools.cycle(torch.split(torch.randperm(n), batch)[:-1])

    def timed(step: Callable[[Tensor, bool], object], moves: bool) -> float:
        started = time.perf_counter()
        for _ in range(given.steps):
            step(next(order), moves)
        return (time.perf_counter() - started) / given.steps

    rows = []
    for half, moves, products in (("first", False, 10), ("second", True, 12)):
        for one in ours.values() if moves else ():
            settle(one)
        steps: dict[str, Callable[[Tensor, bool], object]] = {"literal": literal.step}
        steps |= {name: one.step for name, one in ours.items()}
        times = interleaved(
            {name: partial(timed, step, moves) for name, step in steps.items()}, given.repeats
        )
        before = statistics.median(times["literal"])
        for name in ours:
            seconds, ratio = (
                statistics.median(times[name]),
                median_ratio(times["literal"], times[name]),
            )
            target = TARGETS.get((half, name))
            rate = products * batch * m * d * d / seconds
            share = rate / rates[name]
            rows += [
                {
                    "what": f"speed-up of a step over the paper's algorithm, {half} half, {name}",
                    "measured": f"{ratio:.2f}× ({before:.3f} s to {seconds:.3f} s)",
                    "target": f"≥ {target}×" if target else "—",
                    "met": ratio >= target if target else None,
                    "sized": sized,
                },
                {
                    "what": f"arithmetic rate of a step, {half} half, {name}",
                    "measured": f"{rate / 1e9:.0f} GFLOP/s, {share:.0%} of the machine's products",
                    "target": "≥ 70%",
                    "met": share >= 0.7,
                    "sized": sized,
                },
            ]
    return rows


def main() -> None:
    """Measure and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--dims", type=int, default=2048)
    parser.add_argument("--models", type=int, default=4)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4, help="steps in a round")
    parser.add_argument("--repeats", type=int, default=5)
    given = parser.parse_args()
    n, d, m, batch = given.images, given.dims, given.models, given.batch
    sized = f"n = {n:,}, d = {d:,}, m = {m}, batch {batch}"
    features = random_features(n, d, m)
    rows = speed(given, features, f"{sized}, {given.steps} steps a round")
    differences = agreement(features, batch, epochs=3)
    del features
    peaks = {kind: memory(kind, n, d, m, batch) for kind in ("literal", "in memory", "mapped")}
    rows += [
        {
            "what": "difference of ψ from torch's Adam over the whole bank in float64, relative, "
            "median over the images",
            "measured": f"{differences['featkit']:.1e} (torch's own in float32: "
            f"{differences['torch']:.1e})",
            "target": "≤ 1e-5",
            "met": differences["featkit"] <= 1e-5,
            "sized": f"n = 2,000, d = {d:,}, m = {m}, batch {batch}, 3 epochs of moving",
        },
    ]
    for kind in ("in memory", "mapped"):
        saving = peaks["literal"] / peaks[kind]
        rows.append(
            {
                "what": "memory beyond the features, of the paper's algorithm over featkit's, "
                f"ψ and its moments {kind}",
                "measured": f"{saving:.2f}× ({peaks['literal'] / 1e9:.2f} GB to "
                f"{peaks[kind] / 1e9:.2f} GB)",
                "target": "≥ 3×",
                "met": saving >= 3,
                "sized": f"{sized}; mapped pages not counted",
            }
        )
    save("ensemble", command_line(parser, given), rows)


if __name__ == "__main__":
    main()
