"""Episodes against scikit-learn, closed forms and whole numbers; their sampler by chi-square."""

from __future__ import annotations

import itertools
import tracemalloc
from statistics import NormalDist

import numpy as np
import pytest
import torch
from scipy.stats import chisquare, norm, sem
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid

from featkit.errors import UsageError
from featkit.ops import few_shot
from featkit.ops.few_shot import (
    Episodes,
    StackedRows,
    mean_interval,
    prototype_accuracy,
    sample_episodes,
)

PHI = NormalDist().cdf


def clusters(n, d, classes, spread, seed=0):
    """Rows around random centres (the same for every n), float32, and their classes."""
    rng = np.random.default_rng(seed)
    centres = rng.standard_normal((classes, d))
    labels = rng.permutation(np.arange(n) % classes)
    x = centres[labels] + spread * rng.standard_normal((n, d))
    return x.astype(np.float32), labels


def single(support, queries):
    """One episode over the rows [*support of way 0, 1, …, *queries of way 0, 1, …]."""
    ways, shots, each = len(support), len(support[0]), len(queries[0])
    x = np.array([*itertools.chain(*support), *itertools.chain(*queries)])
    rows = np.arange(len(x))
    episodes = Episodes(
        np.arange(ways)[None],
        rows[: ways * shots].reshape(1, ways, shots),
        rows[ways * shots :].reshape(1, ways, each),
    )
    return x, episodes


@pytest.mark.parametrize(
    ("ways", "shots", "queries", "d"), [(5, 5, 15, 24), (2, 3, 1, 3), (7, 2, 4, 1), (20, 8, 3, 40)]
)
def test_every_episode_against_sklearns_nearest_centroid(ways, shots, queries, d):
    x, labels = clusters(900, d, 20, 1.0)
    y, asked = clusters(700, d, 20, 1.0)
    sizes = {"ways": ways, "shots": shots, "queries": queries, "episodes": 40}
    episodes = sample_episodes(labels, asked, **sizes)
    found = prototype_accuracy(x, y, episodes)
    assert found.shape == (40,)
    assert found.dtype == np.float64
    assert 1 / ways < found.mean() < 1
    for i, (known, rows) in enumerate(zip(episodes.support, episodes.queries, strict=True)):
        peer = NearestCentroid().fit(x[known.ravel()].astype(np.float64), labels[known.ravel()])
        assert found[i] == peer.score(y[rows.ravel()], asked[rows.ravel()])


def test_one_shot_is_sklearns_nearest_neighbour():
    x, labels = clusters(600, 16, 12, 1.5)
    episodes = sample_episodes(labels, shots=1, episodes=30)
    for accuracy, known, rows in zip(
        prototype_accuracy(x, x, episodes), episodes.support, episodes.queries, strict=True
    ):
        peer = KNeighborsClassifier(1).fit(x[known.ravel()], labels[known.ravel()])
        assert accuracy == peer.score(x[rows.ravel()], labels[rows.ravel()])


@pytest.mark.parametrize("shots", [1, 2, 5])
@pytest.mark.parametrize("distance", [0.5, 2.0])
def test_two_gaussians_on_a_line_have_a_known_error(shots, distance):
    """Means ± distance / 2, deviation 1: midpoint and difference of the class means, and the query,
    are independent Gaussians, and a query is right where it lies on the side that the difference
    says."""
    rng = np.random.default_rng(1)
    labels = np.arange(100_000) % 2
    x = rng.standard_normal((100_000, 1)) + (labels[:, None] - 0.5) * distance
    side = PHI(distance / 2 / (1 + 1 / (2 * shots)) ** 0.5)
    order = PHI(distance / (2 / shots) ** 0.5)
    wanted = side * order + (1 - side) * (1 - order)
    episodes = sample_episodes(labels, ways=2, shots=shots, episodes=10_000, generator=2)
    mean, ci95 = mean_interval(prototype_accuracy(x, x, episodes))
    assert ci95 < 0.006
    assert mean == pytest.approx(wanted, abs=1.5 * ci95)


