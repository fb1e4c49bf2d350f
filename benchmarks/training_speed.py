"""A training step and its views against the plain ways, on this machine.

Each figure is taken in a process of its own, in turn, since how the C library keeps memory is a
matter of the process.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from benchmarks.harness import command_line, interleaved, median_ratio, save
from featkit.backbones.device import choose_device
from featkit.backbones.precision import native_precision
from featkit.data.sources import open_source
from featkit.ops.nt_xent import nt_xent
from featkit.trainers.augmentation.views import Views
from featkit.trainers.base import Moment
from featkit.trainers.memory import kept_memory
from featkit.trainers.optimization import make_optimizer
from featkit.trainers.settings import Training
from featkit.trainers.simclr import SimCLR, SimCLRConfig

WARM, STEPS = 2, 5
WINDOW = 10
RATE = 2e-3


def pixels_of(count: int, seed: int = 0) -> Tensor:
    """Return scikit-learn's digits in random colours."""
    rng, source = np.random.default_rng(seed), open_source("digits")
    rows = rng.integers(0, len(source.ids), count)
    gray = np.stack([np.array(source.read(int(row)).resize((32, 32)))[..., :1] for row in rows])
    tint = rng.uniform(0.3, 1.0, (count, 1, 1, 3))
    return torch.from_numpy((gray * tint).astype(np.uint8)).permute(0, 3, 1, 2)


def seconds_of(run: Callable[[], object]) -> float:
    """Return the median time of a few runs after others that are not counted."""
    times = []
    for number in range(WARM + STEPS):
        started = time.perf_counter()
        run()
        if number >= WARM:
            times.append(time.perf_counter() - started)
    return statistics.median(times)


