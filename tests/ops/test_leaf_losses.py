"""Losses of leaves against lightly's, torch's cosines of all pairs and closed forms."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from featkit.errors import UsageError
from featkit.ops.leaf_losses import leaf_contrastive, leaf_cosine


@pytest.fixture
def leaves() -> tuple[Tensor, Tensor]:
    """Six images, five leaves of student and teacher."""
    student, teacher = torch.randn(2, 6, 5, 7, generator=torch.Generator().manual_seed(0))
    return student.requires_grad_(), teacher.requires_grad_()


@pytest.mark.filterwarnings("ignore")  # lightly and what it imports warn of each other
@pytest.mark.parametrize("temperature", [0.07, 0.5, 3.0])
def test_contrast_and_gradient_are_those_of_lightly_image_by_image(
    leaves: tuple[Tensor, Tensor], temperature: float
) -> None:
    from lightly.loss import NTXentLoss

    student, teacher = leaves
    ours = leaf_contrastive(student, teacher, temperature)
    of_image = NTXentLoss(temperature)
    losses = [of_image(*image) for image in zip(student, teacher.detach(), strict=True)]
    theirs = torch.stack(losses).mean()
    assert float(ours) == pytest.approx(float(theirs), rel=1e-6)
    torch.testing.assert_close(
        torch.autograd.grad(ours, student), torch.autograd.grad(theirs, student),
        rtol=1e-4, atol=1e-7,
    )  # fmt: skip


def test_contrast_of_orthogonal_and_of_equal_leaves() -> None:
    """At right angles all cosines are 0 but for 1 between the vectors of one leaf."""
    for m in (2, 5):
        apart = torch.eye(m).expand(3, m, m)
        for temperature in (0.1, 1.0):
            wanted = math.log1p((2 * m - 2) / math.exp(1 / temperature))
            found = float(leaf_contrastive(apart, apart, temperature))
            assert found == pytest.approx(wanted, abs=1e-6)
        alike = torch.ones(3, m, 4)
        assert float(leaf_contrastive(alike, 2 * alike)) == pytest.approx(math.log(2 * m - 1))


def test_what_does_not_change_the_contrast(leaves: tuple[Tensor, Tensor]) -> None:
    student, teacher = (each.detach() for each in leaves)
    loss = float(leaf_contrastive(student, teacher, 0.3))
    order = torch.randperm(5, generator=torch.Generator().manual_seed(1))
    for changed in (
        (teacher, student),
        (student.flip(0), teacher.flip(0)),
        (student[:, order], teacher[:, order]),
        (student * torch.linspace(0.01, 100, 5)[:, None], teacher),
    ):
        assert float(leaf_contrastive(*changed, 0.3)) == pytest.approx(loss, rel=1e-5)
    assert float(leaf_contrastive(student, teacher[:, order], 0.3)) != pytest.approx(loss)


def test_the_teacher_gets_no_gradient(leaves: tuple[Tensor, Tensor]) -> None:
    leaf_contrastive(*leaves).backward()
    assert leaves[0].grad is not None
    assert leaves[1].grad is None


def test_penalty_and_gradient_are_those_of_torchs_cosines_of_all_pairs(
    leaves: tuple[Tensor, Tensor],
) -> None:
    f = leaves[0]
    cosines = functional.cosine_similarity(f[:, :, None], f[:, None], dim=3)
    theirs = (cosines.sum((1, 2)) - 5).mean() / (2 * 5**2)  # a leaf has cosine 1 with itself
    ours = leaf_cosine(f)
    assert float(ours) == pytest.approx(float(theirs), abs=1e-7)
    torch.testing.assert_close(
        torch.autograd.grad(ours, f), torch.autograd.grad(theirs, f), rtol=1e-4, atol=1e-8
    )


@pytest.mark.parametrize("m", [1, 2, 48])
def test_penalty_of_orthogonal_equal_and_opposite_leaves(m: int) -> None:
    assert float(leaf_cosine(torch.eye(m).expand(3, m, m) * 5)) == pytest.approx(0, abs=1e-6)
    alike = torch.full((3, m, 7), -0.3)
    assert float(leaf_cosine(alike)) == pytest.approx((m - 1) / (2 * m), rel=1e-6)
    if m > 1:
        alike[:, ::2] *= -1
        assert float(leaf_cosine(alike)) == pytest.approx(-1 / (2 * m), rel=1e-6)


def test_penalty_leaves_lengths_out(leaves: tuple[Tensor, Tensor]) -> None:
    """Leaves cannot lower it by becoming shorter (sec. 3.3)."""
    f = leaves[0].detach()
    scaled = f * torch.logspace(-5, 5, 5)[:, None]
    assert float(leaf_cosine(scaled)) == pytest.approx(float(leaf_cosine(f)), abs=1e-7)


def test_zero_vectors_have_cosine_0_and_no_gradient() -> None:
    student = torch.eye(3).repeat(2, 1, 1)
    student[0, 1] = 0
    student.requires_grad_()
    for loss in (leaf_cosine(student), leaf_contrastive(student, torch.zeros(2, 3, 3))):
        (gradient,) = torch.autograd.grad(loss, student)
        assert bool(gradient.isfinite().all())
        assert gradient[0, 1].abs().max() == 0
    assert float(leaf_cosine(student)) == 0
    zeros = torch.zeros(2, 3, 3)
    assert float(leaf_contrastive(zeros, zeros)) == pytest.approx(math.log(5))


def test_vectors_of_bfloat16_are_computed_in_float32(leaves: tuple[Tensor, Tensor]) -> None:
    short = [each.detach().bfloat16() for each in leaves]
    wide = [each.float() for each in short]
    with torch.autocast("cpu", torch.bfloat16):
        contrast, penalty = leaf_contrastive(*short), leaf_cosine(short[0])
    assert contrast.dtype == penalty.dtype == torch.float32
    assert float(contrast) == float(leaf_contrastive(*wide))
    assert float(penalty) == float(leaf_cosine(wide[0]))


@pytest.mark.parametrize(
    ("student", "teacher", "temperature", "said"),
    [
        (torch.ones(2, 3, 4), torch.ones(2, 4, 4), 0.1, r"not \(2, 3, 4\) and \(2, 4, 4\)"),
        (torch.ones(3, 4), torch.ones(3, 4), 0.1, r"\(b, m, d\) both"),
        (torch.ones(0, 3, 4), torch.ones(0, 3, 4), 0.1, r"not \(0, 3, 4\)"),
        (torch.ones(2, 1, 4), torch.ones(2, 1, 4), 0.1, "give 2 or more"),
        (torch.ones(2, 3, 4), torch.ones(2, 3, 4), 0.0, "temperature is 0.0: give a number above"),
        (torch.ones(2, 3, 4), torch.ones(2, 3, 4), math.nan, "temperature is nan"),
    ],
)
def test_what_cannot_be_contrasted_is_refused(
    student: Tensor, teacher: Tensor, temperature: float, said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        leaf_contrastive(student, teacher, temperature)


@pytest.mark.parametrize("shape", [(3, 4), (0, 3, 4)])
def test_what_has_no_penalty_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match=r"leaves are \(b, m, d\): not"):
        leaf_cosine(torch.ones(shape))
