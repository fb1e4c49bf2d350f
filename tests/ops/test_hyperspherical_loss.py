"""The loss against the energy, and its gradient against finite differences."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist

from featkit.errors import UsageError
from featkit.ops.hyperspherical_energy import hyperspherical_energy
from featkit.ops.hyperspherical_loss import HypersphericalLoss

POWERS = [0, 0.5, 1, 2, 3.5]
VARIANTS = list(product(["full", "half"], ["euclidean", "angular"]))
every_kind = pytest.mark.parametrize(
    ("power", "space", "kernel"), [(p, *v) for p, v in product(POWERS, VARIANTS)]
)


def rows(n, d, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    return (x * torch.linspace(0.1, 9, n, dtype=torch.float64)[:, None]).to(dtype)


def energy_of(points, power, space, kernel):
    points = points / np.linalg.norm(points, axis=1, keepdims=True)
    points = np.vstack([points, -points]) if space == "half" else points
    r = pdist(points)
    r = 2 * np.arcsin((r / 2).clip(max=1)) if kernel == "angular" else r
    return (-np.log(r) if power == 0 else r**-power).mean()


@every_kind
def test_is_the_mean_energy(power, space, kernel):
    loss = HypersphericalLoss(power, space, kernel)
    x = rows(25, 6)
    wanted = energy_of(x.numpy(), power, space, kernel)
    assert loss(x).dtype == torch.float64
    assert loss(x).ndim == 0
    assert loss(x).item() == pytest.approx(wanted, rel=1e-10)
    x[[4, 9]] = 0
    wanted = hyperspherical_energy(x, power, space, kernel)
    assert loss(x).item() == pytest.approx(wanted, rel=1e-10)
    assert loss(x.float()).dtype == torch.float32
    assert loss(x.float()).item() == pytest.approx(wanted, rel=1e-5)


@every_kind
def test_gradient_is_that_of_finite_differences(power, space, kernel):
    loss = HypersphericalLoss(power, space, kernel)
    x = rows(5, 3).requires_grad_()
    assert torch.autograd.gradcheck(loss, x)
    loss(x).backward()
    assert x.grad.abs().max() > 1e-3
    torch.testing.assert_close((x.grad * x).sum(1), torch.zeros(5, dtype=x.dtype))  # not in length


@pytest.mark.parametrize("space", ["full", "half"])
def test_gradient_is_that_of_the_energy(space):
    x = rows(8, 4).requires_grad_()
    HypersphericalLoss(2, space)(x).backward()
    step = 1e-5
    for i, k in product(range(8), range(4)):
        moved = [x.detach().clone() for _ in range(2)]
        moved[0][i, k] += step
        moved[1][i, k] -= step
        above, below = (hyperspherical_energy(y, 2, space) for y in moved)
        assert x.grad[i, k].item() == pytest.approx((above - below) / (2 * step), abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@every_kind
def test_equal_opposite_and_zero_rows_have_finite_gradients(power, space, kernel, dtype):
    x = rows(9, 4, dtype)
    x[1] = x[0]
    x[2] = 3 * x[0]
    x[4] = -x[3]
    x[5:7] = 0
    x[7] = 1e-30
    x.requires_grad_()
    value = HypersphericalLoss(power, space, kernel)(x)
    value.backward()
    assert value.isfinite()
    assert x.grad.isfinite().all()
    assert not x.grad[5:8].any()
    assert x.grad[[0, 1, 2, 3, 4, 8]].any(dim=1).all()


def test_a_pair_that_coincides_stands_still_at_the_floor():
    for dtype, rounding in ((torch.float32, 2.0**-23), (torch.float64, 2.0**-52)):
        floor = 8 * rounding
        x = torch.tensor([[1.0, 2.0], [2.0, 4.0]], dtype=dtype, requires_grad=True)
        value = HypersphericalLoss(2)(x)
        value.backward()
        assert value.item() == pytest.approx(
            1 / floor**2
        )  # nothing but the two: as near as it gets
        assert not x.grad.any()
        apart = torch.tensor([[0.0, 1.0]] * 2 + [[0.0, -2.0]] * 2, dtype=dtype, requires_grad=True)
        value = HypersphericalLoss(2)(apart)  # 4 of 12 pairs coincide, far from the mean
        assert value.item() == pytest.approx((4 / floor + 8 / 4) / 12)
        value.backward()
        assert not apart.grad.any()
        lines = torch.tensor([[1.0, 2.0], [-2.0, -4.0]], dtype=dtype, requires_grad=True)
        value = HypersphericalLoss(2, "half")(lines)  # 4 of 12 pairs coincide
        assert value.item() == pytest.approx((4 / floor + 8 / 4) / 12)
        value.backward()
        assert not lines.grad.any()


@pytest.mark.parametrize("kernel", ["euclidean", "angular"])
def test_rows_of_a_narrow_cone_keep_their_gradient_in_float32(kernel):
    x = (1 + 3e-3 * torch.randn(40, 32, generator=torch.Generator().manual_seed(0))).double()
    assert torch.nn.functional.normalize(x).mm(torch.nn.functional.normalize(x).T).min() > 0.9999
    gradients = []
    for dtype in (torch.float32, torch.float64):
        y = x.to(dtype).requires_grad_()
        HypersphericalLoss(1, "full", kernel)(y).backward()
        gradients.append(y.grad.double())
    torch.testing.assert_close(*gradients, rtol=0, atol=1e-3 * gradients[1].abs().max().item())


@pytest.mark.parametrize("power", [0, 1, 2])
@pytest.mark.parametrize("kernel", ["euclidean", "angular"])
@pytest.mark.parametrize("width", [3e-4, 3e-5, 1e-5])
def test_collapsed_rows_have_the_energy_and_the_gradient_of_float64(power, kernel, width):
    x = 1 + width * torch.randn(64, 512, generator=torch.Generator().manual_seed(0))
    values, gradients = [], []
    for dtype in (torch.float32, torch.float64):
        y = x.clone().to(dtype).requires_grad_()
        value = HypersphericalLoss(power, "full", kernel)(y)
        value.backward()
        values.append(value.item())
        gradients.append(y.grad.double().flatten())
    wanted = energy_of(x.double().numpy(), power, "full", "euclidean")  # angles are distances here
    assert values == pytest.approx([wanted, wanted], rel=1e-3)
    assert torch.nn.functional.cosine_similarity(*gradients, dim=0) > 0.999
    assert gradients[0].norm() == pytest.approx(gradients[1].norm().item(), rel=1e-2)


@pytest.mark.parametrize("space", ["full", "half"])
@pytest.mark.parametrize("kernel", ["euclidean", "angular"])
@pytest.mark.parametrize("power", [6, 30, 1000])
def test_large_powers_have_finite_gradients(power, kernel, space):
    x = rows(20, 4, torch.float32)
    x[1] = x[0]
    x[2] = x[0] + 1e-5
    x[3] = -x[0]
    for part in (x, x[:3], x[:2]):
        y = part.clone().requires_grad_()
        value = HypersphericalLoss(power, space, kernel)(y)
        value.backward()
        assert value.isfinite()
        assert y.grad.isfinite().all()


def test_zeros_and_lonely_rows_have_no_energy():
    for x in (torch.zeros(0, 3), torch.ones(1, 3), torch.zeros(4, 3), torch.eye(4)[:1]):
        x.requires_grad_()
        value = HypersphericalLoss()(x)
        value.backward()
        assert value.item() == 0
        assert not x.grad.any()
    assert HypersphericalLoss(1, "half")(torch.ones(1, 3)).item() == pytest.approx(0.5)


def trained(x, loss, steps):
    """Return the directions that so many steps lead to."""
    x = torch.nn.Parameter(x.clone())
    optimizer = torch.optim.Adam([x], lr=0.05)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(x).backward()
        optimizer.step()
    return torch.nn.functional.normalize(x.detach())


@pytest.mark.parametrize("power", [0, 1, 2])
@pytest.mark.parametrize("kernel", ["euclidean", "angular"])
def test_points_part(power, kernel):
    x = torch.tensor([1.0, 0.0, 0.0]) + 0.05 * rows(4, 3, torch.float32)
    loss = HypersphericalLoss(power, "full", kernel)
    points = trained(x, loss, 10)
    assert pdist(points).min() > 2 * pdist(torch.nn.functional.normalize(x)).min()
    assert loss(points) < loss(x)


@pytest.mark.parametrize("power", [0, 1, 2])
def test_points_part_until_they_are_a_simplex(power):
    points = trained(rows(4, 3), HypersphericalLoss(power), 200)
    np.testing.assert_allclose(pdist(points), math.sqrt(8 / 3), atol=0.01)


def test_in_half_space_lines_part():
    x = torch.tensor([[1.0, 0.0], [-1.0, 0.05]])
    a, b = trained(x, HypersphericalLoss(), 200)
    assert a @ b < -0.99
    a, b = trained(x, HypersphericalLoss(space="half"), 200)
    assert abs(a @ b) < 0.05


def test_weights_of_a_convolution():
    weight = rows(6, 18).reshape(6, 2, 3, 3)
    loss = HypersphericalLoss()
    assert loss(weight).item() == loss(weight.flatten(1)).item()
    assert list(loss.parameters()) == []


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_narrow_formats_are_widened(dtype):
    x = rows(20, 8, dtype).requires_grad_()
    value = HypersphericalLoss()(x)
    assert value.dtype == torch.float32
    assert value.item() == pytest.approx(hyperspherical_energy(x.float()), rel=1e-5)
    value.backward()
    assert x.grad.dtype == dtype
    wide = rows(20, 8, torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        assert HypersphericalLoss()(wide).item() == pytest.approx(
            hyperspherical_energy(wide), rel=1e-5
        )


def test_what_has_no_loss():
    for options in ({"power": -1}, {"space": "whole"}, {"kernel": "cosine"}):
        with pytest.raises(UsageError, match=next(iter(options))):
            HypersphericalLoss(**options)
    with pytest.raises(UsageError, match=r"x is float32 \(3,\): give floating point"):
        HypersphericalLoss()(torch.ones(3))
    with pytest.raises(UsageError, match=r"x is int64 \(3, 3\)"):
        HypersphericalLoss()(torch.ones(3, 3).long())
