"""Published checkpoints by short names, fetched once into a cache.

A name is ``METHOD_NETWORK[_EPOCHSep][_VARIANT…]``. Where VISSL has trained a network anew, the
plain name is VISSL's file, as arXiv:2110.10293 used it, and ``_authors`` marks that of the method's
authors; ``_full`` marks the state of training where the backbone is also published alone.

Every address is copied from the document that is named with it.
"""

from __future__ import annotations

import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from featkit.backbones.cache import cache_folder
from featkit.errors import BackboneError
from featkit.registry import Registry, did_you_mean


@dataclass(frozen=True)
class ZooEntry:
    """A published checkpoint.

    Attributes:
        name: What to write after ``zoo:``.
        url: Where it lies.
        network: Such as ``ResNet-50 ×2`` (twice as wide) or ``ViT-S/16``.
        method: How it was trained.
        epochs: For how long; None if the source does not say.
        source: The document that ``url`` was copied from.
        sha256: The first digits of the file's checksum; None if none is published.
        note: What sets it apart.
    """

    name: str
    url: str
    network: str
    method: str
    epochs: int | None
    source: str
    sha256: str | None = None
    note: str = ""


ZOO = Registry[ZooEntry]("checkpoint")
"""Every published checkpoint that featkit knows, by name."""


def list_zoo(pattern: str = "*") -> list[ZooEntry]:
    """List the published checkpoints whose name matches a pattern.

    Args:
        pattern: With ``*`` and ``?`` as in file names; without them, a part of the name.

    Returns:
        In the order of their names, numbers by size.

    Example:
        >>> [entry.name for entry in list_zoo("simclr_rn101")]
        ['simclr_rn101_100ep', 'simclr_rn101_1000ep']
    """
    pattern = pattern.lower().removeprefix("zoo:")
    if not any(c in pattern for c in "*?["):
        pattern = f"*{pattern}*"
    return [ZOO[name] for name in sorted(ZOO, key=_natural) if fnmatch.fnmatchcase(name, pattern)]


def zoo_entry(name: str) -> ZooEntry:
    """Look up a published checkpoint.

    Args:
        name: Without the ``zoo:`` in front.

    Raises:
        BackboneError: There is none of this name.

    Example:
        >>> entry = zoo_entry("simclr_rn50w2_1000ep")
        >>> entry.method, entry.network, entry.epochs
        ('SimCLR', 'ResNet-50 ×2', 1000)
    """
    if name not in ZOO:
        raise BackboneError(
            f"no published checkpoint zoo:{name}: {did_you_mean(name, ZOO)} "
            f"(featkit backbones --zoo lists all)"
        )
    return ZOO[name]


def zoo_file(name: str, progress: bool = False) -> Path:
    """Fetch a published checkpoint into the cache, or find it there.

    Args:
        name: Without the ``zoo:`` in front.
        progress: Whether to draw a bar on stderr.

    Returns:
        The file.

    Raises:
        BackboneError: There is none of this name.
        DownloadError: It could not be fetched.
    """
    from featkit.backbones.download import download

    entry = zoo_entry(name)
    suffixes = "".join(PurePosixPath(urlsplit(entry.url).path).suffixes)
    target = cache_folder() / "zoo" / f"{name}{suffixes}"
    return download(entry.url, target, entry.sha256, progress)


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]


_FBAI = "https://dl.fbaipublicfiles.com"
_VISSL = f"{_FBAI}/vissl/model_zoo"
_BARLOW = f"{_FBAI}/barlowtwins/ljng"
_DINO = f"{_FBAI}/dino"
_MOCO = f"{_FBAI}/moco/moco_checkpoints"
_MOCO3 = f"{_FBAI}/moco-v3"
_SWAV = f"{_FBAI}/deepcluster"
_VICREG = f"{_FBAI}/vicreg"
_PCL = "https://storage.googleapis.com/sfr-pcl-data-research/PCL_checkpoint"
_PYCONTRAST = "https://www.dropbox.com/sh/87d24jqsl6ra7t2"
_PYTORCH = "https://download.pytorch.org/models"


def _run(folder: str, phase: int) -> str:
    """Return where VISSL keeps what one of its own runs ended with."""
    return f"{_VISSL}/{folder}/model_final_checkpoint_phase{phase}.torch"


