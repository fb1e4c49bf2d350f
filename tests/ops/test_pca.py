"""Principal components against scikit-learn."""

import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from featkit.ops.pca import principal_components


def rows(n, d, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) * np.linspace(3, 0.1, d) @ rng.standard_normal((d, d)) + mean


@pytest.mark.parametrize("block", [1, 7, 200])
@pytest.mark.parametrize("mean", [0.0, 1e4])
def test_equals_scikit_learn_whatever_the_blocks(block, mean):
    x = rows(200, 12, mean=mean)
    wanted = PCA(5, svd_solver="full").fit(x)
    found_mean, components = principal_components(torch.from_numpy(x).split(block), 5)
    signs = np.sign((components.numpy() * wanted.components_).sum(1, keepdims=True))
    np.testing.assert_allclose(components.numpy() * signs, wanted.components_, atol=1e-5)
    np.testing.assert_allclose(found_mean.numpy(), wanted.mean_, rtol=1e-6, atol=1e-6)


def test_components_are_orthonormal_and_their_signs_are_fixed():
    x = torch.from_numpy(rows(50, 9)).float()
    _, components = principal_components([x], 9)
    assert torch.allclose(components @ components.T, torch.eye(9), atol=1e-5)
    largest = components.gather(1, components.abs().argmax(1, keepdim=True))
    assert bool((largest > 0).all())
    _, again = principal_components([-x], 9)
    assert torch.allclose(components, again, atol=1e-4)


@pytest.mark.parametrize("x", [torch.ones(4, 3), torch.zeros(1, 3), torch.eye(3)[:1]])
def test_rows_that_do_not_vary(x):
    mean, components = principal_components([x], 2)
    assert torch.equal(mean, x[0])
    assert torch.allclose(components @ components.T, torch.eye(2), atol=1e-6)
