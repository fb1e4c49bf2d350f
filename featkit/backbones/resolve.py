"""From what a user writes after ``-b`` to a backbone."""

from __future__ import annotations

import dataclasses
import math
import re
from pathlib import Path
from typing import Any

from featkit.backbones.architectures import build
from featkit.backbones.base import Backbone, Network
from featkit.backbones.checkpoints.load import load_checkpoint
from featkit.backbones.hub import (
    hub_checkpoint,
    hub_network,
    timm_pretrained,
    torchvision_pretrained,
)
from featkit.backbones.nets import NETS
from featkit.backbones.offline import OFFLINE, offline_network
from featkit.backbones.training_runs import is_run, run_network
from featkit.backbones.zoo import zoo_entry, zoo_file
from featkit.data.preprocessing import Preprocessing
from featkit.errors import BackboneError, UsageError
from featkit.registry import did_you_mean
from featkit.spec import check_options, int_option, kind_at, slugify, split_query

_NAMED = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*)=(.+)", re.DOTALL)
_SUFFIXES = (
    *(".bin", ".ckpt", ".index", ".json", ".pickle", ".pkl", ".pt", ".pth", ".safetensors"),
    *(".tar", ".th", ".torch"),
)
_PREPROCESSING = ("size", "mean", "std", "interpolation")
_OPTIONS = ("arch", "epoch", "revision", "seed", "sha256", "weights", *_PREPROCESSING)


def load_backbone(text: str) -> Backbone:
    """Load a backbone.

    Args:
        text: ``[NAME=]SPEC[?key=value&…]``, where SPEC is

            - ``torchvision:NAME`` (``?weights=IMAGENET1K_V1`` chooses among published weights),
            - ``timm:NAME``,
            - ``hf:OWNER/REPO`` (a timm model) or ``hf:OWNER/REPO/FILE`` (a checkpoint), pinned by
              ``?revision=``,
            - ``zoo:NAME``, a published checkpoint,
            - ``offline:efficientnet_lite0``, ``1`` or ``2``,
            - a checkpoint file: layout and architecture are read off its tensors (``?arch=`` says
              what it is, ``?weights=teacher`` chooses among its networks, ``?sha256=`` says what
              its digest begins with),
            - the folder of a training run (``?epoch=30`` chooses among the epochs it keeps),
            - an architecture of our own, such as ``cifar_resnet20``, with ``?weights=none``.

            ``?weights=none&seed=0`` gives random weights; ``?size=N``, ``?mean=0.5``,
            ``?std=0.2,0.2,0.2`` and ``?interpolation=bicubic`` another preprocessing.

    Returns:
        The backbone in evaluation mode, on the CPU, with every weight loaded.

    Raises:
        BackboneError: It does not exist or cannot be loaded as asked.
        DownloadError: Its weights could not be fetched.
        MissingExtraError: Its weights come in a package that is not installed.

    Example:
        >>> backbone = load_backbone("tiny=cifar_resnet20?weights=none&seed=1")
        >>> backbone.name, backbone.preprocessing.size
        ('tiny', (32, 32))
    """
    named = _NAMED.fullmatch(text)
    name, spec = named.groups() if named else (None, text)
    target, options = split_query(spec)
    check_options(spec, options, _OPTIONS)
    network = _network(spec, target, options)
    recipe, report = _preprocessing(spec, network.preprocessing, options), network.checkpoint
    if report is not None and options.keys() & set(_PREPROCESSING):
        report = dataclasses.replace(report, preprocessing="user")
    network = dataclasses.replace(network, preprocessing=recipe, checkpoint=report)
    own_name = name or slugify(_default_name(target, options.get("epoch")))
    return Backbone(own_name, spec, network)


def _preprocessing(spec: str, recipe: Preprocessing, options: dict[str, str]) -> Preprocessing:
    size = int_option(spec, options, "size", None)
    if size is not None:
        if size < 1:
            raise BackboneError(f"{spec!r}: size is a number of pixels, at least 1")
        recipe = recipe.resized(size)
    changes: dict[str, Any] = {
        name: _three_numbers(spec, name, options[name])
        for name in ("mean", "std")
        if name in options
    }
    if "interpolation" in options:
        changes["interpolation"] = options["interpolation"]
    try:
        return dataclasses.replace(recipe, **changes)
    except UsageError as error:
        raise BackboneError(f"{spec!r}: {error}") from error


