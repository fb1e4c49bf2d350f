"""Heads against lightly's with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from featkit.backbones.checkpoints.heads import build_head, describe_head
from featkit.backbones.checkpoints.tensors import StoredTensor
from featkit.trainers.heads import DINOHead, byol_head


def drawn(b: int, d: int) -> Tensor:
    return torch.randn(b, d, generator=torch.Generator().manual_seed(0))


def prototype_head(norm: bool = False) -> DINOHead:
    torch.manual_seed(0)
    head = DINOHead(6, 9, 5, 12, norm)
    for module in head.mlp:
        if isinstance(module, nn.Linear):  # scores that are far from 0, with biases
            module.weight.data.mul_(20)
            nn.init.normal_(module.bias)
    return head


@pytest.mark.filterwarnings("ignore")  # lightly and what it imports warn of each other
def test_prototypes_and_their_gradients_are_those_of_lightly() -> None:
    from lightly.models.modules import DINOProjectionHead

    ours, theirs = prototype_head(), DINOProjectionHead(6, 9, 5, 12)
    assert theirs.load_state_dict(
        {name.replace("mlp.", "layers."): tensor for name, tensor in ours.state_dict().items()}
    )
    for x in (drawn(4, 6), 100 * drawn(4, 6)):
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-5, atol=1e-6)
    for head in (ours, theirs):
        (head(drawn(4, 6)) * drawn(4, 12)).sum().backward()
    wanted = dict(theirs.named_parameters())
    assert wanted.pop("last_layer.weight_g").grad is None
    for name, parameter in ours.named_parameters():
        other = wanted.pop(name.replace("mlp.", "layers.")).grad
        torch.testing.assert_close(parameter.grad, other, rtol=1e-4, atol=1e-6)
    assert not wanted


@pytest.mark.filterwarnings("ignore")  # lightly and what it imports warn of each other
def test_normalised_by_batch_it_is_that_of_lightly() -> None:
    """Whose layers before a normalisation have no biases, which it takes away."""
    from lightly.models.modules import DINOProjectionHead

    ours = prototype_head(norm=True)
    theirs = DINOProjectionHead(6, 9, 5, 12, batch_norm=True)
    state = {n.replace("mlp.", "layers."): t for n, t in ours.state_dict().items()}
    found = theirs.load_state_dict(state, strict=False)
    assert not found.missing_keys
    assert found.unexpected_keys == ["layers.0.bias", "layers.3.bias"]
    x = drawn(8, 6)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)


def test_scores_are_cosines() -> None:
    """A prototype scores 1 where the embedding points its way, whatever its length."""
    head, x = prototype_head(), drawn(3, 6)
    assert head(x).abs().max() <= 1 + 1e-6
    head.last_layer.weight_v.data[:3] = 7 * head.mlp(x)
    torch.testing.assert_close(head(x).diagonal(), torch.ones(3))
    before = head(x)
    head.last_layer.weight_v.data *= torch.linspace(0.1, 50, 12)[:, None]
    torch.testing.assert_close(head(x), before)


def test_it_starts_as_published() -> None:
    """Truncated normal weights of deviation 0.02, no biases (``DINOHead._init_weights``)."""
    torch.manual_seed(0)
    head = DINOHead(64, 200, 100, 32)
    linears = [module for module in head.mlp if isinstance(module, nn.Linear)]
    weights = torch.cat([module.weight.detach().flatten() for module in linears])
    assert float(weights.std()) == pytest.approx(0.02, rel=0.02)
    assert not any(module.bias.any() for module in linears)
    assert {name for name, _ in head.named_parameters()} == {
        *(f"mlp.{place}.{kind}" for place in (0, 2, 4) for kind in ("weight", "bias")),
        "last_layer.weight_v",
    }


@pytest.mark.parametrize("norm", [False, True])
def test_a_checkpoint_of_it_gives_the_same_scores(norm: bool) -> None:
    head, x = prototype_head(norm).eval(), drawn(4, 6)
    stored = {
        name: StoredTensor(tuple(tensor.shape), tensor.clone)
        for name, tensor in head.state_dict().items()
    }
    rebuilt = build_head(stored)
    assert rebuilt is not None
    torch.testing.assert_close(rebuilt(x), head(x))
    assert describe_head(rebuilt) == "6 → 9 → 9 → 5 → 12"


@pytest.mark.filterwarnings("ignore")
def test_byols_head_is_that_of_lightly() -> None:
    """Theirs has no first bias, which the normalisation takes away again."""
    from lightly.models.modules import BYOLProjectionHead

    torch.manual_seed(0)
    ours, theirs, x = byol_head(6, 9, 5), BYOLProjectionHead(6, 9, 5), drawn(8, 6)
    nn.init.normal_(ours[1].weight)
    nn.init.normal_(ours[1].bias)
    content = {f"layers.{name}": tensor for name, tensor in ours.state_dict().items()}
    del content["layers.0.bias"]
    theirs.load_state_dict(content)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
    ours.eval(), theirs.eval()
    nn.init.zeros_(ours[0].bias)
    theirs.layers[1].running_mean.copy_(ours[1].running_mean)
    torch.testing.assert_close(ours(x), theirs(x), rtol=1e-4, atol=1e-5)
