"""From a checkpoint file to a network whose every weight came from it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn

from featkit.backbones.architectures import UnsetWeights, build
from featkit.backbones.base import CheckpointReport, Network
from featkit.backbones.checkpoints.choose import Choice, choose_network
from featkit.backbones.checkpoints.digest import checkpoint_sha256
from featkit.backbones.checkpoints.families import Tensors
from featkit.backbones.checkpoints.files import open_checkpoint
from featkit.backbones.checkpoints.heads import Normalize, build_head, describe_head, input_width
from featkit.backbones.checkpoints.tensors import StoredTensor
from featkit.backbones.layer_names import classifier_path, replace_module
from featkit.errors import BackboneError, CheckpointError, one_line

_COUNTER = "num_batches_tracked"

_TRAINING_ONLY = (_COUNTER, "mask_token", "n_averaged")
"""Ends of names that no network needs to compute features."""


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read every named tensor of a checkpoint on the CPU; no code in the file is run.

    Args:
        path: See :func:`featkit.backbones.checkpoints.files.open_checkpoint`.

    Raises:
        CheckpointError: The file does not exist, is damaged, or holds something else.
    """
    return {name: tensor.read() for name, tensor in open_checkpoint(path).items()}


def load_checkpoint(
    path: Path,
    architecture: str | None = None,
    weights: str | None = None,
    sha256: str | None = None,
) -> Network:
    """Build the network that a checkpoint holds, with all of its weights from the file.

    A head takes the form that it has in the file; one that the file lacks is taken out of the
    network, so that no weight stays random.

    Args:
        path: See :func:`featkit.backbones.checkpoints.files.open_checkpoint`.
        architecture: See :func:`featkit.backbones.architectures.build`; None to read it off the
            tensors.
        weights: Which network of the file: ``student``, ``teacher``, or what stands before its
            names; None for the one that the layout's authors evaluate.
        sha256: What the file's digest must begin with, in hexadecimal.

    Raises:
        CheckpointError: The file cannot be read, has another digest, or its tensors do not fill
            the network exactly.

    Cost:
        One pass over the file for its digest (kept for the next time), one read of the tensors
        that are used; memory for the network and one tensor.
    """
    try:
        return _load(path, architecture, weights, sha256)
    except BackboneError as error:
        reason = one_line(str(error).removeprefix(f"{path}: "), most=2000)
        raise type(error)(f"{path}: {reason}") from error
    except OSError as error:
        raise CheckpointError(f"{path}: {error.strerror or error}") from error


def _load(path: Path, architecture: str | None, weights: str | None, sha256: str | None) -> Network:
    tensors = open_checkpoint(path)
    digest = checkpoint_sha256(path, anew=sha256 is not None)
    if sha256 is not None and not digest.startswith(sha256.lower()):
        raise CheckpointError(f"damaged, or another file: its sha256 is {digest}, not {sha256}")
    with UnsetWeights():
        network = build(architecture) if architecture else None
    names = None if network is None else _own_names(network.module)
    choice = choose_network(tensors, names, weights)
    if network is None:
        name = choice.architecture()
        with UnsetWeights():
            network = build(name)
    head_path = classifier_path(network.module)
    kept, left_out = _head_tensors(choice, tensors, network.module)
    head = _build_head(choice, network, {name: tensors[key] for name, key in kept.items()})
    if head is None:
        left_out |= set(kept.values())
    _check(network, choice, tensors, left_out | set(kept.values()), is_given=bool(architecture))
    used = _fill(network.module, choice.network.tensors, _own_names(network.module))
    if head_path is not None:
        replace_module(network.module, head_path, head or nn.Identity())
    report = CheckpointReport(
        file=path.name,
        sha256=digest,
        layout=choice.layout.name,
        weights=choice.role,
        others=tuple(choice.others),
        architecture=network.architecture,
        tensors=used + len(kept) * (head is not None),
        heads=(describe_head(head),) if head else (),
        left_out=tuple(sorted({key.rpartition(".")[0] for key in left_out})),
        preprocessing="layout" if choice.layout.preprocessing else "architecture",
    )
    return replace(
        network,
        preprocessing=choice.layout.preprocessing or network.preprocessing,
        head=head_path if head else None,
        checkpoint=report,
    )


def _own_names(module: nn.Module) -> list[str]:
    """Return the tensors that a network must get from a file: all but head and counters."""
    head = classifier_path(module)
    return [
        name
        for name in module.state_dict()
        if not name.endswith(_COUNTER) and (head is None or not name.startswith(f"{head}."))
    ]


