"""The loss of DINO and its centre against lightly's and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.dino_loss import dino_loss, updated_center


def outputs(v: int, g: int, b: int = 5, k: int = 11) -> tuple[Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    student = torch.randn(v, b, k, generator=generator)
    teacher = torch.randn(g, b, k, generator=generator)
    center = torch.randn(k, generator=generator)
    return student.requires_grad_(), teacher.requires_grad_(), center


@pytest.mark.filterwarnings("ignore")  # lightly and what it imports warn of each other
@pytest.mark.parametrize(("v", "g"), [(2, 2), (2, 1), (10, 2), (3, 3)])
@pytest.mark.parametrize("temperatures", [(0.1, 0.04), (1.0, 0.07)])
def test_loss_gradient_and_centre_are_those_of_lightly(
    v: int, g: int, temperatures: tuple[float, float]
) -> None:
    from lightly.loss import DINOLoss

    student, teacher, center = outputs(v, g)
    ours = dino_loss(student, teacher, center, *temperatures)
    theirs = DINOLoss(11, student_temp=temperatures[0], center_momentum=0.8)
    theirs.center.copy_(center)
    wanted = theirs(list(teacher.detach()), list(student), teacher_temp=temperatures[1])
    assert float(ours) == pytest.approx(float(wanted), rel=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(ours, student), torch.autograd.grad(wanted, student),
        rtol=1e-5, atol=1e-6,
    )  # fmt: skip
    torch.testing.assert_close(updated_center(center, teacher, 0.8), theirs.center.flatten())


def test_a_student_that_says_the_same_of_all_costs_log_k() -> None:
    """Whatever the teacher says; the loss of a collapse to the uniform distribution."""
    _, teacher, center = outputs(4, 2, k=4096)
    loss = float(dino_loss(torch.full((4, 5, 4096), 3.0), teacher, center))
    assert loss == pytest.approx(8.317766, abs=1e-5)


def test_of_a_teacher_that_is_certain_by_hand() -> None:
    """Its view says one k: the loss is what the student's other view lacks of certainty of it."""
    teacher = torch.tensor([[[1e3, 0.0, 0.0]]])
    student = torch.tensor([[[0.0, 9.0, 0.0]], [[0.2, 0.0, 0.0]]])  # the first is left out
    wanted = math.log(math.e**2 + 2) - 2
    assert float(dino_loss(student, teacher, torch.zeros(3))) == pytest.approx(wanted, abs=1e-5)


def test_the_same_view_is_not_compared_with_itself() -> None:
    student, teacher, center = outputs(3, 1)
    (gradient,) = torch.autograd.grad(dino_loss(student, teacher, center), student)
    assert gradient[0].abs().max() < 1e-8
    assert gradient[1:].abs().amax((1, 2)).min() > 1e-3


def test_what_does_not_change_it() -> None:
    student, teacher, center = (each.detach() for each in outputs(4, 2))
    loss = float(dino_loss(student, teacher, center))
    images = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    for changed in (
        (student[[1, 0, 3, 2]], teacher[[1, 0]], center),
        (student[:, images], teacher[:, images], center),
        (student.flip(2), teacher.flip(2), center.flip(0)),
        (student + 3, teacher - 2, center),
        (student, teacher - center, torch.zeros(11)),
    ):
        assert float(dino_loss(*changed)) == pytest.approx(loss, rel=1e-5)


def test_the_teacher_gets_no_gradient() -> None:
    student, teacher, center = outputs(4, 2)
    dino_loss(student, teacher, center.requires_grad_()).backward()
    assert student.grad is not None
    assert teacher.grad is center.grad is None
    assert not updated_center(center, teacher).requires_grad


@pytest.mark.parametrize("size", [0.0, 1e4])
def test_loss_and_gradient_are_finite(size: float) -> None:
    student, teacher, center = (each.detach() * size for each in outputs(4, 2))
    loss = dino_loss(student.requires_grad_(), teacher, center)
    (gradient,) = torch.autograd.grad(loss, student)
    assert math.isfinite(float(loss))
    assert bool(gradient.isfinite().all())


def test_outputs_of_bfloat16_are_computed_in_float32() -> None:
    short = [each.detach().bfloat16() for each in outputs(4, 2)]
    with torch.autocast("cpu", torch.bfloat16):
        loss = dino_loss(*short)
    assert loss.dtype == torch.float32
    assert float(loss) == float(dino_loss(*(each.float() for each in short)))
    assert updated_center(torch.zeros(11), short[1]).dtype == torch.float32


def test_the_centre_tends_to_the_mean() -> None:
    _, teacher, center = outputs(2, 2)
    mean = teacher.detach().mean((0, 1))
    torch.testing.assert_close(updated_center(center, teacher, 0.0), mean)
    assert torch.equal(updated_center(center, teacher, 1.0), center)
    for _ in range(200):
        center = updated_center(center, teacher)
    torch.testing.assert_close(center, mean)


@pytest.mark.parametrize(
    ("student", "teacher", "center", "said"),
    [
        ((2, 5, 3), (2, 5, 4), (3,), r"not \(2, 5, 3\), \(2, 5, 4\) and \(3\,\)"),
        ((2, 5, 3), (2, 4, 3), (3,), r"\(v, b, K\), \(g, b, K\) and \(K\)"),
        ((2, 5, 3), (2, 5, 3), (4,), r"and \(4,\)"),
        ((2, 5, 3), (2, 5, 3), (1, 1, 3), r"and \(1, 1, 3\)"),
        ((2, 5, 3), (3, 5, 3), (3,), "1 ≤ g ≤ v"),
        ((2, 5, 3), (0, 5, 3), (3,), "1 ≤ g ≤ v"),
        ((5, 3), (5, 3), (3,), r"not \(5, 3\)"),
        ((2, 0, 3), (2, 0, 3), (3,), r"not \(2, 0, 3\)"),
        ((1, 5, 3), (1, 5, 3), (3,), "one view has no other"),
    ],
)
def test_what_does_not_fit_is_refused(
    student: tuple[int, ...], teacher: tuple[int, ...], center: tuple[int, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        dino_loss(torch.ones(student), torch.ones(teacher), torch.ones(center))


@pytest.mark.parametrize("temperature", [0.0, -1.0, math.nan, math.inf])
def test_temperatures_are_above_0(temperature: float) -> None:
    whole = outputs(2, 2)
    with pytest.raises(UsageError, match="student_temperature is .*: give a number above 0"):
        dino_loss(*whole, student_temperature=temperature)
    with pytest.raises(UsageError, match="teacher_temperature is .*: give a number above 0"):
        dino_loss(*whole, teacher_temperature=temperature)


def test_a_centre_that_does_not_fit_is_refused() -> None:
    with pytest.raises(UsageError, match=r"not \(2, 5, 3\) and \(4,\)"):
        updated_center(torch.ones(4), torch.ones(2, 5, 3))
    with pytest.raises(UsageError, match=r"momentum is 1.5: give a number in \[0, 1\]"):
        updated_center(torch.ones(3), torch.ones(2, 5, 3), 1.5)
