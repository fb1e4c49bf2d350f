"""Small scenes with labelled rectangles, and slow dissections written from the publications."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy.interpolate import RectBivariateSpline

SIZE = 64
CLASSES = {
    2: ("car", "object"),
    5: ("road", "object"),
    7: ("wheel", "part"),
    9: ("unicorn", "object"),  # nowhere
}
COLOURS = {2: (200, 30, 30), 5: (90, 90, 90), 7: (20, 20, 20)}


def write_scenes(root: Path, count: int = 9, seed: int = 0) -> list[NDArray[np.uint8]]:
    """Write images 64 × 64 and their label maps; return the maps."""
    rng = np.random.default_rng(seed)
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    maps = []
    for i in range(count):
        pixels = rng.integers(100, 160, (SIZE, SIZE, 3), np.uint8)
        labels = np.zeros((SIZE, SIZE), np.uint8)
        for code in (5, 2, 7) if i != 3 else ():  # image 3 is unlabelled
            if code == 7 and i % 2:
                continue
            top, left = rng.integers(0, 40, 2)
            height, width = rng.integers(8, 30, 2)
            labels[top : top + height, left : left + width] = code
            pixels[top : top + height, left : left + width] = COLOURS[code]
        Image.fromarray(pixels).save(root / "images" / f"{i:02d}.png")
        Image.fromarray(labels).save(root / "masks" / f"{i:02d}.png")
        maps.append(labels)
    meanings = {str(code): {"name": n, "category": c} for code, (n, c) in CLASSES.items()}
    (root / "masks" / "classes.json").write_text(json.dumps(meanings))
    return maps


def slow_iou(
    variant: str,
    maps: NDArray[np.float64],
    grids: Sequence[NDArray[np.int64]],
    categories: Sequence[str],
) -> NDArray[np.float64]:
    """Dissect maps (images, units, h, w) unit by unit, as published; (units, concepts).

    Args:
        variant: The publication.
        maps: Activations.
        grids: Of each image, (layers, cells, cells): 0 or the number of a concept, from 1.
        categories: Of each concept.
    """
    cells = grids[0].shape[1]
    found = np.zeros((maps.shape[1], len(categories)))
    for unit in range(maps.shape[1]):
        large = [_upsampled(variant, one[unit], cells) for one in maps]
        if variant == "dissect":
            level = np.quantile(np.stack(large), 0.99)
        else:
            level = np.quantile(maps[:, unit], 1 - 5 / 999)
        for k, category in enumerate(categories):
            inter = active = truth = 0
            same = [i + 1 for i, other in enumerate(categories) if other == category]
            for one, grid in zip(large, grids, strict=True):
                mask, concept = one > level, (grid == k + 1).any(0)
                inter += int((mask & concept).sum())
                truth += int(concept.sum())
                occurs = {
                    "dissect": True,
                    "netdissect": bool(np.isin(grid, same).any()),
                    "netdissect-lite": bool(np.isin(grid[:, mask], same).any()),
                }[variant]
                active += int(mask.sum()) if occurs else 0
            union = active + truth - inter
            found[unit, k] = inter / union if union else 0
    return found


def _upsampled(variant: str, one: NDArray[np.float64], cells: int) -> NDArray[np.float64]:
    h, w = one.shape
    if variant == "dissect":  # grid_sample, zeros outside
        down = (np.arange(cells) + 0.5) * h / cells - 0.5
        across = (np.arange(cells) + 0.5) * w / cells - 0.5
        y, x = np.meshgrid(2 * down / (h - 1) - 1, 2 * across / (w - 1) - 1, indexing="ij")
        sampled = torch.nn.functional.grid_sample(
            torch.from_numpy(one)[None, None],
            torch.from_numpy(np.stack([x, y], -1))[None],
            padding_mode="zeros",
            align_corners=True,
        )
        return np.asarray(sampled[0, 0])
    if variant == "netdissect":  # a spline through the centres of receptive fields
        rows, columns = ((np.arange(n) + 0.5) * cells / n for n in (h, w))
        spline = RectBivariateSpline(rows, columns, one, kx=1, ky=1)
        return np.asarray(spline(np.arange(cells), np.arange(cells)))
    image = Image.fromarray(one.astype(np.float32))
    return np.asarray(image.resize((cells, cells), Image.Resampling.BILINEAR), np.float64)
