"""What may be written after -b, what it is called, and what is listed."""

import shutil

import pytest
import torch
from torchvision import models

from featkit.backbones.architectures import build
from featkit.backbones.catalogue import list_backbones
from featkit.backbones.nets import NETS
from featkit.backbones.resolve import load_backbone
from featkit.errors import BackboneError, UsageError

CIFAR = "cifar_resnet20?weights=none"


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "my run.v2.pth"
    torch.save(build("cifar_resnet20").module.state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("text", "name", "architecture"),
    [
        (CIFAR, "cifar_resnet20", "cifar_resnet20"),
        (f"mine={CIFAR}", "mine", "cifar_resnet20"),
        (f"a.b_c-1={CIFAR}", "a.b_c-1", "cifar_resnet20"),
        ("torchvision:squeezenet1_0?weights=none", "squeezenet1_0", "torchvision:squeezenet1_0"),
        ("squeezenet1_0?weights=none", "squeezenet1_0", "torchvision:squeezenet1_0"),
        (
            "timm:mobilenetv3_small_050.lamb_in1k?weights=none",
            "mobilenetv3_small_050.lamb_in1k",
            "timm:mobilenetv3_small_050",
        ),
        ("offline:efficientnet_lite0", "efficientnet_lite0", "timm:tf_efficientnet_lite0"),
    ],
)
def test_names(text, name, architecture):
    backbone = load_backbone(text)
    assert (backbone.name, backbone.network.architecture) == (name, architecture)
    assert backbone.spec == text.removeprefix(f"{name}=")


def test_a_file_is_called_by_its_stem(file, monkeypatch):
    assert load_backbone(f"{file}?arch=cifar_resnet20").name == "my-run.v2"
    assert load_backbone(f"b={file}?arch=cifar_resnet20").name == "b"
    monkeypatch.chdir(file.parent)
    assert load_backbone(f"{file.name}?arch=cifar_resnet20").name == "my-run.v2"


@pytest.mark.parametrize(
    ("name", "called"),
    [
        ("net.pth.tar", "net"),
        ("model_final_checkpoint_phase199.torch", "model_final_checkpoint_phase199"),
        ("resnet-1.2.bin", "resnet-1.2"),
        ("resnet-1.2", "resnet-1"),
        ("last.ckpt.bak", "last"),
        ("net.tar.gz.pth", "net.tar.gz"),
    ],
)
def test_endings_of_checkpoints_are_no_part_of_the_name(file, tmp_path, name, called):
    assert load_backbone(str(shutil.copy(file, tmp_path / name))).name == called


@pytest.mark.parametrize("options", ["", "arch=cifar_resnet20&", "weights=student&"])
def test_a_file_has_the_weights_in_it(file, options):
    backbone = load_backbone(f"{file}?{options}size=48")
    assert backbone.network.architecture == "cifar_resnet20"
    assert backbone.weights == load_backbone(CIFAR).weights
    assert backbone.preprocessing.size == (48, 48)


