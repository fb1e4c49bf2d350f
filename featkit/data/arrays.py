"""Image sources that lie in memory, and the built-in digits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featkit.data.decoding import to_rgb
from featkit.data.packed import row_numbers


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Images in one array: a `featkit.data.sources.Source` without files.

    Attributes:
        name: The source as the user wrote it.
        images: (n, h, w) or (n, h, w, 3) uint8.
        ids: n row numbers.
        labels: (n,) int64 class indices, (n, k) uint8 memberships, or None.
        classes: The k class names that labels index.
        notes: One-line remarks for the user.
    """

    name: str
    images: NDArray[np.uint8]
    ids: Sequence[str]
    labels: NDArray[Any] | None = None
    classes: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def read(self, row: int) -> Image.Image:
        """Return sample ``row`` as an RGB image."""
        return to_rgb(Image.fromarray(self.images[row]))

    def digest(self, row: int) -> bytes:
        """Return the sha256 (32 bytes) of the shape, type and bytes of sample ``row``."""
        return array_digest(self.images[row])

    def stamps(self) -> None:
        """Return None: there are no files."""
        return


def array_digest(array: NDArray[Any]) -> bytes:
    """Hash an array's type, shape and elements.

    Returns:
        32 bytes of sha256.

    Example:
        >>> array_digest(np.zeros((1, 2))) == array_digest(np.zeros((2, 1)))
        False
    """
    digest = hashlib.sha256(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())
    return digest.digest()


def open_digits(name: str = "digits") -> ArraySource:
    """Return scikit-learn's 1,797 scans of 8 x 8 grey levels, scaled from 0..16 to 0..255.

    Source: Alpaydin and Kaynak, 1998, Optical Recognition of Handwritten Digits (test part), as
    shipped with scikit-learn.

    Example:
        >>> digits = open_digits()
        >>> len(digits.ids), digits.ids[0], digits.labels[:4].tolist(), digits.classes[-1]
        (1797, '0000', [0, 1, 2, 3], '9')
    """
    from sklearn.datasets import load_digits

    digits = load_digits()
    images = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    classes = tuple(str(digit) for digit in digits.target_names)
    labels = digits.target.astype(np.int64)
    return ArraySource(name, images, row_numbers(len(images)), labels, classes)
