"""The loss of BYOL against lightly's, torch's distances and closed forms."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from featkit.errors import UsageError
from featkit.ops.byol_loss import byol_loss


@pytest.fixture
def vectors() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    prediction, target = torch.randn(2, 12, 7, generator=generator)
    return prediction.requires_grad_(), target.requires_grad_()


@pytest.mark.filterwarnings("ignore")  # lightly and what it imports warn of each other
def test_loss_and_gradient_are_those_of_lightly(vectors: tuple[Tensor, Tensor]) -> None:
    from lightly.loss import NegativeCosineSimilarity

    ours, theirs = byol_loss(*vectors), 2 + 2 * NegativeCosineSimilarity()(*vectors)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(ours, vectors[0]), torch.autograd.grad(theirs, vectors[0])
    )


def test_it_is_the_squared_distance_of_unit_vectors(vectors: tuple[Tensor, Tensor]) -> None:
    """Equation 2 as it is written, of any number of leading axes."""
    first, second = (functional.normalize(each.detach().double(), dim=1) for each in vectors)
    wanted = float((first - second).square().sum(1).mean())
    assert float(byol_loss(*vectors)) == pytest.approx(wanted, rel=1e-6)
    shaped = [each.reshape(3, 2, 2, 7) for each in vectors]
    assert float(byol_loss(*shaped)) == pytest.approx(wanted, rel=1e-6)


def test_it_goes_from_0_where_vectors_agree_to_4_where_they_oppose() -> None:
    x = torch.tensor([3.0, 4.0])
    assert float(byol_loss(x, 7 * x)) == pytest.approx(0, abs=1e-6)
    assert float(byol_loss(x, -x)) == pytest.approx(4)
    assert float(byol_loss(x, torch.tensor([-4.0, 3.0]))) == pytest.approx(2)


def test_the_target_gets_no_gradient(vectors: tuple[Tensor, Tensor]) -> None:
    byol_loss(*vectors).backward()
    assert vectors[0].grad is not None
    assert vectors[1].grad is None


def test_zero_vectors_have_cosine_0_and_no_gradient() -> None:
    prediction = torch.tensor([[0.0, 0.0], [1.0, 1.0]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0], [0.0, 0.0]])
    loss = byol_loss(prediction, target)
    assert float(loss) == 2.0
    assert torch.autograd.grad(loss, prediction)[0].abs().max() == 0


def test_vectors_of_bfloat16_are_computed_in_float32(vectors: tuple[Tensor, Tensor]) -> None:
    short = [each.detach().bfloat16() for each in vectors]
    with torch.autocast("cpu", torch.bfloat16):
        loss = byol_loss(*short)
    assert loss.dtype == torch.float32
    assert float(loss) == float(byol_loss(*(each.float() for each in short)))


@pytest.mark.parametrize(
    ("prediction", "target", "said"),
    [
        (torch.ones(2, 3), torch.ones(3, 3), r"not \(2, 3\) and \(3, 3\)"),
        (torch.ones(0, 3), torch.ones(0, 3), r"not \(0, 3\) and \(0, 3\)"),
        (torch.tensor(1.0), torch.tensor(1.0), r"\(…, d\) both"),
    ],
)
def test_what_cannot_be_compared_is_refused(prediction: Tensor, target: Tensor, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        byol_loss(prediction, target)
