"""Where networks run."""

from __future__ import annotations

import os

import torch

from featkit.errors import UsageError
from featkit.parallel.group import here
from featkit.parallel.place import Place


def choose_device(name: str) -> torch.device:
    """Turn a device option into a device; of several GPUs, each of several processes has its own.

    Raises:
        UsageError: The machine has no such device.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    place = here()
    if name in ("auto", "cuda") and torch.cuda.is_available():
        return _own_gpu(place)
    if name == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if place.count > 1 and name.startswith("cuda:"):
        raise UsageError(f"device {name!r} for {place.count} processes: give cuda, one for each")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} is not available here ({reason}); use auto") from error
    return device


def _own_gpu(place: Place) -> torch.device:
    """Return the GPU of a process: the one that it sees, or that of its number on its machine."""
    if place.count == 1:
        return torch.device("cuda")
    seen = torch.cuda.device_count()
    number = 0 if seen == 1 and place.local_count > 1 and _sees_its_own() else place.local_rank
    if number >= seen:
        raise UsageError(
            f"{place.local_count} processes on this machine, and {seen} GPU(s): start as many as "
            f"there are, or give --device cpu"
        )
    torch.cuda.set_device(number)
    return torch.device("cuda", number)


def _sees_its_own() -> bool:
    """Whether SLURM has given this task a GPU that no other task sees."""
    return "SLURM_STEP_NUM_TASKS" in os.environ
