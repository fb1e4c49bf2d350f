"""Networks inside a checkpoint: found by the names of their tensors, identified by their shapes.

A family of networks appears under several names: those of torchvision, numbers where it was put
into an ``nn.Sequential``, those of converters. Wherever a file holds one, it is found by two names
that belong together, and its tensors are given the names that featkit's network has.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from featkit.backbones.checkpoints.tensors import StoredTensor
from featkit.backbones.nets import NETS
from featkit.backbones.nets.alexnet import CHANNELS, alexnet_name
from featkit.backbones.nets.cifar_resnet import cifar_resnet_name
from featkit.backbones.nets.ssl_resnet import BLOCKS, WIDTHS, ssl_resnet_name
from featkit.backbones.nets.vit import EMBEDDINGS, PATCHES, vit_name
from featkit.errors import CheckpointError

Tensors = Mapping[str, StoredTensor]


@dataclass(frozen=True)
class FoundNetwork:
    """A network in a file.

    Attributes:
        root: What stands before its names in the file, such as ``state_dict/module.encoder_q.``.
        family: How it names its tensors.
        tensors: Its tensors by the names that featkit's network has; maybe more than that has.
        origin: The name in the file of each.
    """

    root: str
    family: Family
    tensors: dict[str, StoredTensor]
    origin: dict[str, str]

    def architecture(self) -> str:
        """Read the architecture off the shapes.

        Raises:
            CheckpointError: featkit has no such network.
        """
        try:
            return self.family.identify({name: t.shape for name, t in self.tensors.items()})
        except (KeyError, IndexError, ValueError) as error:
            if isinstance(error, CheckpointError):
                raise
            raise CheckpointError(
                f"looks like {self.family.name}, but not whole, or of no known kind (at {error})"
            ) from error


@dataclass(frozen=True)
class Family:
    """One way of naming one kind of network.

    Attributes:
        name: What it is called in messages and reports.
        signs: Two names of which every network of this family has both.
        renames: Patterns and what featkit's network says instead, applied in order.
        identify: From shapes by name to the architecture.
        flips: Names of tensors whose input channels are in the order blue, green, red.
    """

    name: str
    signs: tuple[str, str]
    renames: tuple[tuple[str, str], ...]
    identify: Callable[[Mapping[str, tuple[int, ...]]], str]
    flips: tuple[str, ...] = ()


def find_networks(tensors: Tensors) -> Iterator[FoundNetwork]:
    """Find every network of a known family, in the order of the file.

    Example:
        >>> list(find_networks({}))
        []
    """
    for key in tensors:
        for family in FAMILIES:
            first, second = family.signs
            root = key.removesuffix(first)
            if key.endswith(first) and root[-1:] in ("", ".", "/") and root + second in tensors:
                yield _network(root, family, tensors)
                break


def find_by_names(tensors: Tensors, names: Sequence[str]) -> list[FoundNetwork]:
    """Find every network that has all of these names, or else the one that has the most.

    Args:
        tensors: Of a file.
        names: As a network's own state dict has them.
    """
    family = Family("the network asked for", ("", ""), (), _refuse_to_guess)
    roots = {k.removesuffix(n) for n in names[:1] for k in tensors if k.endswith(n)}
    roots = {root for root in roots if root[-1:] in ("", ".", "/")}
    found = [_network(root, family, tensors) for root in sorted(roots)]
    whole = [network for network in found if set(names) <= network.tensors.keys()]
    most = sorted(found, key=lambda network: len(set(names) - network.tensors.keys()))
    return whole or most[:1]


def _refuse_to_guess(_: Mapping[str, tuple[int, ...]]) -> str:
    raise CheckpointError("no network that is known by its shapes")


def _network(root: str, family: Family, tensors: Tensors) -> FoundNetwork:
    found: dict[str, StoredTensor] = {}
    origin: dict[str, str] = {}
    for key, tensor in tensors.items():
        if not key.startswith(root):
            continue
        name = key.removeprefix(root)
        for pattern, replacement in family.renames:
            name = re.sub(pattern, replacement, name)
        found[name] = _flipped(tensor) if name in family.flips else tensor
        origin[name] = key
    return FoundNetwork(root, family, found, origin)


def _flipped(tensor: StoredTensor) -> StoredTensor:
    return StoredTensor(tensor.shape, lambda: tensor.read().flip(1))


def identify_resnet(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Read depth, width, groups and stem off the shapes of a ResNet.

    Raises:
        CheckpointError: featkit has no such ResNet.
    """
    stem = shapes["conv1.weight"]
    blocks = tuple(_count(shapes, f"layer{stage}") for stage in (1, 2, 3, 4))
    if not blocks[3]:
        return _identify_cifar_resnet(stem, blocks)
    is_bottleneck = "layer1.0.conv3.weight" in shapes
    kind = "Bottleneck" if is_bottleneck else "BasicBlock"
    depth = next((d for d, (b, n) in BLOCKS.items() if (b.__name__, n) == (kind, blocks)), None)
    if depth is None:
        raise CheckpointError(f"a ResNet of {blocks} blocks ({kind}), which is none of 18 to 200")
    if stem[1] != 3:
        raise CheckpointError(f"its images have {stem[1]} channel(s), not red, green and blue")
    inner, per_group = shapes["layer1.0.conv2.weight"][:2]
    if is_bottleneck and stem[0] == 64 and (inner, per_group) != (64, 64):
        return _identify_torchvision_variant(depth, inner, per_group)
    width, rest = divmod(stem[0], 64)
    is_small = stem[2] == 3
    is_known = not rest and inner == per_group == stem[0] and width in WIDTHS
    if not is_known or stem[2:] not in ((7, 7), (3, 3)):
        raise CheckpointError(f"a ResNet-{depth} with an unknown stem or width ({stem})")
    if width == 1 and not is_small and depth != 200:
        return f"torchvision:resnet{depth}"
    return ssl_resnet_name(depth, width, is_small)


