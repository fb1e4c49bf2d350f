"""Which GPU each of several processes takes; only how many torch finds is made up."""

from __future__ import annotations

import pytest
import torch

from featkit.backbones import device as devices
from featkit.backbones.device import choose_device
from featkit.errors import UsageError
from featkit.parallel.place import Place


@pytest.fixture
def given(monkeypatch):
    """Pretend to be one of several processes on a machine with some GPUs."""
    chosen = []
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS", raising=False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)

    def give(place, gpus):
        monkeypatch.setattr(devices, "here", lambda: place)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: gpus)
        return chosen

    return give


@pytest.mark.parametrize("local_rank", [0, 3])
def test_each_process_of_a_machine_has_its_own(given, local_rank):
    chosen = given(Place(4 + local_rank, 8, local_rank, 4), 4)
    assert choose_device("auto") == torch.device("cuda", local_rank)
    assert chosen == [local_rank]


def test_a_task_of_slurm_may_see_only_its_own(given, monkeypatch):
    given(Place(3, 4, 3, 4), 1)
    with pytest.raises(UsageError, match=r"4 processes on this machine, and 1 GPU\(s\)"):
        choose_device("cuda")
    monkeypatch.setenv("SLURM_STEP_NUM_TASKS", "4")
    assert choose_device("cuda") == torch.device("cuda", 0)


def test_a_process_alone_takes_the_one_that_torch_has_chosen(given):
    chosen = given(Place(), 4)
    assert choose_device("auto") == torch.device("cuda")
    assert chosen == []


def test_several_do_not_share_one(given):
    given(Place(0, 2, 0, 2), 2)
    with pytest.raises(UsageError, match="give cuda, one for each"):
        choose_device("cuda:1")
