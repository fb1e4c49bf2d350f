"""Every layout of checkpoint, written as upstream writes it, and its features, bit for bit."""

import hashlib
import subprocess
from dataclasses import replace

import pytest
import torch

from featkit.backbones.probe import default_tap, probe
from featkit.backbones.resolve import load_backbone
from featkit.backbones.taps import Tap, TapRunner
from featkit.errors import BackboneError
from tests.backbones.checkpoints.writers import BOTH, ROWS, Saver

FILES = [(name, False) for name in ROWS] + [(name, True) for name in BOTH]
DAMAGED = [
    "vissl-simclr",
    "vissl-moco",
    "vissl-linear-eval",
    "vissl-model-state-dict",
    "vissl-flat-trunk-base-model",
    "vissl-dino-vit-ddp",
    "vissl-alexnet-deepcluster",
    "moco-v2",
    "moco-v3-resnet",
    "deepcluster-v2",
    "insdis",
    "infomin",
    "byol-flat",
    "barlow-twins-training",
    "dino-vit-training",
    "solo-learn-byol",
    "solo-learn-old",
    "lightly-byol",
    "lightly-dino",
    "lightly-benchmark-dino",
    "lightning",
    "ddp-of-compiled",
    "timm-ema",
    "cifar-resnet",
]


def write(name, folder, legacy=False):
    folder.mkdir()
    return ROWS[name](Saver(folder, legacy))


def delete(folder):
    for path in folder.iterdir():
        path.unlink()