def ours(arch: str, precision: str) -> tuple[Callable[[Tensor], Tensor], Any]:
    """Return featkit's step."""
    learner = SimCLR(SimCLRConfig(arch=arch, temperature=0.2)).learner(None, 0)
    learner.module.to(memory_format=torch.channels_last).train()
    training = Training(optimizer="adam", lr=RATE, weight_decay=0)
    optimizer = make_optimizer(learner.module.parameters(), training)

    def step(pixels: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            loss = learner.loss(pixels, torch.arange(len(pixels)), Moment(0, 1, 1))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, learner


def plain(arch: str) -> tuple[Callable[[Tensor], Tensor], Any]:
    """Return the step as it is usually written: fp32, torch's defaults."""
    learner = SimCLR(SimCLRConfig(arch=arch, temperature=0.2)).learner(None, 0)
    module, recipe = learner.module.train(), learner.network.preprocessing
    optimizer = torch.optim.Adam(module.parameters(), RATE)
    mean, std = (torch.tensor(v)[:, None, None] for v in (recipe.mean, recipe.std))

    def step(pixels: Tensor) -> Tensor:
        views = learner.views(torch.cat([pixels, pixels]))
        first, second = module((views - mean) / std).chunk(2)
        loss = nt_xent(first, second, 0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, learner


class Transformed(torch.utils.data.Dataset[Tensor]):
    """Two views of each image by torchvision's transforms of Pillow images."""

    def __init__(self, pixels: Tensor) -> None:
        from PIL import Image
        from torchvision import transforms as t

        self.images = [Image.fromarray(p.permute(1, 2, 0).numpy()) for p in pixels]
        self.chain = t.Compose(
            [
                t.RandomResizedCrop(32, scale=(0.08, 1.0)), t.RandomHorizontalFlip(),
                t.RandomApply([t.ColorJitter(0.4, 0.4, 0.4, 0.1)], 0.8), t.RandomGrayscale(0.2),
                t.ToTensor(),
            ]
        )  # fmt: skip

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, row: int) -> Tensor:
        return torch.stack([self.chain(self.images[row]) for _ in range(2)])


def of_views(how: str, batch: int) -> float:
    """Return the seconds that two views of each image of a batch take."""
    if how == "workers":
        count = 12 * batch
        loader = torch.utils.data.DataLoader(
            Transformed(pixels_of(count)), batch, num_workers=torch.get_num_threads()
        )
        marks = [time.perf_counter() for _ in loader]
        return (marks[-1] - marks[3]) / (len(marks) - 4)  # the workers have started by then
    pixels = pixels_of(batch)
    both = torch.cat([pixels, pixels])
    if how == "kornia":
        from kornia import augmentation as k

        chain = k.AugmentationSequential(
            k.RandomResizedCrop((32, 32), scale=(0.08, 1.0), cropping_mode="resample"),
            k.RandomHorizontalFlip(p=0.5), k.ColorJitter(0.4, 0.4, 0.4, 0.1, p=0.8),
            k.RandomGrayscale(p=0.2), data_keys=["input"],
        )  # fmt: skip
        return seconds_of(lambda: chain(both.float() / 255))
    views = Views(32)
    with kept_memory():
        return seconds_of(lambda: views(both))


def of_step(how: str, arch: str, batch: int) -> float:
    """Return the seconds of a step, views included."""
    pixels = pixels_of(batch)
    if how == "plain":
        step, _ = plain(arch)
        return seconds_of(lambda: step(pixels))
    step, _ = ours(arch, "fp32" if how == "fp32" else native_precision(choose_device("cpu")))
    with kept_memory():
        return seconds_of(lambda: step(pixels))


def losses(how: str, seed: int, steps: int, batch: int) -> list[float]:
    """Return the losses of a short training."""
    torch.manual_seed(seed)
    arch = "cifar_resnet8"
    step, learner = (
        plain(arch) if how == "plain" else ours(arch, native_precision(choose_device("cpu")))
    )
    with torch.no_grad():
        for module in learner.module.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                module.reset_parameters()
    pixels, rng, found = pixels_of(2000), np.random.default_rng(seed), []
    for number in range(steps):
        torch.manual_seed(1000 * seed + number)
        found.append(float(step(pixels[torch.from_numpy(rng.permutation(2000)[:batch])])))
    return found


def distances(ours: list[list[float]], plain: list[list[float]]) -> tuple[float, float]:
    """Return how far curves of one seed are apart, and those of two seeds of the plain loop."""
    a, b = (np.array(c).reshape(len(c), -1, WINDOW).mean(2) for c in (ours, plain))
    pairs = [(i, j) for i in range(len(b)) for j in range(i)]
    between = np.mean([np.square(b[i] - b[j]).mean() for i, j in pairs])
    return float(np.sqrt(np.square(a - b).mean())), float(np.sqrt(between))


def asked(*arguments: object) -> Any:
    """Run this script in a process of its own and return what it measures."""
    command = [sys.executable, "-m", "benchmarks.training_speed", "--one", *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure, or measure one figure for another process."""
    if sys.argv[1:2] == ["--one"]:
        kind, how, *rest = sys.argv[2:]
        functions: dict[str, Callable[..., Any]] = {
            "views": lambda batch: of_views(how, int(batch)),
            "step": lambda arch, batch: of_step(how, arch, int(batch)),
            "losses": lambda *numbers: losses(how, *map(int, numbers)),
        }
        print(json.dumps(functions[kind](*rest)))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--arch", default="cifar_resnet20")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=120)
    given = parser.parse_args()
    native = native_precision(choose_device("cpu"))
    views = interleaved(
        {
            how: lambda how=how: asked("views", how, given.batch)
            for how in ("ours", "workers", *["kornia"] * bool(find_spec("kornia")))
        },
        given.repeats,
    )
    steps = interleaved(
        {
            how: lambda how=how: asked("step", how, given.arch, given.batch)
            for how in dict.fromkeys(("native" if native != "fp32" else "fp32", "fp32", "plain"))
        },
        given.repeats,
    )
    ours_step = next(iter(steps.values()))
    curves = {
        how: [asked("losses", how, seed, given.steps, 64) for seed in range(given.seeds)]
        for how in ("ours", "plain")
    }
    apart, noise = distances(curves["ours"], curves["plain"])
    share = statistics.median(v / s for v, s in zip(views["ours"], ours_step, strict=True))
    faster = median_ratio(steps["plain"], ours_step)
    over_workers, over_kornia = median_ratio(views["workers"], views["ours"]), ""
    if "kornia" in views:
        ratio = median_ratio(views["kornia"], views["ours"])
        over_kornia = f"; over kornia's transforms of the same batches {ratio:.1f}×"
    microseconds = 1e6 * statistics.median(views["ours"]) / (2 * given.batch)
    sized = f"{given.arch}, 32 px, batch {given.batch}, {torch.get_num_threads()} threads, {native}"
    claims = [
        {
            "what": "share of two views of each image in a training step",
            "measured": f"{share:.1%}", "target": "≤ 20 %", "met": share <= 0.2, "sized": sized,
        },
        {
            "what": "speed-up of views over torchvision's transforms of Pillow images in workers",
            "measured": f"{over_workers:.1f}× ({microseconds:.0f} µs a view)",
            "target": "≥ 3×", "met": over_workers >= 3,
            "sized": f"32 px, batch {given.batch}, a worker a core" + over_kornia,
        },
        {
            "what": "speed-up of a training step over the plain fp32 loop",
            "measured": f"{faster:.2f}×", "target": "≥ 1.5×", "met": faster >= 1.5,
            "sized": f"{sized}; both with the same views" + (
                "; no bf16 in this hardware" if native == "fp32" else
                f"; in fp32 {median_ratio(steps['plain'], steps['fp32']):.2f}×"
            ),
        },
        {
            "what": "distance of the loss curve from that of the plain loop, same seed",
            "measured": f"{apart:.4f} (of two seeds of the plain loop: {noise:.4f})",
            "target": "within seed noise", "met": apart <= noise,
            "sized": f"cifar_resnet8, {given.steps} steps of 64, {given.seeds} seeds; root mean "
            f"square over windows of {WINDOW} steps",
        },
    ]  # fmt: skip
    save(
        "training_speed", command_line(parser, given), claims,
        seconds={"views": views, "steps": steps},
    )  # fmt: skip


if __name__ == "__main__":
    main()