_URLS = {
    "arXiv:2110.10293, A.3": {
        "barlow_twins_rn50": (
            f"{_VISSL}/barlow_twins/barlow_twins_32gpus_4node_imagenet1k_1000ep_resnet50.torch"
        ),
        "simclr_rn50_200ep": _run("simclr_rn50_200ep_simclr_8node_resnet_16_07_20.a816c0ef", 199),
        "simclr_rn50_400ep": _run("simclr_rn50_400ep_simclr_8node_resnet_16_07_20.36b338ef", 399),
        "simclr_rn50_800ep": _run("simclr_rn50_800ep_simclr_8node_resnet_16_07_20.7e8feed1", 799),
        "simclr_rn50w2_1000ep": _run(
            "simclr_rn50w2_1000ep_simclr_8node_resnet_16_07_20.e1e3bbf0", 999
        ),
        "supervised_rn50": f"{_PYTORCH}/resnet50-19c8e357.pth",
        "supervised_rn50_caffe2": f"{_VISSL}/converted_vissl_rn50_supervised_in1k_caffe2.torch",
        "supervised_rn50_105ep": _run(
            "sup_rn50_in1k_ep105_supervised_8gpu_resnet_17_07_20.733dbdee", 208
        ),
        "pirl_rn50_800ep": _run(
            "pirl_jigsaw_4node_pirl_jigsaw_4node_resnet_22_07_20.34377f59", 799
        ),
        "rotnet_rn50_105ep_in22k": f"{_VISSL}/converted_vissl_rn50_rotnet_in22k_ep105.torch",
        "swav_rn50_800ep": _run("swav_in1k_rn50_800ep_swav_8node_resnet_27_07_20.a0a6b676", 799),
    },
    "github.com/facebookresearch/vissl MODEL_ZOO.md": {
        "barlow_twins_rn50_300ep": (
            f"{_VISSL}/barlow_twins/barlow_twins_32gpus_4node_imagenet1k_300ep_resnet50.torch"
        ),
        "byol_rn200w2": f"{_VISSL}/baselines/converted_byol_pretrain_res200w2.torch",
        "clusterfit_rn50_105ep": (
            f"{_VISSL}/converted_vissl_rn50_rotnet_16kclusters_in1k_ep105.torch"
        ),
        "jigsaw_rn50_105ep_perm100": _run(
            "jigsaw_rn50_in1k_ep105_perm2k_jigsaw_8gpu_resnet_17_07_20.db174a43", 104
        ),
        "jigsaw_rn50_105ep_perm2k": _run(
            "jigsaw_rn50_in1k_ep105_perm2k_jigsaw_8gpu_resnet_17_07_20.cccee144", 104
        ),
        "jigsaw_rn50_105ep_perm10k": _run(
            "jigsaw_rn50_in1k_ep105_perm2k_jigsaw_8gpu_resnet_20_07_20.3d706467", 104
        ),
        "jigsaw_rn50_105ep_perm2k_in22k": (
            f"{_VISSL}/converted_vissl_jigsaw_rn50_perm2k_in22k_8gpu_ep105.torch"
        ),
        "jigsaw_rn50_goyal19": f"{_VISSL}/converted_vissl_rn50_jigsaw_in1k_goyal19.torch",
        "jigsaw_rn50_in22k_goyal19": f"{_VISSL}/converted_vissl_rn50_jigsaw_in22k_goyal19.torch",
        "jigsaw_rn50_yfcc100m_goyal19": (
            f"{_VISSL}/converted_vissl_rn50_jigsaw_yfcc100m_goyal19.torch"
        ),
        "moco_v2_rn50_200ep": _run("moco_v2_1node_lr.03_step_b32_zero_init", 199),
        "npid_rn50_200ep": _run("npid_1node_200ep_4kneg_npid_8gpu_resnet_23_07_20.9eb36512", 199),
        "npid_rn50_lemniscate": (
            f"{_VISSL}/converted_vissl_rn50_npid_lemniscate_neg4k_stepLR_8gpu.torch"
        ),
        "npid_pp_rn50_800ep": _run(
            "npid_pp/4node_800ep_32kneg_cosine_resnet_23_07_20.75432662", 799
        ),
        "npid_pp_rn50w2_800ep": _run(
            "npid_4node_800ep_32kneg_cosine_rn50w2_npid++_4nodes_resnet_27_07_20.b7f4016c", 799
        ),
        "pirl_rn50_200ep": _run(
            "pirl_jigsaw_4node_200ep_pirl_jigsaw_4node_resnet_22_07_20.ffd17b75", 199
        ),
        "rotnet_rn50_105ep": _run(
            "rotnet_rn50_in1k_ep105_rotnet_8gpu_resnet_17_07_20.46bada9f", 125
        ),
        "semi_supervised_rn50": f"{_VISSL}/converted_vissl_rn50_semi_sup_08389792.torch",
        "semi_weakly_rn50": f"{_VISSL}/converted_vissl_rn50_semi_weakly_sup_16a12f1b.torch",
        "simclr_rn50_100ep": _run("simclr_rn50_100ep_simclr_8node_resnet_16_07_20.8edb093e", 99),
        "simclr_rn50_1000ep": _run("simclr_rn50_1000ep_simclr_8node_resnet_16_07_20.afe428c7", 999),
        "simclr_rn50w2_100ep": _run(
            "simclr_rn50w2_100ep_simclr_8node_resnet_16_07_20.05b37ec3", 99
        ),
        "simclr_rn50w4_1000ep": _run(
            "simclr_rn50w4_1000ep_bs32_16node_simclr_8node_resnet_28_07_20.9e20b0ae", 999
        ),
        "simclr_rn101_100ep": _run("simclr_rn101_100ep_simclr_8node_resnet_16_07_20.1ff6cb4b", 99),
        "simclr_rn101_1000ep": _run(
            "simclr_rn101_1000ep_simclr_8node_resnet_16_07_20.35063cea", 999
        ),
        "supervised_rn50_places205_caffe2": (
            f"{_VISSL}/converted_vissl_rn50_supervised_places205_caffe2.torch"
        ),
        "supervised_rn101": f"{_PYTORCH}/resnet101-5d3b4d8f.pth",
        "swav_rn50_100ep": _run("swav_in1k_rn50_100ep_swav_8node_resnet_27_07_20.7e6fc6bf", 99),
        "swav_rn50_200ep": _run("swav_in1k_rn50_200ep_swav_8node_resnet_27_07_20.bd595bb0", 199),
        "swav_rn50_400ep": _run("swav_in1k_rn50_400ep_swav_8node_resnet_27_07_20.a5990fc9", 399),
        "swav_rn50_200ep_bs256": _run(
            "swav_4gpu_bs64_200ep_2x224_6x96_queue_swav_8node_resnet_28_07_20.a8f2c735", 199
        ),
        "swav_rn50_400ep_bs256": _run(
            "swav_4gpu_bs64_400ep_2x224_6x96_queue_swav_8node_resnet_28_07_20.5e967ca0", 399
        ),
        "swav_rn50_400ep_2x224": _run(
            "swav_8node_2x224_rn50_in1k_swav_8node_resnet_30_07_20.c8fd7169", 399
        ),
        "swav_rn50w2_400ep": _run(
            "swav_rn50w2_in1k_bs32_16node_400ep_swav_8node_resnet_30_07_20.93563e51", 399
        ),
        "swav_rn50w4_400ep": _run(
            "swav_rn50w4_in1k_bs40_8node_400ep_swav_8node_resnet_30_07_20.1736135b", 399
        ),
    },
    "github.com/facebookresearch/swav README.md": {
        "deepcluster_v2_rn50_400ep": f"{_SWAV}/deepclusterv2_400ep_pretrain.pth.tar",
        "deepcluster_v2_rn50_400ep_2x224": f"{_SWAV}/deepclusterv2_400ep_2x224_pretrain.pth.tar",
        "deepcluster_v2_rn50_800ep": f"{_SWAV}/deepclusterv2_800ep_pretrain.pth.tar",
        "sela_v2_rn50_400ep": f"{_SWAV}/selav2_400ep_pretrain.pth.tar",
        "sela_v2_rn50_400ep_2x224": f"{_SWAV}/selav2_400ep_2x224_pretrain.pth.tar",
        "swav_rn50_100ep_authors": f"{_SWAV}/swav_100ep_pretrain.pth.tar",
        "swav_rn50_200ep_authors": f"{_SWAV}/swav_200ep_pretrain.pth.tar",
        "swav_rn50_400ep_authors": f"{_SWAV}/swav_400ep_pretrain.pth.tar",
        "swav_rn50_800ep_authors": f"{_SWAV}/swav_800ep_pretrain.pth.tar",
        "swav_rn50_200ep_bs256_authors": f"{_SWAV}/swav_200ep_bs256_pretrain.pth.tar",
        "swav_rn50_400ep_bs256_authors": f"{_SWAV}/swav_400ep_bs256_pretrain.pth.tar",
        "swav_rn50_400ep_2x224_authors": f"{_SWAV}/swav_400ep_2x224_pretrain.pth.tar",
        "swav_rn50w2_400ep_authors": f"{_SWAV}/swav_RN50w2_400ep_pretrain.pth.tar",
        "swav_rn50w4_400ep_authors": f"{_SWAV}/swav_RN50w4_400ep_pretrain.pth.tar",
        "swav_rn50w5_400ep": f"{_SWAV}/swav_RN50w5_400ep_pretrain.pth.tar",
    },
    "github.com/facebookresearch/deepcluster README.md": {
        "deepcluster_alexnet": f"{_SWAV}/alexnet/checkpoint.pth.tar",
    },
    "github.com/facebookresearch/moco README.md": {
        "moco_v1_rn50_200ep": f"{_MOCO}/moco_v1_200ep/moco_v1_200ep_pretrain.pth.tar",
        "moco_v2_rn50_200ep_authors": f"{_MOCO}/moco_v2_200ep/moco_v2_200ep_pretrain.pth.tar",
        "moco_v2_rn50_800ep": f"{_MOCO}/moco_v2_800ep/moco_v2_800ep_pretrain.pth.tar",
    },
    "github.com/facebookresearch/moco-v3 CONFIG.md": {
        "moco_v3_rn50_100ep": f"{_MOCO3}/r-50-100ep/r-50-100ep.pth.tar",
        "moco_v3_rn50_300ep": f"{_MOCO3}/r-50-300ep/r-50-300ep.pth.tar",
        "moco_v3_rn50_1000ep": f"{_MOCO3}/r-50-1000ep/r-50-1000ep.pth.tar",
        "moco_v3_vits16_300ep": f"{_MOCO3}/vit-s-300ep/vit-s-300ep.pth.tar",
        "moco_v3_vitb16_300ep": f"{_MOCO3}/vit-b-300ep/vit-b-300ep.pth.tar",
    },
    "github.com/facebookresearch/dino README.md": {
        "dino_vits16": f"{_DINO}/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain.pth",
        "dino_vits16_full": (
            f"{_DINO}/dino_deitsmall16_pretrain/dino_deitsmall16_pretrain_full_checkpoint.pth"
        ),
        "dino_vits16_gldv2": (
            f"{_DINO}/dino_vitsmall16_googlelandmark_pretrain/"
            "dino_vitsmall16_googlelandmark_pretrain.pth"
        ),
        "dino_vits8": f"{_DINO}/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain.pth",
        "dino_vits8_full": (
            f"{_DINO}/dino_deitsmall8_pretrain/dino_deitsmall8_pretrain_full_checkpoint.pth"
        ),
        "dino_vitb16": f"{_DINO}/dino_vitbase16_pretrain/dino_vitbase16_pretrain.pth",
        "dino_vitb16_full": (
            f"{_DINO}/dino_vitbase16_pretrain/dino_vitbase16_pretrain_full_checkpoint.pth"
        ),
        "dino_vitb8": f"{_DINO}/dino_vitbase8_pretrain/dino_vitbase8_pretrain.pth",
        "dino_vitb8_full": (
            f"{_DINO}/dino_vitbase8_pretrain/dino_vitbase8_pretrain_full_checkpoint.pth"
        ),
        "dino_rn50": f"{_DINO}/dino_resnet50_pretrain/dino_resnet50_pretrain.pth",
        "dino_rn50_full": (
            f"{_DINO}/dino_resnet50_pretrain/dino_resnet50_pretrain_full_checkpoint.pth"
        ),
        "dino_rn50_100ep_full": f"{_DINO}/example_runs_logs/dino_rn50_checkpoint.pth",
    },
    "github.com/facebookresearch/barlowtwins README.md": {
        "barlow_twins_rn50_1000ep_authors": f"{_BARLOW}/resnet50.pth",
        "barlow_twins_rn50_1000ep_authors_full": f"{_BARLOW}/checkpoint.pth",
    },
    "github.com/facebookresearch/vicreg README.md": {
        "vicreg_rn50": f"{_VICREG}/resnet50.pth",
        "vicreg_rn50_full": f"{_VICREG}/resnet50_fullckpt.pth",
        "vicreg_rn50w2": f"{_VICREG}/resnet50x2.pth",
        "vicreg_rn50w2_full": f"{_VICREG}/resnet50x2_fullckpt.pth",
        "vicreg_rn200w2": f"{_VICREG}/resnet200x2.pth",
        "vicreg_rn200w2_full": f"{_VICREG}/resnet200x2_fullckpt.pth",
    },
    "github.com/salesforce/PCL README.md": {
        "pcl_v1_rn50_200ep": f"{_PCL}/PCL_v1_epoch200.pth.tar",
        "pcl_v2_rn50_200ep": f"{_PCL}/PCL_v2_epoch200.pth.tar",
    },
    "github.com/linusericsson/ssl-transfer download_and_prepare_models.py": {
        "infomin_rn50_800ep": f"{_PYCONTRAST}/AAAzMTynP3Qc8mIE4XWkgILUa/InfoMin_800.pth",
        "insdis_rn50_200ep": f"{_PYCONTRAST}/AACcsSIt1_Njv7GsmsuzZ6Sta/InsDis.pth",
        "pirl_rn50_200ep_pycontrast": f"{_PYCONTRAST}/AADN4jKnvTI0U5oT6hTmQZz8a/PIRL.pth",
    },
}

