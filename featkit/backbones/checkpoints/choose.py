"""Which network of a checkpoint file is to be loaded."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from featkit.backbones.checkpoints.families import (
    FoundNetwork,
    Tensors,
    find_by_names,
    find_networks,
)
from featkit.backbones.checkpoints.layouts import Layout, find_layout
from featkit.backbones.nets import NETS
from featkit.errors import CheckpointError
from featkit.registry import did_you_mean


@dataclass(frozen=True)
class Choice:
    """A network of a file.

    Attributes:
        layout: The kind of file.
        role: The network's role in it.
        network: Its tensors.
        others: The other networks of the file, by role or place.
        alone: Whether the user pointed at its place, so that what stands beside it means nothing.
    """

    layout: Layout
    role: str
    network: FoundNetwork
    others: Mapping[str, FoundNetwork]
    alone: bool = False

    def architecture(self) -> str:
        """Read the architecture off shapes and layout.

        Raises:
            CheckpointError: featkit has no such network, or cannot tell it from another.
        """
        try:
            name = self.network.architecture()
        except CheckpointError as error:
            raise CheckpointError(
                f"{error} (layout: {self.layout.name}, weights: {self.role}); featkit knows no "
                f"such network by its tensors: say which it is with ?arch=, as in ?arch=timm:NAME"
            ) from error
        if name in self.layout.doubts:
            raise CheckpointError(self.layout.doubts[name])
        variant = self.layout.variants.get(name)
        if variant is None and f"{name}_heads12" in NETS and self._has_fixed_positions():
            raise CheckpointError(
                f"positions as MoCo v3 fixes them, but not its names: say ?arch={name}_heads12 if "
                f"it is from MoCo v3, ?arch={name} if not (their attention has 12 and 6 heads)"
            )
        return variant or name

    def _has_fixed_positions(self) -> bool:
        """Whether a transformer's class token has no position, as where sines are added."""
        return not self.network.tensors["pos_embed"].read()[:, 0].any()


def choose_network(tensors: Tensors, names: Sequence[str] | None, weights: str | None) -> Choice:
    """Find the networks of a file and take one.

    Args:
        tensors: Of the file.
        names: Of the tensors that the network must have, if its architecture is given.
        weights: The role or place asked for; None for the layout's default.

    Raises:
        CheckpointError: There is none, there are several that cannot be told apart, or none has
            the role.
    """
    networks = list(find_networks(tensors))
    if names is not None and not any(set(names) <= n.tensors.keys() for n in networks):
        networks = find_by_names(tensors, names) or networks
    if not networks:
        raise CheckpointError(_nothing_known(list(tensors)))
    layout, roles = find_layout(list(tensors), networks) or _unknown_layout(networks)
    roots = {network.root: network for network in networks}
    beside = {
        root: network
        for root, network in roots.items()
        if network not in roles.values() and not re.match(layout.others, root)
    }
    role = weights or next(iter(roles), None)
    if role is None:
        raise CheckpointError(
            f"several networks, at {', '.join(roots)}; say which with ?weights={next(iter(roots))}"
        )
    if role not in roles | roots:
        raise CheckpointError(
            f"no weights {role!r} in this {layout.name} file: "
            f"{did_you_mean(role, [*roles, *beside])}"
        )
    others = {name: n for name, n in (roles | beside).items() if name != role}
    if role in roles:
        return Choice(layout, role, roles[role], others)
    return Choice(Layout(f"a network at {role}", {}), role, roots[role], others, alone=True)


def _unknown_layout(
    networks: Sequence[FoundNetwork],
) -> tuple[Layout, dict[str, FoundNetwork]]:
    """Take the only network of a file for the one that was trained; several have no roles."""
    roots = {network.root: network for network in networks}
    if len(roots) > 1:
        return Layout("unknown", {}), {}
    ((root, network),) = roots.items()
    return Layout(f"a network at {root}", {}), {"student": network}


_ELSEWHERE = (
    (r"(?:.*/)?(?:\w*res_?net\w*|\w*mlp\w*)/~/", "parameters of Haiku; convert them to PyTorch"),
    (r".*/(?:kernel|gamma|moving_mean)\b", "variables of TensorFlow; convert them to PyTorch"),
    (
        r".*(?:embeddings\.cls_token|embedder\.embedder\.|encoder\.layer\.0\.)",
        "names of the transformers library; give the same network by timm's or torchvision's names",
    ),
)
"""Names of tensors that tell what else a file is."""


def _nothing_known(names: Sequence[str]) -> str:
    if not names:
        return (
            "no tensors in it; of a training run that was saved in parts, give the file that they "
            "were joined into"
        )
    some = ", ".join([*names[:6], *["…"] * (len(names) > 6)])
    hints = (hint for pattern, hint in _ELSEWHERE if any(re.match(pattern, n) for n in names))
    advice = next(hints, "say which network it is with ?arch=, such as ?arch=timm:NAME")
    return f"no network that featkit knows ({len(names)} tensors: {some}); {advice}"
