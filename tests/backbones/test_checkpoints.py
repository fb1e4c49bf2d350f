"""Checkpoint files in every layout, and files that are none."""

import argparse
import collections
import hashlib
import io
import pickle
import random
import zipfile

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from featkit.backbones.architectures import UnsetWeights, build
from featkit.backbones.base import Backbone
from featkit.backbones.checkpoints.load import load_checkpoint, read_tensors
from featkit.backbones.probe import default_tap, probe
from featkit.backbones.resolve import load_backbone
from featkit.backbones.taps import TapRunner
from featkit.errors import BackboneError, CheckpointError

ARCH = "cifar_resnet20"


@pytest.fixture(scope="module")
def weights():
    """A network unlike any that build() gives: every tensor is noise."""
    generator = torch.Generator().manual_seed(11)

    def noise(tensor):
        if not tensor.is_floating_point():
            return tensor + 7
        return torch.rand(tensor.shape, generator=generator) + 0.5

    return {k: noise(v) for k, v in build(ARCH, seed=1).module.state_dict().items()}


@pytest.fixture(scope="module")
def small():
    return {
        "conv.weight": torch.randn(4, 3, 3, 3),
        "bn.weight": torch.ones(4),
        "n": torch.tensor(3),
    }


def save(content, path, kind="zip"):
    if kind == "safetensors":
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=kind == "zip")
    return path


def equal(found, wanted):
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert torch.equal(found[name], tensor), name
    return True


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_every_format_gives_every_tensor(tmp_path, weights, kind):
    path = save(weights, tmp_path / "net.bin", kind)
    assert zipfile.is_zipfile(path) == (kind == "zip")
    assert equal(read_tensors(path), weights)
    network = load_checkpoint(path, ARCH)
    assert equal(network.module.state_dict(), weights)
    assert network.architecture == ARCH
    assert not network.module.training


@pytest.mark.parametrize("container", [None, "state_dict", "model"])
@pytest.mark.parametrize(
    "prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."]
)
@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_containers_and_prefixes(tmp_path, weights, container, prefix, kind):
    named = collections.OrderedDict((prefix + k, v) for k, v in weights.items())
    content = {"epoch": 3, "best_prec1": 91.5, container: named} if container else named
    path = save(content, tmp_path / "net.pth", kind)
    assert equal(load_checkpoint(path, ARCH).module.state_dict(), weights)


def test_names_are_read_in_full(tmp_path):
    inner = {"a.module.weight": torch.ones(1), "submodule.weight": torch.zeros(1)}
    assert equal(read_tensors(save(inner, tmp_path / "a")), inner)
    outer = {f"module.{name}": tensor for name, tensor in inner.items()}
    assert equal(read_tensors(save(outer, tmp_path / "b")), outer)
    held = {f"state_dict/{name}": tensor for name, tensor in outer.items()}
    assert equal(read_tensors(save({"state_dict": outer}, tmp_path / "c")), held)


@pytest.mark.parametrize("arch", [None, ARCH])
def test_a_prefix_is_taken_from_the_start_only_and_from_all_or_none(tmp_path, weights, arch):
    outer = {f"module.{name}": tensor for name, tensor in weights.items()}
    assert equal(load_checkpoint(save(outer, tmp_path / "a"), arch).module.state_dict(), weights)
    mixed = outer | {"other.weight": torch.ones(2)}
    with pytest.raises(CheckpointError, match=r"tensors 1 left over \(other\.weight\)"):
        load_checkpoint(save(mixed, tmp_path / "b"), arch)
    part = outer | {"layer1.0.conv1.weight": outer["module.layer1.0.conv1.weight"]}
    del part["module.layer1.0.conv1.weight"]
    with pytest.raises(CheckpointError, match=r"1 missing \(layer1\.0\.conv1\.weight\)"):
        load_checkpoint(save(part, tmp_path / "c"), ARCH)
    late = {name.replace("conv1.", "conv1.module."): tensor for name, tensor in weights.items()}
    with pytest.raises(CheckpointError, match=r"conv1\.module\.weight"):
        load_checkpoint(save(late, tmp_path / "d"), arch)


def test_what_is_no_tensor_is_left_out(tmp_path):
    content = {"w": torch.ones(2), "epoch": 3, "note": "x", "lr": [0.1]}
    assert equal(read_tensors(save(content, tmp_path / "a")), {"w": torch.ones(2)})


