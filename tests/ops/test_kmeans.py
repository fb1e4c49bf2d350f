"""k-means against scikit-learn and faiss from the same start."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans
from sklearn.datasets import make_blobs

from featkit.errors import UsageError
from featkit.ops import kmeans as km
from featkit.ops import row_blocks
from featkit.ops.kmeans import kmeans, split_empty
from featkit.ops.unit_vectors import unit_vectors

FAISS = km._by_faiss


def noise(n, d, seed=0):
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


def blobs(n, d, k, seed=0):
    x, own = make_blobs(n, d, centers=k, cluster_std=0.05, random_state=seed)
    return torch.from_numpy(x.astype(np.float32)), own


@pytest.fixture(params=["faiss", "torch"], autouse=True)
def _engine(request, monkeypatch):
    """What computes: faiss on CPUs, torch on other devices; here both on the CPU."""
    if request.param == "torch":
        monkeypatch.setattr(km, "_by_faiss", lambda *given: km._by_torch(*given[:-1]))


def inertia(x, found):
    return float((x - found.centroids[found.labels]).double().square().sum())


def nearest(x, centroids):
    return torch.cdist(x.double(), centroids.double()).argmin(1)


def test_well_separated_clusters_are_those_of_scikit_learn():
    x, own = blobs(600, 5, 12)
    start = torch.stack([x[own == i][0] for i in range(12)])
    found = kmeans(x, 12, start=start)
    np.testing.assert_array_equal(found.labels, own)
    wanted = KMeans(12, init=start.numpy(), n_init=1, algorithm="lloyd").fit(x.numpy())
    np.testing.assert_array_equal(found.labels, wanted.labels_)
    np.testing.assert_allclose(found.centroids, wanted.cluster_centers_, atol=1e-5)
    assert found.centroids.dtype == torch.float32
    assert found.labels.dtype == torch.int64


@pytest.mark.parametrize("iterations", [1, 3, 20])
@pytest.mark.parametrize(("n", "d", "k"), [(800, 2, 40), (1000, 30, 20), (500, 64, 1)])
@pytest.mark.parametrize("mean", [0, 100])
def test_noise_is_clustered_as_by_scikit_learn(n, d, k, iterations, mean):
    x = noise(n, d) + mean
    start = x[:k].clone()
    found = kmeans(x, k, iterations=iterations, start=start)
    wanted = KMeans(
        k, init=start.double().numpy(), n_init=1, max_iter=iterations, tol=0, algorithm="lloyd"
    ).fit(x.double().numpy())
    assert np.mean(found.labels.numpy() == wanted.labels_) > 0.998  # where not, by rounding
    assert inertia(x, found) == pytest.approx(wanted.inertia_, rel=1e-4)
    assert torch.equal(start, x[:k])


@pytest.mark.parametrize("iterations", [0, 5])
def test_rows_that_may_be_changed_have_the_same_clusters(iterations):
    x = noise(400, 6) + 3
    wanted = kmeans(x.clone(), 20, iterations=iterations)
    found = kmeans(x, 20, iterations=iterations, overwrite_x=True)
    assert torch.equal(found.centroids, wanted.centroids)
    assert torch.equal(found.labels, wanted.labels)


@pytest.mark.parametrize("iterations", [1, 10])
def test_unit_rows_are_clustered_as_by_faiss(iterations):
    x = unit_vectors(noise(1500, 16))
    start = x[::10].clone()
    found = kmeans(x, 150, iterations=iterations, start=start)
    other = faiss.Kmeans(
        16, 150, niter=iterations, min_points_per_centroid=1, max_points_per_centroid=10**6
    )
    other.train(x.numpy(), init_centroids=start.numpy())
    _, labels = other.assign(x.numpy())
    assert np.mean(found.labels.numpy() == labels) > 0.99
    assert np.abs(found.centroids.numpy() - other.centroids).max(1).mean() < 1e-3


def test_inertia_never_rises():
    x = noise(700, 6)
    costs = [inertia(x, kmeans(x, 30, iterations=i, seed=3)) for i in range(15)]
    assert (np.diff(costs) <= 1e-6 * costs[0]).all()
    assert costs[-1] < 0.8 * costs[0]


def test_torch_ends_where_nothing_moves(monkeypatch):
    x, _ = blobs(200, 3, 4)
    given = (x, x, torch.zeros(3), x[:4].clone())
    wanted = km._by_torch(*given, 20, 0)
    passes = []
    nearest = km._nearest
    monkeypatch.setattr(km, "_nearest", lambda *a: passes.append(0) or nearest(*a))
    found = km._by_torch(*given, 10**6, 0)
    assert len(passes) < 50
    assert torch.equal(found.labels, wanted.labels)
    assert torch.equal(found.centroids, wanted.centroids)


@pytest.mark.parametrize("share", [1.0, 0.3])
def test_every_row_has_its_nearest_centroid(share):
    x = noise(2000, 8)
    found = kmeans(x, 50, share=share)
    assert torch.equal(found.labels, nearest(x, found.centroids))


def test_centroids_start_from_different_rows_of_the_share():
    x = torch.arange(1000.0)[:, None] * torch.tensor([1.0, -1.0])
    for share in (1.0, 0.1):
        rows = kmeans(x, 100, iterations=0, share=share).centroids[:, 0].long()
        assert len(set(rows.tolist())) == 100
        assert torch.equal(x[rows][:, 0].long(), rows)
    drawn = {tuple(sorted(kmeans(x, 100, iterations=0, share=0.1, seed=s).centroids[:, 0].tolist()))
             for s in range(5)}  # fmt: skip
    assert len(drawn) == 5
    assert np.mean(list(drawn)) == pytest.approx(500, abs=60)


def test_centroids_are_means_of_the_share_alone():
    x = noise(400, 3)
    found = kmeans(x, 1, share=0.25, iterations=5)
    chosen = torch.randperm(400, generator=torch.Generator().manual_seed(0))[:100]
    torch.testing.assert_close(found.centroids[0], x[chosen].mean(0))


def test_the_same_seed_gives_the_same_bits():
    x = noise(1000, 12)
    one, other, third = (kmeans(x, 60, share=0.5, seed=seed) for seed in (5, 5, 2**32 - 1))
    assert torch.equal(one.centroids, other.centroids)
    assert torch.equal(one.labels, other.labels)
    assert not torch.equal(one.labels, third.labels)


def test_blocks_do_not_matter(monkeypatch):
    x = noise(500, 7)
    wanted = kmeans(x, 25)
    monkeypatch.setattr(row_blocks, "BLOCK_FLOATS", 64)
    monkeypatch.setattr(km, "DISTANCES", 64)
    found = kmeans(x, 25)
    assert torch.equal(found.labels, wanted.labels)
    torch.testing.assert_close(found.centroids, wanted.centroids)


def test_both_engines_cluster_alike():
    """From the same draws, where no cluster runs empty."""
    x = noise(900, 5)
    given = (x, x, torch.zeros(5), x[:40].clone(), 20, 0)
    other, found = km._by_torch(*given), FAISS(*given, False)
    assert (found.labels == other.labels).float().mean() > 0.998
    torch.testing.assert_close(found.centroids, other.centroids, atol=0.02, rtol=0)


def test_rows_rotated_scaled_moved_or_in_another_order():
    x = (noise(600, 8) * 64).round() / 64  # so that moving it far off rounds nothing
    start = x[:30].clone()
    wanted = kmeans(x, 30, start=start)
    turn = torch.linalg.qr(noise(8, 8, seed=9).double()).Q.float()
    order = torch.randperm(600, generator=torch.Generator().manual_seed(1))
    for rows, first, back in (
        (x @ turn, start @ turn, slice(None)),
        (x * 1e-9, start * 1e-9, slice(None)),
        (x * 2.0**40, start * 2.0**40, slice(None)),
        (x + 2.0**16, start + 2.0**16, slice(None)),
        (x[order], start, order.argsort()),
    ):
        found = kmeans(rows, 30, start=first)
        assert (found.labels[back] == wanted.labels).float().mean() > 0.998


@pytest.mark.parametrize("value", [0.0, 1.0, -1e6])
@pytest.mark.parametrize("share", [1.0, 0.5])
def test_points_that_are_all_equal(value, share, capfd):
    x = torch.full((60, 5), value)
    found = kmeans(x, 20, share=share)
    assert found.centroids.isfinite().all()
    torch.testing.assert_close(found.centroids, torch.full((20, 5), value), rtol=0.01, atol=0)
    assert found.labels.unique().numel() == 1
    assert capfd.readouterr() == ("", "")


def test_more_clusters_than_distinct_points():
    points = noise(5, 4)
    x = points.repeat(40, 1)
    found = kmeans(x, 50)
    assert found.centroids.isfinite().all()
    assert all(found.labels[i::5].unique().numel() == 1 for i in range(5))
    assert found.labels.unique().numel() == 5
    assert inertia(x, found) < 1e-4 * float(x.square().sum())


def test_as_many_clusters_as_rows():
    x = noise(40, 3)
    found = kmeans(x, 40)
    torch.testing.assert_close(found.centroids[found.labels], x)
    assert sorted(found.labels.tolist()) == list(range(40))


def test_an_empty_cluster_is_filled():
    x, own = blobs(300, 4, 3)
    start = torch.stack([x[0], x[0] + 1e4, x[own != own[0]][0]])
    found = kmeans(x, 3, start=start, iterations=20)
    assert found.labels.unique().numel() == 3
    assert inertia(x, found) < inertia(x, kmeans(x, 3, start=start, iterations=0)) / 2


def test_halves_of_a_cluster_are_those_of_faiss():
    centroids = torch.tensor([[1.0, 2.0, 4.0], [9.0, 9.0, 9.0], [3.0, 5.0, 7.0]])
    up, down = 1 + 1 / 1024, 1 - 1 / 1024
    found = split_empty(centroids, np.array([6, 0, 1]), np.random.default_rng(0))
    assert found[1].tolist() == [1 * up, 2 * down, 4 * up]
    assert found[0].tolist() == [1 * down, 2 * up, 4 * down]
    assert found[2].tolist() == [3, 5, 7]


def test_a_cluster_is_halved_as_often_as_its_size_says():
    sizes = np.array([31, 0, 11, 1, 0])
    first, both = np.zeros(5), np.zeros(5)
    for seed in range(600):
        centroids = torch.arange(1.0, 6.0)[:, None].repeat(1, 2)
        found = split_empty(centroids, sizes, np.random.default_rng(seed))
        donors = found[[1, 4], 0].round().long().numpy() - 1
        first[donors[0]] += 1
        both[donors[1]] += 1
    np.testing.assert_allclose(first / 600, [0.75, 0, 0.25, 0, 0], atol=0.06)
    again = 0.75 * 29 / 39 + 0.25 * 30 / 39  # either half of the large one, or the large one
    np.testing.assert_allclose(both / 600, [again, 0, 1 - again, 0, 0], atol=0.06)


@pytest.mark.parametrize(
    ("x", "arguments", "says"),
    [
        (torch.ones(5, 2), {"k": 6}, "k is 6, and a share of 1 of 5 rows are 5 to fit"),
        (torch.ones(50, 2), {"k": 6, "share": 0.1}, "a share of 0.1 of 50 rows are 5 .* raise"),
        (torch.ones(5, 2), {"k": 0}, "k is 0: give a whole number"),
        (torch.ones(5, 2), {"k": 2, "share": 0}, "share 0: give"),
        (torch.ones(5, 2), {"k": 2, "share": 1.5}, "share 1.5: give"),
        (torch.ones(5, 2), {"k": 2, "iterations": -1}, "iterations are -1"),
        (torch.ones(5, 2), {"k": 2, "start": torch.ones(2, 3)}, r"give \(k, features\), \(2, 2\)"),
        (torch.ones(5, 2), {"k": 1, "start": torch.tensor([[0, np.nan]])}, "centroids hold NaN"),
        (torch.ones(5), {"k": 2}, "give float32 in the shape"),
        (torch.ones(5, 2).double(), {"k": 2}, "give float32 in the shape"),
        (torch.ones(0, 2), {"k": 2}, "give float32 in the shape"),
    ],
)
def test_what_cannot_be_clustered(x, arguments, says):
    with pytest.raises(UsageError, match=says):
        kmeans(x, **arguments)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize("row", [0, 99])
def test_numbers_without_squares(value, row):
    x = noise(100, 3)
    x[row, 1] = value
    with pytest.raises(UsageError, match="hold NaN, infinity"):
        kmeans(x, 5, share=0.1)
