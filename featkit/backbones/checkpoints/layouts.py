"""Where the projects of the field put a network, its moving average and its head in a file.

A layout is told by where networks are found, never by a file's name. Patterns stand for the start
of names, and slashes follow the names of dictionaries. The network that the optimiser trains is
called ``student`` everywhere, its moving average ``teacher``, whatever a project calls them.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from featkit.backbones.checkpoints.families import FoundNetwork
from featkit.backbones.nets.recipes import IMAGENET, IMAGENET_BICUBIC, UNIT_RANGE
from featkit.data.preprocessing import Preprocessing

_WRAPPED = r"(?:module\.|_orig_mod\.|model\.)*"
_DICT = rf"(?:(?:state_dict|model|net|network|params)/)?{_WRAPPED}"
_CLASSY = r"(?:classy_state_dict/)?"
_TRUNK = rf"{_WRAPPED}(?:base_model\.)?(?:_feature_blocks\.)?"
_MOMENTUM = r"(?:momentum_teacher|moco_encoder|momentum_encoder)\.(?:module\.)?"


@dataclass(frozen=True)
class Layout:
    """One kind of checkpoint.

    Attributes:
        name: What it is called in reports.
        networks: Where each of its networks is, by role; the first that is there is the default.
        heads: Where the head of each role is, if not inside the network.
        others: What else may stand beside the network without being missed.
        requires: Names that must all be there for the layout to be believed.
        order: Two names of which the first must come first.
        preprocessing: What its networks were trained with, if not the usual.
        normalizes: Whether the heads beside its networks end in a normalisation.
        head_is_random: Whether its converter leaves a part of the classifier random.
        variants: Architectures that shapes cannot tell apart: what is built instead.
        doubts: Architectures that neither shapes nor layout tell apart: what to ask.
        source: The program that writes such files.
    """

    name: str
    networks: Mapping[str, str]
    heads: Mapping[str, str] = field(default_factory=dict)
    others: str = r"(?!)"
    requires: tuple[str, ...] = ()
    order: tuple[str, str] | None = None
    preprocessing: Preprocessing | None = None
    normalizes: bool = False
    head_is_random: bool = False
    variants: Mapping[str, str] = field(default_factory=dict)
    doubts: Mapping[str, str] = field(default_factory=dict)
    source: str = ""

    def roles(self, networks: Sequence[FoundNetwork]) -> dict[str, FoundNetwork]:
        """Return the networks of a file that this layout knows, by role."""
        roles: dict[str, FoundNetwork] = {}
        for role, pattern in self.networks.items():
            match = next((n for n in networks if re.fullmatch(pattern, n.root)), None)
            if match is not None and match not in roles.values():
                roles[role] = match
        return roles

    def fits(self, names: Sequence[str]) -> bool:
        """Whether the names that the layout requires are there, in its order."""
        if self.order is not None:
            first, second = (_position(pattern, names) for pattern in self.order)
            return first < second < len(names)
        return all(_position(pattern, names) < len(names) for pattern in self.requires)


def _position(pattern: str, names: Sequence[str]) -> int:
    matching = (i for i, name in enumerate(names) if re.match(pattern, name))
    return next(matching, len(names))


def find_layout(
    names: Sequence[str], networks: Sequence[FoundNetwork]
) -> tuple[Layout, dict[str, FoundNetwork]] | None:
    """Return the first layout that has a place for a network of the file, and its networks."""
    for layout in LAYOUTS:
        if layout.fits(names):
            roles = layout.roles(networks)
            if roles:
                return layout, roles
    return None


LAYOUTS = (
    Layout(
        "VISSL training",
        {
            "student": rf"{_CLASSY}(?:base_model/)?(?:model/)?trunk/{_TRUNK}",
            "teacher": rf"{_CLASSY}loss/{_MOMENTUM}trunk\.{_TRUNK}",
            "average": rf"{_CLASSY}ema_model/model/trunk/{_TRUNK}",
        },
        heads={
            "student": rf"{_CLASSY}(?:base_model/)?(?:model/)?heads/{_WRAPPED}",
            "teacher": rf"{_CLASSY}loss/{_MOMENTUM}heads\.",
            "average": rf"{_CLASSY}ema_model/model/heads/{_WRAPPED}",
        },
        others=rf"{_CLASSY}loss/",
        source="github.com/facebookresearch/vissl, vissl/models/base_ssl_model.py",
    ),
    Layout(
        "VISSL",
        {
            "student": r"(?:(?:classy_state_dict|model_state_dict|state_dict|model)/)?"
            rf"{_WRAPPED}(?:trunk\.)?(?:base_model\.)?_feature_blocks\."
        },
        heads={"student": rf"(?:(?:classy_state_dict|model_state_dict)/)?{_WRAPPED}heads\."},
        source="github.com/facebookresearch/vissl, vissl/utils/checkpoint.py",
    ),
    Layout(
        "VISSL",
        {
            "student": r"(?:(?:classy_state_dict|model_state_dict)/)?"
            rf"{_WRAPPED}trunk\.(?:base_model\.)?"
        },
        heads={"student": rf"(?:(?:classy_state_dict|model_state_dict)/)?{_WRAPPED}heads\."},
        source="github.com/facebookresearch/vissl, vissl/utils/checkpoint.py",
    ),
    Layout(
        "MoCo or PCL",
        {"student": rf"{_DICT}encoder_q\.", "teacher": rf"{_DICT}encoder_k\."},
        others=rf"{_DICT}queue",
        source="github.com/facebookresearch/moco, moco/builder.py; github.com/salesforce/PCL",
    ),
    Layout(
        "MoCo v3",
        {"student": rf"{_DICT}base_encoder\.", "teacher": rf"{_DICT}momentum_encoder\."},
        others=rf"{_DICT}predictor\.",
        preprocessing=IMAGENET,
        variants={"vit_small_patch16": "vit_small_patch16_heads12"},
        source="github.com/facebookresearch/moco-v3, moco/builder.py, vits.py",
    ),
    Layout(
        "PyContrast or SupContrast",
        {
            "student": rf"(?:model/)?{_WRAPPED}encoder\.(?:module\.)?",
            "teacher": rf"model_ema/{_WRAPPED}encoder\.",
        },
        heads={
            "student": rf"(?:model/)?{_WRAPPED}head\.",
            "teacher": rf"model_ema/{_WRAPPED}head\.",
        },
        others=rf"(?:model(?:_ema)?/)?{_WRAPPED}(?:head_jig|jigsaw)",
        requires=(rf"(?:model/)?{_WRAPPED}head\.",),
        normalizes=True,
        source="github.com/HobbitLong/PyContrast, pycontrast/networks/build_backbone.py",
    ),
    Layout(
        "SimCLR v2, converted",
        {"student": r"resnet/"},
        heads={"student": r"head/"},
        preprocessing=UNIT_RANGE,
        source="github.com/Separius/SimCLRv2-Pytorch, convert.py",
    ),
    Layout(
        "DINO",
        {
            "teacher": rf"teacher/{_WRAPPED}(?:backbone\.)?",
            "student": rf"student/{_WRAPPED}(?:backbone\.)?",
        },
        heads={"teacher": rf"teacher/{_WRAPPED}head\.", "student": rf"student/{_WRAPPED}head\."},
        preprocessing=IMAGENET_BICUBIC,
        source="github.com/facebookresearch/dino, main_dino.py",
    ),
    Layout(
        "Barlow Twins or VICReg",
        {"student": rf"model/{_WRAPPED}backbone\."},
        heads={"student": rf"model/{_WRAPPED}projector\."},
        others=rf"model/{_WRAPPED}bn\.",
        requires=(rf"model/{_WRAPPED}projector\.",),
        source="github.com/facebookresearch/barlowtwins, main.py; vicreg, main_vicreg.py",
    ),
    Layout(
        "lightly, teacher and student",
        {
            "teacher": rf"{_DICT}(?:teacher_)?backbone\.",
            "student": rf"{_DICT}student_backbone\.",
        },
        heads={
            "teacher": rf"{_DICT}(?:teacher_(?:projection_)?head|projection_head)\.",
            "student": rf"{_DICT}student_(?:projection_)?head\.",
        },
        others=rf"{_DICT}(?:criterion|online_classifier|knn_classifier)",
        requires=(rf"{_DICT}student_backbone\.",),
        source="github.com/lightly-ai/lightly, examples/pytorch/dino.py, benchmarks/imagenet",
    ),
    Layout(
        "lightly",
        {
            "student": rf"{_DICT}backbone\.",
            "teacher": rf"{_DICT}(?:backbone_momentum|(?:teacher|key)_backbone)\.",
        },
        heads={
            "student": rf"{_DICT}projection_head\.",
            "teacher": rf"{_DICT}(?:projection_head_momentum|(?:teacher|key)_projection_head)\.",
        },
        others=rf"{_DICT}(?:prediction_head|prototypes|start_queue|queues?|criterion"
        r"|online_classifier|knn_classifier|memory_bank)",
        requires=(rf"{_DICT}projection_head\.",),
        source="github.com/lightly-ai/lightly, examples/pytorch, benchmarks/imagenet",
    ),
    Layout(
        "solo-learn",
        {
            "student": rf"state_dict/{_WRAPPED}(?:backbone|encoder)\.",
            "teacher": rf"state_dict/{_WRAPPED}momentum_(?:backbone|encoder)\.",
        },
        heads={
            "student": rf"state_dict/{_WRAPPED}(?:projector|head)\.",
            "teacher": rf"state_dict/{_WRAPPED}momentum_(?:projector|head)\.",
        },
        others=rf"state_dict/{_WRAPPED}(?:(?:momentum_)?classifier|predictor|prototypes|queue"
        r"|centroids|\w+_loss_func)",
        requires=(
            rf"state_dict/{_WRAPPED}classifier\.",
            rf"state_dict/{_WRAPPED}(?:projector|head|momentum_(?:backbone|encoder))\.",
        ),
        variants={f"resnet{d}_32px": f"resnet{d}_32px_pad2" for d in (18, 50)},
        source="github.com/vturrisi/solo-learn, solo/methods/base.py",
    ),
    Layout(
        "SimSiam",
        {"student": rf"{_DICT}encoder\."},
        others=rf"{_DICT}predictor\.",
        requires=(rf"{_DICT}predictor\.",),
        source="github.com/facebookresearch/simsiam, simsiam/builder.py",
    ),
    Layout(
        "Lightning classifier",
        {"student": rf"state_dict/{_WRAPPED}(?:backbone|encoder)\."},
        heads={"student": rf"state_dict/{_WRAPPED}classifier\."},
        requires=(rf"state_dict/{_WRAPPED}classifier\.",),
        doubts={
            f"resnet{d}_32px": f"a first convolution whose padding cannot be seen: say "
            f"?arch=resnet{d}_32px_pad2 if it is from solo-learn, ?arch=resnet{d}_32px if not"
            for d in (18, 50)
        },
        source="github.com/vturrisi/solo-learn, solo/methods/linear.py",
    ),
    Layout(
        "featkit run",
        {"student": r"backbone\."},
        heads={"student": r"head\."},
        requires=(r"backbone\.", r"head\."),
        source="featkit/trainers/run_folder.py",
    ),
    Layout(
        "timm, with a moving average",
        {
            "teacher": rf"(?:state_dict_ema|model_ema)/{_WRAPPED}",
            "student": rf"(?:state_dict|model)/{_WRAPPED}",
        },
        requires=(r"(?:state_dict_ema|model_ema)/",),
        source="github.com/huggingface/pytorch-image-models, timm/models/_helpers.py",
    ),
    Layout(
        "SwAV, DeepCluster v2 or SeLa v2",
        {"student": _DICT},
        heads={"student": rf"{_DICT}(?=projection_head\.|prototypes)"},
        requires=(rf"{_DICT}(?:projection_head|prototypes)",),
        source="github.com/facebookresearch/swav, src/resnet50.py",
    ),
    Layout(
        "Caffe2",
        {"student": r"(?:blobs/)?"},
        others=r"(?:blobs/)?(?:lr|model_iter|.*_momentum)$",
        requires=(r"(?:blobs/)?conv1_w$",),
        source="github.com/facebookresearch/vissl, convert_caffe2_to_torchvision_resnet.py",
    ),
    Layout(
        "SimCLR v1, converted",
        {"student": _DICT},
        order=(rf"{_DICT}layer1\.0\.downsample\.0\.", rf"{_DICT}layer1\.0\.conv1\."),
        preprocessing=UNIT_RANGE,
        head_is_random=True,
        source="github.com/tonylins/simclr-converter, resnet_wider.py",
    ),
    Layout(
        "state dict",
        {"student": rf"{_DICT}|model_state_dict/{_WRAPPED}"},
        source="github.com/pytorch/vision",
    ),
)
"""Every layout that is known; the first that fits counts."""