def test_parameters_and_other_devices_memory_formats_and_types(tmp_path, weights):
    half = {k: v.half() if v.is_floating_point() else v for k, v in weights.items()}
    half["conv1.weight"] = nn.Parameter(
        half["conv1.weight"].contiguous(memory_format=torch.channels_last)
    )
    state = load_checkpoint(save(half, tmp_path / "a"), ARCH).module.state_dict()
    assert equal(state, {k: v.to(weights[k].dtype) for k, v in half.items()})
    assert state["bn1.weight"].dtype == torch.float32


def test_a_head_with_other_classes(tmp_path, weights):
    tuned = weights | {"linear.weight": torch.rand(7, 64), "linear.bias": torch.rand(7)}
    module = load_checkpoint(save(tuned, tmp_path / "a"), ARCH).module
    assert equal(module.state_dict(), tuned)
    assert module(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


@pytest.mark.parametrize(
    ("arch", "make"),
    [
        ("timm:mobilenetv3_small_050", lambda: timm.create_model("mobilenetv3_small_050")),
        ("timm:vit_tiny_patch16_224", lambda: timm.create_model("vit_tiny_patch16_224")),
        ("torchvision:shufflenet_v2_x0_5", lambda: build("torchvision:shufflenet_v2_x0_5").module),
    ],
)
def test_heads_of_the_libraries(tmp_path, arch, make):
    torch.manual_seed(3)
    module = make()
    head = "fc" if arch.startswith("torchvision") else module.pretrained_cfg["classifier"]
    old = module.get_submodule(head)
    for new in (nn.Linear(old.in_features, 3), nn.Identity()):
        setattr(module, head, new)
        path = save(module.state_dict(), tmp_path / "net.pt")
        loaded = load_checkpoint(path, arch).module
        assert equal(loaded.state_dict(), module.state_dict())
        assert isinstance(loaded.get_submodule(head), type(new))


@pytest.mark.parametrize(
    ("arch", "head"),
    [
        (ARCH, "linear"),
        ("timm:resnet18", "fc"),
        ("timm:swin_tiny_patch4_window7_224", "head.fc"),
        ("torchvision:alexnet", "classifier.6"),
        ("timm:vit_tiny_patch16_224", "head"),
    ],
)
def test_a_file_without_a_head(tmp_path, noise, arch, head):
    """The head becomes nothing, so that no weight stays random; the features stay the default."""
    whole = Backbone("whole", arch, build(arch, seed=2))
    state = whole.module.state_dict()
    state = {k: v for k, v in state.items() if not k.startswith(f"{head}.")}
    path = save(state, tmp_path / "net.pth")
    backbone = load_backbone(f"{path}?arch={arch}")
    assert backbone.name == "net"
    assert equal(backbone.module.state_dict(), state)
    assert isinstance(backbone.module.get_submodule(head), nn.Identity)
    images = noise(backbone.preprocessing.size[0])
    seen = []
    whole.module.get_submodule(head).register_forward_pre_hook(lambda _, x: seen.append(x[0]))
    outputs = probe(backbone)
    tap = default_tap(backbone, outputs)
    runner = TapRunner(backbone.module, [tap], {tap.path: outputs[tap.path].calls})
    with torch.inference_mode():
        whole.module(images)
        assert torch.equal(runner(images)[0], seen[0])


def test_half_a_head_is_refused(tmp_path, weights):
    for lost, left in (("linear.weight", "it has bias"), ("linear.bias", "it has weight")):
        state = {k: v for k, v in weights.items() if k != lost}
        with pytest.raises(CheckpointError, match=rf"head.* linear .*not whole.*\({left}\)"):
            load_checkpoint(save(state, tmp_path / "a"), ARCH)


def test_a_network_that_has_no_head_keeps_its_last_layer(tmp_path):
    arch = "timm:vit_small_patch14_dinov2"
    state = build(arch).module.state_dict()
    lost = {k: v for k, v in state.items() if not k.startswith("blocks.11.mlp.fc2.")}
    with pytest.raises(BackboneError, match=r"2 missing \(blocks.11.mlp.fc2.weight, blocks.11.mlp"):
        load_checkpoint(save(lost, tmp_path / "a"), arch)


def test_counters_may_be_missing(tmp_path, weights):
    """Files from before torch 0.4.1 have none; in evaluation they are not read."""
    state = {k: v for k, v in weights.items() if not k.endswith("num_batches_tracked")}
    found = load_checkpoint(save(state, tmp_path / "a"), ARCH).module.state_dict()
    assert equal({k: found[k] for k in state}, state)


@pytest.mark.parametrize(
    "name", ["torchvision:resnet18", "timm:vit_tiny_patch16_224", "alexnet64_bn", "cifar_resnet20"]
)
def test_weights_that_a_file_replaces_are_not_drawn(name):
    """What nothing fills afterwards shows: it is no number."""
    drawn = build(name).module
    with UnsetWeights():
        unset = build(name).module
    kinds = (torch.nn.Linear, torch.nn.Conv2d)
    weights = [m.weight for m in unset.modules() if isinstance(m, kinds)]
    assert len(weights) > 7
    assert all(bool(weight.isnan().all()) for weight in weights)
    for path, tensor in drawn.named_buffers():
        assert torch.equal(tensor, unset.get_buffer(path)), path


def test_another_architecture_is_told_apart(tmp_path, weights):
    path = save(weights, tmp_path / "net.pth")
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(path, "cifar_resnet32")
    norm = ("weight", "bias", "running_mean", "running_var")
    first = [
        f"layer1.3.{name}"
        for i in (1, 2)
        for name in (f"conv{i}.weight", *(f"bn{i}.{part}" for part in norm))
    ]
    assert str(caught.value) == (
        f"{path}: not the weights of cifar_resnet32, which it was taken for (layout: state dict, "
        f"weights: student): tensors 60 missing ({', '.join(first)}, …); "
        f"say another network with ?arch=, or leave it out to have it read off the tensors"
    )
    odd = weights | {"layer9.weight": torch.ones(1), "conv1.weight": torch.ones(16, 1, 3, 3)}
    del odd["bn1.bias"]
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(save(odd, path), ARCH)
    for part in (
        "1 missing (bn1.bias)",
        "1 left over (layer9.weight)",
        "1 of another shape (conv1.weight (16, 1, 3, 3) for (16, 3, 3, 3))",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_a_truncated_file_is_refused_wherever_it_ends(tmp_path, small, kind):
    data = save(small, tmp_path / "whole", kind).read_bytes()
    path = tmp_path / "cut"
    cuts = {*range(0, len(data), 7), *range(40), *range(len(data) - 40, len(data))}
    for cut in sorted(cuts):
        path.write_bytes(data[:cut])
        with pytest.raises(BackboneError, match="cut") as caught:
            read_tensors(path)
        assert "\n" not in str(caught.value)
    path.write_bytes(data)
    assert equal(read_tensors(path), small)


@pytest.mark.parametrize("kind", ["zip", "legacy", "safetensors"])
def test_damaged_bytes_raise_nothing_else(tmp_path, small, kind):
    """A flip inside a tensor cannot be seen; every other one is refused with one line."""
    data = save(small, tmp_path / "whole", kind).read_bytes()
    path, refused, rng = tmp_path / "flipped", [], random.Random(0)
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.randint(1, 6)):
            damaged[rng.randrange(len(data))] = rng.randrange(256)
        path.write_bytes(damaged)
        try:
            read_tensors(path)
        except BackboneError as error:
            refused.append(str(error))
    assert len(refused) > 20
    assert not any("\n" in message for message in refused)


@pytest.mark.parametrize("kind", ["zip", "safetensors"])
def test_a_changed_tensor_is_seen_where_the_file_has_checksums(tmp_path, weights, kind):
    """Zip files have checksums; what safetensors files lack is made good by ``?sha256=``."""
    path = save(weights, tmp_path / "net", kind)
    data = bytearray(path.read_bytes())
    place = bytes(data).index(weights["layer2.0.conv1.weight"].numpy().tobytes())
    data[place + 2] ^= 1
    path.write_bytes(data)
    if kind == "zip":
        with pytest.raises(CheckpointError, match="damaged .*checksum"):
            read_tensors(path)
        with pytest.raises(CheckpointError, match="damaged .*checksum"):
            load_checkpoint(path)
    else:
        whole = hashlib.sha256(save(weights, tmp_path / "whole", kind).read_bytes()).hexdigest()
        with pytest.raises(CheckpointError, match=f"damaged, or another file: .*{whole[:12]}"):
            load_checkpoint(path, sha256=whole[:12])


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "an empty file"),
        (b"\0" * 100, "damaged"),
        (b"<!DOCTYPE html><html>404</html>", "a web page, not a checkpoint"),
        (b"12345678{", "damaged"),
        (b"PK\3\4", "damaged"),
        (b"\x80", "damaged"),
        (b"\x80\x02.", "damaged"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n", "Git LFS pointer"),
    ],
)
def test_other_files_are_refused(tmp_path, data, message):
    path = tmp_path / "net.pth"
    path.write_bytes(data)
    for read in (read_tensors, load_checkpoint):
        with pytest.raises(CheckpointError, match=rf"net\.pth: .*{message}"):
            read(path)


