"""Names of tensors as upstream projects write them, in the order of their state dicts.

Every list was compared with the keys of the upstream class itself; nothing here is derived from the
loader, nor from the networks whose tensors get these names.
"""

BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


def norm(name, counters=True):
    tensors = ["weight", "bias", "running_mean", "running_var"]
    return [f"{name}.{tensor}" for tensor in tensors + ["num_batches_tracked"] * counters]


def linear(name):
    return [f"{name}.weight", f"{name}.bias"]


def resnet(depth=18, prefix="", counters=True, downsample_first=False):
    """torchvision/models/resnet.py, without ``fc``.

    VISSL (``_feature_blocks.``), MoCo, PCL, SwAV, PyContrast, Barlow Twins, VICReg, DINO,
    solo-learn and timm put prefixes before the same names. In tonylins' converter the
    ``downsample`` of a block comes before its convolutions.
    """
    convolutions = 2 if depth == 18 else 3
    names = ["conv1.weight", *norm("bn1", counters)]
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        for block in range(blocks):
            here = f"layer{stage}.{block}"
            main, shortcut = [], []
            for i in range(1, convolutions + 1):
                main += [f"{here}.conv{i}.weight", *norm(f"{here}.bn{i}", counters)]
            if block == 0 and (stage > 1 or depth > 18):
                shortcut = [f"{here}.downsample.0.weight", *norm(f"{here}.downsample.1", counters)]
            names += shortcut + main if downsample_first else main + shortcut
    return [prefix + name for name in names]


def lightly_resnet18(prefix):
    """``nn.Sequential(*list(resnet.children())[:-1])`` of lightly's examples."""
    names = ["0.weight", *norm("1")]
    for position in (4, 5, 6, 7):
        for block in (0, 1):
            here = f"{position}.{block}"
            for i in (1, 2):
                names += [f"{here}.conv{i}.weight", *norm(f"{here}.bn{i}")]
            if block == 0 and position > 4:
                names += [f"{here}.downsample.0.weight", *norm(f"{here}.downsample.1")]
    return [prefix + name for name in names]


def lightly_small_resnet18(prefix):
    """The children of lightly/models/resnet.py, all but ``linear``, in an ``nn.Sequential``."""
    names = ["0.weight", *norm("1")]
    for position in (2, 3, 4, 5):
        for block in (0, 1):
            here = f"{position}.{block}"
            for i in (1, 2):
                names += [f"{here}.conv{i}.weight", *norm(f"{here}.bn{i}")]
            if block == 0 and position > 2:
                names += [f"{here}.shortcut.0.weight", *norm(f"{here}.shortcut.1")]
    return [prefix + name for name in names]


def separius_resnet50():
    """SimCLRv2-Pytorch/resnet.py with sk_ratio 0."""
    names = ["net.0.0.weight", *norm("net.0.1.0")]
    for stage, blocks in enumerate((3, 4, 6, 3), start=1):
        for block in range(blocks):
            here = f"net.{stage}.blocks.{block}"
            if block == 0:
                names += [f"{here}.projection.shortcut.weight", *norm(f"{here}.projection.bn.0")]
            for i in (0, 2, 4):
                names += [f"{here}.net.{i}.weight", *norm(f"{here}.net.{i + 1}.0")]
    return [*names, "fc.weight", "fc.bias"]


def separius_head():
    """The ContrastiveHead of SimCLRv2-Pytorch/resnet.py."""
    names = []
    for i in (0, 3, 6):
        names += [f"layers.{i}.weight", *norm(f"layers.{i + 1}")]
    return names


def caffe2_resnet50():
    """Blobs of R-50, in the order of torchvision's tensors (``_riv`` holds the variance)."""
    names = ["conv1_w", *(f"res_conv1_bn_{kind}" for kind in ("s", "b", "rm", "riv"))]
    for stage, blocks in enumerate((3, 4, 6, 3), start=2):
        for block in range(blocks):
            branches = ["branch2a", "branch2b", "branch2c", "branch1"]
            for branch in branches[: 3 + (block == 0)]:
                here = f"res{stage}_{block}_{branch}"
                names += [f"{here}_w", *(f"{here}_bn_{kind}" for kind in ("s", "b", "rm", "riv"))]
    return names


def vit(prefix="", depth=12):
    """dino/vision_transformer.py, moco-v3/vits.py and vissl/models/trunks/vision_transformer.py."""
    names = ["cls_token", "pos_embed", *linear("patch_embed.proj")]
    for block in range(depth):
        for part in ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"):
            names += linear(f"blocks.{block}.{part}")
    return [prefix + name for name in [*names, *linear("norm")]]


def dino_head(prefix="", mlp="mlp", last="last_layer"):
    """dino/vision_transformer.py DINOHead; VISSL and lightly name its parts differently."""
    names = [name for i in (0, 2, 4) for name in linear(f"{mlp}.{i}")]
    return [prefix + name for name in [*names, f"{last}.weight_g", f"{last}.weight_v"]]


def deepcluster_alexnet(sobel, batch_norm):
    """deepcluster/models/alexnet.py with its features in a DataParallel."""
    positions = (0, 4, 8, 11, 14) if batch_norm else (0, 3, 6, 8, 10)
    names = []
    for i in positions:
        names += linear(f"features.module.{i}")
        if batch_norm:
            names += norm(f"features.module.{i + 1}", counters=False)
    names += [*linear("classifier.1"), *linear("classifier.4"), *linear("top_layer")]
    return names + [name for i in (0, 1) if sobel for name in linear(f"sobel.{i}")]


def vissl_alexnet():
    """vissl/models/trunks/alexnet_deepcluster.py."""
    names = [*linear("sobel.0"), *linear("sobel.1")]
    for block in (0, 2, 4, 5, 6):
        names += linear(f"_feature_blocks.{block}.0")
        names += norm(f"_feature_blocks.{block}.1")
    return names


def cifar_resnet20(prefix):
    """pytorch_resnet_cifar10/resnet.py (option A: shortcuts have no parameters)."""
    names = ["conv1.weight", *norm("bn1")]
    for stage in (1, 2, 3):
        for block in (0, 1, 2):
            for i in (1, 2):
                here = f"layer{stage}.{block}"
                names += [f"{here}.conv{i}.weight", *norm(f"{here}.bn{i}")]
    return [prefix + name for name in [*names, "linear.weight", "linear.bias"]]