def _head_tensors(
    choice: Choice, tensors: Tensors, network: nn.Module
) -> tuple[dict[str, str], set[str]]:
    """Return the head to keep, from names inside it to names in the file, and the rest of heads.

    A head beside the network (a projector) goes before one inside it (a classifier).
    """
    head_path, own = classifier_path(network), network.state_dict()
    inside: dict[str, str] = {}
    for place in filter(None, (head_path, "fc", "linear", "classifier", "head")):
        inside = inside or {
            name.removeprefix(f"{place}."): key
            for name, key in choice.network.origin.items()
            if name.startswith(f"{place}.") and (place == head_path or name not in own)
        }
    beside: dict[str, str] = {}
    pattern = choice.layout.heads.get(choice.role)
    for key in tensors if pattern else ():
        match = re.match(pattern or "", key)
        if match:
            beside[key[match.end() :]] = key
    own = {} if choice.layout.head_is_random else inside
    kept = (beside or own) if head_path is not None else {}
    return kept, (set(inside.values()) | set(beside.values())) - set(kept.values())


def _build_head(
    choice: Choice, network: Network, tensors: Mapping[str, StoredTensor]
) -> nn.Module | None:
    """Build a head on the network's features; None where it is of no known kind, or on others.

    Raises:
        CheckpointError: It is a part of the network, and not whole.
    """
    path = classifier_path(network.module)
    if not tensors or path is None:
        return None
    own: nn.Linear = network.module.get_submodule(path)  # type: ignore[assignment]
    head = build_head(tensors)
    is_part = all(tensor in choice.network.tensors.values() for tensor in tensors.values())
    is_half = own.bias is not None and tensors.keys() == {"weight"}
    if is_part and (head is None or is_half):
        raise CheckpointError(
            f"the head {path} is not whole, or of no known kind (it has {', '.join(tensors)})"
        )
    if head is None or input_width(head) != own.in_features:
        return None
    _check_finite("the head", head.state_dict().values())
    return nn.Sequential(head, Normalize()) if choice.layout.normalizes else head


def _check(
    network: Network, choice: Choice, tensors: Tensors, known: set[str], is_given: bool
) -> None:
    """Prove that the file has every tensor of the network, and nothing that was not understood.

    Args:
        network: What the file was taken for.
        choice: Where in the file it was found.
        tensors: Of the file.
        known: Names that belong to heads.
        is_given: Whether the user said which network it is.

    Raises:
        CheckpointError: It has not.
    """
    state = network.module.state_dict()
    wanted = {name: tuple(state[name].shape) for name in _own_names(network.module)}
    found = choice.network.tensors
    missing = [name for name in wanted if name not in found]
    reshaped = [
        f"{name} {found[name].shape} for {shape}"
        for name, shape in wanted.items()
        if name in found and found[name].shape != shape
    ]
    used = {choice.network.origin[name] for name in wanted if name in found}
    surplus = [key for key in _beside(choice, tensors) if key not in used | known]
    problems = [
        f"{len(names)} {what} ({', '.join(names[:10])}{', …' if len(names) > 10 else ''})"
        for what, names in (
            ("missing", missing),
            ("of another shape", reshaped),
            ("left over", surplus),
        )
        if names
    ]
    if problems:
        raise CheckpointError(
            f"not the weights of {network.architecture}, which it was taken for (layout: "
            f"{choice.layout.name}, weights: {choice.role}): tensors {'; '.join(problems)}; "
            + _way_out(choice, surplus, is_whole=not missing and not reshaped, is_given=is_given)
        )


def _way_out(choice: Choice, surplus: Iterable[str], is_whole: bool, is_given: bool) -> str:
    root = choice.network.root
    if is_whole and root and not any(key.startswith(root) for key in surplus):
        return f"to load the network alone, without what stands beside it, say ?weights={root}"
    if is_given:
        return "say another network with ?arch=, or leave it out to have it read off the tensors"
    return "say which network it is with ?arch="


def _beside(choice: Choice, tensors: Tensors) -> Iterable[str]:
    """Yield what stands in the network's dictionary and must be accounted for."""
    root = choice.network.root
    scope = root if choice.alone else root[: root.rfind("/") + 1]
    others = [n.root for n in choice.others.values() if not root.startswith(n.root)]
    patterns = [choice.layout.others, *choice.layout.heads.values()]
    for key in tensors:
        is_inside = key.startswith(scope) and (choice.alone or "/" not in key[len(scope) :])
        is_known = key.startswith(tuple(others)) or any(re.match(p, key) for p in patterns)
        if is_inside and not is_known and not key.endswith(_TRAINING_ONLY):
            yield key


def _fill(module: nn.Module, tensors: Mapping[str, StoredTensor], names: Iterable[str]) -> int:
    """Put the file's values in place of the network's own, and return how many there were.

    Raises:
        CheckpointError: A value is damaged, or no finite number.
    """
    state = module.state_dict(keep_vars=True)
    counters = [
        name
        for name in state
        if name.endswith(_COUNTER) and name in tensors and not tensors[name].shape
    ]
    count = 0
    for name in (*names, *counters):
        tensor, wanted = tensors[name].read(), state[name].dtype
        if wanted.is_floating_point and not tensor.is_floating_point():
            raise CheckpointError(f"the values of {name} are {tensor.dtype}, not real numbers")
        state[name].data = tensor.to(wanted)
        _check_finite(name, [state[name]])
        count += 1
    return count


def _check_finite(name: str, tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
            raise CheckpointError(f"damaged, or training diverged: {name} is not finite")
