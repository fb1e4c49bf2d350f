"""Adam on touched rows against ``torch.optim.Adam`` over the whole matrix, or over each row."""

from __future__ import annotations

import time

import pytest
import torch
from torch.nn import functional

from featkit.ops.row_adam import AdamSettings, RowAdam

FAST = AdamSettings(lr=1e-2)


def problem(n, w=16, dtype=torch.float64, seed=0):
    """Rows, and the directions that they are to take."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(2, n, w, generator=generator, dtype=torch.float64).to(dtype)


def epochs(n, batch, count, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [
        part for _ in range(count) for part in torch.randperm(n, generator=generator).split(batch)
    ]


def slope(values, targets):
    x = values.clone().requires_grad_()
    (1 - functional.cosine_similarity(x, targets)).mean().backward()
    return x.grad


def train(adam, targets, batches, slope=slope):
    for index in batches:
        values = adam.read(index)
        adam.step(index, values, slope(values, targets[index]))
    return adam


def trained(rows, targets, batches, settings=FAST, slope=slope, **options):
    adam = train(RowAdam(rows.clone(), settings, **options), targets, batches, slope)
    adam.flush()
    return adam.rows, adam.first, adam.second


def torch_adam(rows, settings):
    options = {"lr": settings.lr, "betas": settings.betas, "eps": settings.eps}
    return torch.optim.Adam([rows], **options, foreach=False)


def torch_trained(rows, targets, batches, settings=FAST, slope=slope):
    """Every row takes every step; those outside of the batch have a gradient of zero."""
    rows = rows.clone()
    oracle = torch_adam(rows, settings)
    rows.grad = torch.zeros_like(rows)
    for index in batches:
        rows.grad.zero_()
        rows.grad[index] = slope(rows[index], targets[index])
        oracle.step()
    return rows, oracle.state[rows]["exp_avg"], oracle.state[rows]["exp_avg_sq"]


def error(ours, theirs):
    return float((ours - theirs).norm() / theirs.norm())


def assert_close(ours, theirs, tolerance):
    """Rows, first and second moments."""
    assert max(map(error, ours, theirs)) < tolerance


def cosine(rows, targets):
    return functional.cosine_similarity(rows, targets).mean()


@pytest.mark.parametrize(
    "settings",
    [
        AdamSettings(),
        FAST,
        AdamSettings(1e-2, (0.8, 0.99), 1e-3),
        AdamSettings(1e-2, (0.0, 0.9999), 1e-6),
    ],
    ids=repr,
)
def test_training_in_float32_against_torch(settings):
    rows, targets = problem(2000, dtype=torch.float32)
    batches = epochs(2000, 64, 8)
    ours = trained(rows, targets, batches, settings)
    assert_close(ours, torch_trained(rows, targets, batches, settings), 1e-5)
    assert cosine(ours[0], targets) > cosine(rows, targets)


def test_the_first_steps_in_float64_are_exact():
    rows, targets = problem(400)
    batches = epochs(400, 8, 4)  # 200 steps, idle spans of up to 99
    ours = trained(rows, targets, batches)
    assert_close(ours, torch_trained(rows, targets, batches), 1e-13)


@pytest.mark.parametrize(
    ("settings", "tolerance"),
    [
        (FAST, 1e-7),
        (AdamSettings(1e-2, (0.8, 0.99), 1e-6), 2e-6),
    ],
    ids=repr,
)
def test_long_idle_spans_in_float64_against_torch(settings, tolerance):
    rows, targets = problem(1000)
    batches = epochs(1000, 4, 4)  # 250 steps an epoch, idle spans of up to 499
    ours = trained(rows, targets, batches, settings)
    assert_close(ours, torch_trained(rows, targets, batches, settings), tolerance)
    assert cosine(ours[0], targets) > cosine(rows, targets) + 0.1


@pytest.mark.parametrize(("before", "tolerance"), [(0, 1e-8), (250, 2e-7)])
def test_one_row_that_is_idle_for_ever_longer(before, tolerance):
    start, targets = problem(3)
    index = torch.tensor([1])
    adam, rows = RowAdam(start.clone(), FAST), start.clone()
    oracle = torch_adam(rows, FAST)
    rows.grad = torch.zeros_like(rows)
    for count in (before, 0, 1, 5, 150, 400, 3000):
        adam.skip(count)
        for _ in range(count):
            oracle.step()
        assert error(adam.read(index), rows[index]) < tolerance
        train(adam, targets, [index])
        rows.grad[index] = slope(rows[index], targets[index])
        oracle.step()
        rows.grad.zero_()
    assert adam.steps == before + 3556 + 7
    adam.flush()
    assert torch.equal(adam.rows[[0, 2]], start[[0, 2]])
    assert adam.last.tolist() == [0, adam.steps, 0]


@pytest.mark.parametrize("rule", ["dense", "row"])
def test_rows_without_gradient_or_never_touched_stay_as_they_were(rule):
    def some(values, targets):
        return slope(values, targets) * (targets[:, :1] > 0)

    rows, targets = problem(500, dtype=torch.float32)
    batches = [index[index < 250] for index in epochs(500, 16, 12)]
    ours = trained(rows, targets, batches, slope=some, rule=rule)
    still = (targets[:, 0] <= 0) | (torch.arange(500) >= 250)
    assert torch.equal(ours[0][still], rows[still])
    assert not ours[1][still].any()
    assert not ours[2][still].any()
    assert (ours[0][~still] != rows[~still]).all()
    if rule == "dense":
        assert_close(ours, torch_trained(rows, targets, batches, slope=some), 1e-5)


def test_a_gradient_that_vanishes_for_a_while():
    def rare(values, targets):
        return slope(values, targets) * (torch.arange(len(values)) % 3 == 0)[:, None]

    rows, targets = problem(300)
    batches = epochs(300, 15, 10)
    ours = trained(rows, targets, batches, slope=rare)
    assert_close(ours, torch_trained(rows, targets, batches, slope=rare), 1e-13)


@pytest.mark.parametrize(("count", "tolerance"), [(3, 1e-13), (9, 1e-7)])
def test_a_flush_on_the_way_changes_nothing_later(count, tolerance):
    rows, targets = problem(480)
    batches = epochs(480, 8, count)
    adam = RowAdam(rows.clone(), FAST)
    for i, index in enumerate(batches):
        train(adam, targets, [index])
        if i % 37 == 0:
            adam.flush(block=100)
    adam.flush()
    flushed = adam.rows, adam.first, adam.second
    assert_close(flushed, trained(rows, targets, batches), tolerance)
    again = [x.clone() for x in flushed]
    adam.flush(block=7)
    assert all(map(torch.equal, again, flushed))


def test_reading_is_no_step_and_reading_twice_gives_the_same():
    rows, targets = problem(600, dtype=torch.float32)
    adam = train(RowAdam(rows, FAST), targets, epochs(600, 6, 3)[:250])
    index = torch.randperm(600, generator=torch.Generator().manual_seed(2))[:100]
    before = rows[index].clone()
    found = adam.read(index)
    moments = adam.first.clone(), adam.second.clone()
    assert not torch.equal(found, before)
    assert torch.equal(found, adam.read(index))
    assert torch.equal(found, rows[index])
    assert all(map(torch.equal, moments, (adam.first, adam.second)))
    assert adam.steps == 250
    found.zero_()
    assert rows[index].all()


def test_a_step_writes_the_values_and_the_rows():
    rows, targets = problem(20)
    adam = RowAdam(rows, FAST)
    index = torch.tensor([7, 3])
    values = adam.read(index)
    before = values.clone()
    adam.step(index, values, slope(values, targets[index]))
    assert not torch.equal(values, before)
    assert torch.equal(values, rows[index])
    assert torch.equal(values, adam.read(index))


@pytest.mark.parametrize("settings", [FAST, AdamSettings(1e-2, (0.95, 0.9), 1e-3)], ids=repr)
def test_each_row_by_itself_against_torch(settings):
    rows, targets = problem(60)
    adam = RowAdam(rows.clone(), settings, rule="row")
    alone = [row.clone() for row in rows]
    oracles = [torch_adam(row, settings) for row in alone]
    batches = [index[index % 7 > 0] for index in epochs(60, 5, 10)] + [torch.tensor([4])] * 50
    for index in batches:
        before = adam.rows.clone()
        gradient = slope(adam.read(index), targets[index])
        adam.step(index, adam.read(index), gradient)
        adam.skip(3)
        for i, row in zip(index.tolist(), gradient, strict=True):
            alone[i].grad = row
            oracles[i].step()
        idle = torch.ones(60, dtype=bool).index_fill(0, index, 0)
        assert torch.equal(adam.rows[idle], before[idle])
    adam.flush()
    assert error(adam.rows, torch.stack(alone)) < 1e-14
    assert torch.equal(adam.last, torch.bincount(torch.cat(batches), minlength=60))


@pytest.mark.parametrize("rule", ["dense", "row"])
def test_a_bound_holds_after_every_step(rule):
    """As clamping the whole bank after each of torch's steps: idle rows move one way."""
    rows, targets = problem(60, dtype=torch.float64)
    bounded = RowAdam(rows.clone().clamp_(min=0), FAST, rule, least=0.0)
    whole = torch.nn.Parameter(rows.clone().clamp_(min=0))
    optimizer = torch.optim.Adam([whole], lr=FAST.lr)
    for index in epochs(60, 6, 8):
        values = bounded.read(index)
        assert values.min() >= 0
        bounded.step(index, values, values - targets[index])
        if rule == "dense":
            whole.grad = torch.zeros_like(whole)
            whole.grad[index] = whole.detach()[index] - targets[index]
            optimizer.step()
            whole.data.clamp_(min=0)
    bounded.flush()
    assert bounded.rows.min() == 0
    if rule == "dense":
        assert error(bounded.rows, whole.detach()) < 1e-12


