"""Linear evaluation against torch's own optimiser step by step, and scikit-learn's optimum."""

from __future__ import annotations

import math
import pickle

import numpy as np
import pytest
import torch
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.linear_model import LogisticRegression
from sklearn.utils.estimator_checks import check_estimator
from torch.nn import functional

from featkit.errors import UsageError
from featkit.ops.linear_classifier import LinearEvaluation, train_softmax

DECAYS = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2)


def blobs(n, d=6, c=4, spread=1.0, seed=0):
    """Gaussians that overlap, about means drawn once."""
    means = np.random.default_rng(123).standard_normal((c, d))
    rng = np.random.default_rng(seed)
    y = rng.integers(c, size=n)
    x = means[y] + spread * rng.standard_normal((n, d))
    return x.astype(np.float32), y


def by_torch(x, y, rows, c, decay, epochs, batch_size, lr, generator):
    """One logistic regression by automatic differentiation and torch.optim."""
    layer = torch.nn.Linear(x.shape[1], c)
    torch.nn.init.zeros_(layer.weight)
    torch.nn.init.zeros_(layer.bias)
    groups = [
        {"params": [layer.weight], "weight_decay": decay},
        {"params": [layer.bias], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.SGD(groups, lr=lr, momentum=0.9, nesterov=True)
    steps = epochs * math.ceil(len(rows) / batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, T_max=steps)
    for _ in range(epochs):
        order = torch.randperm(len(rows), generator=generator)
        for start in range(0, len(rows), batch_size):
            batch = rows[order[start : start + batch_size]]
            optimiser.zero_grad()
            functional.cross_entropy(layer(x[batch]), y[batch]).backward()
            optimiser.step()
            schedule.step()
    return layer.weight.detach(), layer.bias.detach()


@pytest.mark.parametrize(
    ("batch_size", "epochs", "lr"),
    [
        (64, 4, 0.5),  # 3 steps an epoch and a smaller one
        (230, 6, 1.6),  # all rows in one step
        (4096, 6, 1.6),
        (1, 1, 0.1),
        (115, 3, 1.6),  # no smaller step
    ],
)
def test_every_weight_decay_goes_the_way_of_torch(batch_size, epochs, lr):
    x, y = map(torch.from_numpy, blobs(300))
    rows = torch.randperm(300, generator=torch.Generator().manual_seed(9))[:230]
    decays = [0.0, *DECAYS, 0.1]
    weights, biases = train_softmax(
        x,
        y,
        rows,
        4,
        decays,
        epochs=epochs,
        batch_size=batch_size,
        lr=lr,
        generator=torch.Generator().manual_seed(5),
    )
    assert weights.shape == (7, 4, 6)
    assert biases.shape == (7, 4)
    for q, decay in enumerate(decays):
        generator = torch.Generator().manual_seed(5)
        weight, bias = by_torch(x, y, rows, 4, decay, epochs, batch_size, lr, generator)
        torch.testing.assert_close(weights[q], weight, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(biases[q], bias, rtol=1e-5, atol=1e-5)
    assert (weights[0] - weights[-1]).norm() > 0.01 * weights[0].norm()


def test_fit_draws_and_trains_as_documented():
    x, y = blobs(205)
    model = LinearEvaluation(5, 64, 0.3, DECAYS, validation=0.2, random_state=7).fit(x, y)
    features, labels = torch.from_numpy(x), torch.from_numpy(y)
    drawn = torch.randperm(205, generator=torch.Generator().manual_seed(7))
    held_out, kept = drawn[:41], drawn[41:]
    right = []
    for decay in DECAYS:
        generator = torch.Generator().manual_seed(7)
        torch.randperm(205, generator=generator)
        weight, bias = by_torch(features, labels, kept, 4, decay, 5, 64, 0.3, generator)
        found = (features[held_out] @ weight.T + bias).argmax(1)
        right.append((found == labels[held_out]).double().mean().item())
    np.testing.assert_allclose(model.validation_accuracy_, right, rtol=1e-12)
    assert model.weight_decay_ == DECAYS[int(np.argmax(right))]
    weight, bias = by_torch(
        features, labels, torch.arange(205), 4, model.weight_decay_, 5, 64, 0.3, generator
    )
    np.testing.assert_allclose(model.coef_, weight, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(model.intercept_, bias, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decay", [1e-3, 1e-2, 0.1])
def test_converges_to_the_optimum_of_scikit_learn(decay):
    x, y = blobs(300)
    model = LinearEvaluation(2000, 300, 1.0, [decay], random_state=1).fit(x, y)
    wanted = LogisticRegression(C=1 / (decay * 300), tol=1e-10, max_iter=5000).fit(
        x.astype(np.float64), y
    )
    np.testing.assert_allclose(model.coef_, wanted.coef_, atol=2e-4)
    centred = [v - v.mean() for v in (model.intercept_, wanted.intercept_)]
    np.testing.assert_allclose(*centred, atol=2e-4)
    new, _ = blobs(500, seed=1)
    np.testing.assert_array_equal(model.predict(new), wanted.predict(new))


def held_out_accuracies(x, y, decays, validation, seed):
    """What scikit-learn's optimum gets on the same split."""
    drawn = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).numpy()
    m = round(validation * len(x))
    held_out, kept = drawn[:m], drawn[m:]
    return [
        LogisticRegression(C=1 / (decay * len(kept)), tol=1e-8, max_iter=5000)
        .fit(x[kept], y[kept])
        .score(x[held_out], y[held_out])
        for decay in decays
    ]


def noisy(n=240, d=100):
    """Two features that tell and many that do not: without weight decay these are learnt, too."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=n)
    x = rng.standard_normal((n, d))
    x[:, :2] += 0.8 * (2 * y[:, None] - 1)
    return x.astype(np.float32), y


def unbalanced(n=240):
    """Nine of ten are of one class, and only features of small size tell: decay loses them."""
    rng = np.random.default_rng(0)
    y = (rng.random(n) < 0.25).astype(int)
    return (0.3 * rng.standard_normal((n, 3)) + y[:, None]).astype(np.float32), y


@pytest.mark.parametrize(
    ("case", "decays", "best"), [(noisy, [1e-2, 0.5], 1), (unbalanced, [1e-3, 0.9], 0)]
)
@pytest.mark.parametrize("turned", [False, True])
def test_chooses_the_weight_decay_that_generalises(case, decays, best, turned):
    x, y = case()
    step = -1 if turned else 1
    model = LinearEvaluation(800, 500, 1.0, decays[::step], validation=0.4, random_state=3)
    model.fit(x, y)
    wanted = held_out_accuracies(x, y, decays, 0.4, 3)
    assert wanted[best] > wanted[1 - best] + 0.03
    np.testing.assert_allclose(model.validation_accuracy_[::step], wanted, atol=0.011)
    assert model.weight_decay_ == decays[best]


def test_of_equally_accurate_weight_decays_the_first_is_taken():
    x = np.float32([[-5], [5]] * 20)
    model = LinearEvaluation(20, weight_decays=(1e-3, 1e-5, 1e-4)).fit(x, [0, 1] * 20)
    np.testing.assert_array_equal(model.validation_accuracy_, [1, 1, 1])
    assert model.weight_decay_ == 1e-3


def test_accuracy_is_counted_over_many_blocks(monkeypatch):
    x, y = blobs(200)
    model = LinearEvaluation(10, validation=0.45)
    whole = model.fit(x, y).validation_accuracy_
    monkeypatch.setattr("featkit.ops.linear_classifier.BLOCK", 7)
    np.testing.assert_array_equal(model.fit(x, y).validation_accuracy_, whole)


def test_labels_of_any_kind():
    x, y = blobs(400, spread=0.3)
    new, wanted = blobs(100, spread=0.3, seed=1)
    plain = LinearEvaluation(30).fit(x, y)
    assert plain.score(new, wanted) > 0.9
    for names in (np.array(["dog", "cat", "owl", "ant"]), np.array([7, -3, 100, 40])):
        model = LinearEvaluation(30).fit(x, names[y])
        np.testing.assert_array_equal(model.classes_, sorted(names))
        assert model.predict(new).dtype == names.dtype
        np.testing.assert_array_equal(model.predict(new), names[plain.predict(new)])


def test_rows_of_any_kind(tmp_path):
    x, y = blobs(120)
    wanted = LinearEvaluation(10).fit(x, y)
    assert wanted.coef_.dtype == wanted.intercept_.dtype == np.float32
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    before = x.copy()
    for kind in (mapped, np.asfortranarray(x), x.astype(np.float64), x.tolist(), torch.tensor(x)):
        found = LinearEvaluation(10).fit(kind, y)
        np.testing.assert_array_equal(found.coef_, wanted.coef_)
        np.testing.assert_array_equal(found.predict(kind), wanted.predict(x))
    np.testing.assert_array_equal(x, before)
    half = x.astype(np.float16)
    np.testing.assert_array_equal(
        LinearEvaluation(10).fit(half, y).coef_,
        LinearEvaluation(10).fit(half.astype(np.float32), y).coef_,
    )


def test_a_seed_gives_the_same_and_another_seed_another():
    x, y = blobs(120)
    one, again, other = (
        LinearEvaluation(3, 32, 0.1, random_state=s).fit(x, y).coef_ for s in (0, 0, 1)
    )
    np.testing.assert_array_equal(one, again)
    assert (one != other).any()


def test_a_class_that_only_the_held_out_rows_have():
    drawn = torch.randperm(20, generator=torch.Generator().manual_seed(0))
    y = np.tile([0, 1], 10)
    y[drawn[0]] = 2
    x = np.eye(3, dtype=np.float32)[y]
    model = LinearEvaluation(50).fit(x, y)
    held_out = y[drawn[:2]]
    np.testing.assert_allclose(model.validation_accuracy_, (held_out < 2).mean())
    assert model.coef_.shape == (3, 3)


def test_a_diverged_training_is_not_chosen():
    x, y = blobs(200)
    model = LinearEvaluation(400, weight_decays=(1e4, 1e-3)).fit(x, y)
    alone = LinearEvaluation(400, weight_decays=(1e-3,)).fit(x, y)
    assert model.validation_accuracy_[0] == 0
    np.testing.assert_array_equal(model.validation_accuracy_[1:], alone.validation_accuracy_)
    assert model.validation_accuracy_[1] > 0.5
    assert model.weight_decay_ == 1e-3
    np.testing.assert_allclose(model.coef_, alone.coef_, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("decays", [(1e4,), (1e3, 1e5)])
def test_where_all_diverge_it_says_so(decays):
    x, y = blobs(60)
    with pytest.raises(UsageError, match=r"diverged with lr 1.6 .*: lower lr"):
        LinearEvaluation(400, weight_decays=decays).fit(x, y)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"epochs": 0}, "epochs is 0"),
        ({"batch_size": 2.5}, "batch_size is 2.5"),
        ({"lr": 0}, "lr is 0"),
        ({"lr": math.inf}, "lr is inf"),
        ({"validation": 0}, "validation is 0, which holds out 0 of 40"),
        ({"validation": 1.5}, "validation is 1.5, which holds out 60 of 40"),
        ({"validation": 0.01}, "holds out 0 of 40"),
        ({"validation": 0.99}, "holds out 40 of 40"),
        ({"validation": -0.5}, "holds out -20 of 40"),
        ({"weight_decays": ()}, "weight_decays are"),
        ({"weight_decays": (1e-3, -1e-3)}, "weight_decays are"),
        ({"weight_decays": (math.inf,)}, "weight_decays are"),
        ({"weight_decays": (math.nan,)}, "weight_decays are"),
        ({"random_state": None}, "random_state is None"),
    ],
)
def test_parameters_that_cannot_be_used(parameters, message):
    x, y = blobs(40)
    with pytest.raises(UsageError, match=message) as error:
        LinearEvaluation(**{"epochs": 2, **parameters}).fit(x, y)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("x", "y"),
    [
        (np.ones(5), np.zeros(5)),
        (np.ones((10, 2)), np.zeros(9)),
        (np.full((10, 2), np.nan), np.zeros(10)),
        (np.full((10, 2), np.inf), np.zeros(10)),
        (np.ones((10, 2)), np.linspace(0, 1, 10)),
        (np.ones((10, 0)), np.zeros(10)),
        (np.ones((1, 2)), np.zeros(1)),
    ],
)
def test_rows_and_labels_that_cannot_be_used(x, y):
    with pytest.raises(UsageError) as error:
        LinearEvaluation(2).fit(x, y)
    assert "\n" not in str(error.value)


def test_predicting_what_cannot_be_predicted():
    x, y = blobs(40)
    with pytest.raises(NotFittedError):
        LinearEvaluation().predict(x)
    model = LinearEvaluation(2).fit(x, y)
    with pytest.raises(UsageError, match="5 features"):
        model.predict(x[:, :5])


def test_is_a_scikit_learn_estimator():
    estimator = LinearEvaluation(epochs=60, batch_size=512, lr=0.5, weight_decays=(1e-4, 1e-2))
    check_estimator(estimator, on_skip=None)
    model = clone(LinearEvaluation(3, weight_decays=(1e-3,))).fit(*blobs(40))
    again = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(again.predict(blobs(9)[0]), model.predict(blobs(9)[0]))
    assert LinearEvaluation().get_params() == {
        "epochs": 1000,
        "batch_size": 4096,
        "lr": 1.6,
        "weight_decays": DECAYS,
        "validation": 0.1,
        "random_state": 0,
    }
