"""Taps: where in a network activations are read, and how they become rows."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from featkit.errors import BackboneError, UsageError

Pooling = Literal["avg", "max", "flatten", "cls", "none"]
POOLINGS: tuple[str, ...] = get_args(Pooling)

_WINDOWS = re.compile(r"avg([1-9][0-9]{0,3})s([1-9][0-9]{0,3})(?:p(0|[1-9][0-9]{0,3}))?")


class Windows(NamedTuple):
    """Square windows of a map, each of which is averaged.

    Attributes:
        size: Height and width of a window, in positions.
        stride: From a window to the next.
        padding: Zeros on each side of the map, which count as positions.
    """

    size: int
    stride: int
    padding: int


def windows_of(pooling: str) -> Windows | None:
    """Return the windows of a pooling ``avgKsSpP``; None of another pooling.

    Example:
        >>> windows_of("avg6s6p3"), windows_of("avg")
        (Windows(size=6, stride=6, padding=3), None)
    """
    found = _WINDOWS.fullmatch(pooling)
    return Windows(*(int(number or 0) for number in found.groups())) if found else None


@dataclass(frozen=True)
class Tap:
    """A module's output, pooled.

    Attributes:
        path: The module's dotted path inside the network.
        pooling: ``avg`` or ``max`` over positions, ``cls`` (the class token), ``flatten``,
            ``none`` (kept as it is), or ``avgKsSpP``: means of windows of K × K positions, S apart,
            with P zeros around the map, flattened.
        alias: What the user calls the module, if not by its path.
    """

    path: str
    pooling: str
    alias: str = ""

    @property
    def name(self) -> str:
        """What tables made from it are called."""
        return self.alias or self.path

    def __str__(self) -> str:
        return f"{self.name}:{self.pooling}"


def split_tap(text: str) -> tuple[str, str | None]:
    """Split ``PATH[:POOLING]``; equal poolings have one name.

    Raises:
        UsageError: The pooling does not exist.

    Example:
        >>> split_tap("layer4:max"), split_tap("layer4"), split_tap("conv2:avg4s4p0")
        (('layer4', 'max'), ('layer4', None), ('conv2', 'avg4s4'))
    """
    path, _, pooling = text.partition(":")
    return path, _checked(text, pooling.lower()) if pooling else None


def _checked(text: str, pooling: str) -> str:
    windows = windows_of(pooling)
    if windows is None:
        if pooling not in POOLINGS:
            raise UsageError(
                f"tap {text!r}: unknown pooling {pooling!r}; use {', '.join(POOLINGS)}, or "
                f"avgKsSpP for means of K x K positions, S apart, P zeros around: avg6s6p3, avg4s4"
            )
        return pooling
    if 2 * windows.padding > windows.size:
        raise UsageError(
            f"tap {text!r}: zeros can reach half into a window; use p{windows.size // 2} or less"
        )
    return pooling.removesuffix("p0")


@dataclass(frozen=True)
class TokenLayout:
    """How a network lays out what is not a plain (b, c, h, w) map.

    Attributes:
        prefix_tokens: Tokens before the patches in (b, t, c) outputs.
        class_token: Whether the first of them is a class token.
        channels_last: Path prefixes of the modules whose maps are (b, h, w, c) where their shape
            does not tell; an empty string means all.
        patches: How many patch tokens there are, if known: an output of just as many has no
            prefix tokens (yet).
    """

    prefix_tokens: int = 0
    class_token: bool = False
    channels_last: tuple[str, ...] = ()
    patches: int | None = None

    def is_channels_last(self, path: str, shape: Sequence[int] = ()) -> bool:
        """Whether the maps of this module have their channels at the end.

        The maps of a square image are square, which tells (c, h, w) from (h, w, c) unless all
        three are equal; then, and where the image is not square, the module's path decides.

        Args:
            path: The module's dotted path.
            shape: The map without its batch, if known.

        Example:
            >>> layout = TokenLayout(channels_last=("",))
            >>> layout.is_channels_last("x", (96, 7, 7)), layout.is_channels_last("x", (7, 7, 7))
            (False, True)
        """
        if len(shape) == 3 and (shape[0] == shape[1]) != (shape[1] == shape[2]):
            return shape[0] == shape[1]
        return any(path == p or path.startswith(f"{p}.") or not p for p in self.channels_last)

    def prefix_of(self, tokens: int) -> int:
        """Return how many of this number of tokens come before the patches.

        Example:
            >>> layout = TokenLayout(prefix_tokens=1, patches=196)
            >>> layout.prefix_of(197), layout.prefix_of(196)
            (1, 0)
        """
        return 0 if tokens == self.patches else self.prefix_tokens


def token_layout(module: nn.Module) -> TokenLayout:
    """Read a network's token layout off its class.

    Example:
        >>> token_layout(nn.Linear(1, 1))
        TokenLayout(prefix_tokens=0, class_token=False, channels_last=(), patches=None)
    """
    library = type(module).__module__
    name = type(module).__name__
    if library.startswith("torchvision"):
        if name == "VisionTransformer":
            return TokenLayout(1, class_token=True)
        return TokenLayout(channels_last=("features", "norm") if name == "SwinTransformer" else ())
    prefix = int(getattr(module, "num_prefix_tokens", 0))
    has_class = prefix > 0 and getattr(module, "cls_token", None) is not None
    channels_last = getattr(module, "output_fmt", "NCHW") == "NHWC"
    patches = getattr(getattr(module, "patch_embed", None), "num_patches", None)
    patches = patches if isinstance(patches, int) else None
    return TokenLayout(prefix, has_class, ("",) if channels_last else (), patches)


def default_pooling(shape: Sequence[int], layout: TokenLayout) -> str:
    """Return the pooling of an output for which the user named none.

    Args:
        shape: (c, h, w), (t, c) or (d,): the output without its batch.
        layout: Says whether there is a class token.

    Example:
        >>> default_pooling((64, 7, 7), TokenLayout()), default_pooling((64,), TokenLayout())
        ('avg', 'none')
    """
    if len(shape) == 3:
        return "avg"
    if len(shape) == 2:
        prefix = layout.prefix_of(shape[0])
        if layout.class_token and prefix:
            return "cls"
        return "avg" if shape[0] > prefix else "flatten"
    return "none"


def pool(output: Tensor, tap: Tap, layout: TokenLayout) -> Tensor:
    """Turn a module's output into float32 rows that no later in-place operation can reach.

    Args:
        output: (b, c, h, w), (b, h, w, c), (b, t, c) or (b, d), any float type.
        tap: Says how.
        layout: Says which axis is which.

    Returns:
        The whole output, channels first, for ``none``; (b, d) for the others.

    Raises:
        BackboneError: The output has no such thing.

    Example:
        >>> pool(torch.arange(8.0).view(1, 2, 2, 2), Tap("x", "avg"), TokenLayout())
        tensor([[1.5000, 5.5000]])
    """
    if output.ndim == 4 and layout.is_channels_last(tap.path, output.shape[1:]):
        output = output.permute(0, 3, 1, 2)
    windows = windows_of(tap.pooling)
    if windows is not None:
        return _pool_windows(output, tap, windows)
    if tap.pooling == "cls":
        has_prefix = output.ndim == 3 and layout.prefix_of(output.shape[1]) > 0
        if not has_prefix or not layout.class_token:
            raise BackboneError(
                f"tap {tap}: no class token in an output of shape {tuple(output.shape[1:])}; "
                f"use another pooling"
            )
        return output[:, 0].to(torch.float32, copy=True)
    if tap.pooling == "none":
        return output.to(torch.float32, copy=True, memory_format=torch.contiguous_format)
    if tap.pooling == "flatten" or output.ndim == 2:
        return output.flatten(1).to(torch.float32, copy=True)
    if output.ndim == 3:
        prefix = layout.prefix_of(output.shape[1])
        if output.shape[1] <= prefix:
            raise BackboneError(
                f"tap {tap}: no patch tokens in an output of shape {tuple(output.shape[1:])}; "
                f"use cls, flatten or none"
            )
        output = output[:, prefix:].transpose(1, 2)
    positions = output.flatten(2)
    if tap.pooling == "avg":
        return positions.mean(2, dtype=torch.float32)
    return positions.amax(2).to(torch.float32, copy=True)


def _pool_windows(output: Tensor, tap: Tap, windows: Windows) -> Tensor:
    if output.ndim != 4:
        raise BackboneError(
            f"tap {tap}: windows lie in maps (c, h, w), and an output of shape "
            f"{tuple(output.shape[1:])} is none; use another pooling"
        )
    height, width = output.shape[2:]
    most = min(height, width) + 2 * windows.padding
    if windows.size > most:
        raise BackboneError(
            f"tap {tap}: windows of {windows.size} x {windows.size} do not fit into maps of "
            f"{height} x {width} with {windows.padding} zeros around; use {most} or less, or a "
            f"larger input (?size=N)"
        )
    return functional.avg_pool2d(output.float(), *windows).flatten(1)


class _AllTapped(Exception):  # noqa: N818 - ends a forward early; not an error
    """Raised inside a forward once every tap has fired."""


class TapRunner(nn.Module):
    """A network that gives the rows of its taps, and stops at the deepest of them.

    Args:
        module: The network; it carries hooks until :meth:`close`.
        taps: What to read; the rows come in this order.
        calls: How often each tapped module runs in one forward; it is read the last time.
    """

    def __init__(self, module: nn.Module, taps: Sequence[Tap], calls: Mapping[str, int]) -> None:
        super().__init__()
        self.module = module
        self.taps = tuple(taps)
        self._layout = token_layout(module)
        self._calls = sum(calls[path] for path in {tap.path for tap in taps})
        self._left = 0
        self._rows: dict[Tap, Tensor] = {}
        self._handles = [
            self.module.get_submodule(path).register_forward_hook(self._hook(path))
            for path in {tap.path: None for tap in taps}
        ]

    def _hook(self, path: str) -> Callable[..., None]:
        taps = [tap for tap in self.taps if tap.path == path]

        def hook(_module: nn.Module, _inputs: Any, output: Tensor) -> None:
            for tap in taps:
                self._rows[tap] = pool(output, tap, self._layout)
            self._left -= 1
            if self._left == 0:
                raise _AllTapped

        return hook

    def forward(self, images: Tensor) -> list[Tensor]:
        """Map images (b, 3, h, w) to one float32 tensor of rows (b, …) a tap."""
        self._left = self._calls
        self._rows = {}
        with contextlib.suppress(_AllTapped):
            self.module(images)
        rows, self._rows = self._rows, {}
        return [rows[tap] for tap in self.taps]

    def close(self) -> None:
        """Remove the hooks."""
        for handle in self._handles:
            handle.remove()
