"""Room for ψ and what Adam keeps of it, in memory or on disk."""

from __future__ import annotations

import math
import mmap
import os
import tempfile
from pathlib import Path

import torch
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
    """

    def __init__(self, most: float | None, folder: str | Path | None = None) -> None:
        self.left = math.inf if most is None else most
        self.folder = Path(folder or tempfile.gettempdir())

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
            return torch.frombuffer(self._mapped(size), dtype=torch.float32).view(shape)
        except OSError as error:
            raise UsageError(
                f"cannot write {size_text(size)} of representations to {self.folder} "
                f"({error.strerror}): choose another folder, or a higher max_memory"
            ) from error

    def _mapped(self, size: int) -> mmap.mmap:
        self.folder.mkdir(parents=True, exist_ok=True)
        descriptor, path = tempfile.mkstemp(dir=self.folder)
        with os.fdopen(descriptor, "r+b") as file:
            Path(path).unlink()
            # a sparse file would find the disk full in the middle of an epoch, by a signal
            for start in range(0, size, _BLOCK):
                file.write(bytes(min(_BLOCK, size - start)))
            file.flush()
            return mmap.mmap(file.fileno(), size)