def test_intervals_hold_the_truth_in_95_of_100_cases():
    rng = np.random.default_rng(3)
    labels = np.arange(20_000) % 2
    x = rng.standard_normal((20_000, 1)) + labels[:, None]
    found = prototype_accuracy(x, x, sample_episodes(labels, ways=2, episodes=60_000, generator=4))
    intervals = [mean_interval(part) for part in found.reshape(400, 150)]
    covered = np.mean([abs(mean - found.mean()) < ci95 for mean, ci95 in intervals])
    assert 0.92 < covered < 0.98


def test_separated_clusters_are_never_confused():
    x, labels = clusters(400, 6, 8, 1e-3)
    episodes = sample_episodes(labels, ways=8, shots=1, episodes=100)
    np.testing.assert_array_equal(prototype_accuracy(x, x, episodes), 1)


def test_noise_is_classified_by_chance():
    x = np.random.default_rng(5).standard_normal((2000, 10))
    labels = np.arange(2000) % 25
    mean, ci95 = mean_interval(prototype_accuracy(x, x, sample_episodes(labels)))
    assert 0 < ci95 < 0.01
    assert mean == pytest.approx(1 / 5, abs=ci95)


@pytest.mark.parametrize("value", [0, 0.1, -1e4 / 3, 1e30])
def test_features_that_are_all_alike_give_chance_exactly(value):
    x = np.full((300, 7), value, np.float32)
    found = prototype_accuracy(x, x, sample_episodes(np.arange(300) % 6, ways=6, shots=3))
    np.testing.assert_array_equal(found, 1 / 6)


def test_features_with_many_ties_give_chance():
    x = np.random.default_rng(6).integers(0, 2, (3000, 1))
    episodes = sample_episodes(np.arange(3000) % 10, shots=1, episodes=2000)
    mean, ci95 = mean_interval(prototype_accuracy(x, x, episodes))
    assert mean == pytest.approx(1 / 5, abs=1.5 * ci95)


def test_ties_go_to_the_lowest_way():
    x, episodes = single(
        [[[-3.0]], [[3.0]], [[9.0]]], [[[0.0], [-1.0]], [[0.0], [6.0]], [[6.0]] * 2]
    )
    assert prototype_accuracy(x, x, episodes) == (2 + 1 + 0) / 6
    turned = Episodes(
        *(part[:, ::-1] for part in (episodes.classes, episodes.support, episodes.queries))
    )
    assert prototype_accuracy(x, x, turned) == (2 + 1 + 1) / 6


def exactly_right(x, episodes):
    """Share of right queries by whole numbers of any size: shots² ‖x - p‖² needs no fraction."""
    shares = []
    for known, rows in zip(episodes.support, episodes.queries, strict=True):
        shots = known.shape[1]
        sums = [[sum(int(x[row, k]) for row in way) for k in range(x.shape[1])] for way in known]
        right = 0
        for way, row in [(way, row) for way, asked in enumerate(rows) for row in asked]:
            apart = [
                sum((shots * int(x[row, k]) - p[k]) ** 2 for k in range(x.shape[1])) for p in sums
            ]
            right += apart.index(min(apart)) == way
        shares.append(right / rows.size)
    return np.array(shares)


@pytest.mark.parametrize(
    ("form", "offset"), [(np.float32, 2**23), (np.float64, 2**50), (np.int64, 2**50)]
)
def test_features_with_one_digit_beside_a_large_offset_against_whole_numbers(form, offset):
    rng = np.random.default_rng(7)
    labels = np.arange(400) % 8
    wide = offset + rng.integers(0, 6, (400, 5)) + rng.integers(0, 2, (8, 5))[labels]
    x = wide.astype(form)
    np.testing.assert_array_equal(x.astype(np.int64), wide)
    episodes = sample_episodes(labels, shots=4, queries=5, episodes=30)  # means without rounding
    wanted = exactly_right(wide, episodes)
    assert 0.2 < wanted.mean() < 0.9
    np.testing.assert_array_equal(prototype_accuracy(x, x, episodes), wanted)


