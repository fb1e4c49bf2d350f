"""The networks for 32 pixels, layer by layer, and back from the files of trainings."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from featkit.backbones.architectures import build
from featkit.backbones.base import Backbone, Network, hash_tensors
from featkit.backbones.checkpoints.load import load_checkpoint
from featkit.backbones.layer_names import replace_module
from featkit.backbones.probe import default_tap, probe, resolve_taps
from featkit.backbones.resolve import load_backbone
from featkit.backbones.taps import Tap
from featkit.backbones.training_runs import RunRecord, run_network, weights_file
from featkit.errors import BackboneError, CheckpointError
from featkit.trainers.run_folder import open_run


def shaken(architecture: str) -> Network:
    """A network whose normalisations are not the identity, so that their place shows."""
    network = build(architecture, seed=3)
    generator = torch.Generator().manual_seed(4)
    for module in network.module.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.bias, module.running_mean):
                tensor.data.normal_(0.0, 0.25, generator=generator)
    return network


def norm(module: nn.Module, path: str, x: Tensor) -> Tensor:
    layer = module.get_submodule(path)
    return functional.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)


def alexnet32(net: nn.Module, x: Tensor) -> Tensor:
    """The thesis has no table: this one is ours, with positions after each layer."""
    weights = dict(net.named_parameters())
    table = ((0, 2, 64, 16, 8), (4, 1, 192, 8, 4), (8, 1, 384, 4, 4), (11, 1, 256, 4, 4),
             (14, 1, 256, 4, 2))  # fmt: skip
    for place, stride, channels, before, after in table:
        own = (weights[f"features.{place}.{name}"] for name in ("weight", "bias"))
        x = functional.conv2d(x, *own, stride=stride, padding=1)
        assert x.shape[1:] == (channels, before, before)
        x = norm(net, f"features.{place + 1}", x).clamp(min=0)
        if before > after:
            x = functional.max_pool2d(x, 2)
        assert x.shape[1:] == (channels, after, after)
    x = x.flatten(1)
    for name in ("classifier.1", "classifier.4"):
        x = functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"]).clamp(min=0)
    assert x.shape[1:] == (2048,)
    return functional.linear(x, weights["top_layer.weight"], weights["top_layer.bias"])


def sobel(x: Tensor) -> Tensor:
    """Derivatives written out: of the mean of the colours, which is 0 outside of the image."""
    grey = functional.pad(x.mean(1), (1, 1, 1, 1))
    smooth_rows = grey[:, :-2] + 2 * grey[:, 1:-1] + grey[:, 2:]
    smooth_columns = grey[..., :-2] + 2 * grey[..., 1:-1] + grey[..., 2:]
    across = smooth_rows[..., :-2] - smooth_rows[..., 2:]
    down = smooth_columns[:, :-2] - smooth_columns[:, 2:]
    return torch.stack([across, down], 1)


def lenet5(net: nn.Module, x: Tensor) -> Tensor:
    """LeCun et al. 1998, figure 2: 6 maps of 28, 16 of 10, then 120, 84 and 10 units."""
    weights = dict(net.named_parameters())
    x = x.mean(1, keepdim=True)
    for place, shape in ((0, (6, 28, 28)), (3, (16, 10, 10))):
        own = (weights[f"features.{place}.{name}"] for name in ("weight", "bias"))
        x = functional.conv2d(x, *own)
        assert x.shape[1:] == shape
        x = functional.max_pool2d(x.clamp(min=0), 2)
    x = x.flatten(1)
    for name, width in (("classifier.0", 120), ("classifier.2", 84)):
        x = functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"]).clamp(min=0)
        assert x.shape[1:] == (width,)
    return functional.linear(x, weights["top_layer.weight"], weights["top_layer.bias"])


@pytest.mark.parametrize(
    ("architecture", "written_out"),
    [
        ("alexnet32", alexnet32),
        ("alexnet32_sobel", lambda net, x: alexnet32(net, sobel(x))),
        ("lenet5", lenet5),
    ],
)
def test_scores_are_those_of_the_layers_written_out(
    architecture: str,
    written_out: Callable[[nn.Module, Tensor], Tensor],
    noise: Callable[..., Tensor],
) -> None:
    net, images = shaken(architecture).module, noise(32, n=3)
    with torch.no_grad():
        torch.testing.assert_close(net(images), written_out(net, images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("architecture", "parameters", "fixed"),
    [
        # convolutions k·k·in·out + out, normalisations 2·out, linear layers in·out + out
        (
            "alexnet32",
            9 * (3 * 64 + 64 * 192 + 192 * 384 + 384 * 256 + 256 * 256)
            + 3 * (64 + 192 + 384 + 256 + 256)
            + 1024 * 2048 + 2048 + 2048 * 2048 + 2048 + 2048 * 10 + 10,
            0,
        ),
        (
            "alexnet32_sobel",
            9 * (2 * 64 + 64 * 192 + 192 * 384 + 384 * 256 + 256 * 256)
            + 3 * (64 + 192 + 384 + 256 + 256)
            + 1024 * 2048 + 2048 + 2048 * 2048 + 2048 + 2048 * 10 + 10,
            3 + 1 + 2 * 9 + 2,
        ),
        # LeCun et al.: 156 in C1, 48,120 in C5, 10,164 in F6; C3 sees all maps here, and ends in 10
        ("lenet5", 156 + 16 * (6 * 25 + 1) + 48_120 + 10_164 + 850, 4),
    ],
)  # fmt: skip
def test_parameters(architecture: str, parameters: int, fixed: int) -> None:
    own = list(build(architecture).module.parameters())
    assert sum(p.numel() for p in own if p.requires_grad) == parameters
    assert sum(p.numel() for p in own if not p.requires_grad) == fixed
    assert build(architecture, num_classes=7).module(torch.zeros(2, 3, 32, 32)).shape == (2, 7)


def test_what_is_grey_stays_grey() -> None:
    """LeNet-5 sees the mean of the colours, which of a grey image is any of them."""
    network = build("lenet5")
    recipe = network.preprocessing
    assert (recipe.size, set(recipe.mean), set(recipe.std)) == ((32, 32), {0.5}, {0.5})
    grey = torch.rand(2, 1, 32, 32)
    torch.testing.assert_close(network.module.grey(grey.expand(-1, 3, -1, -1)), grey)


@pytest.mark.parametrize(("architecture", "width"), [("alexnet32", 2048), ("lenet5", 84)])
def test_features_are_what_the_last_layer_reads(architecture: str, width: int) -> None:
    backbone = Backbone("net", "net", shaken(architecture))
    outputs = probe(backbone)
    assert default_tap(backbone, outputs) == Tap("classifier", "none")
    assert outputs["classifier"].shape == (width,)
    (head,) = resolve_taps(backbone, ["head"], outputs)
    assert (head.path, head.name) == ("top_layer", "head")


@pytest.mark.parametrize("architecture", ["alexnet32", "lenet5"])
def test_other_sizes_are_refused(architecture: str) -> None:
    with pytest.raises(BackboneError, match=r"does not run on 64x64 pixels .*another size"):
        probe(load_backbone(f"{architecture}?weights=none&size=64"))


RUNS = ("alexnet32", "alexnet32_sobel", "lenet5", "alexnet96_bn_sobel")


@contextmanager
def run_of(network: Network, folder: Path) -> Iterator[Path]:
    """A training's folder that has kept these weights."""
    record = RunRecord("DeepCluster", network.architecture, network.preprocessing, {})
    with open_run(folder, record) as run:
        run.begin()
        run.keep_weights(1, network)
        run.finish(1)
    yield weights_file(folder, 1)