_METHODS = {
    "barlow_twins": "Barlow Twins",
    "byol": "BYOL",
    "clusterfit": "ClusterFit",
    "deepcluster": "DeepCluster",
    "deepcluster_v2": "DeepCluster v2",
    "dino": "DINO",
    "infomin": "InfoMin",
    "insdis": "InsDis",
    "jigsaw": "Jigsaw",
    "moco_v1": "MoCo v1",
    "moco_v2": "MoCo v2",
    "moco_v3": "MoCo v3",
    "npid": "NPID",
    "npid_pp": "NPID++",
    "pcl_v1": "PCL v1",
    "pcl_v2": "PCL v2",
    "pirl": "PIRL",
    "rotnet": "RotNet",
    "sela_v2": "SeLa v2",
    "semi_supervised": "semi-supervised",
    "semi_weakly": "semi-weakly sup.",
    "simclr": "SimCLR",
    "supervised": "supervised",
    "swav": "SwAV",
    "vicreg": "VICReg",
}

_VARIANTS = {
    "2x224": "without small crops",
    "bs256": "batches of 256",
    "caffe2": "converted from Caffe2",
    "full": "the whole state of training",
    "gldv2": "trained on Google Landmarks v2",
    "goyal19": "of Goyal et al. 2019",
    "in22k": "trained on ImageNet-22k",
    "lemniscate": "the authors' network, converted; 4,000 negatives",
    "perm100": "100 permutations (2,000 by the name of its folder)",
    "perm2k": "2,000 permutations",
    "perm10k": "10,000 permutations (2,000 by the name of its folder)",
    "places205": "trained on Places205",
    "yfcc100m": "trained on YFCC100M",
}

