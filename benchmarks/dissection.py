"""Dissections against the straightforward implementation, and against loops of each publication."""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.harness import command_line, median_ratio, save
from featkit import load_backbone, open_source
from featkit.analyses.dissect.analysis import Labeller, dissect
from featkit.analyses.dissect.config import DissectConfig
from featkit.analyses.dissect.subject import Subject
from featkit.analyses.dissect.variants import VARIANTS, Name
from featkit.backbones.segmenters.resolve import open_concepts
from featkit.data.concepts.grid import Grid
from featkit.data.loading import Batch, Look, default_workers, load_batches
from tests.analyses.scenes import slow_iou

NETWORKS = {
    "EfficientNet-Lite0": ("offline:efficientnet_lite0", "bn2"),
    "ResNet-50, random weights": ("torchvision:resnet50?weights=none", "layer4"),
}
BATCH = 16
PLAIN = DissectConfig(parts="quad", chance=0, draws=0, top=0)  # what the straightforward one does


class Plain:
    """Upsample, compare and multiply masks unit by unit, as one would write it."""

    def __init__(self, images: Path, spec: str, module: str, concepts: str) -> None:
        self.source, self.net = open_source(images), load_backbone(spec)
        self.concepts = open_concepts(concepts, "quad")
        self.recipe = self.net.preprocessing
        self.grid = Grid(self.recipe, (self.recipe.size[0] // 4, self.recipe.size[1] // 4))
        self.kept: list[Tensor] = []
        self.net.module.get_submodule(module).register_forward_hook(
            lambda _module, _inputs, output: self.kept.append(output)
        )

        rows, columns = ((torch.arange(n) + 0.5) / n * 2 - 1 for n in self.grid.cells)
        self.where = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1)[None]

    def maps(self, look: Look | None = None) -> Iterator[tuple[Batch, Tensor]]:
        """Give each batch, decoded as featkit does, and its activations."""
        count = len(self.source.ids)
        batches = [range(i, min(i + BATCH, count)) for i in range(0, count, BATCH)]
        cpu = torch.device("cpu")
        workers = default_workers(cpu)
        for batch in load_batches(self.source, [self.recipe], batches, workers, cpu, look):
            with torch.inference_mode():
                self.net.module(self.recipe.normalize(batch.pixels[0]))
            yield batch, self.kept.pop()

    def upsampled(self, maps: Tensor) -> Tensor:
        """Return the maps (n, c, h, w) at the cells."""
        where = self.where.expand(len(maps), -1, -1, -1)
        return torch.nn.functional.grid_sample(maps, where, align_corners=False)

    def run(self) -> NDArray[np.float64]:
        """Return the IoU of all units and concepts."""
        larger = (self.upsampled(maps) for _, maps in self.maps())
        every = torch.cat([large.flatten(2).transpose(0, 1) for large in larger], 1)
        units = len(every)
        levels = torch.stack(
            [torch.from_numpy(np.quantile(unit, [0.99])) for unit in every.flatten(1).numpy()]
        ).float()
        del every
        names = len(self.concepts.concepts)
        inter = torch.zeros(units, names)
        active, truth = torch.zeros(units), torch.zeros(names)
        label = Labeller(self.concepts, tuple(self.source.ids), self.grid)
        for batch, maps in self.maps(label):
            for looked, one in zip(batch.looked, maps, strict=True):
                labels = torch.from_numpy(looked)
                seen = torch.stack([(labels == i + 1).any(0) for i in range(names)])
                truth += seen.sum((1, 2))
                for unit in range(units):
                    mask = self.upsampled(one[None, unit : unit + 1])[0, 0] > levels[unit]
                    active[unit] += mask.sum()
                    inter[unit] += (mask & seen).sum((1, 2))
        union = active[:, None] + truth - inter
        return torch.where(union > 0, inter / union.clamp(min=1), 0.0).double().numpy()


def run_plain(images: Path, labels: Path, name: str) -> tuple[float, NDArray[np.float64]]:
    """Return the seconds of the straightforward implementation, and its IoU."""
    plain = Plain(images, *NETWORKS[name], f"masks:{labels}")
    started = time.perf_counter()
    iou = plain.run()
    return time.perf_counter() - started, iou


def run_featkit(
    images: Path, labels: Path, name: str, config: DissectConfig = PLAIN
) -> tuple[float, float, tuple[int, ...], NDArray[np.float64]]:
    """Return the seconds of featkit, those of its forward, the input's size, and the IoU."""
    spec, module = NETWORKS[name]
    net = load_backbone(spec)
    maps, forward = Subject.maps, [0.0]

    def timed_maps(self: Subject, pixels: Tensor) -> Tensor:
        started = time.perf_counter()
        out = maps(self, pixels)
        forward[0] += time.perf_counter() - started
        return out

    Subject.maps = timed_maps  # type: ignore[method-assign]
    started = time.perf_counter()
    concepts = f"masks:{labels}"
    result = dissect(images, net, module, concepts, config, device="cpu", batch_size=BATCH).result
    seconds = time.perf_counter() - started
    return seconds, forward[0], net.preprocessing.size, result.arrays["iou"]


def alone(run: Callable[..., Any], *arguments: Any) -> Any:
    """Run a function in a process of its own: what one leaves in memory slows the next."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(_run, run, *arguments).result()


def _run(run: Callable[..., Any], *arguments: Any) -> Any:
    """Decoding processes are forked, as in a process that was not spawned."""
    multiprocessing.set_start_method("fork", force=True)
    return run(*arguments)


def measure(images: Path, labels: Path, name: str, repeats: int) -> list[dict[str, Any]]:
    """Return the claims of one network."""
    module = NETWORKS[name][1]
    seconds: dict[str, list[float]] = {"plain": [], "featkit": []}
    found: dict[str, NDArray[np.float64]] = {}
    outside = []
    for _ in range(repeats):
        taken, found["plain"] = alone(run_plain, images, labels, name)
        seconds["plain"].append(taken)
        taken, forward, sides, found["featkit"] = alone(run_featkit, images, labels, name)
        seconds["featkit"].append(taken)
        outside.append(1 - forward / taken)
        print(f"  {name}: {seconds}, outside of the forward {outside[-1]:.0%}", flush=True)
    whole = DissectConfig(parts="quad")
    every, forward, _, _ = alone(run_featkit, images, labels, name, whole)
    gap = np.abs(found["featkit"] - found["plain"])
    differ = int((found["featkit"].argmax(1) != found["plain"].argmax(1)).sum())
    size = "×".join(map(str, sides))
    count = len(open_source(images).ids)
    sized = (
        f"{name}, {len(gap):,} units of {module} at {size}, {count} CamVid images,"
        f" {gap.shape[1]} concepts (labels and their quad parts),"
        f" {torch.get_num_threads()} thread(s), {repeats} round(s)"
    )
    ratio = median_ratio(seconds["plain"], seconds["featkit"])
    took = [statistics.median(seconds[each]) for each in ("plain", "featkit")]
    return [
        {
            "what": "speed-up of a dissection over the straightforward implementation",
            "measured": f"{ratio:.1f}× ({took[0]:.1f} s to {took[1]:.1f} s)",
            "target": "≥ 5×",
            "met": ratio >= 5,
            "sized": sized,
        },
        {
            "what": "share of a dissection outside of the forward",
            "measured": f"{statistics.median(outside):.0%}",
            "target": "≤ 50 %",
            "met": statistics.median(outside) <= 0.5,
            "sized": sized + "; images are decoded in a process beside",
        },
        {
            "what": "the same with chance, bootstrap and pictures",
            "measured": f"{1 - forward / every:.0%} of {every:.1f} s",
            "target": "—",
            "met": None,
            "sized": f"{whole.chance} random networks, {whole.draws} draws, {whole.top} images a"
            " unit; the forward is that of all networks; one run",
        },
        {
            "what": "largest difference of an IoU from the straightforward implementation",
            "measured": f"{gap.max():.1e}; the best concept of {differ} units differs",
            "target": "equal to 1e-3, same best concepts",
            "met": bool(gap.max() < 1e-3 and differ == 0),
            "sized": sized + "; float32 in both, a place more or less changes an IoU by 1e-5",
        },
    ]


def compare_variant(
    images: Path, labels: Path, variant: Name, module: str, units: int | None
) -> dict[str, Any]:
    """Return how a variant agrees, unit by unit, with a float64 loop of its publication."""
    spec, _ = NETWORKS["EfficientNet-Lite0"]
    specs = [f"masks:{labels}", "color"]
    net, concepts, source = load_backbone(spec), open_concepts(specs), open_source(images)
    config = DissectConfig(variant=variant, chance=0, draws=0, top=0)
    found = dissect(source, net, module, specs, config, device="cpu", workers=0).result
    kept: list[Tensor] = []
    net.module.get_submodule(module).register_forward_hook(
        lambda _module, _inputs, output: kept.append(output[:, :units].double())
    )
    grids = []
    recipe, side = net.preprocessing, VARIANTS[variant].pixels
    grid = Grid(recipe, (recipe.size[0] // side, recipe.size[1] // side))
    for row, name in enumerate(source.ids):
        image = source.read(row)
        with torch.inference_mode():
            net.module(recipe.normalize(torch.from_numpy(recipe.pixels(image))[None]))
        grids.append(concepts.label(name, image, grid).astype(np.int64))
    categories = [concept.category for concept in concepts.concepts]
    wanted = slow_iou(variant, torch.cat(kept).numpy(), grids, categories)
    ours = found.arrays["iou"][:units]
    gap = float(np.abs(ours - wanted).max())
    differ = int((ours.argmax(1) != wanted.argmax(1)).sum())
    return {
        "what": f"largest difference of an IoU from a float64 loop of the publication, {variant}",
        "measured": f"{gap:.1e}; the best concept of {differ} units differs",
        "target": "equal to 1e-3, same best concepts",
        "met": gap < 1e-3 and differ == 0,
        "sized": f"EfficientNet-Lite0, {len(ours)} of {len(found.arrays['iou']):,} units of"
        f" {module},"
        f" {len(source.ids)} CamVid images, objects and colours; largest IoU {wanted.max():.3f};"
        " featkit in float32",
    }


def main() -> None:
    """Measure, compare, and save."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("images", type=Path, metavar="CAMVID", help="CamVid/val")
    parser.add_argument("labels", type=Path, metavar="LABELS", help="CamVid/valannot")
    parser.add_argument("--units", type=int, default=48, help="compared with the publications")
    parser.add_argument("--repeats", type=int, default=1)
    given = parser.parse_args()
    variants = [
        compare_variant(given.images, given.labels, variant, module, units)
        for module, units in (("blocks.2", None), (NETWORKS["EfficientNet-Lite0"][1], given.units))
        for variant in VARIANTS
    ]
    claims = []
    for name in NETWORKS:
        claims += measure(given.images, given.labels, name, given.repeats)
    save("dissection", command_line(parser, given), claims + variants)


if __name__ == "__main__":
    main()
