"""What a file does not tell is asked for, or said; what it holds besides can be had."""

import hashlib

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from featkit.backbones.resolve import load_backbone
from featkit.errors import CheckpointError
from tests.backbones.checkpoints import keys
from tests.backbones.checkpoints.sources import (
    lightly_small_resnet,
    named,
    pooled,
    resnet,
    sequential,
    trunk,
    zipped,
)
from tests.backbones.checkpoints.writers import with_fc

IMAGES = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def save(tmp_path):
    def write(content, name="net.pth"):
        torch.save(content, tmp_path / name)
        return tmp_path / name

    yield write
    for path in tmp_path.iterdir():
        path.unlink()


def report(spec):
    return load_backbone(str(spec)).network.checkpoint


def refused(spec):
    with pytest.raises(CheckpointError) as caught:
        load_backbone(str(spec))
    return str(caught.value)


def features(backbone, images=IMAGES):
    seen = []
    handle = backbone.module.avgpool.register_forward_hook(
        lambda m, i, o: seen.append(o.flatten(1))
    )
    with torch.inference_mode():
        backbone.module(images)
    handle.remove()
    return seen[0]


# ------------------------------------------------------------------------------ the architecture


@pytest.mark.parametrize("prefix", ["backbone.", "encoder."])
@pytest.mark.parametrize("padding", [1, 2])
def test_the_padding_of_a_stem_is_asked_for_where_two_projects_differ(save, prefix, padding):
    """A linear classifier beside a ResNet for 32 pixels: solo-learn's has a padding of 2."""
    net = resnet(small_images=True, padding=padding)
    state = zipped(keys.resnet(18, prefix), trunk(net))
    state |= named("classifier", sequential("L", 512, 10)[0])
    path = save({"state_dict": state})
    message = refused(path)
    assert (
        "?arch=resnet18_32px_pad2 if it is from solo-learn, ?arch=resnet18_32px if not" in message
    )
    arch = "resnet18_32px" + ("_pad2" if padding == 2 else "")
    images = IMAGES[:, :, :32, :32]
    with torch.inference_mode():
        wanted = pooled(net)(images)
    assert torch.equal(features(load_backbone(f"{path}?arch={arch}"), images), wanted)


def test_a_stem_without_relu_is_known_for_small_images_only(save):
    wide = nn.Sequential(nn.Conv2d(3, 64, 7, 2, 3, bias=False), *lightly_small_resnet()[1:])
    assert "torchvision:resnet18 without a ReLU in its stem" in refused(save(wide.state_dict()))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layer1.2.conv1.weight": torch.ones(64, 64, 3, 3)}, r"(3, 2, 2, 2) blocks"),
        ({"conv1.weight": torch.ones(64, 1, 7, 7)}, "1 channel"),
        ({"conv1.weight": torch.ones(64, 3, 5, 5)}, "unknown stem"),
    ],
)
def test_a_network_of_no_known_shapes_says_what_to_do(save, change, said):
    message = refused(save({"state_dict": with_fc(resnet()) | change}))
    assert said in message
    assert "layout: state dict, weights: student" in message
    assert message.endswith("say which it is with ?arch=, as in ?arch=timm:NAME")


def test_names_of_other_libraries_are_known(save):
    torch_names = {"embeddings.cls_token": torch.ones(1, 1, 8), "pooler.weight": torch.ones(8, 8)}
    assert "names of the transformers library" in refused(save(torch_names))
    haiku = {"online_params": {"res_net50/~/initial_conv": {"w": torch.ones(7, 7, 3, 64)}}}
    assert "parameters of Haiku" in refused(save({"experiment_state": haiku}))
    tensorflow = {"base_model/conv2d/kernel": torch.ones(7, 7, 3, 64)}
    assert "variables of TensorFlow" in refused(save(tensorflow))
    assert "no tensors in it" in refused(save({"type": "shard_list", "shards": ["a.torch"]}))


# ------------------------------------------------------------------------------- several networks


def test_a_second_network_is_named_and_can_be_had(save):
    first, second = resnet(), resnet(seed=1)
    path = save({"model": with_fc(first), "ema": with_fc(second), "epoch": 3})
    assert report(path).others == ("ema/",)
    assert report(f"{path}?weights=ema/").others == ("student",)
    with torch.inference_mode():
        for spec, net in ((path, first), (f"{path}?weights=ema/", second)):
            assert torch.equal(features(load_backbone(str(spec))), pooled(net)(IMAGES))
    assert "no weights 'em' in this state dict file: did you mean ema/" in refused(
        f"{path}?weights=em"
    )


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize(
    "container", ["", "base_model/model", "classy_state_dict/base_model/model"]
)
def test_heads_are_kept_wherever_vissl_is_cut(save, container, prefix):
    names = keys.resnet(18, f"{prefix}_feature_blocks.")
    head = sequential("LRL", 512, 64, 32, seed=1)
    content = {
        "trunk": zipped(names, trunk(resnet())),
        "heads": named(f"{prefix}0.clf", head),
    }
    for part in reversed(container.split("/") if container else []):
        content = {part: content}
    backbone = load_backbone(str(save(content)))
    assert backbone.network.checkpoint.layout == "VISSL training"
    assert backbone.network.checkpoint.heads == ("512 → 64 → 32",)
    assert backbone.network.checkpoint.left_out == ()