@pytest.mark.parametrize("far", [2**20, 2**40])
def test_near_classes_beside_far_ones_against_whole_numbers(far):
    """A product has no digit left for the near ones: their squared distance is 1e-24 of the far."""
    rng = np.random.default_rng(8)
    labels = np.arange(600) % 6
    place = np.array([0, 0, 1, 1, -3, -3])[labels] * far
    wide = place[:, None] + rng.integers(-3, 4, (600, 4)) + np.arange(6)[labels, None]
    x = wide.astype(np.float64)
    episodes = sample_episodes(labels, ways=6, shots=4, queries=5, episodes=30)
    wanted = exactly_right(wide, episodes)
    assert 0.4 < wanted.mean() < 1
    np.testing.assert_array_equal(prototype_accuracy(x, x, episodes), wanted)


def test_a_shift_by_10000_changes_nothing():
    x, labels = clusters(500, 32, 10, 3.0)
    x = np.round(x * 2**7) / 2**7  # so that float32 holds the sum
    shifted = x + np.float32(10_000)
    np.testing.assert_array_equal(shifted - np.float32(10_000), x)
    episodes = sample_episodes(labels, episodes=200)
    wanted = prototype_accuracy(x, x, episodes)
    assert wanted.mean() < 0.9
    np.testing.assert_array_equal(prototype_accuracy(shifted, shifted, episodes), wanted)


def test_rotation_and_scale_change_nothing():
    x, labels = clusters(500, 20, 10, 2.0)
    wide = x.astype(np.float64)
    rotation, _ = np.linalg.qr(np.random.default_rng(9).standard_normal((20, 20)))
    episodes = sample_episodes(labels, episodes=200)
    wanted = prototype_accuracy(x, x, episodes)
    for other in (wide @ rotation, wide * 2.0**-400, wide * 2.0**400):
        np.testing.assert_array_equal(prototype_accuracy(other, other, episodes), wanted)


def test_length_counts():
    x, episodes = single([[[1.0, 0.0]], [[10.0, 0.1]]], [[[2.0, 0.2]], [[8.0, 0.0]]])
    assert prototype_accuracy(x, x, episodes) == 1  # by cosine both would be wrong


def test_permuting_rows_with_their_labels_changes_nothing():
    x, labels = clusters(500, 20, 10, 2.0)
    episodes = sample_episodes(labels, episodes=100)
    order = np.random.default_rng(10).permutation(500)
    place = np.argsort(order)
    moved = Episodes(episodes.classes, place[episodes.support], place[episodes.queries])
    np.testing.assert_array_equal(labels[order][moved.queries], labels[episodes.queries])
    np.testing.assert_array_equal(
        prototype_accuracy(x[order], x[order], moved), prototype_accuracy(x, x, episodes)
    )


@pytest.mark.parametrize("block", [1, 5000, 2**30])
def test_blocks_of_any_size_give_the_same(block, monkeypatch):
    x, labels = clusters(500, 20, 10, 2.0)
    x[:40] = 1  # so that some queries tie
    episodes = sample_episodes(labels, episodes=77)
    wanted = prototype_accuracy(x, x, episodes)
    monkeypatch.setattr(few_shot, "BLOCK_FLOATS", block)
    np.testing.assert_array_equal(prototype_accuracy(x, x, episodes), wanted)


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x.astype(np.float64),
        lambda x: x.astype(">f4"),
        lambda x: x.astype(np.int16),
        lambda x: x.astype(np.float16),
        np.asfortranarray,
        lambda x: np.repeat(x, 2, axis=0)[::2],
        torch.from_numpy,
        lambda x: x.tolist(),
        lambda x: StackedRows((x[:100], x[100:101], x[101:])),
        lambda x: StackedRows((x[:200].astype(np.float16), x[200:])),
    ],
    ids=[
        "float64", "big-endian", "int16", "float16", "fortran", "strided", "tensor", "list",
        "stacked", "stacked forms",
    ],
)  # fmt: skip
def test_the_same_numbers_in_another_form(convert):
    x, labels = clusters(400, 9, 8, 2.0)
    x = np.round(x * 10)
    episodes = sample_episodes(labels, episodes=50)
    wanted = prototype_accuracy(x, x, episodes)
    np.testing.assert_array_equal(prototype_accuracy(convert(x), convert(x), episodes), wanted)


