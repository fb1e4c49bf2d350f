"""Every backbone that can be asked for by name."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass

from featkit.backbones.nets import NETS
from featkit.backbones.offline import OFFLINE


@dataclass(frozen=True)
class Listed:
    """One name to write after ``-b``.

    Attributes:
        spec: The name with its library.
        weights: Where its weights come from.
    """

    spec: str
    weights: str


def list_backbones(pattern: str = "*") -> list[Listed]:
    """List the backbones whose name matches a pattern.

    Args:
        pattern: With ``*`` and ``?`` as in file names, for the name with its library or without;
            without them, a part of the name.

    Returns:
        Those that need no download first, then torchvision's, then timm's.

    Example:
        >>> [b.spec for b in list_backbones("cifar_resnet[25]?")]
        ['cifar_resnet20?weights=none', 'cifar_resnet56?weights=none']
    """
    import timm
    from torchvision import models

    listed = [Listed(f"offline:{name}", 'pip install "featkit[offline]"') for name in OFFLINE]
    listed += [Listed(f"{name}?weights=none", "random, or FILE?arch=") for name in NETS]
    listed += [
        Listed(f"torchvision:{name}", ", ".join(w.name for w in models.get_model_weights(name)))
        for name in models.list_models(module=models)
    ]
    pretrained = timm.list_models(pretrained=True)
    bare = {name.partition(".")[0] for name in pretrained}
    listed += [Listed(f"timm:{name}", "hub") for name in pretrained]
    listed += [
        Listed(f"timm:{name}?weights=none", "random")
        for name in timm.list_models()
        if name not in bare
    ]
    if not any(c in pattern for c in "*?["):
        pattern = f"*{pattern}*"
    return [b for b in listed if _matches(b.spec.lower(), pattern.lower())]


def _matches(spec: str, pattern: str) -> bool:
    name = spec.partition("?")[0]
    names = (spec, name, name.rpartition(":")[2])
    return any(fnmatch.fnmatchcase(each, pattern) for each in names)
