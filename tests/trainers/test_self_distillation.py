"""The moving average against lightly's, and what is said of networks that say nothing."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import nn

from featkit.trainers.schedules import half_cosine
from featkit.trainers.self_distillation import (
    Pair,
    collapse_notes,
    feature_spread,
)


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 2), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(36, 5))


@pytest.mark.filterwarnings("ignore")  # lightly and what it imports warn of each other
def test_the_teacher_follows_as_lightlys_does() -> None:
    from lightly.models.utils import update_momentum

    pair, theirs = Pair(network(0), None, 0), network(0)
    images = torch.randn(6, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    for step, momentum in enumerate((0.9, 0.5, 0.996)):
        student = network(step + 1)
        pair.student.load_state_dict(student.state_dict())
        pair.student(images)  # which moves its own statistics
        pair.follow(momentum)
        update_momentum(student, theirs, momentum)
        for own, wanted in zip(pair.teacher.parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(own, wanted)
    assert pair.teacher[1].num_batches_tracked == 0
    assert not pair.teacher[1].running_mean.any()
    assert pair.student[1].running_mean.any()


def test_it_starts_as_a_copy_that_is_not_trained() -> None:
    pair = Pair(network(0), nn.Linear(5, 5), 7)
    for own, other in zip(pair.teacher.parameters(), pair.student.parameters(), strict=True):
        assert torch.equal(own, other)
        assert own.data_ptr() != other.data_ptr()
        assert (own.requires_grad, other.requires_grad) == (False, True)
    before = [p.clone() for p in pair.teacher.parameters()]
    pair.student[0].weight.data.fill_(9.0)
    pair.follow(1.0)
    assert all(torch.equal(p, q) for p, q in zip(pair.teacher.parameters(), before, strict=True))
    pair.follow(0.0)
    assert bool((pair.teacher[0].weight == 9).all())
    names = {name.partition(".")[0] for name in pair.state_dict()}
    assert names == {"student", "teacher", "predictor", "center", "seen"}


@pytest.mark.filterwarnings("ignore")
def test_the_momentum_is_lightlys_cosine() -> None:
    """Theirs ends in its last step; DINO's, as ours, would in the one after it."""
    from lightly.utils.scheduler import cosine_schedule

    ours = [half_cosine(step / 20, 0.996, 1.0) for step in range(20)]
    wanted = [cosine_schedule(step, 21, 0.996, 1.0) for step in range(20)]
    assert ours == pytest.approx(wanted, abs=1e-12)
    assert ours[0] == 0.996 < ours[-1] < 1


def test_the_spread_of_features_by_hand() -> None:
    assert float(feature_spread(torch.full((5, 3), -2.0))) == pytest.approx(0, abs=1e-4)
    assert float(feature_spread(torch.eye(6) * 3)) == pytest.approx(math.sqrt(5 / 6))
    both = torch.cat([torch.eye(6), -torch.eye(6)])
    assert float(feature_spread(both)) == pytest.approx(1)
    angle = 0.4  # two directions, that far to both sides of their mean
    wide = torch.tensor([[math.cos(a), math.sin(a)] for a in (1 - angle, 1 + angle)])
    assert float(feature_spread(wide * 7)) == pytest.approx(math.sin(angle), rel=1e-5)


def test_the_spread_is_that_of_a_plain_deviation_times_the_root_of_d() -> None:
    """Of features that fill all directions alike each dimension has 1 / √d (arXiv:2011.10566)."""
    features = torch.randn(20_000, 16, generator=torch.Generator().manual_seed(0))
    deviations = (features / features.norm(dim=1, keepdim=True)).std(0, correction=0)
    assert float(feature_spread(features)) == pytest.approx(float(deviations.mean()) * 4, rel=1e-3)


def test_an_epoch_has_the_means_of_what_was_seen() -> None:
    k = 8
    pair = Pair(nn.Linear(2, 2), None, k)
    certain = torch.eye(k).expand(2, k, k)  # of every image another prototype, and no doubt
    uniform = torch.full((2, k, k), 1 / k)
    flat = torch.ones(4, 2)
    pair.see(flat, certain)
    assert pair.summary() == pytest.approx(
        {"teacher_entropy": 0, "prototype_entropy": math.log(k), "feature_std": 0}, abs=1e-4
    )
    pair.see(torch.tensor([[1.0, 0.0], [-1.0, 0.0]]), uniform)
    pair.see(flat, certain)
    assert pair.summary() == pytest.approx(
        {"teacher_entropy": math.log(k) / 2, "prototype_entropy": math.log(k), "feature_std": 0.5},
        abs=1e-4,
    )
    pair.see(flat, certain[:, :1].expand(2, k, k))
    assert pair.summary()["prototype_entropy"] == pytest.approx(0, abs=1e-6)
    alone = Pair(nn.Linear(2, 2), None, 0)
    alone.see(torch.eye(2), None)
    assert alone.summary() == pytest.approx({"feature_std": math.sqrt(0.5)})


def row(**changed: float) -> dict[str, Any]:
    """An epoch of a training that is well, with 64 prototypes."""
    usual = {"teacher_entropy": 1.5, "prototype_entropy": 3.8, "feature_std": 0.7}
    return {"epoch": 4, "loss": 3.0, **usual, **changed}


def test_nothing_is_said_of_a_training_that_is_well() -> None:
    assert collapse_notes(row(), 64) == []
    assert collapse_notes({"epoch": 1, "loss": 0.3, "feature_std": 0.4}, 0) == []


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (
            {"teacher_entropy": 4.15, "prototype_entropy": 4.158},
            "its teacher's entropy is 4.150, and ln K 4.159",
        ),
        ({"loss": 4.16}, "its loss is 4.160, and ln K 4.159"),
        ({"prototype_entropy": 1.52}, "its prototypes tell images apart by 0.020 nats of 4.159"),
        ({"feature_std": 0.004}, "its features spread by 0.0040 (1: all directions)"),
    ],
)
def test_a_collapse_of_each_kind_is_named(changed: dict[str, float], said: str) -> None:
    (note,) = collapse_notes(row(**changed), 64)
    assert note.startswith("collapse in epoch 4, or nothing learned yet: its ")
    assert f"{said}; " in note
    assert "train longer" in note


def test_without_prototypes_only_features_tell() -> None:
    (note,) = collapse_notes({"epoch": 2, "loss": math.log(64), "feature_std": 0.0}, 0)
    assert "features spread by 0.0000" in note
    assert "ln K" not in note