def test_a_read_only_memory_map(tmp_path):
    x, labels = clusters(400, 16, 8, 2.0)
    x.tofile(tmp_path / "x")
    mapped = np.memmap(tmp_path / "x", np.float32, "r", shape=x.shape)
    episodes = sample_episodes(labels, episodes=50)
    np.testing.assert_array_equal(
        prototype_accuracy(mapped, mapped, episodes), prototype_accuracy(x, x, episodes)
    )


@pytest.mark.parametrize("alike", [False, True], ids=["different", "all alike"])
def test_memory_does_not_grow_with_the_episodes(alike):
    x = np.zeros((2000, 1024), np.float32)
    if not alike:
        x += np.random.default_rng(11).standard_normal((2000, 1024), np.float32)
    labels = np.arange(2000) % 20
    episodes = sample_episodes(labels, shots=20, episodes=150)
    assert x[0].nbytes * (episodes.support.size + episodes.queries.size) > 100e6
    tracemalloc.start()
    prototype_accuracy(x, x, episodes)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 26e6


def test_only_rows_of_the_episodes_are_read():
    x, labels = clusters(300, 5, 6, 1.0)
    episodes = sample_episodes(labels, ways=3, shots=2, queries=2, episodes=4)
    unread = np.setdiff1d(np.arange(300), [*episodes.support.ravel(), *episodes.queries.ravel()])
    holes = x.copy()
    holes[unread] = np.nan
    np.testing.assert_array_equal(
        prototype_accuracy(holes, holes, episodes), prototype_accuracy(x, x, episodes)
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("form", [np.float16, np.float32, np.float64])
def test_rows_that_are_not_finite_are_refused(value, form):
    x = clusters(300, 5, 6, 1.0)[0].astype(form)
    episodes = sample_episodes(np.arange(300) % 6, episodes=30)
    for side, name in ((episodes.support, "support"), (episodes.queries, "queries")):
        row = int(side[-1, -1, -1])
        bad = x.copy()
        bad[row, 2] = value
        given = (bad, x) if name == "support" else (x, bad)
        with pytest.raises(UsageError, match=f"row {row} of {name} holds NaN or infinity"):
            prototype_accuracy(*given, episodes)
    stacked = StackedRows((x[:7], bad[7:]))
    with pytest.raises(UsageError, match=f"row {row} of "):
        prototype_accuracy(stacked, stacked, episodes)


@pytest.mark.parametrize("value", [1e151, 1e200, 1e308])
def test_numbers_that_float64_cannot_square_are_refused(value):
    x = np.full((60, 3), value)
    x[::2] *= -1
    with pytest.raises(UsageError, match=r"numbers above 1e\+150: scale them down"):
        prototype_accuracy(x, x, sample_episodes(np.arange(60) % 2, ways=2, episodes=5))


def uniform(outcomes, possible):
    """The p-value of all possible outcomes being equally likely."""
    found, counts = np.unique(outcomes, axis=0, return_counts=True)
    assert {tuple(row) for row in found.tolist()} <= set(possible)
    assert len(outcomes) / len(possible) > 20
    return chisquare([*counts, *[0] * (len(possible) - len(counts))]).pvalue


@pytest.mark.parametrize("seed", range(3))
def test_every_ordered_choice_of_classes_is_equally_likely(seed):
    labels = np.repeat([3, 4, 8, 9, 11], [4, 40, 9, 300, 5])  # whatever their sizes
    for query_labels in (None, labels[::-1]):
        drawn = sample_episodes(
            labels, query_labels, ways=3, shots=1, queries=2, episodes=20_000, generator=seed
        )
        possible = list(itertools.permutations([3, 4, 8, 9, 11], 3))
        assert uniform(drawn.classes, possible) > 0.01


@pytest.mark.parametrize("seed", range(3))
def test_every_ordered_choice_of_rows_is_equally_likely(seed):
    labels = np.array([0, 1, 0, 1, 0, 0, 1, 1, 1, 0])
    sizes = {"ways": 2, "episodes": 10_000, "generator": seed}
    merged = sample_episodes(labels, shots=2, queries=1, **sizes)
    rows = np.concatenate([merged.support, merged.queries], axis=2)
    of_first = rows[merged.classes == 0]
    assert uniform(of_first, list(itertools.permutations([0, 2, 4, 5, 9], 3))) > 0.01
    of_second = rows[merged.classes == 1]
    assert uniform(of_second, list(itertools.permutations([1, 3, 6, 7, 8], 3))) > 0.01
    # the two ways of an episode do not depend on each other, nor the sides
    first, second = of_first[:, 0], of_second[:, 0]
    pairs = list(itertools.product([0, 2, 4, 5, 9], [1, 3, 6, 7, 8]))
    assert uniform(np.stack([first, second], axis=1), pairs) > 0.01
    apart = sample_episodes(labels, np.array([1, 1, 0, 0, 0]), shots=1, queries=2, **sizes)
    rows = np.concatenate([apart.support, apart.queries], axis=2)[apart.classes == 0]
    possible = [(a, *b) for a in [0, 2, 4, 5, 9] for b in itertools.permutations([2, 3, 4], 2)]
    assert uniform(rows, possible) > 0.01


def test_a_class_that_is_just_large_enough_is_taken_whole():
    labels = np.random.default_rng(12).permutation(np.repeat(np.arange(7), 20))
    drawn = sample_episodes(labels, ways=7, episodes=50)
    rows = np.concatenate([drawn.support, drawn.queries], axis=2).reshape(50, -1)
    np.testing.assert_array_equal(np.sort(rows, axis=1), np.tile(np.arange(140), (50, 1)))
    np.testing.assert_array_equal(np.sort(drawn.classes, axis=1), np.tile(np.arange(7), (50, 1)))


@pytest.mark.parametrize("apart", [False, True], ids=["merged", "apart"])
def test_rows_differ_and_have_the_class_of_their_way(apart):
    rng = np.random.default_rng(13)
    labels, others = rng.integers(-1, 12, 900) * 10**15, rng.integers(-1, 12, 700) * 10**15
    drawn = sample_episodes(labels, others if apart else None, shots=9, generator=rng)
    assert drawn.classes.shape == (600, 5)
    assert drawn.support.shape == (600, 5, 9)
    assert drawn.queries.shape == (600, 5, 15)
    assert {part.dtype for part in (drawn.classes, drawn.support, drawn.queries)} == {np.dtype(int)}
    assert drawn.classes.min() >= 0
    assert (np.diff(np.sort(drawn.classes, axis=1), axis=1) > 0).all()
    of_queries = (others if apart else labels)[drawn.queries]
    assert (labels[drawn.support] == drawn.classes[..., None]).all()
    assert (of_queries == drawn.classes[..., None]).all()
    sides = [drawn.support, drawn.queries]
    for rows in sides if apart else [np.concatenate(sides, axis=2)]:
        assert (np.diff(np.sort(rows.reshape(600, -1), axis=1), axis=1) > 0).all()


@pytest.mark.parametrize("apart", [False, True], ids=["merged", "apart"])
def test_fewer_shots_are_the_same_episodes_with_less_support(apart):
    labels = np.random.default_rng(14).integers(0, 9, 900)
    given = (labels, labels[::-1]) if apart else (labels,)
    most = sample_episodes(*given, shots=12)
    for shots in (1, 7, 12):
        fewer, alone = most.with_shots(shots), sample_episodes(*given, shots=shots)
        np.testing.assert_array_equal(fewer.support, alone.support)
        np.testing.assert_array_equal(fewer.queries, alone.queries)
        np.testing.assert_array_equal(fewer.classes, alone.classes)
    with pytest.raises(UsageError, match="shots is 13 and there are 12 of each class"):
        most.with_shots(13)


def test_the_seed_decides():
    labels = np.arange(500) % 10
    one, same = (sample_episodes(labels, generator=7) for _ in range(2))
    np.testing.assert_array_equal(one.queries, same.queries)
    rng = np.random.default_rng(7)
    np.testing.assert_array_equal(sample_episodes(labels, generator=rng).queries, one.queries)
    for other in (sample_episodes(labels, generator=rng), sample_episodes(labels, generator=8)):
        assert (other.queries == one.queries).mean() < 0.1


def test_classes_in_one_table_only_take_no_part():
    labels, others = np.arange(600) % 6, 3 + np.arange(600) % 6
    assert set(np.unique(sample_episodes(labels, others, ways=3).classes)) == {3, 4, 5}
    with pytest.raises(UsageError, match=r"ways is 4, and 3 class\(es\) can be .* from: 3, 4, 5: "):
        sample_episodes(labels, others, ways=4)


NAMES = ["ant", "bee", "cow", "dog", "elk", "fox", "gnu", "hen"]


@pytest.mark.parametrize(
    ("sizes", "others", "message"),
    [
        (
            [20, 19, 30, 3],
            None,
            "2 of 4 classes are too small: bee (19 rows), dog (3 rows); each needs 20 rows, 5 for"
            " support and 15 for queries: lower shots or queries, or give more rows",
        ),
        (
            [20, 4, 30],
            [15, 90, 14],
            "2 of 3 classes are too small: bee (4 support and 90 query rows), cow (30 support and"
            " 14 query rows); each needs 5 support and 15 query rows: lower shots or queries",
        ),
        (
            [1, 2, 3, 4, 5, 6, 7, 20],
            None,
            "7 of 8 classes are too small: ant (1 rows), bee (2 rows), cow (3 rows), dog (4 rows),"
            " elk (5 rows) and 2 more; each needs 20 rows",
        ),
        (
            [50, 0, 50],
            None,
            "ways is 3, and 2 class(es) can be drawn from: ant, cow: lower ways, or give rows of"
            " more classes",
        ),
        ([50, 0], [0, 50], "ways is 3, and 0 class(es) can be drawn from: give rows of more"),
        (
            [12],
            None,
            "ways is 3, and 1 class(es) can be drawn from: ant: give rows of more classes",
        ),
        ([2, 2], [1, 1], "ways is 3, and 2 class(es) can be drawn from: ant, bee: lower ways"),
    ],
)
def test_classes_that_are_too_small_or_too_few(sizes, others, message):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    query_labels = None if others is None else np.repeat(np.arange(len(others)), others)
    with pytest.raises(UsageError) as refused:
        sample_episodes(labels, query_labels, ways=3, names=NAMES)
    assert message in str(refused.value)
    assert "\n" not in str(refused.value)
    with pytest.raises(UsageError) as refused:
        sample_episodes(labels, query_labels, ways=3)
    numbered = message
    for number, name in enumerate(NAMES):
        numbered = numbered.replace(f" {name}", f" {number}")
    assert numbered in str(refused.value)


LABELS = np.arange(200) % 10


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"ways": 1}, "ways is 1, and one class is always guessed: give 2 or more"),
        ({"ways": 0}, "ways is 0: give a whole number, 1 or more"),
        ({"ways": 2.5}, r"ways is 2\.5"),
        ({"ways": 11}, r"ways is 11, and 10 class\(es\)"),
        ({"shots": 0}, "shots is 0"),
        ({"shots": 6}, "10 of 10 classes are too small"),
        ({"queries": 0}, "queries is 0"),
        ({"queries": True}, "queries is True"),
        ({"episodes": 0}, "episodes is 0"),
        ({"labels": LABELS * 1.0}, r"labels are float64 \(200,\): give whole numbers, \(rows\)"),
        ({"labels": LABELS[None]}, r"labels are int64 \(1, 200\)"),
        ({"labels": LABELS.astype(str)}, "labels are <U21"),
        ({"query_labels": LABELS > 3}, r"query_labels are bool \(200,\)"),
        ({"labels": []}, "labels are float64"),
        ({"labels": LABELS - 10}, r"0 class\(es\)"),
    ],
)
def test_what_cannot_be_drawn(arguments, message):
    with pytest.raises(UsageError, match=message):
        sample_episodes(**{"labels": LABELS} | arguments)


