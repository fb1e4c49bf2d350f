"""The default tap against what each library says the classifier reads."""

import pytest
import torch
from torch import nn

from featkit.backbones.base import Backbone, Network
from featkit.backbones.probe import default_tap, probe, resolve_taps
from featkit.backbones.taps import Tap
from featkit.data.preprocessing import Preprocessing
from featkit.errors import BackboneError

TIMM = [
    "resnet18",
    "vit_tiny_patch16_224",
    "convnext_atto",
    "tf_efficientnet_lite0",
    "mobilenetv3_small_050",
    "swin_tiny_patch4_window7_224",
    "regnetx_002",
    "vit_wee_patch16_reg1_gap_256",
    "cait_xxs24_224",
    "levit_128s",
    "xcit_nano_12_p16_224",
    "mixer_s32_224",
    "pvt_v2_b0",
    "dpn48b",
    "resnetv2_50x1_bit",
    "mobilevit_xxs",
    "mobilenetv4_conv_small",
]
TORCHVISION = [
    "resnet18",
    "vit_b_32",
    "swin_t",
    "convnext_tiny",
    "efficientnet_b0",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "shufflenet_v2_x0_5",
    "mnasnet0_5",
    "regnet_x_400mf",
    "squeezenet1_0",
    "googlenet",
]


def same(rows, wanted):
    """Equal relative to the largest value: some random networks give features of 1e-14."""
    assert rows.shape == wanted.shape
    assert (rows - wanted).abs().max() < 1e-4 * wanted.abs().max()
    assert wanted.std(0).max() > 0


@pytest.mark.parametrize("name", TIMM)
def test_equals_timm_pre_logits(load, read, noise, name):
    spec = f"timm:{name}?weights=none"
    backbone, outputs = load(spec)
    images = noise(backbone.preprocessing.size[0])
    with torch.inference_mode():
        features = backbone.module.forward_features(images)
        wanted = backbone.module.forward_head(features, pre_logits=True)
    (rows,) = read(spec, images, default_tap(backbone, outputs))
    same(rows, wanted.flatten(1))


@pytest.mark.parametrize("name", TORCHVISION)
def test_equals_the_input_of_the_torchvision_classifier(load, read, noise, name):
    spec = f"torchvision:{name}?weights=none"
    backbone, outputs = load(spec)
    images = noise(backbone.preprocessing.size[0])
    kinds = nn.Conv2d if name.startswith("squeezenet") else nn.Linear
    *_, classifier = (m for m in backbone.module.modules() if isinstance(m, kinds))
    seen = []
    handle = classifier.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    with torch.inference_mode():
        backbone.module(images)
    handle.remove()
    wanted = seen[0].mean((2, 3)) if seen[0].ndim == 4 else seen[0]
    (rows,) = read(spec, images, default_tap(backbone, outputs))
    same(rows, wanted)


def test_alexnet_is_read_after_its_last_relu(load):
    backbone, outputs = load("torchvision:alexnet?weights=none&size=64")
    assert default_tap(backbone, outputs) == Tap("classifier.5", "none")


@pytest.mark.parametrize(
    "spec",
    [
        # the mean of two heads, each on its own token
        "timm:deit_tiny_distilled_patch16_224?weights=none",
        # a ReLU that is no module stands before the classifier
        "torchvision:densenet121?weights=none&size=64",
    ],
)
def test_where_no_module_gives_the_features_it_asks_for_a_tap(load, spec):
    backbone, outputs = load(spec)
    with pytest.raises(BackboneError, match=r"cannot tell .* name one with --tap"):
        default_tap(backbone, outputs)


def test_the_default_is_taken_when_nothing_is_asked(load):
    backbone, outputs = load("timm:resnet18?weights=none")
    assert resolve_taps(backbone, [], outputs) == [Tap("global_pool", "none")]


class Twins(nn.Module):
    """Two maps of one shape; the classifier reads the first, small as it is."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 4, 1), nn.Conv2d(3, 4, 1)
        self.fc = nn.Linear(4, 2)

    def forward(self, x):
        a, b = self.a(x) * 1, self.b(x)
        return self.fc((a + 0 * b).mean((2, 3)))


def test_small_features_are_not_confused():
    torch.manual_seed(0)
    net = Twins().eval()
    for parameter in (*net.a.parameters(), *net.b.parameters()):
        parameter.data *= 1e-9
    size = Preprocessing((4, 4), 4, "bilinear", (0.0,) * 3, (1.0,) * 3)
    backbone = Backbone("twins", "twins", Network("twins", net, size))
    assert default_tap(backbone, probe(backbone)) == Tap("a", "avg")
