"""Saliency maps against other ways to the same gradients, and the analysis as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import featkit
from featkit import SaliencyConfig, load_backbone
from featkit.analyses.base import Result
from featkit.analyses.saliency.images import draw_rows
from featkit.analyses.saliency.leaves import open_leaves
from featkit.analyses.saliency.maps import saliency_maps
from featkit.analyses.saliency.pictures import glow, overlay
from featkit.backbones.nets.treenet.tree import TreeNet
from featkit.errors import UsageError

CPU = torch.device("cpu")
SMALL = "treenet(leaves=3,channels=4-8)?weights=none"


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def maps_of(spec: str, images: Tensor) -> tuple[Tensor, Tensor]:
    with open_leaves(load_backbone(spec), CPU) as leaves:
        return saliency_maps(leaves.read, images, leaves.count)


def test_a_linear_network_has_its_closed_form() -> None:
    weights = noise(4, 5, 12)
    images = noise(2, 3, 2, 2, seed=1)
    maps, vectors = saliency_maps(
        lambda x: torch.einsum("mdp,bmp->bmd", weights, x.flatten(2)), images, 4
    )
    flat = images.flatten(1)
    for leaf, w in enumerate(weights):
        gradients = (2 * flat @ w.T @ w).view(2, 3, 2, 2)
        torch.testing.assert_close(maps[:, leaf], gradients.abs().amax(1))
        torch.testing.assert_close(vectors[:, leaf], flat @ w.T)


@pytest.mark.parametrize("order", ["norm-conv", "conv-norm"])
def test_leaves_alone_have_the_same_gradients(order: str) -> None:
    spec = f"treenet(leaves=3,order={order})?weights=none"
    images = noise(4, 3, 16, 16)
    maps, vectors = maps_of(spec, images)
    tree = load_backbone(spec).module
    assert isinstance(tree, TreeNet)
    for leaf in range(3):
        net = tree.leaf_network(leaf)
        own = images.clone().requires_grad_()
        (gradients,) = torch.autograd.grad(net(own).square().sum(), own)
        torch.testing.assert_close(maps[:, leaf], gradients.abs().amax(1), rtol=1e-3, atol=1e-5)
        torch.testing.assert_close(vectors[:, leaf], net(images).detach(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    "shape", ["pool=attention,view=part", "pool=recurrent,join=attention", "leaf=cifar_resnet20"]
)
def test_one_common_image_gives_the_same(shape: str) -> None:
    backbone = load_backbone(f"treenet(leaves=2,{shape})?weights=none")
    images = noise(2, 3, 32, 32)
    with open_leaves(backbone, CPU) as leaves:
        maps, _ = saliency_maps(leaves.read, images, leaves.count)
        tree = backbone.module
        assert isinstance(tree, TreeNet)
        own = images.clone().requires_grad_()
        for leaf in range(2):
            length = tree.leaves(own)[:, leaf].square().sum()
            (gradients,) = torch.autograd.grad(length, own)
            torch.testing.assert_close(maps[:, leaf], gradients.abs().amax(1), rtol=1e-3, atol=1e-6)


def test_finite_differences() -> None:
    backbone = load_backbone("treenet(leaves=2,channels=4-8)?weights=none")
    tree = backbone.module.double()
    assert isinstance(tree, TreeNet)
    image = noise(1, 3, 6, 6).double()
    maps, _ = saliency_maps(tree.leaves, image, 2)
    step = 1e-6
    for leaf in range(2):
        net = tree.leaf_network(leaf)
        slopes = torch.empty(3, 6, 6, dtype=torch.float64)
        with torch.no_grad():
            for place in np.ndindex(3, 6, 6):
                change = torch.zeros_like(image)
                change[0][place] = step
                up, down = (net(image + sign * change).square().sum() for sign in (1, -1))
                slopes[place] = (up - down) / (2 * step)
        torch.testing.assert_close(maps[0, leaf], slopes.abs().amax(0), rtol=1e-5, atol=1e-7)


def test_a_network_without_leaves_is_one() -> None:
    maps, vectors = maps_of("cifar_resnet20?weights=none", noise(2, 3, 32, 32))
    assert maps.shape == (2, 1, 32, 32)
    assert vectors.shape == (2, 1, 64)


def test_the_network_is_left_as_it_was() -> None:
    backbone = load_backbone(SMALL)
    module = backbone.module.train()
    next(module.parameters()).requires_grad_(False)
    before = [p.requires_grad for p in module.parameters()], backbone.weights
    with open_leaves(backbone, CPU):
        assert not module.training
        assert not any(p.requires_grad for p in module.parameters())
    assert module.training
    assert ([p.requires_grad for p in module.parameters()], backbone.weights) == before


def test_draws_are_even_and_nested() -> None:
    labels = np.repeat([0, 1, 2], [50, 3, 20])
    drawn = draw_rows(73, labels, 12, seed=1)
    assert np.bincount(labels[drawn]).tolist() == [5, 3, 4]
    assert sorted(labels[drawn[:3]]) == [0, 1, 2]
    assert draw_rows(73, labels, 7, seed=1).tolist() == drawn[:7].tolist()
    assert len(np.unique(draw_rows(73, labels, 99, seed=1))) == 73
    assert draw_rows(73, labels, 12, seed=2).tolist() != drawn.tolist()


def look(run: str, source: Path, **options: Any) -> Result:
    return featkit.saliency(run, source, SaliencyConfig(**options), workers=0, device="cpu")


def test_what_a_result_holds(photos: Path) -> None:
    result = look(f"{SMALL}&size=16", photos, shown=3, chance=2)
    leaves, shares = result.tables["leaves"], result.tables["shares"]
    assert [row["leaf"] for row in leaves] == [0, 1, 2]
    assert result.scalars["images"] == 40
    assert result.scalars["chance"] == 0.5
    for row in leaves:
        assert 0 < row["concentration"] <= 0.5
        assert row["low"] <= row["accuracy"] <= row["high"]
        assert row["gain"] == pytest.approx(row["accuracy"] - result.scalars["untrained_accuracy"])
        assert row["category"] == "failed" or row["low"] > 0.5
    for network in ("trained", "untrained"):
        own = [row for row in shares if row["network"] == network]
        assert len(own) == 4
        assert sum(row["share"] for row in own) == pytest.approx(1)
    assert len(result.tables["untrained"]) == 6
    maps = maps_of(
        f"{SMALL}&size=16",
        load_backbone(f"{SMALL}&size=16").preprocessing.normalize(
            torch.from_numpy(result.arrays["pixels"])
        ),
    )[0]
    np.testing.assert_allclose(result.arrays["maps"], maps.numpy(), rtol=1e-4, atol=1e-6)
    assert result.arrays["leaves_picture"].shape == (4, 3, 16, 16, 3)
    assert result.arrays["overlay_picture"].shape == (2, 3, 16, 16, 3)


def test_equal_seeds_give_equal_results(photos: Path) -> None:
    first, second = (look(SMALL, photos, images=24, seed=3) for _ in range(2))
    assert first.to_json() == second.to_json()
    assert look(SMALL, photos, images=24, seed=4).to_json() != first.to_json()


def test_random_weights_are_others_than_those_of_a_random_run(photos: Path) -> None:
    tables = look(f"{SMALL}&seed=0", photos, images=24).tables
    assert [row["selectivity"] for row in tables["leaves"]] != [
        row["selectivity"] for row in tables["untrained"]
    ]


def test_without_labels_there_are_maps(photos: Path) -> None:
    result = look(SMALL, photos / "cat", shown=2)
    assert set(result.tables) == {"leaves"}
    assert set(result.tables["leaves"][0]) == {"leaf", "concentration", "dark"}
    assert "the images have no labels, or several each: maps without categories" in result.notes
    assert result.arrays["maps"].shape == (2, 3, 32, 32)


def test_few_images_have_no_categories(photos: Path) -> None:
    result = look(SMALL, photos, images=20)
    assert result.notes == [
        "categories need more than 20 images, and there are 20: maps without categories"
    ]


def test_windows_are_what_concentration_is_a_share_of(photos: Path) -> None:
    result = look("treenet(leaves=2,channels=4-8,view=part)?weights=none", photos, images=10)
    assert all(0.25 < row["concentration"] <= 0.5 for row in result.tables["leaves"])


def test_images_that_cannot_be_read_are_left_out(photos: Path) -> None:
    (photos / "cat" / "00.png").write_bytes(b"no image")
    result = look(SMALL, photos)
    assert result.scalars["images"] == 39
    assert "1 of 40 images cannot be read and are left out" in result.notes[0]
    assert "cat/00.png" in result.notes[0]
    assert result.notes[1] == "500 images were asked for, and there are 40"
    for file in photos.rglob("*.png"):
        file.write_bytes(b"no image")
    with pytest.raises(UsageError, match="none of the 40 images drawn can be read; the first is"):
        look(SMALL, photos)


def test_shap(photos: Path) -> None:
    result = look("treenet(leaves=2,channels=4-8)?weights=none&size=16", photos, shap=True, shown=4)
    explained = result.tables["explained"]
    assert [row["class"] for row in explained] == ["cat", "cat", "dog", "dog"]
    sums = result.arrays["attributions"].sum((1, 2, 3))
    wanted = [row["score"] - row["baseline"] for row in explained]
    np.testing.assert_allclose(sums, wanted, rtol=1e-3, atol=1e-3)
    assert result.scalars["incompleteness"] < 1e-3
    assert result.arrays["shap_picture"].shape == (2, 4, 16, 16, 3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"images": 0}, "images is 0: give a whole number, 1 or more"),
        ({"baselines": 1}, "baselines is 1: give a whole number, 2 or more"),
        ({"seed": -1}, "seed is -1"),
        ({"overlay": (1, 1)}, "overlay is 1,1: give two or three different leaves"),
        ({"overlay": (0, 1, 2, 3)}, "give two or three different leaves"),
        ({"overlay": (1,)}, "give two or three different leaves"),
        ({"overlay": (0, 3)}, "overlay has leaf 3: there are 3, numbered from 0"),
        ({"shap": True, "images": 25}, "of 25 images 10 are shown; raise --images"),
        ({"shap": True, "shown": 39, "images": 60, "baselines": 2}, "lower --shown or --baselines"),
    ],
)
def test_mistakes(photos: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        look(SMALL, photos, **options)


def test_shap_needs_labels(photos: Path) -> None:
    with pytest.raises(UsageError, match="these images have no one class"):
        look(SMALL, photos / "cat", shap=True)


def test_a_network_that_gives_no_numbers_is_refused(photos: Path) -> None:
    backbone = load_backbone(SMALL)
    next(backbone.module.parameters()).data.fill_(torch.nan)
    with pytest.raises(UsageError, match="not finite"):
        featkit.saliency(backbone, photos, workers=0, device="cpu")


def test_pictures() -> None:
    maps = np.zeros((1, 2, 4, 4))
    maps[0, 0, 0, 0], maps[0, 1, 3, 3] = 5.0, 0.1
    red, green = overlay(maps)[0, 0, 0], overlay(maps)[0, 3, 3]
    assert (red.tolist(), green.tolist()) == ([255, 0, 0], [0, 255, 0])
    assert glow(maps)[0, 0, 0, 0].tolist() == [255, 255, 255]
    assert glow(maps)[0, 0, 1, 1].tolist() == [0, 0, 0]


def test_one_leaf_is_laid_over_nothing(photos: Path) -> None:
    result = look("cifar_resnet20?weights=none", photos, images=24, shown=2)
    assert len(result.tables["leaves"]) == 1
    assert [figure.name for figure in result.figures] == ["shares", "leaves"]