_NOTES = {
    "byol_rn200w2": "the authors' network, converted",
    "clusterfit_rn50_105ep": "16,000 clusters from RotNet",
    "deepcluster_alexnet": "starts with Sobel filters",
    "deepcluster_v2_rn50_400ep": "crops 2×160 + 4×96",
    "dino_rn50_100ep_full": "an example run",
    "infomin_rn50_800ep": "PyContrast's, on Dropbox",
    "insdis_rn50_200ep": "PyContrast's, on Dropbox",
    "moco_v3_vits16_300ep": "12 heads, unlike DINO's ViT-S",
    "npid_pp_rn50_800ep": "32,000 negatives",
    "npid_pp_rn50w2_800ep": "32,000 negatives",
    "npid_rn50_200ep": "4,000 negatives",
    "pirl_rn50_200ep_pycontrast": "PyContrast's, on Dropbox",
    "rotnet_rn50_105ep_in22k": "the RotNet of arXiv:2110.10293",
    "sela_v2_rn50_400ep": "crops 2×160 + 4×96",
    "semi_supervised_rn50": "trained on YFCC100M and ImageNet",
    "semi_weakly_rn50": "trained on public Instagram images and ImageNet",
    "simclr_rn50w2_1000ep": "the “1000 epoch” SimCLR of arXiv:2110.10293; 4,096 features",
    "swav_rn50w5_400ep": "300 epochs by VISSL's table",
}

_EPOCHS = {"barlow_twins_rn50": 1000}

_SHA256 = {"supervised_rn50": "19c8e357", "supervised_rn101": "5d3b4d8f"}

_NAME = re.compile(
    r"^(\w+?)_(?:rn(\d+)(?:w(\d))?|vit([sb])(\d+)|alexnet)(?:_(\d+)ep)?((?:_[a-z0-9]+)*)$"
)


def _entry(name: str, url: str, source: str) -> ZooEntry:
    """Read from a name what it says."""
    method, depth, width, size, patch, epochs, variants = _NAME.findall(name)[0]
    network = "AlexNet"
    if depth:
        network = f"ResNet-{depth}" + f" ×{width}" * bool(width)
    elif size:
        network = f"ViT-{size.upper()}/{patch}"
    notes = [_NOTES.get(name), *map(_VARIANTS.get, variants.split("_"))]
    return ZooEntry(
        name,
        url,
        network,
        _METHODS[method],
        _EPOCHS.get(name, int(epochs) if epochs else None),
        source,
        _SHA256.get(name),
        "; ".join(filter(None, notes)),
    )


for _source, _files in _URLS.items():
    for _name, _url in _files.items():
        ZOO.register(_name, _entry(_name, _url, _source))
