"""Room for ψ and what Adam keeps of it, in memory or on disk."""

from __future__ import annotations

import math
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from featkit.errors import UsageError
from featkit.store.files import size_text

_BLOCK = 2**20


class Space:
    """Tensors of zeros, in memory as long as they fit, then in files that are mapped.

    A file has no name, so that nothing is left of it when the process ends, however.

    Args:
        most: Bytes of memory for all of them; None for no bound.
        folder: Where files go; made if it is not there. None for the system's temporary folder.

    Attributes:
        mapped: Those that are in files.
    """

    def __init__(self, most: float | None, folder: str | Path | None = None) -> None:
        self.left = math.inf if most is None else most
        self.folder = Path(folder or tempfile.gettempdir())
        self.mapped: list[NDArray[np.float32]] = []

    def zeros(self, *shape: int) -> Tensor:
        """Return zeros, float32.

        Raises:
            UsageError: They do not fit on the disk, or the folder cannot be written to.
        """
        size = 4 * math.prod(shape)
        if size <= self.left:
            self.left -= size
            return torch.zeros(shape)
        try:
            self.mapped.append(self._mapped(shape))
        except OSError as error:
            raise UsageError(
                f"cannot write {size_text(size)} of representations to {self.folder} "
                f"({error.strerror}): choose another folder, or a higher max_memory"
            ) from error
        return torch.from_numpy(self.mapped[-1])

    def _mapped(self, shape: tuple[int, ...]) -> NDArray[np.float32]:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=self.folder)
        with os.fdopen(descriptor, "r+b") as file:
            Path(path).unlink()
            # a sparse file would find the disk full in the middle of an epoch, by a signal
            size = 4 * math.prod(shape)
            for start in range(0, size, _BLOCK):
                file.write(bytes(min(_BLOCK, size - start)))
            file.flush()
            return np.memmap(file, np.float32, "r+", shape=shape)
