"""What a TreeNet is made of, and the name that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias, get_args, get_type_hints

from featkit.errors import BackboneError
from featkit.registry import did_you_mean

Join: TypeAlias = Literal["dense", "average", "attention", "max", "concat"]
Pool: TypeAlias = Literal["avg", "max", "attention", "recurrent"]
Order: TypeAlias = Literal["norm-conv", "conv-norm"]
View: TypeAlias = Literal["whole", "part"]

MOST_LEAVES = 128


@dataclass(frozen=True)
class TreeShape:
    """The parts of a TreeNet.

    Attributes:
        leaves: How many pathways there are, 1 to 128.
        join: What makes one vector of theirs.
        pool: What makes a vector of a leaf's last map.
        order: Whether a normalisation stands before each convolution but the first (sec. 5.1), or
            behind each (sec. 3.2.1).
        channels: Of the convolutions of a leaf.
        leaf: Another network as a leaf, by its architecture; "" for convolutions.
        view: Whether a leaf sees the whole image, or a part that is its own.

    Source: Grant, Dias, Kulkarni, Spontaneous decomposition from grouped network pathways, sec. 3.2
    and 5.1.

    Example:
        >>> tree_name(TreeShape(leaves=8, join="average"))
        'treenet(leaves=8,join=average)'
        >>> tree_shape("treenet(leaves=8,join=average)") == TreeShape(8, "average")
        True
    """

    leaves: int = 32
    join: Join = "dense"
    pool: Pool = "avg"
    order: Order = "norm-conv"
    channels: tuple[int, ...] = (8, 16, 32, 48, 64)
    leaf: str = ""
    view: View = "whole"

    def __post_init__(self) -> None:
        """Refuse what is no tree."""
        if not 1 <= self.leaves <= MOST_LEAVES:
            raise BackboneError(f"a TreeNet has 1 to {MOST_LEAVES} leaves, not {self.leaves}")
        if not self.channels or min(self.channels) < 1:
            raise BackboneError(f"channels {self.channels}: give one number or more, above 0")
        for name, kinds in (("join", Join), ("pool", Pool), ("order", Order), ("view", View)):
            if getattr(self, name) not in get_args(kinds):
                raise BackboneError(
                    f"{name} {getattr(self, name)!r}: use {', '.join(get_args(kinds))}"
                )
        if self.leaf and (self.pool, self.order, self.channels) != _OF_CONVOLUTIONS:
            raise BackboneError(
                f"leaf {self.leaf}: pool, order and channels are those of convolutions; leave them "
                f"out"
            )


_OF_CONVOLUTIONS = (TreeShape.pool, TreeShape.order, TreeShape.channels)


def tree_name(shape: TreeShape) -> str:
    """Return the architecture's name: what is not the default, in parentheses."""
    said = ",".join(
        f"{field.name}={_text(getattr(shape, field.name))}"
        for field in fields(shape)
        if getattr(shape, field.name) != field.default
    )
    return f"treenet({said})" if said else "treenet"


def _text(value: Any) -> str:
    return "-".join(map(str, value)) if isinstance(value, tuple) else str(value)


def tree_shape(name: str) -> TreeShape | None:
    """Read an architecture's name; None where it is no TreeNet's.

    Raises:
        BackboneError: It is, and says what no TreeNet has.
    """
    if name == "treenet":
        return TreeShape()
    if not (name.startswith("treenet(") and name.endswith(")")):
        return None
    kinds: Mapping[str, Any] = get_type_hints(TreeShape)
    told: dict[str, Any] = {}
    for part in name.removeprefix("treenet(").removesuffix(")").split(","):
        key, _, text = part.partition("=")
        if key not in kinds:
            raise BackboneError(f"{name}: a TreeNet has no {key!r}: {did_you_mean(key, kinds)}")
        told[key] = _value(name, key, text)
    return TreeShape(**told)


def _value(name: str, key: str, text: str) -> int | str | tuple[int, ...]:
    try:
        if key == "leaves":
            return int(text)
        return tuple(map(int, text.split("-"))) if key == "channels" else text
    except ValueError as error:
        raise BackboneError(
            f"{name}: {key} is {text!r}; give whole numbers, as in treenet(leaves=8) or "
            f"treenet(channels=8-16-32)"
        ) from error