def trained(architecture: str) -> Network:
    """A network whose last layer has a number of clusters for outputs."""
    network = shaken(architecture)
    width = network.module.top_layer.in_features
    replace_module(network.module, "top_layer", nn.Linear(width, 17))
    return replace(network, head="top_layer")


@pytest.mark.parametrize("architecture", RUNS)
def test_weights_of_a_training_come_back(
    architecture: str, tmp_path: Path, noise: Callable[..., Tensor]
) -> None:
    network = trained(architecture)
    images = noise(network.preprocessing.size[0])
    with run_of(network, tmp_path / "run") as path:
        found = load_checkpoint(path, architecture), run_network(tmp_path / "run")
    for loaded in found:
        assert hash_tensors(loaded.module.state_dict()) == hash_tensors(network.module.state_dict())
        with torch.no_grad():
            assert torch.equal(loaded.module(images), network.module(images))
        report = loaded.checkpoint
        assert report is not None
        assert (report.layout, report.left_out) == ("featkit run", ())
        assert loaded.head == "top_layer"
        assert report.tensors == len(network.module.state_dict())
        assert report.heads == (f"{network.module.top_layer.in_features} → 17",)
    assert found[1].preprocessing == network.preprocessing


def test_without_its_name_the_small_alexnet_is_not_taken_for_a_large_one(tmp_path: Path) -> None:
    with (
        run_of(trained("alexnet32"), tmp_path / "run") as path,
        pytest.raises(CheckpointError, match=r"first convolution is \(64, 3, 3, 3\).*\?arch="),
    ):
        load_checkpoint(path)
    with pytest.raises(CheckpointError, match="not the weights of alexnet64_bn"):
        load_checkpoint(path, "alexnet64_bn")


@pytest.mark.parametrize("architecture", RUNS)
def test_a_file_without_its_last_layer(architecture: str, tmp_path: Path) -> None:
    """The hidden layers are the network's, and none of them is a head that was left out."""
    network = shaken(architecture)
    state = network.module.state_dict()
    torch.save({k: v for k, v in state.items() if "top_layer" not in k}, tmp_path / "net.pth")
    loaded = load_checkpoint(tmp_path / "net.pth", architecture)
    assert loaded.checkpoint is not None
    assert (loaded.checkpoint.heads, loaded.checkpoint.left_out) == ((), ())
    assert isinstance(loaded.module.top_layer, nn.Identity)
    assert torch.equal(loaded.module.state_dict()["features.0.bias"], state["features.0.bias"])
