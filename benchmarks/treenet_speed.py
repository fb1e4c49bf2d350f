"""The leaves of a TreeNet, forward and backward: ours against a loop of modules and grouped ones.

Each figure is taken in a process of its own, in turn.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.harness import command_line, interleaved, median_ratio, save
from featkit.backbones.architectures import build
from featkit.backbones.base import Network
from featkit.backbones.device import choose_device
from featkit.backbones.nets.treenet.shape import TreeShape, tree_name
from featkit.backbones.precision import exact_products, native_precision
from featkit.backbones.size import network_size
from featkit.trainers.memory import kept_memory

WARM, STEPS = 1, 3
FORMS = ("loop", "grouped", "unfolded", "ours")


def device_of() -> torch.device:
    """Return where it is measured."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def loop(tree: Any) -> Callable[[Tensor], Tensor]:
    """Return the leaves as networks of ordinary modules, one after the other."""
    leaves = nn.ModuleList(tree.leaf_network(j) for j in range(tree.shape.leaves))
    tree.own = leaves
    return lambda images: torch.stack([leaf(images) for leaf in leaves], 1)


def grouped(tree: Any) -> Callable[[Tensor], Tensor]:
    """Return the leaves as the paper computes them, in grouped convolutions."""
    return lambda images: tree.ends(tree.paths._grouped(images))  # noqa: SLF001 - what is compared


def unfolded(tree: Any) -> Callable[[Tensor], Tensor]:
    """Return the leaves as products of matrices, a batch of one for each leaf."""
    paths, m = tree.paths, tree.shape.leaves

    def run(images: Tensor) -> Tensor:
        first = paths.convolutions[0]
        maps = functional.relu(functional.conv2d(images, first.weight, first.bias))
        x = maps.unflatten(1, (m, -1)).permute(1, 0, 3, 4, 2)  # (m, b, h, w, c)
        for norm, convolution in zip(paths.norms, paths.convolutions[1:], strict=True):
            x = functional.layer_norm(x, x.shape[2:], eps=norm.eps)
            shape = (m, 1, 1, 1, -1)
            x = x * norm.weight.view(shape) + norm.bias.view(shape)
            corners = [
                x[:, :, i : i - 1 or None, j : j - 1 or None] for i in (0, 1) for j in (0, 1)
            ]
            rows = torch.cat(corners, 4)
            weight = convolution.weight.unflatten(0, (m, -1)).permute(0, 3, 4, 2, 1).flatten(1, 3)
            bias = convolution.bias.view(m, 1, -1)
            products = torch.baddbmm(bias, rows.flatten(1, 3), weight).relu()
            x = products.view(*rows.shape[:4], -1)
        return tree.ends(x.mean((2, 3)).transpose(0, 1))

    return run


FUNCTIONS: dict[str, Callable[[Any], Callable[[Tensor], Tensor]]] = {
    "loop": loop, "grouped": grouped, "unfolded": unfolded, "ours": lambda tree: tree.leaves,
}  # fmt: skip


def of_step(form: str, precision: str, leaves: int, batch: int) -> dict[str, float]:
    """Return the seconds of a forward and of a forward and backward."""
    device = device_of()
    tree: Any = build(tree_name(TreeShape(leaves=leaves))).module.train().to(device)
    images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    if form == "ours":
        tree.to(memory_format=torch.channels_last)
        images = images.to(memory_format=torch.channels_last)
    run = FUNCTIONS[form](tree)

    def clock() -> float:
        if device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter()

    times: dict[str, list[float]] = {"forward": [], "step": []}
    with kept_memory(), exact_products():
        for number in range(WARM + STEPS):
            started = clock()
            with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"):
                rows = run(images)
            between = clock()
            rows.float().square().sum().backward()
            ended = clock()
            if number >= WARM:
                times["forward"].append(between - started)
                times["step"].append(ended - started)
    return {name: statistics.median(values) for name, values in times.items()}