def _count(shapes: Mapping[str, tuple[int, ...]], stage: str) -> int:
    count = 0
    while f"{stage}.{count}.conv1.weight" in shapes:
        count += 1
    return count


def _identify_cifar_resnet(stem: tuple[int, ...], blocks: tuple[int, ...]) -> str:
    width, rest = divmod(stem[0], 16)
    name = cifar_resnet_name(6 * blocks[0] + 2, width)
    if stem[1:] != (3, 3, 3) or rest or len(set(blocks[:3])) != 1 or name not in NETS:
        raise CheckpointError(f"a ResNet of three stages, {blocks[:3]} blocks, unlike CIFAR's")
    return name


def _identify_torchvision_variant(depth: int, inner: int, per_group: int) -> str:
    groups = inner // per_group
    known = {
        (50, 32, 4): "resnext50_32x4d",
        (101, 32, 8): "resnext101_32x8d",
        (101, 64, 4): "resnext101_64x4d",
        (50, 1, 128): "wide_resnet50_2",
        (101, 1, 128): "wide_resnet101_2",
    }
    if (depth, groups, per_group) not in known:
        raise CheckpointError(f"a ResNet-{depth} of {groups} groups of {per_group} channels")
    return f"torchvision:{known[depth, groups, per_group]}"


def identify_vit(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Read width, depth and patch size off the shapes of a vision transformer.

    Raises:
        CheckpointError: featkit has no such transformer.
    """
    width, channels, patch, _ = shapes["patch_embed.proj.weight"]
    depth = len({name.split(".")[1] for name in shapes if name.startswith("blocks.")})
    size = next((s for s, shape in EMBEDDINGS.items() if shape == (width, depth)), None)
    tokens = shapes["pos_embed"][1]
    if size is None or patch not in PATCHES or channels != 3:
        raise CheckpointError(
            f"a transformer of {depth} blocks, {width} dimensions and patches of {patch} pixels"
        )
    if tokens != (224 // patch) ** 2 + 1:
        raise CheckpointError(f"a transformer for other than 224 pixels ({tokens} tokens)")
    return vit_name(size, patch)


def identify_alexnet(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Read the variant off the shapes of an AlexNet.

    Raises:
        CheckpointError: featkit has no such AlexNet.
    """
    channels, inputs, *size = shapes["features.0.weight"]
    has_bn = len(shapes["features.1.weight"]) == 1 if "features.1.weight" in shapes else False
    second = shapes["features.4.weight" if has_bn else "features.3.weight"]
    has_sobel = "sobel.0.weight" in shapes
    if size != [11, 11] or channels not in CHANNELS or inputs != (2 if has_sobel else 3):
        raise CheckpointError(f"an AlexNet whose first convolution is {(channels, inputs, *size)}")
    if second[:2] != (CHANNELS[channels][1], channels):
        raise CheckpointError("an AlexNet of two groups, as caffe's, or one that is unknown")
    is_conv_only = "classifier.1.weight" not in shapes
    if (channels, has_bn, has_sobel, is_conv_only) == (64, False, False, False):
        return "torchvision:alexnet"
    return alexnet_name(channels, has_bn, has_sobel, is_conv_only)


def _identify_linear_stem(shapes: Mapping[str, tuple[int, ...]]) -> str:
    """Read a ResNet off the shapes whose stem is a convolution and a batch norm only.

    Where the first stage stands at 2 in a row, nothing can stand between it and the batch norm.
    """
    name = identify_resnet(shapes)
    if not name.endswith("_32px"):
        raise CheckpointError(f"{name} without a ReLU in its stem")
    return f"{name}_linear_stem"


def _refuse_selective_kernels(_: Mapping[str, tuple[int, ...]]) -> str:
    raise CheckpointError("a ResNet with selective kernels (sk1), which featkit does not have")


def _stages(pattern: str, first: int) -> tuple[tuple[str, str], ...]:
    return tuple((pattern.format(first + i), f"layer{i + 1}.") for i in range(4))


FAMILIES = (
    Family(
        "a ResNet",
        ("conv1.weight", "layer1.0.conv1.weight"),
        ((r"\.shortcut\.", ".downsample."),),
        identify_resnet,
    ),
    Family(
        "the children of a ResNet without a ReLU in its stem, in a row",
        ("0.weight", "2.0.conv1.weight"),
        (
            (r"^0\.", "conv1."),
            (r"^1\.", "bn1."),
            *_stages(r"^{}\.", first=2),
            (r"\.shortcut\.", ".downsample."),
        ),
        _identify_linear_stem,
    ),
    Family(
        "the children of a ResNet in a row",
        ("0.weight", "4.0.conv1.weight"),
        (
            (r"^0\.", "conv1."),
            (r"^1\.", "bn1."),
            *_stages(r"^{}\.", first=4),
        ),
        identify_resnet,
    ),
    Family(
        "a ResNet converted from SimCLR v2",
        ("net.0.0.weight", "net.1.blocks.0.net.0.weight"),
        (
            (r"^net\.0\.0\.", "conv1."),
            (r"^net\.0\.1\.0\.", "bn1."),
            (r"^net\.([1-4])\.blocks\.(\d+)\.projection\.shortcut\.", r"layer\1.\2.downsample.0."),
            (r"^net\.([1-4])\.blocks\.(\d+)\.projection\.bn\.0\.", r"layer\1.\2.downsample.1."),
            (r"^net\.([1-4])\.blocks\.(\d+)\.net\.0\.", r"layer\1.\2.conv1."),
            (r"^net\.([1-4])\.blocks\.(\d+)\.net\.1\.0\.", r"layer\1.\2.bn1."),
            (r"^net\.([1-4])\.blocks\.(\d+)\.net\.2\.", r"layer\1.\2.conv2."),
            (r"^net\.([1-4])\.blocks\.(\d+)\.net\.3\.0\.", r"layer\1.\2.bn2."),
            (r"^net\.([1-4])\.blocks\.(\d+)\.net\.4\.", r"layer\1.\2.conv3."),
            (r"^net\.([1-4])\.blocks\.(\d+)\.net\.5\.0\.", r"layer\1.\2.bn3."),
        ),
        identify_resnet,
    ),
    Family(
        "a ResNet with selective kernels, converted from SimCLR v2",
        ("net.0.0.weight", "net.1.blocks.0.net.2.main_conv.0.weight"),
        (),
        _refuse_selective_kernels,
    ),
    Family(
        "a ResNet of Caffe2",
        ("conv1_w", "res2_0_branch2a_w"),
        (
            (r"^pred_w$", "fc.weight"),
            (r"^pred_b$", "fc.bias"),
            (r"_bn_s$", "_bn.weight"),
            (r"_bn_b$", "_bn.bias"),
            (r"_bn_rm$", "_bn.running_mean"),
            (r"_bn_riv$", "_bn.running_var"),
            (r"_w$", ".weight"),
            (r"^res_conv1_bn\.", "bn1."),
            *_stages("^res{}_", first=2),
            (r"_branch1_bn\.", ".downsample.1."),
            (r"_branch1\.", ".downsample.0."),
            (r"_branch2a_bn\.", ".bn1."),
            (r"_branch2b_bn\.", ".bn2."),
            (r"_branch2c_bn\.", ".bn3."),
            (r"_branch2a\.", ".conv1."),
            (r"_branch2b\.", ".conv2."),
            (r"_branch2c\.", ".conv3."),
        ),
        identify_resnet,
        flips=("conv1.weight",),
    ),
    Family("a vision transformer", ("cls_token", "patch_embed.proj.weight"), (), identify_vit),
    *(
        Family(
            "an AlexNet",
            (f"features.{parallel}0.weight", f"features.{parallel}{last}.weight"),
            ((r"^features\.module\.", "features."),),
            identify_alexnet,
        )
        for parallel in ("", "module.")
        for last in (14, 10)
    ),
    Family(
        "an AlexNet of VISSL",
        ("_feature_blocks.0.0.weight", "_feature_blocks.6.1.weight"),
        tuple(
            (rf"^_feature_blocks\.{block}\.{part}\.", f"features.{first + part}.")
            for block, first in ((0, 0), (2, 4), (4, 8), (5, 11), (6, 14))
            for part in (0, 1)
        ),
        identify_alexnet,
    ),
)
"""Every family that is known; the first whose signs are there counts."""