@pytest.fixture(
    scope="module",
    params=FILES,
    ids=[f"{name}-legacy" if legacy else name for name, legacy in FILES],
)
def sample(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("layout") / "files"
    yield write(request.param[0], folder, request.param[1])
    delete(folder)


def load(sample, **options):
    query = [sample.query] * bool(sample.query) + [f"{k}={v}" for k, v in options.items()]
    return load_backbone(str(sample.path) + "?" * bool(query) + "&".join(query))


def small(sample, backbone):
    """The backbone for the small images that features are compared on."""
    preprocessing = backbone.preprocessing.resized(sample.size)
    return replace(backbone, network=replace(backbone.network, preprocessing=preprocessing))


@pytest.fixture(scope="module")
def backbone(sample):
    return load(sample)


@pytest.fixture(scope="module")
def outputs(sample, backbone):
    return probe(small(sample, backbone))


def read(backbone, outputs, tap, images):
    runner = TapRunner(backbone.module, [tap], {path: o.calls for path, o in outputs.items()})
    try:
        with torch.inference_mode():
            return runner(images)[0]
    finally:
        runner.close()


def images_of(sample):
    generator = torch.Generator().manual_seed(5)
    return torch.randn(2, 3, sample.size, sample.size, generator=generator)


def default(sample):
    return next(iter(sample.nets.items()))


def same_features(sample, net, backbone, outputs):
    images = images_of(sample)
    with torch.inference_mode():
        wanted = net.features(images)
    assert (wanted[0] - wanted[1]).abs().max() > 1e-3 * wanted.abs().max()
    if sample.tapped:
        tap = default_tap(small(sample, backbone), outputs)
        assert torch.equal(read(backbone, outputs, tap, images), wanted)
    else:
        with torch.inference_mode():
            assert torch.equal(backbone.module(images), wanted)


def same_head(sample, net, backbone, outputs):
    images, path = images_of(sample), backbone.network.head
    if net.head is None or (path is None and not sample.head):
        assert path is None
        return
    with torch.inference_mode():
        wanted = net.head(images)
    assert path is not None
    rows = read(backbone, outputs, Tap(path, "none"), images)
    assert rows.shape == wanted.shape
    assert (rows - wanted).abs().max() <= 1e-6 * wanted.abs().max()


def test_the_default_tap_gives_the_features_of_the_source_network(sample, backbone, outputs):
    same_features(sample, default(sample)[1], backbone, outputs)


def test_the_network_and_its_preprocessing_are_recognized(sample, backbone):
    assert backbone.network.architecture.rpartition(":")[2] == default(sample)[1].architecture
    assert not backbone.module.training
    recipe = backbone.preprocessing
    assert recipe.size == (sample.pixels, sample.pixels)
    if sample.pixels == 224:
        assert (recipe.resize, recipe.interpolation) == (256, sample.interpolation)
    if sample.normalization is not None:
        assert (recipe.mean, recipe.std) == sample.normalization


def test_the_head_gives_what_the_source_head_gives(sample, backbone, outputs):
    same_head(sample, default(sample)[1], backbone, outputs)


def test_the_report_names_the_network_the_others_and_the_file(sample, backbone):
    role, *others = sample.nets
    report = backbone.network.checkpoint
    assert report.layout
    assert report.weights == role
    assert sorted(report.others) == sorted(others)
    assert bool(report.heads) == (backbone.network.head is not None)
    assert report.sha256 == sha256_of(sample.path)


def sha256_of(path):
    """Of several files it is the sha256 of what sha256sum prints for the index and the others."""
    if path.suffix != ".json":
        return hashlib.sha256(path.read_bytes()).hexdigest()
    files = [path.name, *sorted(p.name for p in path.parent.glob("*.safetensors"))]
    lines = subprocess.run(["sha256sum", *files], cwd=path.parent, capture_output=True, check=True)
    return hashlib.sha256(lines.stdout).hexdigest()


def test_every_tensor_of_the_network_and_its_head_was_used(sample, backbone):
    """The weight norm of a head makes one tensor of two."""
    path = backbone.network.head
    head = backbone.module.get_submodule(path).state_dict() if path else {}
    of_head = backbone.network.checkpoint.tensors - len(sample.names)
    assert 0 <= of_head - len(head) <= any("weight_g" in name for name in every_name(sample))


def every_name(sample):
    names, parts = [], [sample.content]
    while parts:
        part = parts.pop()
        if isinstance(part, dict):
            names += map(str, part)
            parts += part.values()
    return names


def test_every_other_network_of_the_file_can_be_asked_for(sample):
    for role, net in list(sample.nets.items())[1:]:
        backbone = load(sample, weights=role)
        outputs = probe(small(sample, backbone))
        assert backbone.network.checkpoint.weights == role
        same_features(sample, net, backbone, outputs)
        same_head(sample, net, backbone, outputs)
    with pytest.raises(BackboneError) as caught:
        load(sample, weights="nobody")
    assert all(role in str(caught.value) for role in sample.nets)


def test_what_a_file_does_not_tell_is_asked_for(tmp_path):
    sample = write("moco-v3-vit-as-deit", tmp_path / "files")
    with pytest.raises(BackboneError, match=rf"say \?{sample.query} "):
        load_backbone(str(sample.path))
    delete(tmp_path / "files")


def edited(content, change):
    """A copy of nested dictionaries whose innermost, the state dicts, went through ``change``."""
    if not isinstance(content, dict):
        return content
    return change({key: edited(value, change) for key, value in content.items()})


@pytest.mark.parametrize("name", DAMAGED)
def test_no_tensor_may_be_missing_added_or_reshaped(tmp_path, name):
    sample = write(name, tmp_path / "files")
    names = [key for key in sample.names if key.endswith("bias")]
    lost, other = names[len(names) // 2], names[len(names) // 3]
    parent, _, kind = other.rpartition(".")

    def change(state):
        if other not in state:
            return state
        state = {key: value for key, value in state.items() if key != lost}
        doubled = torch.cat([state[other], state[other]])
        return state | {other: doubled, f"{parent}.surplus.{kind}": torch.ones(4)}

    sample.path = sample.save(edited(sample.content, change), "damaged.pth")
    with pytest.raises(BackboneError) as caught:
        load(sample)
    message = str(caught.value)
    for part in ("damaged.pth: ", "1 missing", "1 of another shape", "1 left over", "surplus"):
        assert part in message
    assert "\n" not in message
    delete(tmp_path / "files")
