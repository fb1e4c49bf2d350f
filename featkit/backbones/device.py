"""Where networks run."""

from __future__ import annotations

import torch

from featkit.errors import UsageError


def choose_device(name: str) -> torch.device:
    """Turn a device option into a device.

    Raises:
        UsageError: The machine has no such device.

    Example:
        >>> choose_device("cpu")
        device(type='cpu')
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(f"device {name!r} is not available here ({reason}); use auto") from error
    return device
