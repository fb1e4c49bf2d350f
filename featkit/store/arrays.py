"""Arrays of a result, in one HDF5 file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
from numpy.typing import NDArray

from featkit.store.files import write_sealed
from featkit.store.schema import put, write_header

ARRAYS_FORMAT = "featkit-arrays"


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays by atomic rename; arrays of text become UTF-8 strings."""

    def fill(file: h5py.File) -> None:
        write_header(file, ARRAYS_FORMAT)
        for name, array in arrays.items():
            is_text = array.dtype.kind == "U"
            put(file, name, array.tolist() if is_text else array, text=is_text)

    write_sealed(path, ARRAYS_FORMAT, fill)
