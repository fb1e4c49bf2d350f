"""The loss of SimCLR against lightly's, closed forms and what must not change it."""

from __future__ import annotations

import math

import pytest
import torch

from featkit.errors import UsageError
from featkit.ops.nt_xent import nt_xent


@pytest.fixture
def views() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(2, 12, 7, generator=generator)
    return first.requires_grad_(), second.requires_grad_()


@pytest.mark.filterwarnings("ignore")  # lightly and what it imports warn of each other
@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
def test_loss_and_gradients_are_those_of_lightly(
    views: tuple[torch.Tensor, torch.Tensor], temperature: float
) -> None:
    from lightly.loss import NTXentLoss

    ours, theirs = nt_xent(*views, temperature), NTXentLoss(temperature)(*views)
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
    for a, b in zip(
        torch.autograd.grad(ours, views), torch.autograd.grad(theirs, views), strict=True
    ):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-7)


def test_equation_2_1_by_hand() -> None:
    """Two images whose views are at right angles: cosines 0 but for 1 between views of one."""
    rows = torch.eye(2)
    for temperature in (0.1, 1.0):
        one = math.exp(1 / temperature)
        assert float(nt_xent(rows, rows, temperature)) == pytest.approx(
            math.log1p(2 / one), abs=1e-7
        )


def test_rows_that_are_all_alike_cost_the_logarithm_of_their_number() -> None:
    rows = torch.ones(5, 3)
    assert float(nt_xent(rows, rows)) == pytest.approx(math.log(9))
    assert float(nt_xent(rows[:1], rows[:1])) == 0.0


def test_what_does_not_change_it(views: tuple[torch.Tensor, torch.Tensor]) -> None:
    first, second = (view.detach() for view in views)
    loss = float(nt_xent(first, second, 0.3))
    order = torch.randperm(12, generator=torch.Generator().manual_seed(1))
    turn = torch.linalg.qr(torch.randn(7, 7, generator=torch.Generator().manual_seed(2)))[0]
    scales = torch.linspace(0.01, 100, 12)[:, None]
    for changed in (
        (second, first),
        (first[order], second[order]),
        (first @ turn, second @ turn),
        (first * scales, second / scales),
    ):
        assert float(nt_xent(*changed, 0.3)) == pytest.approx(loss, rel=1e-5)


def test_rows_of_bfloat16_are_computed_in_float32(
    views: tuple[torch.Tensor, torch.Tensor],
) -> None:
    short = [view.detach().bfloat16() for view in views]
    with torch.autocast("cpu", torch.bfloat16):
        loss = nt_xent(*short, 0.1)
    assert loss.dtype == torch.float32
    assert float(loss) == float(nt_xent(*(view.float() for view in short), 0.1))


@pytest.mark.parametrize(
    ("first", "second", "temperature", "said"),
    [
        (torch.ones(2, 3), torch.ones(3, 3), 0.5, r"not \(2, 3\) and \(3, 3\)"),
        (torch.ones(0, 3), torch.ones(0, 3), 0.5, "n ≥ 1"),
        (torch.ones(3), torch.ones(3), 0.5, r"\(n, d\) both"),
        (torch.ones(2, 3), torch.ones(2, 3), 0.0, "temperature is 0.0: give a number above 0"),
        (torch.ones(2, 3), torch.ones(2, 3), math.nan, "temperature is nan"),
    ],
)
def test_what_cannot_be_compared_is_refused(
    first: torch.Tensor, second: torch.Tensor, temperature: float, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        nt_xent(first, second, temperature)