def disagreement(form: str, leaves: int, batch: int) -> float:
    """Return how far gradients of the weights are from those of the loop, relative, in fp32."""
    found = []
    for one in ("loop", form):
        tree: Any = build(tree_name(TreeShape(leaves=leaves))).module.to(device_of())
        images = torch.randn(batch, 3, 32, 32, generator=torch.Generator().manual_seed(0))
        target = torch.randn(leaves, 64, generator=torch.Generator().manual_seed(1))
        with exact_products():
            rows = FUNCTIONS[one](tree)(images.to(device_of()))
            (rows * target.to(device_of())).sum().backward()
        if one == "loop":
            grads = [p.grad for p in tree.own.parameters()]
        else:  # as weights, of which a leaf's are taken as usual
            for parameter in [*tree.paths.parameters(), *tree.ends.parameters()]:
                parameter.data = parameter.grad
            grads = [p for j in range(leaves) for p in tree.leaf_network(j).parameters()]
        found.append(torch.cat([g.detach().flatten() for g in grads if g is not None]))
    return float((found[0] - found[1]).norm() / found[0].norm())


def product_rate() -> float:
    """Return the operations a second of products of large matrices."""
    a = torch.randn(2048, 2048, device=device_of())
    times = []
    for _ in range(6):
        started = time.perf_counter()
        a @ a
        if a.is_cuda:
            torch.cuda.synchronize()
        times.append(time.perf_counter() - started)
    return 2 * 2048**3 / min(times)


def asked(*arguments: object) -> Any:
    """Run this script in a process of its own and return what it measures."""
    command = [sys.executable, "-m", "benchmarks.treenet_speed", "--one", *map(str, arguments)]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Measure, or measure one figure for another process."""
    if sys.argv[1:2] == ["--one"]:
        form, precision, leaves, batch = sys.argv[2:]
        print(json.dumps(of_step(form, precision, int(leaves), int(batch))))
        return
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--leaves", type=int, default=32)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    device, sizes = device_of(), (given.leaves, given.batch)
    native = native_precision(choose_device(device.type))
    forward: dict[str, list[float]] = {}

    def run(form: str, precision: str) -> Callable[[], float]:
        def once() -> float:
            told = asked(form, precision, *sizes)
            forward.setdefault(f"{form} {precision}", []).append(told["forward"])
            return float(told["step"])

        return once

    chosen = {f"{form} fp32": run(form, "fp32") for form in FORMS}
    if native != "fp32":
        chosen |= {f"{form} {native}": run(form, native) for form in ("loop", "ours")}
    seconds = interleaved(chosen, given.repeats)
    network: Network = build(tree_name(TreeShape(leaves=given.leaves)))
    floor = 3 * given.batch * network_size(network).flops / product_rate()
    apart = {form: disagreement(form, 8, 8) for form in FORMS[1:]}
    sized = f"{given.leaves} leaves, {given.batch} images of 32 px, {device.type}"
    best = f"ours {native}" if native != "fp32" else "ours fp32"
    target = 5.0 if device.type == "cuda" else 1.5
    ratio = {form: median_ratio(seconds["loop fp32"], values) for form, values in seconds.items()}
    claims = [
        {
            "what": f"leaves, forward and backward, {native}, against a loop of modules",
            "measured": f"{ratio[best]:.2f} times faster", "target": f"≥ {target:g}",
            "met": ratio[best] >= target, "sized": sized,
        },
        {
            "what": "the same in fp32", "measured": f"{ratio['ours fp32']:.2f} times faster",
            "target": "≥ 1", "met": ratio["ours fp32"] >= 1, "sized": sized,
        },
        *(
            {
                "what": what, "measured": f"{ratio[form]:.2f} times faster", "target": "—",
                "met": None, "sized": sized,
            }
            for what, form in (
                ("grouped convolutions, fp32, against the loop", "grouped fp32"),
                ("unfolded maps and batched products, fp32, against the loop", "unfolded fp32"),
                (f"the loop in {native}, against that in fp32", f"loop {native}"),
            )
            if form != "loop fp32"
        ),
        {
            "what": "a step of the leaves, against products of large matrices",
            "measured": f"{floor / statistics.median(seconds['ours fp32']):.0%} of their rate",
            "target": "—", "met": None, "sized": f"{sized}, fp32",
        },
        {
            "what": "gradients of the weights, apart from those of the loop",
            "measured": ", ".join(f"{form} {value:.0e}" for form, value in apart.items()),
            "target": "≤ 1e-4", "met": max(apart.values()) <= 1e-4,
            "sized": f"8 leaves, 8 images, {device.type}, fp32",
        },
    ]  # fmt: skip
    save(
        "treenet_speed",
        command_line(parser, given),
        claims,
        seconds=seconds,
        forward=forward,
        floor_seconds=floor,
    )


if __name__ == "__main__":
    main()