def test_what_stands_beside_a_network_can_be_left_out(save):
    state = {"criterion.weight": torch.ones(10)} | {
        f"net.{name}": tensor for name, tensor in with_fc(resnet()).items()
    }
    path = save({"state_dict": state})
    message = refused(path)
    assert "1 left over (state_dict/criterion.weight)" in message
    assert message.endswith("say ?weights=state_dict/net.")
    assert report(f"{path}?weights=state_dict/net.").architecture == "torchvision:resnet18"


def test_parts_of_a_network_cannot_be_left_out(save):
    path = save({"state_dict": with_fc(resnet()) | {"layer9.weight": torch.ones(3)}})
    assert refused(path).endswith("say which network it is with ?arch=")
    assert refused(f"{path}?arch=torchvision:resnet18").endswith("have it read off the tensors")


@pytest.mark.parametrize("name", ["n_averaged", "mask_token"])
def test_what_only_training_needs_is_not_missed(save, name):
    net = torch.optim.swa_utils.AveragedModel(resnet()) if name == "n_averaged" else resnet()
    state = net.state_dict() | {name: torch.tensor(3)}
    with torch.inference_mode():
        wanted = pooled(resnet())(IMAGES)
    assert torch.equal(features(load_backbone(str(save(state)))), wanted)


# ------------------------------------------------------------------------------ heads and recipes


def test_prototypes_stand_side_by_side_in_the_report(save):
    state = trunk(resnet(50))
    content = zipped([f"module.{name}" for name in keys.resnet(50)], state)
    content |= named("module.projection_head", sequential("LBRL", 2048, 64, 32))
    for i, count in enumerate((10, 20)):
        content |= named(f"module.prototypes.prototypes{i}", sequential("l", 32, count)[0])
    backbone = load_backbone(str(save({"state_dict": content})))
    assert backbone.network.checkpoint.heads == ("2048 → 64 → 32 → 10 + 20",)
    with torch.inference_mode():
        assert backbone.module(IMAGES).shape == (2, 30)


@pytest.mark.parametrize("name", ["fc", "linear", "classifier", "head"])
def test_a_classifier_of_any_usual_name_is_the_head(save, name):
    state = with_fc(resnet())
    state = {key.replace("fc.", f"{name}."): tensor for key, tensor in state.items()}
    backbone = load_backbone(str(save(state)))
    with torch.inference_mode():
        assert torch.equal(backbone.module(IMAGES), resnet()(IMAGES))
    assert backbone.network.checkpoint.heads == ("512 → 10",)


def test_the_report_says_whose_the_preprocessing_is(save, tmp_path):
    """SimCLR's converter puts shortcuts first; in another order it is any ResNet's state dict."""
    state = resnet(50).state_dict()
    converted = {name: state[name] for name in keys.resnet(50, downsample_first=True)}
    path = save({"state_dict": converted})
    assert report(path).preprocessing == "layout"
    assert report(f"{path}?mean=0.5").preprocessing == "user"
    save_file(converted, tmp_path / "net.safetensors")
    backbone = load_backbone(str(tmp_path / "net.safetensors"))
    assert backbone.network.checkpoint.preprocessing == "architecture"
    assert backbone.preprocessing.mean == (0.485, 0.456, 0.406)


# ------------------------------------------------------------------------------------- the values


@pytest.mark.parametrize("name", ["layer2.0.conv1.weight", "bn1.running_var", "fc.weight"])
@pytest.mark.parametrize(
    "change",
    [
        lambda tensor: tensor * float("nan"),
        lambda tensor: tensor / 0,
        lambda tensor: tensor.double() * 1e300,
        lambda tensor: tensor.to(torch.complex64),
        lambda tensor: (100 * tensor).long(),
    ],
    ids=["nan", "infinite", "too large for float32", "complex", "whole numbers"],
)
def test_only_finite_real_weights_are_loaded(save, name, change):
    state = with_fc(resnet())
    message = refused(save(state | {name: change(state[name])}))
    assert any(part in message for part in ("not finite", "not real numbers", "of no known kind"))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_other_real_types_are_taken_as_they_are(save, dtype):
    state = {
        name: tensor.to(dtype) if tensor.is_floating_point() else tensor
        for name, tensor in with_fc(resnet()).items()
    }
    module = load_backbone(str(save(state))).module
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, state[name].to(tensor.dtype)), name


def test_a_change_in_any_shard_is_another_digest(tmp_path):
    state = with_fc(resnet())
    names = {name: f"{i % 2}.safetensors" for i, name in enumerate(state)}
    for file in ("0.safetensors", "1.safetensors"):
        save_file({n: t for n, t in state.items() if names[n] == file}, tmp_path / file)
    index = tmp_path / "net.safetensors.index.json"
    index.write_text(f'{{"weight_map": {str(names).replace(chr(39), chr(34))}}}')
    lines = [
        f"{hashlib.sha256(file.read_bytes()).hexdigest()}  {file.name}\n"
        for file in (index, tmp_path / "0.safetensors", tmp_path / "1.safetensors")
    ]
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()
    assert report(f"{index}?sha256={digest}").sha256 == digest
    shard = tmp_path / "1.safetensors"
    data = bytearray(shard.read_bytes())
    data[-2] ^= 1
    shard.write_bytes(data)
    assert "damaged, or another file: its sha256 is" in refused(f"{index}?sha256={digest}")
    for path in tmp_path.iterdir():
        path.unlink()