def _three_numbers(spec: str, name: str, text: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if len(numbers) not in (1, 3) or not all(map(math.isfinite, numbers)):
        raise BackboneError(
            f"{spec!r}: {name} is one number for all channels or three for red, green and blue, "
            f"as in ?{name}=0.5 or ?{name}=0.485,0.456,0.406; not {text!r}"
        )
    return numbers * (3 // len(numbers))


def _default_name(target: str, epoch: str | None = None) -> str:
    if target and is_run(Path(target)):
        return Path(target).resolve().name + (f"-epoch{int(epoch)}" if epoch else "")
    is_hub_file = target.startswith("hf:") and target.count("/") > 1
    if is_hub_file or _is_file(target):
        name = Path(target.partition("@")[0] if is_hub_file else target).stem
        while Path(name).suffix in _SUFFIXES:
            name = Path(name).stem
        return name
    kind, opening, shape = target.partition("(")
    return re.split("[:/]", kind)[-1] + opening + shape


def _is_file(target: str) -> bool:
    return kind_at(target) == "file"


def _network(spec: str, target: str, options: dict[str, str]) -> Network:
    prefix, _, name = target.partition(":")
    is_random = options.get("weights") == "none"
    if _is_file(target) or (target and is_run(Path(target)) and not is_random):
        return _from_path(spec, Path(target), options)
    _refuse(spec, options, "epoch", why="only a training run has epochs")
    if ":" not in target and ("/" in target or Path(target).suffix in _SUFFIXES):
        raise BackboneError(f"{spec!r}: {_nothing_at(Path(target))}")
    if is_random:
        return _random(spec, target, options)
    _refuse(spec, options, "seed", why="only random weights (?weights=none) have a seed")
    if prefix in ("zoo", "hf"):
        return (_from_zoo if prefix == "zoo" else _from_hub)(spec, name, options)
    _refuse(spec, options, "arch", "revision", "sha256", why="it is not a checkpoint file")
    if prefix == "torchvision":
        return torchvision_pretrained(name, options.get("weights"))
    _refuse(spec, options, "weights", why="?weights= is 'none', or a torchvision name")
    if prefix == "timm":
        return timm_pretrained(name)
    if prefix == "offline":
        return offline_network(name)
    if target in NETS:
        raise BackboneError(
            f"{spec!r}: {target} has no published weights; give a checkpoint file with "
            f"?arch={target}, or ask for random weights with {target}?weights=none"
        )
    if target and kind_at(target) == "folder":
        raise BackboneError(f"{spec!r}: {_nothing_at(Path(target))}")
    raise BackboneError(
        f"backbone {spec!r}: neither a file nor a training run nor one of torchvision:NAME, "
        f"timm:NAME, hf:OWNER/REPO, zoo:NAME, offline:NAME, or a network of our own; "
        f"{_suggest(target)} (featkit backbones lists all)"
    )


def _random(spec: str, target: str, options: dict[str, str]) -> Network:
    _refuse(spec, options, "arch", "revision", "sha256")
    if target.startswith(("hf:", "offline:", "zoo:")):
        _refuse(spec, options, "weights", why="it has its own weights")
    seed = int_option(spec, options, "seed", 0) or 0
    if not 0 <= seed < 2**63:
        raise UsageError(f"{spec!r}: seed is a whole number from 0 to 2^63 - 1")
    return build(target, seed)


def _suggest(target: str) -> str:
    import timm
    from torchvision import models

    known = [*NETS, *(f"offline:{name}" for name in OFFLINE)]
    known += [f"torchvision:{name}" for name in models.list_models(module=models)]
    known += [f"timm:{name}" for name in timm.list_models()]
    namesakes = [name for name in known if name.rpartition(":")[2] == target]
    return f"did you mean {' or '.join(namesakes)}?" if namesakes else did_you_mean(target, known)


def _from_path(spec: str, path: Path, options: dict[str, str]) -> Network:
    if kind_at(path) == "folder":
        return _from_run(spec, path, options)
    _refuse(spec, options, "epoch", why="a file holds one; a training run has several")
    return _from_file(spec, path, options)


def _nothing_at(path: Path) -> str:
    if kind_at(path) != "folder":
        return f"no such file {path}"
    return (
        f"{path} is a folder, and no training run: give one that featkit train -o has written, or "
        f"a checkpoint file"
    )


def _from_run(spec: str, folder: Path, options: dict[str, str]) -> Network:
    others = ("arch", "revision", "seed", "sha256", "weights")
    _refuse(spec, options, *others, why="a training run says all of that itself")
    return run_network(folder, int_option(spec, options, "epoch", None))


def _from_file(spec: str, path: Path, options: dict[str, str]) -> Network:
    _refuse(spec, options, "seed", "revision", why="a file has its own weights")
    arch, weights, sha256 = (options.get(name) for name in ("arch", "weights", "sha256"))
    if sha256 is not None and not re.fullmatch(r"[0-9a-fA-F]{8,64}", sha256):
        raise BackboneError(f"{spec!r}: sha256 is the first 8 to 64 hexadecimal digits of it")
    return load_checkpoint(path, arch, weights, sha256)


def _from_zoo(spec: str, name: str, options: dict[str, str]) -> Network:
    zoo_entry(name)
    _refuse(spec, options, "revision", why="only a hub repository has revisions")
    return _from_file(spec, zoo_file(name, progress=True), options)


def _from_hub(spec: str, name: str, options: dict[str, str]) -> Network:
    owner, _, rest = name.partition("/")
    rest, _, revision = rest.partition("@")
    repository, _, filename = rest.partition("/")
    if not owner or not repository:
        raise BackboneError(f"{spec!r}: a hub repository is hf:OWNER/REPO or hf:OWNER/REPO/FILE")
    pinned = options.pop("revision", None) or revision or None
    if filename:
        path = hub_checkpoint(f"{owner}/{repository}", filename, pinned)
        return _from_file(spec, path, options)
    _refuse(spec, options, "arch", "weights", "sha256", why="only a file of a repository needs it")
    return hub_network(f"{owner}/{repository}", pinned)


def _refuse(
    spec: str, options: dict[str, str], *names: str, why: str = "it has no meaning here"
) -> None:
    for name in names:
        if name in options:
            raise BackboneError(f"{spec!r}: option {name} cannot be used ({why})")
