"""Where networks run."""

from __future__ import annotations

import torch

from featkit.errors import UsageError
from featkit.parallel.group import here


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
        if place.count == 1:
            return torch.device("cuda")
        torch.cuda.set_device(place.local_rank)
        return torch.device("cuda", place.local_rank)
    if name == "auto":
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} is not available here ({reason}); use auto") from error
    return device
