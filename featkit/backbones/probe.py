"""A trial run: which modules a network has, what they give, and which of them is its feature."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from featkit.backbones.base import Backbone
from featkit.backbones.layer_names import OWN, layer_names
from featkit.backbones.taps import (
    Tap,
    TapRunner,
    TokenLayout,
    default_pooling,
    pool,
    split_tap,
    token_layout,
)
from featkit.errors import BackboneError
from featkit.registry import did_you_mean


@dataclass(frozen=True)
class ModuleOutput:
    """What one module gave in a trial run.

    Attributes:
        path: Dotted path inside the network.
        kind: Class name.
        shape: (c, h, w), (h, w, c), (t, c) or (d,), the output of its last call without the
            batch; None when that is something else.
        calls: How often it ran in one forward.
        parameters: Number of parameters, those of its children included.
        leaf: Whether it has no children.
    """

    path: str
    kind: str
    shape: tuple[int, ...] | None
    calls: int
    parameters: int
    leaf: bool


_IMAGES = 2

Probe = Mapping[str, ModuleOutput]
"""Modules by path, in the order in which they end in a forward."""


def probe(backbone: Backbone) -> Probe:
    """Run the network once on noise and describe every module that ran.

    Cost: one forward of two images: what does not come once an image (the windows of an attention,
    a table of positions) is no row.

    Raises:
        BackboneError: The network does not accept its own input size.
    """
    shapes: dict[str, tuple[int, ...] | None] = {}
    calls: Counter[str] = Counter()

    def remember(path: str) -> Callable[..., None]:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            calls[path] += 1
            shapes.pop(path, None)
            is_rows = isinstance(output, Tensor) and output.ndim in (2, 3, 4)
            is_rows = is_rows and output.shape[0] == _IMAGES
            shapes[path] = tuple(output.shape[1:]) if is_rows else None

        return hook

    modules = {path: module for path, module in backbone.module.named_modules() if path}
    handles = [module.register_forward_hook(remember(path)) for path, module in modules.items()]
    try:
        with torch.inference_mode():
            backbone.module(_noise(backbone))
    except (RuntimeError, AssertionError, ValueError) as error:
        height, width = backbone.preprocessing.size
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise BackboneError(
            f"{backbone.spec}: the network does not run on {height}x{width} pixels ({reason}); "
            f"choose another size with ?size=N"
        ) from error
    finally:
        for handle in handles:
            handle.remove()
    return {
        path: ModuleOutput(
            path=path,
            kind=type(modules[path]).__name__,
            shape=shape,
            calls=calls[path],
            parameters=sum(p.numel() for p in modules[path].parameters()),
            leaf=not any(modules[path].children()),
        )
        for path, shape in shapes.items()
    }


def _noise(backbone: Backbone) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    device = next(backbone.module.parameters(), torch.empty(0)).device
    return torch.randn(_IMAGES, 3, *backbone.preprocessing.size, generator=generator).to(device)


def row_shape(shape: Sequence[int], tap: Tap, layout: TokenLayout) -> tuple[int, ...]:
    """Return the shape of one row of a tap.

    Args:
        shape: The module's output without the batch.
        tap: The tap on it.
        layout: The network's token layout.

    Raises:
        BackboneError: The output cannot be pooled this way.

    Example:
        >>> row_shape((64, 7, 7), Tap("layer1", "avg"), TokenLayout())
        (64,)
    """
    return tuple(pool(torch.empty(1, *shape, device="meta"), tap, layout).shape[1:])


_PASSES_THROUGH = {"Dropout", "Identity", "Flatten"}


def default_tap(backbone: Backbone, outputs: Probe) -> Tap:
    """Return the tap whose rows are what the network's head reads.

    The head is what a checkpoint says, or the linear layer that ends the network, or the
    convolution that gives one channel a class. Its input is compared with the pooled output of
    every module before it, last first; a network without a head is tapped at its last module.

    Cost: one forward of two images.

    Raises:
        BackboneError: No module's pooled output is the head's input.
    """
    taps = head_inputs(backbone, outputs)
    if taps:
        return taps[0]
    raise BackboneError(
        f"{backbone.spec}: cannot tell which layer holds its features; name one with --tap "
        f"(featkit layers {backbone.spec} lists them)"
    )


def head_inputs(backbone: Backbone, outputs: Probe) -> list[Tap]:
    """Return every tap whose rows are what the network's head reads, the default tap first.

    Cost: one forward of two images.
    """
    layout = token_layout(backbone.module)
    leaves = [o for o in outputs.values() if o.leaf and o.kind not in _PASSES_THROUGH]
    head = backbone.network.head or _classifier(backbone.module, leaves)
    if head is not None:
        candidates = _candidates(outputs, head, layout)
        wanted, rows = _read_head(backbone, head, candidates, outputs)
        return [tap for tap in reversed(candidates) if _are_equal(rows[tap], wanted)]
    if leaves and leaves[-1].shape is not None:
        return [Tap(leaves[-1].path, default_pooling(leaves[-1].shape, layout))]
    return []


def _classifier(module: nn.Module, leaves: Sequence[ModuleOutput]) -> str | None:
    if leaves and leaves[-1].kind == "Linear":
        return leaves[-1].path
    last = next((leaf for leaf in reversed(leaves) if leaf.parameters), None)
    if last is None or last.kind != "Conv2d" or last.shape is None:
        return None
    return last.path if last.shape[0] == getattr(module, "num_classes", None) else None


def _are_equal(rows: Tensor, wanted: Tensor) -> bool:
    """Compare relative to the largest value: features can be as small as 1e-14."""
    if rows.shape != wanted.shape:
        return False
    return bool((rows - wanted).abs().max() <= 1e-4 * wanted.abs().max())


def _candidates(outputs: Probe, head: str, layout: TokenLayout) -> list[Tap]:
    """Every tap before the head, the more likely pooling of a module last."""
    taps = []
    for path, output in outputs.items():
        if path == head or path.startswith(f"{head}."):
            break
        if output.shape is not None and output.kind not in _PASSES_THROUGH:
            likely = default_pooling(output.shape, layout)
            has_patches = likely == "cls" and output.shape[0] > layout.prefix_of(output.shape[0])
            taps += [Tap(path, "avg")] * has_patches + [Tap(path, likely)]
    return taps


def _read_head(
    backbone: Backbone, head: str, candidates: Sequence[Tap], outputs: Probe
) -> tuple[Tensor, dict[Tap, Tensor]]:
    """Return the head's pooled input and the candidates' rows for the same images."""
    seen: list[Tensor] = []

    def remember(_module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        rows = inputs[0].float()
        seen.append(rows.mean((2, 3)) if rows.ndim == 4 else rows.clone())

    handle = backbone.module.get_submodule(head).register_forward_pre_hook(remember)
    taps = [*candidates, Tap(head, "none")]
    runner = TapRunner(backbone.module, taps, {p: o.calls for p, o in outputs.items()})
    try:
        with torch.inference_mode():
            rows = runner(_noise(backbone))
    finally:
        runner.close()
        handle.remove()
    return seen[-1], dict(zip(candidates, rows, strict=False))


def resolve_taps(backbone: Backbone, asked: Sequence[str], outputs: Probe) -> list[Tap]:
    """Turn ``NAME[:POOLING]`` texts into taps of this backbone, in the order given.

    A name is one of :func:`featkit.backbones.layer_names.layer_names`, or a module's path.

    Args:
        backbone: The network.
        asked: What the user wrote; empty for the default tap.
        outputs: From :func:`probe`.

    Raises:
        BackboneError: A module does not exist, does not run, or gives something else than a tensor.
    """
    if not asked:
        return [default_tap(backbone, outputs)]
    layout = token_layout(backbone.module)
    names = layer_names(backbone.network)
    taps = []
    for text in asked:
        name, pooling = split_tap(text)
        path, implied = _locate(name, names, outputs)
        if path not in outputs:
            raise BackboneError(
                f"{backbone.name} has no tap {name!r}: {did_you_mean(name, [*names, *outputs])} "
                f"(featkit layers {backbone.spec} lists all)"
            )
        shape = outputs[path].shape
        if shape is None:
            raise BackboneError(
                f"{backbone.name}: tap {name!r} ({outputs[path].kind}) does not give one row, "
                f"map or set of tokens an image; tap a module inside or around it"
            )
        pooling = pooling or implied or default_pooling(shape, layout)
        tap = Tap(path, pooling, alias=name if name != path else "")
        row_shape(shape, tap, layout)
        taps.append(tap)
    return list(dict.fromkeys(taps))


def _locate(
    name: str, names: Mapping[str, tuple[str, str | None]], outputs: Probe
) -> tuple[str, str | None]:
    """Return the path of a module by its common name, by a part of the head, or by its path."""
    if name in names:
        return names[name]
    if name not in outputs and name.startswith("head.") and "head" in names:
        return names["head"][0] + name.removeprefix("head"), None
    is_own = name not in outputs and name.startswith(OWN)
    return name.removeprefix(OWN) if is_own else name, None
