"""Which network of a checkpoint file is to be loaded."""

from __future__ import annotations

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
        others: The other networks of the file, by role.
        alone: Whether the user pointed at it where the layout is unknown, so that what stands
            beside it means nothing.
    """

    layout: Layout
    role: str
    network: FoundNetwork
    others: Mapping[str, FoundNetwork]
    alone: bool = False

    def architecture(self) -> str:
        """Read the architecture off shapes and layout.

        Raises:
            CheckpointError: featkit has no such network.
        """
        name = self.network.architecture()
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
        weights: The role asked for; None for the layout's default.

    Raises:
        CheckpointError: There is none, there are several that cannot be told apart, or none has
            the role.
    """
    networks = list(find_networks(tensors))
    if names is not None and not any(set(names) <= n.tensors.keys() for n in networks):
        networks = find_by_names(tensors, names) or networks
    if not networks:
        some = ", ".join([*list(tensors)[:6], *["…"] * (len(tensors) > 6)]) or "nothing"
        raise CheckpointError(
            f"no network that featkit knows ({len(tensors)} tensors: {some}); "
            f"say which network it is with ?arch=, such as ?arch=timm:NAME"
        )
    known = find_layout(list(tensors), networks)
    if known is None:
        return _choose_unknown(networks, weights)
    layout, roles = known
    role = weights or next(iter(roles))
    if role not in roles:
        raise CheckpointError(
            f"no weights {role!r} in this {layout.name} file: {did_you_mean(role, roles)}"
        )
    others = {name: network for name, network in roles.items() if name != role}
    return Choice(layout, role, roles[role], others)


def _choose_unknown(networks: Sequence[FoundNetwork], weights: str | None) -> Choice:
    """Take a network from where no layout has one: the only one, or the one that is named."""
    roots = {network.root: network for network in networks}
    first = next(iter(roots))
    if len(roots) == 1 and weights in (None, "student"):
        return Choice(Layout(f"a network at {first}", {}), "student", roots[first], {})
    if weights is None:
        raise CheckpointError(
            f"several networks, at {', '.join(roots)}; say which with ?weights={first}"
        )
    if weights not in roots:
        raise CheckpointError(
            f"no network at {weights!r}: {did_you_mean(weights, ['student', *roots])}"
        )
    others = {root: network for root, network in roots.items() if root != weights}
    return Choice(
        Layout(f"a network at {weights}", {}), weights, roots[weights], others, alone=True
    )
