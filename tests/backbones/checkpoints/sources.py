"""Networks with random weights and buffers, built as upstream builds them."""

import copy
import functools
import math

import torch
from timm.models.vision_transformer import VisionTransformer
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet


def randomized(module, seed):
    """Every parameter and buffer gets values of its own; activations keep their scale."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(tensor, low, high):
        tensor.uniform_(low, high, generator=generator)

    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            kind = name.rpartition(".")[2]
            if kind == "num_batches_tracked":
                tensor.fill_(1000 + seed)
            elif kind in ("running_var", "weight_g"):
                uniform(tensor, 0.5, 1.5)
            elif kind == "running_mean" or (tensor.ndim < 2 and kind != "weight"):
                uniform(tensor, -0.2, 0.2)
            elif tensor.ndim < 2:
                uniform(tensor, 0.5, 1.0)
            elif kind in ("cls_token", "pos_embed"):
                uniform(tensor, -0.5, 0.5)
            else:
                bound = math.sqrt(3 / tensor[0].numel())
                uniform(tensor, -bound, bound)
    return module.eval().requires_grad_(False)


class WideResNet(ResNet):
    """Every layer is ``width`` times as wide, unlike torchvision's wide_resnet50_2.

    So built by vissl/models/trunks/resnext.py, swav/src/resnet50.py, vicreg/resnet.py, PyContrast
    networks/resnet.py and simclr-converter/resnet_wider.py.
    """

    def __init__(self, block, layers, width):
        super().__init__(block, layers)
        self.inplanes = planes = 64 * width
        self.conv1 = nn.Conv2d(3, planes, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(planes)
        self.layer1 = self._make_layer(block, planes, layers[0])
        self.layer2 = self._make_layer(block, planes * 2, layers[1], stride=2)
        self.layer3 = self._make_layer(block, planes * 4, layers[2], stride=2)
        self.layer4 = self._make_layer(block, planes * 8, layers[3], stride=2)
        self.fc = nn.Linear(planes * 8 * block.expansion, 10)


SHAPES = {18: (BasicBlock, [2, 2, 2, 2]), 50: (Bottleneck, [3, 4, 6, 3])}


@functools.cache
def resnet(depth=18, seed=0, width=1, small_images=False, padding=2):
    """A ResNet; its ``fc`` has ten classes.

    ``small_images`` makes a stem for CIFAR without a max-pool; solo-learn's base.py pads by 2.
    """
    block, layers = SHAPES[depth]
    with torch.device("meta"):
        net = ResNet(block, layers, 10) if width == 1 else WideResNet(block, layers, width)
        if small_images:
            net.conv1 = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=padding, bias=False)
            net.maxpool = nn.Identity()
    return randomized(net.to_empty(device="cpu"), 100 * depth + seed)


@functools.cache
def lightly_small_resnet(seed=0):
    """The children of lightly's ResNet-18 for CIFAR in a row: its ReLU in the stem is a function.

    lightly/models/resnet.py and docs/source/getting_started/benchmarks/cifar10_benchmark.py.
    """
    net = ResNet(BasicBlock, [2, 2, 2, 2], 10)
    stem = nn.Conv2d(3, 64, kernel_size=3, stride=1, padding=1, bias=False)
    stages = net.layer1, net.layer2, net.layer3, net.layer4
    row = nn.Sequential(stem, net.bn1, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return randomized(row, seed)


@functools.cache
def windowed_resnet(depth, width, width_per_group=64):
    """A wide ResNet whose tensors share three storages: its file takes a tenth of the bytes.

    ``width_per_group`` 128 is torchvision's wide_resnet50_2.
    """
    block, layers = SHAPES[depth]
    with torch.device("meta"):
        if width_per_group == 64:
            net = WideResNet(block, layers, width)
        else:
            net = ResNet(block, layers, 10, width_per_group=width_per_group)
    generator = torch.Generator().manual_seed(7)
    largest = max(tensor.numel() for tensor in net.parameters())
    weights = torch.empty(largest + 999).uniform_(-0.06, 0.06, generator=generator)
    scales = torch.empty(2048 * width + 999).uniform_(0.5, 1.0, generator=generator)
    shifts = torch.empty(2048 * width + 999).uniform_(-0.2, 0.2, generator=generator)
    start = 0
    for module in net.modules():
        tensors = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, tensor in tensors:
            if tensor.ndim == 0:
                setattr(module, name, torch.tensor(1000))
                continue
            storage = shifts if name in ("bias", "running_mean") else scales
            storage, start = weights if tensor.ndim > 1 else storage, start + 1
            window = storage[start : start + tensor.numel()].view(tensor.shape)
            is_parameter = isinstance(tensor, nn.Parameter)
            setattr(module, name, nn.Parameter(window, False) if is_parameter else window)
    return net.eval()


def trunk(net):
    """The tensors of a ResNet in their order, without those of ``fc``."""
    return [tensor for name, tensor in net.state_dict().items() if not name.startswith("fc.")]


def pooled(net):
    """What a ResNet's classifier reads."""

    def features(images):
        x = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        x = net.layer4(net.layer3(net.layer2(net.layer1(x))))
        return torch.flatten(net.avgpool(x), 1)

    return features