GOOD = clusters(200, 4, 10, 1.0)[0]


@pytest.mark.parametrize(
    ("support", "queries", "message"),
    [
        (GOOD[:, :3], GOOD, r"support and queries have \[3, 4\] features: use the same features"),
        (GOOD[0], GOOD, r"support are float32 \(4,\): give real numbers in the shape"),
        (GOOD, GOOD[None], r"queries are float32 \(1, 200, 4\)"),
        (GOOD[:, :0], GOOD[:, :0], r"support are float32 \(200, 0\)"),
        (GOOD, GOOD.astype(complex), "queries are complex128"),
        (GOOD.astype(str), GOOD, "support are <U32"),
        (
            GOOD[:150],
            GOOD,
            r"episodes take rows 0 to 199 of support, which have 150: give the feat",
        ),
        (GOOD, GOOD[:199], r"episodes take rows 0 to 199 of queries, which have 199"),
        (StackedRows((GOOD[:100], GOOD[:50])), GOOD, "of support, which have 150"),
        (StackedRows((GOOD[:100], GOOD[:, :2])), GOOD, r"have \[2, 4\] features"),
    ],
)
def test_what_cannot_be_judged(support, queries, message):
    with pytest.raises(UsageError, match=message):
        prototype_accuracy(support, queries, sample_episodes(LABELS))


