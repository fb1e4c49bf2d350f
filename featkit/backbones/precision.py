"""Which number format the networks run in."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, get_args

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

    Weights stay in fp32 and are cast where a layer gains from it, so that the statistics of
    normalisation layers keep their digits.
    """
    with torch.inference_mode(), exact_products():
        if precision == "fp32":
            yield
        else:
            with torch.autocast(device.type, _DTYPES[precision]):
                yield


@contextmanager
def exact_products() -> Iterator[None]:
    """Multiply and convolve fp32 in fp32, whatever the process has set, and in one way only.

    Hold what the process has said about products and convolutions, and put it back.

    Since torch 2.9 each library has a setting of its own, which can be read however it was set; the
    older, common ones refuse to be read once one of the new has been used.
    """
    backends: Any = torch.backends
    with backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        if not hasattr(backends.cuda.matmul, "fp32_precision"):
            before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
            try:
                yield
            finally:
                torch.set_float32_matmul_precision(before)
            return
        mkldnn, cudnn = backends.mkldnn, backends.cudnn
        settings = (backends.cuda.matmul, cudnn.conv, cudnn.rnn, mkldnn.matmul, mkldnn.conv)
        held = [setting.fp32_precision for setting in settings]
        for setting in settings:
            setting.fp32_precision = "ieee"
        try:
            yield
        finally:
            for setting, value in zip(settings, held, strict=True):
                setting.fp32_precision = value


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
