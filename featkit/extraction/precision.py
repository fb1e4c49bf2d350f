"""Which number format the networks run in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional

Precision = Literal["auto", "fp32", "bf16", "fp16"]
PRECISIONS: tuple[str, ...] = get_args(Precision)

AGREEMENT = 0.999
"""Least cosine with the fp32 rows, over the images of a batch, that lets a faster format run."""

_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


def native_precision(device: torch.device) -> str:
    """Return the fastest format that a device computes in hardware.

    Returns:
        ``bf16`` on CPUs with AVX512-BF16 or AMX and on GPUs since Ampere, ``fp16`` on older GPUs,
        ``fp32`` elsewhere.
    """
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    if device.type == "cpu" and _cpu_has_bf16():
        return "bf16"
    return "fp32"


def _cpu_has_bf16() -> bool:
    checks = ("_is_avx512_bf16_supported", "_is_amx_tile_supported")
    return any(bool(getattr(torch.cpu, check, bool)()) for check in checks)


@contextmanager
def computing_in(precision: str, device: torch.device) -> Iterator[None]:
    """Run networks in one format; ``fp32`` means fp32, without TF32 on GPUs.

    Weights stay in fp32 and are cast where a layer gains from it, so that normalisation layers and
    poolings keep their digits.
    """
    exact = torch.backends.cudnn.flags(
        enabled=True, benchmark=False, deterministic=True, allow_tf32=False
    )
    products = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("highest")
    try:
        with torch.inference_mode(), exact:
            if precision == "fp32":
                yield
            else:
                with torch.autocast(device.type, _DTYPES[precision]):
                    yield
    finally:
        torch.set_float32_matmul_precision(products)


def agreement(rows: Sequence[Tensor], reference: Sequence[Tensor]) -> list[float]:
    """Return how well rows agree with those of another format, a number a tap.

    Args:
        rows: One (b, …) tensor a tap.
        reference: The same rows in fp32.

    Returns:
        The least cosine over the b images, -1 where a row is not finite.

    Example:
        >>> agreement([torch.tensor([[1.0, 0.0]])], [torch.tensor([[2.0, 0.0]])])
        [1.0]
    """
    least = []
    for ours, theirs in zip(rows, reference, strict=True):
        a, b = ours.flatten(1).double(), theirs.flatten(1).double()
        cosine = functional.cosine_similarity(a, b)
        cosine[(a == b).all(1)] = 1.0
        cosine[~a.isfinite().all(1)] = -1.0
        least.append(round(float(cosine.min()), 6))
    return least
