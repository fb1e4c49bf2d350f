"""Dissections against the straightforward implementation, and against loops of each publication."""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from benchmarks.harness import command_line, interleaved, median_ratio, save
from featkit import load_backbone, open_source
from featkit.analyses.dissect.analysis import dissect
from featkit.analyses.dissect.config import DissectConfig
from featkit.analyses.dissect.subject import Subject
from featkit.analyses.dissect.variants import VARIANTS, Name
from featkit.backbones.segmenters.resolve import open_concepts
from featkit.data.concepts.grid import Grid
from featkit.data.loading import load_batches
from tests.analyses.scenes import slow_iou

NETWORKS = {
    "EfficientNet-Lite0": ("offline:efficientnet_lite0", "bn2"),
    "ResNet-50, random weights": ("torchvision:resnet50?weights=none", "layer4"),
}
BATCH = 16


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

    def maps(self) -> Any:
        """Give the rows and the upsampled activations of each batch."""
        count = len(self.source.ids)
        batches = [range(i, min(i + BATCH, count)) for i in range(0, count, BATCH)]
        rows, columns = (
            (torch.arange(n) + 0.5) / n * 2 - 1 for n in self.grid.cells
        )  # align_corners=False: half-pixel centres
        where = torch.stack(torch.meshgrid(rows, columns, indexing="ij")[::-1], -1)
        for batch in load_batches(self.source, [self.recipe], batches, 0, torch.device("cpu")):
            with torch.inference_mode():
                self.net.module(self.recipe.normalize(batch.pixels[0]))
                output = self.kept.pop()
                grid = where[None].expand(len(output), -1, -1, -1)
                large = torch.nn.functional.grid_sample(output, grid, align_corners=False)
            yield batch.rows, large

    def run(self) -> NDArray[np.float64]:
        """Return the IoU of all units and concepts."""
        every = torch.cat([large.flatten(2).transpose(0, 1) for _, large in self.maps()], 1)
        units = len(every)
        levels = torch.stack(
            [torch.from_numpy(np.quantile(unit, [0.99])) for unit in every.flatten(1).numpy()]
        ).float()
        del every
        names = len(self.concepts.concepts)
        inter = torch.zeros(units, names)
        active, truth = torch.zeros(units), torch.zeros(names)
        for rows, large in self.maps():
            for row, one in zip(rows, large, strict=True):
                image = self.source.read(row)
                labels = torch.from_numpy(
                    self.concepts.label(self.source.ids[row], image, self.grid)
                )
                seen = torch.stack([(labels == i + 1).any(0) for i in range(names)])
                truth += seen.sum((1, 2))
                for unit in range(units):
                    mask = one[unit] > levels[unit]
                    active[unit] += mask.sum()
                    inter[unit] += (mask & seen).sum((1, 2))
        union = active[:, None] + truth - inter
        return torch.where(union > 0, inter / union.clamp(min=1), 0.0).double().numpy()


def measure(images: Path, labels: Path, name: str, repeats: int) -> list[dict[str, Any]]:
    """Return the claims of one network."""
    spec, module = NETWORKS[name]
    concepts = f"masks:{labels}"
    plain = Plain(images, spec, module, concepts)
    net = load_backbone(spec)
    config = DissectConfig(parts="quad", chance=False, draws=0, top=0)
    found: dict[str, NDArray[np.float64]] = {}
    forward: list[float] = []
    maps = Subject.maps

    def timed_maps(self: Subject, pixels: Tensor) -> Tensor:
        started = time.perf_counter()
        out = maps(self, pixels)
        forward[-1] += time.perf_counter() - started
        return out

    def ours() -> float:
        forward.append(0.0)
        started = time.perf_counter()
        result = dissect(
            images, net, module, concepts, config, device="cpu", workers=0, batch_size=BATCH
        ).result
        found["featkit"] = result.arrays["iou"]
        return time.perf_counter() - started

    def theirs() -> float:
        started = time.perf_counter()
        found["plain"] = plain.run()
        return time.perf_counter() - started

    Subject.maps = timed_maps  # type: ignore[method-assign]
    try:
        seconds = interleaved({"plain": theirs, "featkit": ours}, repeats)
    finally:
        Subject.maps = maps  # type: ignore[method-assign]
    outside = [1 - f / s for f, s in zip(forward[1:], seconds["featkit"], strict=True)]
    gap = np.abs(found["featkit"] - found["plain"])
    differ = int((found["featkit"].argmax(1) != found["plain"].argmax(1)).sum())
    size = "×".join(map(str, net.preprocessing.size))
    sized = (
        f"{name}, {len(gap):,} units of {module} at {size}, {len(plain.source.ids)} CamVid images,"
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
            "sized": sized + "; decoding and labelling in the same process",
        },
        {
            "what": "largest difference of an IoU from the straightforward implementation",
            "measured": f"{gap.max():.1e}; the best concept of {differ} units differs",
            "target": "equal",
            "met": bool(gap.max() < 1e-3 and differ == 0),
            "sized": sized + "; float32 in both, a place more or less changes an IoU by 1e-5",
        },
    ]


def compare_variant(images: Path, labels: Path, variant: Name, units: int) -> dict[str, Any]:
    """Return how a variant agrees, unit by unit, with a float64 loop of its publication."""
    spec, module = NETWORKS["EfficientNet-Lite0"]
    specs = [f"masks:{labels}", "color"]
    net, concepts, source = load_backbone(spec), open_concepts(specs), open_source(images)
    config = DissectConfig(variant=variant, chance=False, draws=0, top=0)
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
        "target": "equal",
        "met": gap < 1e-3 and differ == 0,
        "sized": f"EfficientNet-Lite0, {units} of {len(found.arrays['iou']):,} units of {module},"
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
        compare_variant(given.images, given.labels, variant, given.units) for variant in VARIANTS
    ]
    claims = []
    for name in NETWORKS:
        claims += measure(given.images, given.labels, name, given.repeats)
    save("dissection", command_line(parser, given), claims + variants)


if __name__ == "__main__":
    main()
