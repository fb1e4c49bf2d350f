"""Few-shot classification: the nearest of a few class means, over many random episodes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Self, TypeAlias

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.ops.neighbors import Array, Integers, whole_number

Doubles: TypeAlias = npt.NDArray[np.float64]

BLOCK_FLOATS = 2**19  # numbers of queries widened at once: 4 MiB stay in the cache
LARGEST = 1e150  # a length that float64 can square

_NAMED = 5  # classes that a message names


@dataclass(frozen=True, slots=True)
class StackedRows:
    """Tables that count as one, the rows of each after those of the one before; nothing is copied.

    Args:
        parts: Arrays (n_j, d), any real dtype.
    """

    parts: tuple[npt.ArrayLike, ...]


Rows: TypeAlias = npt.ArrayLike | StackedRows


@dataclass(frozen=True, slots=True)
class Episodes:
    """Rows of many small classification problems; :func:`sample_episodes` makes them.

    Args:
        classes: int64 (episodes, ways), the label of each way; they differ within an episode.
        support: int64 (episodes, ways, shots), rows that are known.
        queries: int64 (episodes, ways, queries), rows that are asked for.
    """

    classes: Integers
    support: Integers
    queries: Integers

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        parts = self.classes, self.support, self.queries
        ways, *shapes = (part.shape for part in parts)
        alike = len(ways) == 2 and all(shape[:-1] == ways and shape[-1] for shape in shapes)
        if not alike or ways[1] < 2 or any(part.dtype.kind not in "iu" for part in parts):
            raise UsageError(
                f"episodes of {', '.join(f'{part.dtype} {part.shape}' for part in parts)}: give"
                " whole numbers, (episodes, ways), (episodes, ways, shots) and (episodes, ways,"
                " queries), 2 ways or more"
            )

    def with_shots(self, shots: int) -> Self:
        """Return the same episodes with the first ``shots`` rows of each class as support.

        Raises:
            UsageError: The episodes have fewer.
        """
        most = self.support.shape[2]
        return replace(
            self, support=self.support[..., : whole_number(shots, "shots", most, "of each class")]
        )


def sample_episodes(
    labels: npt.ArrayLike,
    query_labels: npt.ArrayLike | None = None,
    *,
    ways: int = 5,
    shots: int = 5,
    queries: int = 15,
    episodes: int = 600,
    generator: np.random.Generator | int = 0,
    names: Sequence[str] | None = None,
) -> Episodes:
    """Draw episodes: ``ways`` classes, and of each class rows to know and rows to ask for.

    Every ordered choice of different classes is equally likely, whatever their sizes, and so is
    every ordered choice of different rows of a class. Classes are drawn first, then queries, then
    one shot after the other: episodes of fewer shots from an equal generator are the same with
    fewer support rows.

    Args:
        labels: Class of each row, whole numbers (n). Rows of a negative label take no part.
        query_labels: Likewise of the table that queries are taken from, (m); None to take them
            from the rows of ``labels``, disjoint from the support of their episode. Classes that
            are in one table only take no part.
        ways: Classes in an episode, 2 or more.
        shots: Support rows of each.
        queries: Query rows of each.
        episodes: How many.
        generator: A generator, or its seed.
        names: Of the classes 0, 1, …, for messages.

    Returns:
        The episodes; rows of support count in ``labels``, rows of queries in ``query_labels`` where
        it is given.

    Raises:
        UsageError: A class is too small, there are too few classes, or an argument cannot be used.

    Cost: (ways² + (shots + queries)² · ways) · episodes / 2 operations, one sort of the labels;
    memory 24·episodes·ways·(shots + queries) bytes. No loop over episodes.

    Source: few_shot.py of https://github.com/linusericsson/ssl-transfer (Ericsson, Gouk &
    Hospedales 2021, arXiv:2011.13377): 5 ways, 5 shots, 15 queries, 600 episodes; support and
    queries there are drawn from all images of a class, as here without ``query_labels``.

    Example:
        >>> found = sample_episodes([7, 7, 7, 9, 9, 9], ways=2, shots=1, queries=2, episodes=1)
        >>> found.classes.tolist(), found.support.tolist(), found.queries.tolist()
        ([[9, 7]], [[[5], [2]]], [[[4, 3], [1, 0]]])
    """
    ways, shots = whole_number(ways, "ways"), whole_number(shots, "shots")
    queries, episodes = whole_number(queries, "queries"), whole_number(episodes, "episodes")
    if ways < 2:
        raise UsageError("ways is 1, and one class is always guessed: give 2 or more")
    given = [_checked_labels(labels, "labels")]
    if query_labels is not None:
        given.append(_checked_labels(query_labels, "query_labels"))
    present: Integers = reduce(np.intersect1d, [np.unique(side[side >= 0]) for side in given])
    sides = [_rows_by_class(side, present) for side in given]
    if len(present) < ways:
        lower = "lower ways, or " if len(present) > 1 else ""
        raise UsageError(
            f"ways is {ways}, and {len(present)} class(es) can be drawn from"
            f"{_listed(present, names)}: {lower}give rows of more classes"
        )
    _refuse_small_classes(sides, present, shots, queries, names)
    rng = np.random.default_rng(generator)
    drawn = _distinct(np.full(episodes, len(present)), ways, rng)
    if query_labels is None:
        rows = sides[0].draw(drawn, queries + shots, rng)
        asked, known = rows[..., :queries], rows[..., queries:]
    else:
        asked, known = sides[1].draw(drawn, queries, rng), sides[0].draw(drawn, shots, rng)
    return Episodes(present[drawn], known, asked)


def prototype_accuracy(support: Rows, queries: Rows, episodes: Episodes) -> Doubles:
    """Classify the queries of each episode by the nearest class mean.

    ``p_w = mean_s x_ws``; query x goes to ``argmax_w softmax_w(-‖x - p_w‖²) = argmin_w ‖x - p_w‖²``

    Means and distances are float64. A matrix product finds the nearest mean; where another is as
    near within the rounding of the product, the sums of squared differences decide. So features
    that nearly coincide beside a large common offset are ranked by the digits they have. Ties go to
    the way of the lowest index; ways come in random order, so that no class is preferred, and
    features that are all alike give 1 / ways.

    Args:
        support: (n, d), any real dtype, as the network made them: nothing is normalised. Lengths
            are at most 1e150; differences below 1e-150 are lost.
        queries: (m, d); the same object again where both come from one table.
        episodes: Rows of both. Only these are read, so that tables can be mapped into memory.

    Returns:
        Share of the queries that are classified right, float64 (episodes) in [0, 1].

    Raises:
        UsageError: Shapes do not fit, or a row of an episode is not finite.

    Cost: 2·episodes·ways²·queries·d operations, and the reading of episodes·ways·(shots + queries)
    rows. Memory: some 25 MiB, or five times the queries of one episode in float64 if that is more.

    Source: Snell, Swersky & Zemel 2017, arXiv:1703.05175, eq. 1 and 2.

    Example:
        >>> x, labels = np.array([[0.0], [0.2], [0.1], [5.0], [5.1], [0.3]]), [0, 0, 0, 1, 1, 1]
        >>> prototype_accuracy(x, x, sample_episodes(labels, ways=2, shots=2, queries=1))[:4]
        array([1. , 1. , 1. , 0.5])
    """
    known, asked = _tables(support, "support"), _tables(queries, "queries")
    d = known[0].shape[1]
    widths = sorted({part.shape[1] for part in (*known, *asked)})
    if len(widths) > 1:
        raise UsageError(f"support and queries have {widths} features: use the same features")
    _check_rows(episodes.support, known, "support")
    _check_rows(episodes.queries, asked, "queries")
    count, ways, each = episodes.queries.shape
    accuracies = np.empty(count)
    step = max(1, BLOCK_FLOATS // (ways * each * d))
    for start in range(0, count, step):
        part = slice(start, start + step)
        rows = episodes.queries[part].reshape(-1, ways * each)
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            means = _class_means(known, episodes.support[part])
            nearest, finite = _nearest(_take(asked, rows), means)
        if not finite:
            _refuse_rows(known, episodes.support[part], "support")
            _refuse_rows(asked, rows, "queries")
            raise UsageError(f"features hold numbers above {LARGEST:g}: scale them down")
        right = nearest.reshape(-1, ways, each) == np.arange(ways)[:, None]
        accuracies[part] = right.mean(axis=(1, 2))
    return accuracies


def mean_interval(values: npt.ArrayLike) -> tuple[float, float]:
    """Return the mean and the half-width of its 95 % interval over episodes.

    ``1.96 σ / √n``, ``σ² = Σ (v - mean)² / n`` (numpy's ``std``, ``ddof=0``, as in the source).

    It says how far another draw of episodes from the same rows would be, not how far other rows.

    Args:
        values: Of each episode, (n), n ≥ 2, finite.

    Returns:
        Mean and half-width.

    Raises:
        UsageError: These are not two finite numbers or more.

    Source: few_shot.py of https://github.com/linusericsson/ssl-transfer.

    Example:
        >>> mean_interval([0.0, 1.0, 0.0, 1.0])
        (0.5, 0.49)
    """
    array = np.asarray(values, np.float64)
    if array.ndim != 1 or len(array) < 2 or not np.isfinite(array).all():
        raise UsageError(f"interval of values {array.shape}: give two finite numbers or more, (n)")
    return float(array.mean()), float(1.96 * array.std() / len(array) ** 0.5)


@dataclass(frozen=True, slots=True)
class _RowsByClass:
    """Rows sorted by class; those of class i are ``rows[starts[i] : starts[i] + sizes[i]]``."""

    rows: Integers
    starts: Integers
    sizes: Integers

    def draw(self, classes: Integers, count: int, generator: np.random.Generator) -> Integers:
        """Draw different rows of each class, (*classes.shape, count)."""
        places = _distinct(self.sizes[classes], count, generator)
        drawn: Integers = self.rows[self.starts[classes][..., None] + places]
        return drawn


def _rows_by_class(labels: Integers, classes: Integers) -> _RowsByClass:
    rows = np.argsort(labels, kind="stable")
    starts = np.searchsorted(labels, classes, "left", sorter=rows)
    ends = np.searchsorted(labels, classes, "right", sorter=rows)
    return _RowsByClass(rows, starts, ends - starts)


def _distinct(sizes: Integers, count: int, generator: np.random.Generator) -> Integers:
    """Draw ``count`` different numbers below each size, (*sizes.shape, count).

    The start of a Fisher-Yates shuffle of 0, 1, …, which is never written down: what stands at a
    place is found by going back over the swaps.
    """
    swaps = np.empty((count, *sizes.shape), np.int64)
    drawn = np.empty((*sizes.shape, count), np.int64)
    for i in range(count):
        swaps[i] = generator.integers(i, sizes)
        place = swaps[i]
        for j in range(i - 1, -1, -1):
            place = np.where(swaps[j] == place, j, place)
        drawn[..., i] = place
    return drawn


def _checked_labels(labels: npt.ArrayLike, name: str) -> Integers:
    array = np.asarray(labels)
    if array.ndim != 1 or array.dtype.kind not in "iu":
        raise UsageError(f"{name} are {array.dtype} {array.shape}: give whole numbers, (rows)")
    return array.astype(np.int64)


def _refuse_small_classes(
    sides: Sequence[_RowsByClass],
    classes: Integers,
    shots: int,
    queries: int,
    names: Sequence[str] | None,
) -> None:
    sizes = np.stack([side.sizes for side in sides], axis=1)
    needed = [shots + queries] if len(sides) == 1 else [shots, queries]
    small = (sizes < needed).any(axis=1)
    if not small.any():
        return
    if len(sides) == 1:
        has = [f"{n} rows" for n in sizes[small, 0].tolist()]
        needs = f"{shots + queries} rows, {shots} for support and {queries} for queries"
    else:
        has = [f"{n} support and {m} query rows" for n, m in sizes[small].tolist()]
        needs = f"{shots} support and {queries} query rows"
    raise UsageError(
        f"{small.sum()} of {len(classes)} classes are too small"
        f"{_listed(classes[small], names, has)}; each needs {needs}: lower shots or queries,"
        " or give more rows"
    )


def _listed(
    classes: Integers, names: Sequence[str] | None, has: Sequence[str] | None = None
) -> str:
    """Return ``: ant (3 rows), bee (4 rows) and 7 more``; nothing of no classes."""
    known = names or ()
    called = [
        known[label] if label < len(known) else str(label) for label in classes[:_NAMED].tolist()
    ]
    if has is not None:
        called = [f"{name} ({size})" for name, size in zip(called, has, strict=False)]
    more = f" and {len(classes) - _NAMED} more" if len(classes) > _NAMED else ""
    return f": {', '.join(called)}{more}" if called else ""


def _tables(x: Rows, name: str) -> list[Array]:
    given = x.parts if isinstance(x, StackedRows) else (x,)
    tables = [np.asarray(part) for part in given]
    for table in tables:
        if table.ndim != 2 or table.dtype.kind not in "biuf" or not table.shape[1]:
            raise UsageError(
                f"{name} are {table.dtype} {table.shape}: give real numbers in the shape"
                " (rows, features)"
            )
    return tables


def _check_rows(rows: Integers, tables: Sequence[Array], name: str) -> None:
    n = sum(map(len, tables))
    if rows.size and not 0 <= rows.min() <= rows.max() < n:
        raise UsageError(
            f"episodes take rows {rows.min()} to {rows.max()} of {name}, which have {n}: give the"
            " features whose labels the episodes were drawn from"
        )


def _take(tables: Sequence[Array], rows: Integers) -> Array:
    """Return rows of all tables as one, (*rows.shape, d)."""
    if len(tables) == 1:
        return tables[0].take(rows, axis=0)
    taken = np.empty((*rows.shape, tables[0].shape[1]), np.result_type(*tables))
    start = 0
    for table in tables:
        inside = (rows >= start) & (rows < start + len(table))
        taken[inside] = table[rows[inside] - start]
        start += len(table)
    return taken


def _class_means(tables: Sequence[Array], rows: Integers) -> Doubles:
    """Return the means of rows (b, ways, shots), (b, ways, d)."""
    shots = rows.shape[2]
    total = _take(tables, rows[..., 0]).astype(np.float64)
    for shot in range(1, shots):
        total += _take(tables, rows[..., shot])
    total /= shots
    return total


def _nearest(queries: Array, means: Doubles) -> tuple[Integers, bool]:
    """Return the nearest of means (b, ways, d) to queries (b, m, d), and whether all is finite."""
    x = queries.astype(np.float64)
    lengths, squares = np.sqrt(_squares(x)), _squares(means)
    longest = np.sqrt(squares.max(axis=1, keepdims=True))
    if not ((lengths < LARGEST).all() and (longest < LARGEST).all()):
        return np.zeros(lengths.shape, np.int64), False
    closeness = x @ means.transpose(0, 2, 1) - squares[:, None] / 2  # (‖x‖² - ‖x - p‖²) / 2
    nearest = closeness.argmax(axis=2)
    best = np.partition(closeness, -2, axis=2)
    # what two of these sums of d products can be off by
    rounding = (x.shape[2] + 8) * np.finfo(np.float64).eps * longest * (lengths + longest)
    unsure = best[..., -1] - best[..., -2] <= rounding
    if unsure.any():
        episode, query = np.nonzero(unsure)
        rows = x[episode, query]
        distances = [_squares(rows - means[episode, way]) for way in range(means.shape[1])]
        nearest[unsure] = np.argmin(distances, axis=0)
    return nearest, True


def _squares(x: Doubles) -> Doubles:
    squares: Doubles = np.einsum("...d,...d->...", x, x)
    return squares


def _refuse_rows(tables: Sequence[Array], rows: Integers, name: str) -> None:
    """Raise UsageError if one of the rows is not finite."""
    flat = np.unique(rows)
    bad = flat[~np.isfinite(_take(tables, flat)).all(axis=1)]
    if len(bad):
        raise UsageError(
            f"row {bad[0]} of {name} holds NaN or infinity, and an episode takes it: give such"
            " rows the label -1"
        )