@pytest.mark.parametrize("data", [pickle.dumps(4, 2), pickle.dumps({"a": "b"}, 4)])
def test_a_pickle_of_something_else_is_refused(tmp_path, data):
    path = tmp_path / "net.pth"
    path.write_bytes(data)
    assert read_tensors(path) == {}
    with pytest.raises(CheckpointError, match=r"net\.pth: no tensors in it; "):
        load_checkpoint(path)


def test_random_bytes_are_refused(tmp_path):
    path, rng = tmp_path / "x", random.Random(1)
    for start in (b"", b"\x80\x02", b"PK\3\4", b"\x40\0\0\0\0\0\0\0{"):
        for _ in range(60):
            path.write_bytes(start + rng.randbytes(rng.randint(1, 300)))
            with pytest.raises(BackboneError):
                read_tensors(path)


class Payload:
    """Creates a file when it is unpickled the usual way."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_a_file_is_not_run(tmp_path, weights, kind, recwarn):
    proof = tmp_path / "proof"
    path = tmp_path / "net.pth"
    if kind == "pickle":
        arrays = {name: tensor.numpy() for name, tensor in weights.items()}
        path.write_bytes(pickle.dumps({"state_dict": arrays, "hook": Payload(proof)}, protocol=2))
        open_it = pickle.loads
    else:
        save({"state_dict": dict(weights), "hook": Payload(proof)}, path, kind)
        open_it = lambda data: torch.load(io.BytesIO(data), weights_only=False)  # noqa: E731
    assert equal(read_tensors(path), {f"state_dict/{k}": v for k, v in weights.items()})
    assert equal(load_checkpoint(path).module.state_dict(), weights)
    assert not proof.exists()
    open_it(path.read_bytes())["hook"].close()
    assert proof.exists(), "the payload works, so it is the reader that did not run it"


@pytest.mark.parametrize("kind", ["zip", "legacy", "pickle"])
def test_code_in_place_of_a_tensor_is_not_run(tmp_path, weights, kind, recwarn):
    proof = tmp_path / "proof"
    path = tmp_path / "net.pth"
    content = weights | {"bn1.bias": Payload(proof)}
    if kind == "pickle":
        content = {k: v.numpy() if isinstance(v, torch.Tensor) else v for k, v in content.items()}
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        save(content, path, kind)
    with pytest.raises(CheckpointError, match=r"1 missing \(bn1\.bias\)"):
        load_checkpoint(path)
    assert not proof.exists()


@pytest.mark.parametrize("kind", ["zip", "legacy"])
def test_a_namespace_beside_a_state_dict_is_ignored(tmp_path, weights, kind):
    content = {"state_dict": weights, "args": argparse.Namespace(lr=1, ema=torch.ones(2))}
    path = save(content, tmp_path / "net.pth", kind)
    assert equal(read_tensors(path), {f"state_dict/{k}": v for k, v in weights.items()})
    network = load_checkpoint(path)
    assert network.architecture == ARCH
    assert equal(network.module.state_dict(), weights)


@pytest.mark.parametrize(
    "content", [{}, {"epoch": 1, "lr": 2}, {"state_dict": {}}, [torch.ones(1)], torch.ones(1)]
)
def test_a_file_without_tensors(tmp_path, content):
    path = save(content, tmp_path / "a")
    assert read_tensors(path) == {}
    for arch in (None, ARCH):
        with pytest.raises(CheckpointError, match=r"a: no tensors in it; "):
            load_checkpoint(path, arch)


def test_torchscript_is_refused(tmp_path):
    path = tmp_path / "script.pt"
    archive = zipfile.ZipFile(path, "w")
    with archive:
        archive.writestr("script/constants.pkl", b"x")
        archive.writestr("script/data.pkl", b"x")
    with pytest.raises(BackboneError, match=r"script\.pt: a TorchScript archive; save its modul"):
        read_tensors(path)


def test_no_file(tmp_path):
    for path in (tmp_path / "none.pth", tmp_path):
        with pytest.raises(BackboneError, match="no such checkpoint file"):
            read_tensors(path)
