"""From a checkpoint file to a network whose every weight came from it."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from featkit.backbones.architectures import build
from featkit.backbones.base import Network
from featkit.errors import BackboneError

CONTAINERS = ("state_dict", "model")
"""Keys under which training scripts put the state dict."""

WRAPPERS = ("module.", "_orig_mod.")
"""Prefixes that DataParallel and ``torch.compile`` add to every name."""

_FORBIDDEN = re.compile(r"GLOBAL (\S+)")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read the named tensors of a checkpoint on the CPU; no code in the file is run.

    Args:
        path: A safetensors file, or a PyTorch file (zip or legacy) of tensors and plain values.

    Returns:
        The state dict, taken out of a ``state_dict`` or ``model`` container and freed of the
        prefixes in ``WRAPPERS``.

    Raises:
        BackboneError: The file does not exist, is damaged, or holds something else.
    """
    if not path.is_file():
        raise BackboneError(f"{path}: no such checkpoint file")
    content = _read_safetensors(path) if _is_safetensors(path) else _read_torch(path)
    for name in CONTAINERS:
        if isinstance(content, Mapping) and isinstance(content.get(name), Mapping):
            content = content[name]
    if not isinstance(content, Mapping):
        raise BackboneError(f"{path}: holds a {type(content).__name__}, not named tensors")
    tensors = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    if not tensors:
        found = ", ".join(map(str, list(content)[:6])) or "nothing"
        raise BackboneError(f"{path}: holds no named tensors (it holds {found})")
    while any(all(name.startswith(prefix) for name in tensors) for prefix in WRAPPERS):
        tensors = {name.partition(".")[2]: tensor for name, tensor in tensors.items()}
    return tensors


def _is_safetensors(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(9)[8:] == b"{"


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except SafetensorError as error:
        raise BackboneError(f"{path}: damaged safetensors file ({error})") from error


def _read_torch(path: Path) -> Any:
    try:
        with warnings.catch_warnings(action="ignore"):
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged bytes raise whatever the unpickler stumbles over
        code = _FORBIDDEN.search(str(error)) if isinstance(error, pickle.UnpicklingError) else None
        if code:
            raise BackboneError(
                f"{path}: holds more than tensors, and code in checkpoints is never run "
                f"({code[1]}); save its state_dict alone"
            ) from error
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        if isinstance(error, pickle.UnpicklingError):
            reason = "not a PyTorch file"
        raise BackboneError(f"{path}: not a checkpoint, or damaged ({reason})") from error


def load_checkpoint(path: Path, architecture: str) -> Network:
    """Build ``architecture`` with the weights of a checkpoint, all of them.

    A classifier takes the number of classes that the file has; one that the file lacks is taken
    out of the network, so that no weight stays random.

    Args:
        path: See :func:`read_tensors`.
        architecture: See :func:`featkit.backbones.architectures.build`.

    Raises:
        BackboneError: The file cannot be read, or its tensors are not those of the architecture.
    """
    tensors = read_tensors(path)
    network = build(architecture)
    head = _classifier(network.module)
    if head is not None and head in {name.rpartition(".")[0] for name in tensors}:
        classes = tensors.get(f"{head}.weight", torch.empty(())).shape[:1]
        linear = network.module.get_submodule(head)
        if classes and classes[0] != linear.out_features:
            network = build(architecture, num_classes=classes[0])
    elif head is not None:
        _replace(network.module, head, nn.Identity())
    _load_all(network.module, tensors, path, architecture)
    return network


def _classifier(module: nn.Module) -> str | None:
    """Return the path of the linear layer that was defined last, the classifier by convention."""
    if getattr(module, "num_classes", None) == 0:
        return None
    linears = [name for name, child in module.named_modules() if isinstance(child, nn.Linear)]
    return linears[-1] if linears else None


def _replace(module: nn.Module, path: str, new: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(module.get_submodule(parent), name, new)


def _load_all(
    module: nn.Module, tensors: Mapping[str, Tensor], path: Path, architecture: str
) -> None:
    wanted = module.state_dict()
    counters = {name for name in wanted if name.endswith("num_batches_tracked")}
    missing = sorted(wanted.keys() - tensors.keys() - counters)
    unexpected = sorted(tensors.keys() - wanted.keys())
    reshaped = [
        f"{name} {tuple(tensors[name].shape)} for {tuple(wanted[name].shape)}"
        for name in wanted.keys() & tensors.keys()
        if tensors[name].shape != wanted[name].shape
    ]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:3])}{', …' if len(names) > 3 else ''})"
        for what, names in (
            ("missing", missing),
            ("not of this network", unexpected),
            ("of another shape", sorted(reshaped)),
        )
        if names
    ]
    if problems:
        raise BackboneError(
            f"{path}: these are not the weights of {architecture}: tensors {'; '.join(problems)}; "
            f"say which network they belong to with ?arch="
        )
    module.load_state_dict(dict(tensors), strict=False)
