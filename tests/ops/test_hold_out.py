"""Rows to hold out against torch's own permutation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from featkit.errors import UsageError
from featkit.ops.hold_out import hold_out


@pytest.mark.parametrize(
    ("n", "validation", "count"),
    [(2, 0.5, 1), (5, 0.1 + 0.2, 2), (15, 0.1, 2), (25, 0.1, 2), (100, 0.2, 20), (6401, 0.2, 1280)],
)
@pytest.mark.parametrize("seed", [0, 3, 2**32 - 1])
def test_they_are_the_first_of_torchs_permutation(
    n: int, validation: float, count: int, seed: int
) -> None:
    wanted = torch.randperm(n, generator=torch.Generator().manual_seed(seed)).numpy()
    held_out, others = hold_out(n, validation, seed)
    np.testing.assert_array_equal(held_out, wanted[:count])
    np.testing.assert_array_equal(others, wanted[count:])
    assert held_out.dtype == others.dtype == np.int64


def test_a_generator_is_drawn_from_once_and_goes_on() -> None:
    ours, theirs = (torch.Generator().manual_seed(8) for _ in range(2))
    found = np.concatenate(hold_out(30, 0.3, ours))
    np.testing.assert_array_equal(found, torch.randperm(30, generator=theirs))
    assert torch.equal(ours.get_state(), theirs.get_state())


@pytest.mark.parametrize(
    ("n", "validation", "count"),
    [(0, 0.2, 0), (1, 0.5, 0), (1, 0.9, 1), (2, 0.2, 0), (40, 1.5, 60), (40, -0.5, -20)],
)
def test_both_parts_have_a_row(n: int, validation: float, count: int) -> None:
    message = f"validation is {validation}, which holds out {count} of {n} sample"
    with pytest.raises(UsageError, match=message) as error:
        hold_out(n, validation, 0)
    assert "\n" not in str(error.value)
