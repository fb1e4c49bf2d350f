"""DeepLIFT-SHAP against what it must add up to."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from featkit.analyses.saliency.attribution import ProbedTree, attribute, check_tree
from featkit.analyses.saliency.secant_norm import SecantNorm
from featkit.backbones.architectures import build
from featkit.backbones.nets.treenet.tree import TreeNet
from featkit.errors import UsageError
from featkit.ops.linear_probe import LinearProbe


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_a_linear_model_has_its_closed_form() -> None:
    layer = nn.Linear(12, 3)
    images, baselines = noise(2, 3, 2, 2), noise(5, 3, 2, 2, seed=1)
    targets = torch.tensor([2, 0])
    found = attribute(nn.Sequential(nn.Flatten(), layer), images, baselines, targets)
    expected = layer.weight[targets].view(2, 3, 2, 2) * (images - baselines.mean(0))
    torch.testing.assert_close(found.values, expected.detach())
    assert found.incompleteness < 1e-5


def check_sums(network: nn.Module, images: torch.Tensor, baselines: torch.Tensor) -> None:
    targets = torch.arange(len(images)) % 3
    found = attribute(network, images, baselines, targets)
    with torch.no_grad():
        scores, others = network(images), network(baselines)
    wanted = scores[torch.arange(len(images)), targets] - others[:, targets].mean(0)
    sums = found.values.sum((1, 2, 3))
    torch.testing.assert_close(sums, wanted, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.differences.mean(1), wanted)
    assert found.incompleteness < 1e-3


def test_attributions_add_up() -> None:
    network = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.ReLU(),
        nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3),
    )  # fmt: skip
    check_sums(network, noise(3, 3, 8, 8), noise(4, 3, 8, 8, seed=1))


@pytest.mark.parametrize(
    "architecture",
    [
        "treenet(leaves=2)",
        "treenet(leaves=3,join=average,order=conv-norm,channels=4-8)",
        "treenet(leaves=4,join=concat,view=part,channels=4-8)",
    ],
)
def test_they_add_up_for_trees_too_and_explain_their_probe(architecture: str) -> None:
    tree = check_tree(build(architecture, 1).module, "tree")
    images = noise(30, 3, 16, 16)
    labels = np.arange(30) % 3
    with torch.no_grad():
        features = tree.join(tree.leaves(images)).numpy()
    probe = LinearProbe((1e-3,), None).fit(features, labels)
    network = ProbedTree(tree, probe).eval()
    with torch.no_grad():
        found = network(images).numpy()
    np.testing.assert_allclose(found, probe.logits(features), rtol=1e-3, atol=1e-3)
    check_sums(network, images[:3], images[3:9])


@pytest.mark.parametrize("groups", [1, 3])
def test_slopes_of_a_normalisation(groups: int) -> None:
    plain = nn.GroupNorm(groups, 6).double()
    plain.weight.data, plain.bias.data = noise(6).double(), noise(6, seed=1).double()
    norm = SecantNorm(plain)
    x, b = noise(2, 4, 6, 2, 2, seed=2).double()
    torch.testing.assert_close(norm(x), plain(x))
    weights = noise(6, 2, 2, seed=3).double()

    def slopes(b: torch.Tensor) -> torch.Tensor:
        both = torch.cat([x, b]).requires_grad_()
        return torch.autograd.grad((weights * norm(both)).sum(), both)[0][: len(x)]

    change = (weights * (plain(x) - plain(b))).sum((1, 2, 3))
    torch.testing.assert_close((slopes(b) * (x - b)).sum((1, 2, 3)), change)
    # where the baseline is the image, they are its gradients
    own = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad((weights * plain(own)).sum(), own)
    torch.testing.assert_close(slopes(x), gradient)


@pytest.mark.parametrize(
    ("architecture", "message"),
    [
        ("cifar_resnet20", "shap explains TreeNets, and net is none: leave --shap out"),
        ("treenet(leaves=2,join=attention)", "DeepLIFT has no rule for join attention"),
        ("treenet(leaves=2,join=max)", "train a TreeNet of join dense or average or concat"),
        ("treenet(leaves=2,pool=max)", "no rule for pool max"),
        ("treenet(leaves=2,leaf=cifar_resnet20)", "no rule for leaf cifar_resnet20"),
    ],
)
def test_what_deeplift_cannot_go_through(architecture: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        check_tree(build(architecture).module, "net")


def test_a_tree_keeps_no_hooks() -> None:
    tree = build("treenet(leaves=2)").module
    assert isinstance(tree, TreeNet)
    probe = LinearProbe((1.0,), None).fit(noise(6, 256).numpy(), [0, 1] * 3)
    attribute(ProbedTree(tree, probe), noise(1, 3, 16, 16), noise(2, 3, 16, 16), torch.tensor([0]))
    for module in tree.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
        assert not module._backward_hooks