ROWS = np.zeros((3, 5, 2), np.int64)


@pytest.mark.parametrize(
    ("classes", "support", "queries"),
    [
        (ROWS[..., 0], ROWS[:, :4], ROWS),
        (ROWS[..., 0], ROWS, ROWS[:2]),
        (ROWS[:, 0, 0], ROWS[:, 0], ROWS[:, 0]),
        (ROWS[:, :1, 0], ROWS[:, :1], ROWS[:, :1]),
        (ROWS[..., 0], ROWS[..., :0], ROWS),
        (ROWS[..., 0], ROWS, ROWS[..., :0]),
        (ROWS[..., 0], ROWS * 1.0, ROWS),
    ],
)
def test_episodes_that_do_not_belong_together(classes, support, queries):
    with pytest.raises(
        UsageError, match=r"episodes of int64 \(.*: give whole numbers, \(episodes, "
    ):
        Episodes(classes, support, queries)


def test_rows_below_0_are_no_rows():
    with pytest.raises(UsageError, match="episodes take rows -1 to 0 of queries, which have 200"):
        prototype_accuracy(GOOD, GOOD, Episodes(ROWS[..., 0], ROWS, ROWS - [0, 1]))


@pytest.mark.parametrize("n", [2, 10, 600])
def test_intervals_against_scipy(n):
    values = np.random.default_rng(n).random(n)
    low, high = norm.interval(0.95, values.mean(), sem(values, ddof=0))
    mean, ci95 = mean_interval(values)
    assert (mean - ci95, mean + ci95) == pytest.approx((low, high), rel=1e-4)


@pytest.mark.parametrize("values", [[], [0.5], [0.5, np.nan], [[0.1, 0.2]], 0.5])
def test_intervals_of_too_little(values):
    with pytest.raises(UsageError, match="give two finite numbers or more"):
        mean_interval(values)