def test_size_changes_input_and_resize_in_proportion():
    backbone = load_backbone("torchvision:squeezenet1_0?weights=none&size=112")
    usual = models.SqueezeNet1_0_Weights.DEFAULT.transforms()
    assert (usual.crop_size, usual.resize_size) == ([224], [256])
    assert (backbone.preprocessing.size, backbone.preprocessing.resize) == ((112, 112), 128)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "cifar_resnet20",
            "no published weights; give a checkpoint file with ?arch=cifar_resnet20",
        ),
        ("cifar_resnet20?seed=1", "option seed cannot be used (only random weights"),
        (f"{CIFAR}&arch=cifar_resnet20", "option arch cannot be used"),
        (f"{CIFAR}&revision=1", "option revision cannot be used"),
        (f"{CIFAR}&size=0", "size is a number of pixels, at least 1"),
        (f"{CIFAR}&size=big", "size is a whole number, not 'big'"),
        (f"{CIFAR}&seed=x", "seed is a whole number, not 'x'"),
        (f"{CIFAR}&seed=-1", "seed is a whole number from 0"),
        (f"{CIFAR}&seed=99999999999999999999", "seed is a whole number from 0"),
        (f"{CIFAR}&sead=1", "unknown option 'sead': did you mean seed?"),
        (f"{CIFAR}&weights=none", "option weights is given twice"),
        ("cifar_resnet20?weights", "options are written ?key=value"),
        ("cifar_resnet20?weights=teacher", "?weights= is 'none', or a torchvision name"),
        ("cifar_resnet21?weights=none", "did you mean cifar_resnet"),
        ("timm:resnet18?weights=a1_in1k", "?weights= is 'none', or a torchvision name"),
        ("timm:resnet18?revision=main", "option revision cannot be used"),
        ("timm:resnet18?arch=resnet18", "option arch cannot be used"),
        ("timm:resnet18.a1_in2k", "did you mean resnet18.a1_in1k"),
        ("timm:resnet18.a1_in2k?weights=none", "did you mean resnet18.a1_in1k"),
        ("timm:resnett18", "timm has no network 'resnett18': did you mean resnet18"),
        ("timm:", "timm has no network ''"),
        ("timm:resnet18d_none?weights=none", "did you mean"),
        ("torchvision:resnett18", "torchvision has no network 'resnett18': did you mean resnet18"),
        ("torchvision:raft_small?weights=none", "torchvision has no network 'raft_small'"),
        ("torchvision:resnet18?seed=1", "option seed cannot be used"),
        ("torchvision:resnet18?revision=1", "option revision cannot be used"),
        ("torchvision:resnet50?weights=IMAGENET1K_V3", "did you mean IMAGENET1K_V"),
        ("offline:efficientnet_lite0?weights=none", "it has its own weights"),
        ("offline:efficientnet_lite0?weights=x", "option weights cannot be used"),
        ("offline:efficientnet_lite0?seed=1", "option seed cannot be used"),
        ("hf:owner", "a hub repository is hf:OWNER/REPO or hf:OWNER/REPO/FILE"),
        ("hf:owner/repo?weights=none", "it has its own weights"),
        ("hf:owner/repo?weights=x", "option weights cannot be used (only a file of a repository"),
        (
            "hf:owner/repo?arch=resnet18",
            "option arch cannot be used (only a file of a repo",
        ),
        ("hf:owner/repo?sha256=01234567", "option sha256 cannot be used"),
        ("hf:owner/repo/a.safetensors?seed=1", "option seed cannot be used"),
        (f"{CIFAR}&sha256=01234567", "option sha256 cannot be used"),
        (f"{CIFAR}&mean=1,2", "mean is one number for all channels or three"),
        (f"{CIFAR}&std=x", "std is one number for all channels or three"),
        (f"{CIFAR}&interpolation=cubist", "interpolation"),
        ("hub:resnet18?weights=none", "unknown library 'hub'; use torchvision:NAME, timm:NAME"),
        ("resnet18", "did you mean torchvision:resnet18 or timm:resnet18?"),
        ("torchvison:resnet18", "did you mean torchvision:resnet18"),
        (
            "efficientnet_lite0",
            "did you mean offline:efficientnet_lite0 or timm:efficientnet_lite0",
        ),
        (
            "x\0y",
            "nor a training run nor one of torchvision:NAME, timm:NAME, hf:OWNER/REPO",
        ),
        ("", "neither a file nor a training run nor one of"),
        ("mine=", "neither a file nor a training run nor one of"),
        ("no/such/file", "no such file no/such/file"),
        ("missing.pth", "no such file missing.pth"),
        ("missing.pth?arch=cifar_resnet20", "no such file missing.pth"),
        ("m=missing.safetensors?weights=none", "no such file missing.safetensors"),
    ],
)
def test_what_cannot_be_used_says_why(text, message):
    with pytest.raises(UsageError) as caught:
        load_backbone(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?weights=teacher", "no weights 'teacher' in this state dict file: there is student"),
        ("?sha256=xyz", "sha256 is the first 8 to 64 hexadecimal digits"),
        ("?sha256=00000000", "damaged, or another file: its sha256 is"),
        ("?arch=cifar_resnet21", "did you mean cifar_resnet"),
        ("?arch=lib:x", "unknown library 'lib'"),
        ("?arch=cifar_resnet20&weights=none", "no weights 'none' in this state dict file"),
        ("?arch=cifar_resnet20&seed=1", "a file has its own weights"),
        ("?arch=cifar_resnet20&revision=1", "a file has its own weights"),
        ("?arch=timm:resnet18", "not the weights of timm:resnet18"),
    ],
)
def test_what_a_file_cannot_be(file, options, message):
    with pytest.raises(BackboneError) as caught:
        load_backbone(f"{file}{options}")
    assert message in str(caught.value)


def specs(pattern):
    return [backbone.spec for backbone in list_backbones(pattern)]


def test_patterns():
    assert specs("cifar_resnet??") == [
        f"cifar_resnet{depth}?weights=none" for depth in (14, 20, 32, 44, 56)
    ]
    assert specs("cifar_*0") == [f"cifar_resnet{depth}?weights=none" for depth in (110, 20)]
    assert len(specs("cifar")) == 42
    assert specs("offline:*") == [f"offline:efficientnet_lite{size}" for size in range(3)]
    assert specs("torchvision:resnet??") == [f"torchvision:resnet{d}" for d in (18, 34, 50)]
    assert specs("ResNet1[0-9]")[0] == "torchvision:resnet18"
    assert specs("no such thing") == []
    found = specs("resnet50*")
    assert {spec.partition(":")[0] for spec in found if ":" in spec} == {"torchvision", "timm"}
    own = sorted(name for name in NETS if name.startswith("resnet50"))
    assert sorted(spec for spec in found if ":" not in spec) == [f"{n}?weights=none" for n in own]
    assert not any("wide" in spec for spec in specs("resnet*"))


def test_all_are_listed_once():
    everything = specs("*")
    assert len(everything) == len(set(everything)) > 1500
    assert [s for s in everything if s.startswith("torchvision:")] == [
        f"torchvision:{name}" for name in models.list_models(module=models)
    ]


def test_weights_are_named_without_aliases():
    (resnet,) = list_backbones("torchvision:resnet50")
    assert resnet.weights == "IMAGENET1K_V1, IMAGENET1K_V2"
    assert not any("DEFAULT" in backbone.weights for backbone in list_backbones())