def flipped(net):
    """The features of a network that was trained on BGR, for RGB images."""
    return lambda images: pooled(net)(images.flip(1))


@functools.cache
def vit(dim, heads, seed=0):
    with torch.device("meta"):
        net = VisionTransformer(
            patch_size=16, embed_dim=dim, depth=12, num_heads=heads, num_classes=0, img_size=224
        )
    return randomized(net.to_empty(device="cpu"), 1000 + seed)


@functools.cache
def moco_vit(seed=0):
    """vit_small of moco-v3/vits.py: 12 heads, and positions that are sines and never trained."""
    net = copy.deepcopy(vit(384, 12, seed))
    rows, columns = torch.meshgrid(torch.arange(14.0), torch.arange(14.0), indexing="ij")
    omega = 10000 ** -(torch.arange(96) / 96)
    angles = [place.flatten()[:, None] * omega for place in (rows, columns)]
    waves = [wave(angle) for angle in angles for wave in (torch.sin, torch.cos)]
    net.pos_embed.data[0] = torch.cat([torch.zeros(1, 384), torch.cat(waves, 1)])
    return net


def class_token(net):
    return lambda images: net.forward_features(images)[:, 0]


LAYERS = {
    "L": nn.Linear,
    "l": lambda inputs, outputs: nn.Linear(inputs, outputs, bias=False),
    "B": lambda inputs, outputs: nn.BatchNorm1d(inputs),
    "b": lambda inputs, outputs: nn.BatchNorm1d(inputs, affine=False),
    "R": lambda inputs, outputs: nn.ReLU(),
    "G": lambda inputs, outputs: nn.GELU(),
}


def sequential(layout, *widths, seed=0):
    """An ``nn.Sequential`` spelled out: ``LBRl``; a small l has no bias, a small b no scale."""
    layers, at = [], 0
    for letter in layout:
        step = letter in "Ll"
        layers.append(LAYERS[letter](widths[at], widths[min(at + 1, len(widths) - 1)]))
        at += step
    return randomized(nn.Sequential(*layers), 5000 + seed)


def named(prefix, module):
    """The tensors of an ``nn.Sequential`` (or of one layer) under a prefix."""
    dot = "." if prefix else ""
    return {f"{prefix}{dot}{name}": tensor for name, tensor in module.state_dict().items()}


def zipped(names, tensors):
    return dict(zip(names, tensors, strict=True))


def after(features, *modules):
    """Heads that run one after another."""

    def head(images):
        rows = features(images)
        for module in modules:
            rows = module(rows)
        return rows

    return head


def unit(rows):
    """Rows of length one, as ``nn.functional.normalize(…, dim=1, p=2)``."""
    return functional.normalize(rows, dim=1, p=2)


class DinoHead(nn.Module):
    """dino/vision_transformer.py DINOHead, its weight norm written out."""

    def __init__(self, inputs, seed, hidden=32, bottleneck=16, outputs=24):
        super().__init__()
        self.mlp = sequential("LGLGL", inputs, hidden, hidden, bottleneck, seed=seed)
        self.weight_g = nn.Parameter(torch.empty(outputs, 1))
        self.weight_v = nn.Parameter(torch.empty(outputs, bottleneck))
        randomized(self, 6000 + seed)

    def forward(self, rows):
        weight = self.weight_g * self.weight_v / self.weight_v.norm(dim=1, keepdim=True)
        return functional.linear(functional.normalize(self.mlp(rows), dim=-1, p=2), weight)

    def tensors(self):
        return [*self.mlp.state_dict().values(), self.weight_g.data, self.weight_v.data]


class SepariusBlock(nn.Module):
    """SimCLRv2-Pytorch/resnet.py BottleneckBlock with sk_ratio 0."""

    def __init__(self, inputs, width, stride, use_projection):
        super().__init__()
        self.projection = nn.Identity()
        if use_projection:
            self.projection = nn.Module()
            self.projection.shortcut = nn.Conv2d(inputs, width * 4, 1, stride, bias=False)
            self.projection.bn = nn.Sequential(nn.BatchNorm2d(width * 4), nn.Identity())
            self.projection.forward = self._project
        self.net = nn.Sequential(
            nn.Conv2d(inputs, width, 1, bias=False),
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU()),
            nn.Conv2d(width, width, 3, stride, padding=1, bias=False),
            nn.Sequential(nn.BatchNorm2d(width), nn.ReLU()),
            nn.Conv2d(width, width * 4, 1, bias=False),
            nn.Sequential(nn.BatchNorm2d(width * 4), nn.Identity()),
        )

    def _project(self, x):
        return self.projection.bn(self.projection.shortcut(x))

    def forward(self, x):
        return functional.relu(self.projection(x) + self.net(x))