@pytest.mark.parametrize(
    "settings",
    [
        AdamSettings(betas=(0.98, 0.999)),
        AdamSettings(betas=(0.9, 0.95)),
        AdamSettings(betas=(0.0, 0.999)),
    ],
    ids=["long momentum", "short variance", "no momentum"],
)
def test_constants_of_every_kind(settings):
    rows, targets = problem(600)
    batches = epochs(600, 2, 3)
    wanted = torch_trained(rows, targets, batches, settings)
    assert_close(trained(rows, targets, batches, settings), wanted, 1e-7)


def test_without_epsilon_rows_that_were_not_touched_stay():
    """Torch divides 0 by 0 there."""
    rows, targets = problem(600)
    found = trained(rows, targets, epochs(600, 2, 3), AdamSettings(eps=0.0))
    assert all(x.isfinite().all() for x in found)


def test_a_step_costs_what_its_rows_cost():
    def scattered(n):
        """The same training of 2000 rows, with idle ones between them."""
        chosen = torch.randperm(n, generator=torch.Generator().manual_seed(3))[:2000]
        adam = RowAdam(torch.linspace(-1, 1, 8).repeat(n, 1), FAST)
        adam.skip(1000)
        return adam, chosen, [chosen[part] for part in epochs(2000, 64, 5)[:150]]

    def seconds(adam, batches):
        start = time.perf_counter()
        train(adam, targets, batches)
        return time.perf_counter() - start

    targets = torch.ones(1, 8).expand(1_000_000, 8)
    banks = [scattered(n) for n in (10_000, 1_000_000)]
    before = [adam.rows.clone() for adam, _, _ in banks]
    times = [[seconds(adam, batches) for adam, _, batches in banks] for _ in range(3)]
    few, many = map(min, zip(*times, strict=True))
    assert many < 3 * few
    for (adam, chosen, _), was in zip(banks, before, strict=True):
        idle = torch.ones(len(was), dtype=bool).index_fill(0, chosen, 0)
        assert torch.equal(adam.rows[idle], was[idle])
        assert not adam.first[idle].any()
        assert not adam.second[idle].any()
        assert not adam.last[idle].any()
        assert (adam.rows[chosen] != was[chosen]).any(1).all()
