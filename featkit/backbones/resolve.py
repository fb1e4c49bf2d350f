"""From what a user writes after ``-b`` to a backbone."""

from __future__ import annotations

import dataclasses
import re
from pathlib import Path

from featkit.backbones.architectures import build
from featkit.backbones.base import Backbone, Network
from featkit.backbones.checkpoints.load import load_checkpoint
from featkit.backbones.hub import (
    hub_file,
    hub_network,
    timm_pretrained,
    torchvision_pretrained,
)
from featkit.backbones.nets import NETS
from featkit.backbones.offline import OFFLINE, offline_network
from featkit.errors import BackboneError, UsageError
from featkit.registry import did_you_mean
from featkit.spec import check_options, int_option, slugify, split_query

_NAMED = re.compile(r"([A-Za-z0-9_-][A-Za-z0-9._-]*)=(.+)", re.DOTALL)
_SUFFIXES = (".bin", ".ckpt", ".pkl", ".pt", ".pth", ".safetensors", ".tar", ".th")
_OPTIONS = ("arch", "revision", "seed", "size", "weights")


def load_backbone(text: str) -> Backbone:
    """Load a backbone.

    Args:
        text: ``[NAME=]SPEC[?key=value&…]``, where SPEC is

            - ``torchvision:NAME`` (``?weights=IMAGENET1K_V1`` chooses among published weights),
            - ``timm:NAME``,
            - ``hf:OWNER/REPO`` (a timm model) or ``hf:OWNER/REPO/FILE?arch=…``, pinned by
              ``?revision=``,
            - ``offline:efficientnet_lite0``, ``1`` or ``2``,
            - a checkpoint file with ``?arch=``,
            - an architecture of our own, such as ``cifar_resnet20``, with ``?weights=none``.

            ``?weights=none&seed=0`` gives random weights, ``?size=N`` another input size.

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
    size = int_option(spec, options, "size", None)
    if size is not None:
        if size < 1:
            raise BackboneError(f"{spec!r}: size is a number of pixels, at least 1")
        resized = network.preprocessing.resized(size)
        network = dataclasses.replace(network, preprocessing=resized)
    return Backbone(name or slugify(_default_name(target)), spec, network)


def _default_name(target: str) -> str:
    is_hub_file = target.startswith("hf:") and target.count("/") > 1
    if is_hub_file or _is_file(target):
        return Path(target).stem
    return re.split("[:/]", target)[-1]


def _is_file(target: str) -> bool:
    return Path(target).is_file()


def _network(spec: str, target: str, options: dict[str, str]) -> Network:
    prefix, _, name = target.partition(":")
    if _is_file(target):
        return _from_file(spec, Path(target), options)
    if ":" not in target and ("/" in target or Path(target).suffix in _SUFFIXES):
        raise BackboneError(f"{spec!r}: no such file {target}")
    if options.get("weights") == "none":
        return _random(spec, target, options)
    _refuse(spec, options, "seed", why="only random weights (?weights=none) have a seed")
    if prefix == "hf":
        return _from_hub(spec, name, options)
    _refuse(spec, options, "arch", "revision")
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
    raise BackboneError(
        f"backbone {spec!r}: neither a file nor one of torchvision:NAME, timm:NAME, "
        f"hf:OWNER/REPO, {', '.join(f'offline:{o}' for o in OFFLINE)}, {', '.join(NETS)}; "
        f"{_suggest(target)} (featkit backbones lists all)"
    )


def _random(spec: str, target: str, options: dict[str, str]) -> Network:
    _refuse(spec, options, "arch", "revision")
    if target.startswith(("hf:", "offline:")):
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


def _from_file(spec: str, path: Path, options: dict[str, str]) -> Network:
    _refuse(spec, options, "seed", "weights", "revision", why="a file has its own weights")
    if "arch" not in options:
        raise BackboneError(
            f"{spec!r}: say which network the file holds, for example "
            f"{spec}?arch=torchvision:resnet50"
        )
    return load_checkpoint(path, options["arch"])


def _from_hub(spec: str, name: str, options: dict[str, str]) -> Network:
    _refuse(spec, options, "weights", why="a hub repository has its own weights")
    owner, _, rest = name.partition("/")
    repository, _, filename = rest.partition("/")
    if not owner or not repository:
        raise BackboneError(f"{spec!r}: a hub repository is hf:OWNER/REPO or hf:OWNER/REPO/FILE")
    revision = options.get("revision")
    if filename:
        if "arch" not in options:
            raise BackboneError(f"{spec!r}: say which network {filename} holds with ?arch=")
        path = hub_file(f"{owner}/{repository}", filename, revision)
        return load_checkpoint(path, options["arch"])
    _refuse(spec, options, "arch", why="only a file of a repository needs one")
    return hub_network(f"{owner}/{repository}", revision)


def _refuse(
    spec: str, options: dict[str, str], *names: str, why: str = "it has no meaning here"
) -> None:
    for name in names:
        if name in options:
            raise BackboneError(f"{spec!r}: option {name} cannot be used ({why})")