class SepariusResNet50(nn.Module):
    """SimCLRv2-Pytorch/resnet.py ResNet with width 1 and sk_ratio 0."""

    def __init__(self):
        super().__init__()
        stem = [
            nn.Conv2d(3, 64, 7, 2, padding=3, bias=False),
            nn.Sequential(nn.BatchNorm2d(64), nn.ReLU()),
            nn.MaxPool2d(3, 2, padding=1),
        ]
        stages, inputs = [nn.Sequential(*stem)], 64
        for blocks, width, stride in ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2)):
            stage = nn.Module()
            stage.blocks = nn.Sequential()
            for i in range(blocks):
                stage.blocks.append(SepariusBlock(inputs, width, 1 if i else stride, i == 0))
                inputs = width * 4
            stage.forward = stage.blocks.forward
            stages.append(stage)
        self.net = nn.Sequential(*stages)
        self.fc = nn.Linear(2048, 1000)

    def forward(self, x):
        return self.net(x).mean(dim=[2, 3])


def _deepcluster_features(inputs, batch_norm):
    layers = []
    for width, kernel, stride, padding, pool in (
        (96, 11, 4, 2, True),
        (256, 5, 1, 2, True),
        (384, 3, 1, 1, False),
        (384, 3, 1, 1, False),
        (256, 3, 1, 1, True),
    ):
        layers.append(nn.Conv2d(inputs, width, kernel, stride, padding))
        layers += [nn.BatchNorm2d(width)] * batch_norm
        layers += [nn.ReLU(inplace=True)] + [nn.MaxPool2d(3, 2)] * pool
        inputs = width
    return nn.Sequential(*layers)


def sobel_filter():
    """The fixed filters of deepcluster/models/alexnet.py."""
    grayscale = nn.Conv2d(3, 1, 1)
    grayscale.weight.data.fill_(1 / 3)
    edges = nn.Conv2d(1, 2, 3, padding=1)
    edges.weight.data[0, 0] = torch.tensor([[1.0, 0, -1], [2, 0, -2], [1, 0, -1]])
    edges.weight.data[1, 0] = torch.tensor([[1.0, 2, 1], [0, 0, 0], [-1, -2, -1]])
    grayscale.bias.data.zero_()
    edges.bias.data.zero_()
    return nn.Sequential(grayscale, edges).requires_grad_(False)


class DeepClusterAlexNet(nn.Module):
    """deepcluster/models/alexnet.py; its output is what ``top_layer`` reads."""

    def __init__(self, sobel, batch_norm, seed, classes=10):
        super().__init__()
        with torch.device("meta"):
            self.features = _deepcluster_features(2 if sobel else 3, batch_norm)
            self.classifier = nn.Sequential(
                nn.Dropout(0.5),
                nn.Linear(256 * 6 * 6, 4096),
                nn.ReLU(inplace=True),
                nn.Dropout(0.5),
                nn.Linear(4096, 4096),
                nn.ReLU(inplace=True),
            )
            self.top_layer = nn.Linear(4096, classes)
        randomized(self.to_empty(device="cpu"), 8000 + seed)
        self.sobel = sobel_filter() if sobel else None

    def forward(self, x):
        x = self.features(x if self.sobel is None else self.sobel(x))
        return self.classifier(x.view(x.size(0), 256 * 6 * 6))


class VisslAlexNet(nn.Module):
    """vissl/models/trunks/alexnet_deepcluster.py; its output is the flattened pool5."""

    def __init__(self, seed):
        super().__init__()
        blocks = nn.Module()
        position = 0
        group = []
        for layer in _deepcluster_features(2, batch_norm=True):
            group.append(layer)
            if isinstance(layer, nn.ReLU):
                setattr(blocks, str(position), nn.Sequential(*group))
                group, position = [], position + 1
            elif isinstance(layer, nn.MaxPool2d):
                setattr(blocks, str(position), layer)
                group, position = [], position + 1
        self._feature_blocks = blocks
        randomized(self, 9000 + seed)
        self.sobel = sobel_filter()

    def forward(self, x):
        x = self.sobel(x)
        for block in self._feature_blocks.children():
            x = block(x)
        return torch.flatten(x, 1)

    def tensors(self):
        """In upstream's order: its Sobel filter is defined first."""
        return [*self.sobel.state_dict().values(), *self._feature_blocks.state_dict().values()]


class CifarBlock(nn.Module):
    """He et al. 2015, sec. 4.2, with option A shortcuts, as pytorch_resnet_cifar10 writes it."""

    def __init__(self, inputs, outputs, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.extra = (outputs - inputs) // 2

    def forward(self, x):
        out = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x)))))
        if self.extra:
            x = functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))
        return functional.relu(out + x)


class CifarResNet20(nn.Module):
    """Its output is what ``linear`` reads."""

    def __init__(self, seed):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        inputs = 16
        for stage, width in enumerate((16, 32, 64), start=1):
            blocks = []
            for i in range(3):
                blocks.append(CifarBlock(inputs, width, 2 if stage > 1 and i == 0 else 1))
                inputs = width
            setattr(self, f"layer{stage}", nn.Sequential(*blocks))
        self.linear = nn.Linear(64, 10)
        randomized(self, 9500 + seed)

    def forward(self, x):
        x = self.layer3(self.layer2(self.layer1(functional.relu(self.bn1(self.conv1(x))))))
        return x.mean((2, 3))
