"""Means of windows of a map against torch's layer, and the sizes that DeepCluster gives."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from featkit.backbones.maps import map_tap
from featkit.backbones.probe import resolve_taps, row_shape
from featkit.backbones.taps import Tap, TokenLayout, pool, split_tap, windows_of
from featkit.errors import BackboneError, UsageError

ALEXNET = "alexnet96_bn_sobel?weights=none"
PUBLISHED = {
    "conv1": ("avg6s6p3", 9600),
    "conv2": ("avg4s4", 9216),
    "conv3": ("avg3s3p1", 9600),
    "conv4": ("avg3s3p1", 9600),
    "conv5": ("avg2s2", 9216),
}
"""github.com/facebookresearch/deepcluster, eval_linear.py, ``RegLog``: 9600 is 96·10·10, 384·5·5,
and 9216 is 256·6·6."""


def test_alexnet_has_the_published_dimensions(
    load: Callable[..., Any], read: Callable[..., list[Tensor]], noise: Callable[..., Tensor]
) -> None:
    backbone, outputs = load(ALEXNET)
    taps = resolve_taps(backbone, [f"{n}:{p}" for n, (p, _) in PUBLISHED.items()], outputs)
    assert [str(tap) for tap in taps] == [f"{n}:{p}" for n, (p, _) in PUBLISHED.items()]
    wanted = [dims for _, dims in PUBLISHED.values()]
    sizes = [row_shape(outputs[tap.path].shape, tap, TokenLayout()) for tap in taps]
    assert sizes == [(dims,) for dims in wanted]
    rows = read(ALEXNET, noise(224), *taps)
    maps = read(ALEXNET, noise(224), *(Tap(tap.path, "none") for tap in taps))
    layers = [nn.AvgPool2d(6, 6, 3), nn.AvgPool2d(4, 4), *[nn.AvgPool2d(3, 3, 1)] * 2]
    for found, whole, layer in zip(rows, maps, [*layers, nn.AvgPool2d(2, 2)], strict=True):
        torch.testing.assert_close(found, layer(whole).flatten(1), rtol=1e-6, atol=1e-7)
    assert [row.shape for row in rows] == [(2, dims) for dims in wanted]


def test_zeros_around_count_as_positions() -> None:
    """By hand: a window in the corner has one position of the map and three zeros."""
    maps = torch.arange(1.0, 10.0).view(1, 1, 3, 3)
    (row,) = pool(maps, Tap("x", "avg2s2p1"), TokenLayout())
    assert row.tolist() == [1 / 4, (2 + 3) / 4, (4 + 7) / 4, (5 + 6 + 8 + 9) / 4]
    (row,) = pool(maps, Tap("x", "avg2s1"), TokenLayout())
    assert row.tolist() == [3.0, 4.0, 6.0, 7.0]


@settings(max_examples=60, deadline=None)
@given(
    size=st.integers(1, 9), stride=st.integers(1, 7), padding=st.integers(0, 5),
    height=st.integers(1, 9), width=st.integers(1, 9), last=st.booleans(),
)  # fmt: skip
def test_any_windows_are_torchs_or_are_refused(
    size: int, stride: int, padding: int, height: int, width: int, last: bool
) -> None:
    channels = 16  # more than there are positions in a row, so that no axis is taken for another
    maps = torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(size))
    given_maps = maps.contiguous(memory_format=torch.channels_last) if last else maps
    text = f"x:avg{size}s{stride}p{padding}"
    try:
        wanted = nn.AvgPool2d(size, stride, padding)(maps).flatten(1)
    except RuntimeError:
        with pytest.raises((UsageError, BackboneError), match="use p?[0-9]+ or less"):
            pool(given_maps, Tap(*split_tap(text)), TokenLayout())  # type: ignore[arg-type]
        return
    tap = Tap(*split_tap(text))  # type: ignore[arg-type]
    found = pool(given_maps, tap, TokenLayout())
    torch.testing.assert_close(found, wanted)
    assert found.is_contiguous()
    assert row_shape((channels, height, width), tap, TokenLayout()) == found.shape[1:]


def test_rows_are_not_reached_by_what_comes_later() -> None:
    maps = torch.ones(1, 2, 3, 3)
    rows = pool(maps, Tap("x", "avg1s1"), TokenLayout())
    maps.zero_()
    assert bool(rows.all())


def test_maps_with_channels_last(
    load: Callable[..., Any], read: Callable[..., list[Tensor]], noise: Callable[..., Tensor]
) -> None:
    spec = "timm:swin_tiny_patch4_window7_224?weights=none"
    with torch.inference_mode():
        maps = load(spec)[0].module.forward_features(noise(224, n=1))
    assert maps.shape == (1, 7, 7, 768)
    (rows,) = read(spec, noise(224, n=1), "norm:avg3s2p1")
    wanted = nn.AvgPool2d(3, 2, 1)(maps.permute(0, 3, 1, 2)).flatten(1)
    torch.testing.assert_close(rows, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_means_of_half_precision_are_taken_in_float32(dtype: torch.dtype) -> None:
    """256 ones and a 1/256 that would be lost beside them."""
    maps = torch.ones(1, 1, 16, 16, dtype=dtype)
    maps[0, 0, 0, 0] = 1 / 256
    with torch.autocast("cpu", torch.bfloat16):
        rows = pool(maps, Tap("x", "avg16s16"), TokenLayout())
    assert rows.dtype == torch.float32
    assert rows.item() == pytest.approx((255 + 1 / 256) / 256, rel=1e-6)


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("conv2:avg4s4", "avg4s4"),
        ("conv2:avg4s4p0", "avg4s4"),
        ("conv2:AVG4S4P0", "avg4s4"),
        ("conv2:avg10s20p5", "avg10s20p5"),
        ("conv2:avg20s10p10", "avg20s10p10"),
        ("conv2:Max", "max"),
        ("conv2:", None),
    ],
)
def test_one_pooling_has_one_name(text: str, name: str | None) -> None:
    assert split_tap(text) == ("conv2", name)


def test_taps_under_two_names_are_one(load: Callable[..., Any]) -> None:
    backbone, outputs = load(ALEXNET)
    taps = resolve_taps(backbone, ["conv2:avg4s4", "conv2:AVG4s4p0", "conv2:avg4s3"], outputs)
    assert [str(tap) for tap in taps] == ["conv2:avg4s4", "conv2:avg4s3"]


@pytest.mark.parametrize(
    "pooling",
    ["avg4", "avg0s1", "avg4s0", "avg04s4", "avg4s4p", "avg4s4p-1", "max4s4", "avg4s4x", "avg٤s4",
     "avg10000s1", "xavg4s4"],
)  # fmt: skip
def test_what_is_no_pooling_is_refused(pooling: str) -> None:
    assert windows_of(pooling) is None
    with pytest.raises(
        UsageError, match=r"unknown pooling .* none, or avgKsSpP for means of K x K"
    ):
        split_tap(f"conv1:{pooling}")


@pytest.mark.parametrize(
    ("spec", "tap", "error", "said"),
    [
        (ALEXNET, "conv5:avg14s1", BackboneError, "windows of 14 x 14 do not fit into maps of 13 x "
         "13 with 0 zeros around; use 13 or less, or a larger input"),
        (ALEXNET, "conv5:avg16s1p1", BackboneError, "13 x 13 with 1 zeros around; use 15 or less"),
        (ALEXNET, "conv1:avg5s5p3", UsageError, "zeros can reach half into a window; use p2"),
        (ALEXNET, "head:avg2s2", BackboneError, r"tap head:avg2s2: windows lie in maps \(c, h, w\),"
         r" and an output of shape \(1000,\) is none; use another pooling"),
        ("timm:vit_tiny_patch16_224?weights=none", "blocks.0:avg2s2", BackboneError,
         r"an output of shape \(197, 192\) is none"),
    ],
)  # fmt: skip
def test_windows_that_do_not_fit_are_refused(
    load: Callable[..., Any], spec: str, tap: str, error: type[Exception], said: str
) -> None:
    backbone, outputs = load(spec)
    with pytest.raises(error, match=said):
        resolve_taps(backbone, [tap], outputs)


def test_a_map_is_not_pooled(load: Callable[..., Any]) -> None:
    backbone, outputs = load(ALEXNET)
    with pytest.raises(UsageError, match="a map is not pooled; write 'conv1'"):
        map_tap(backbone, "conv1:avg6s6p3", outputs)
