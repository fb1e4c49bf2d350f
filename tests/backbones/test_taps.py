"""Rows of taps against torchvision's feature extractor and against submodules called by hand."""

import pytest
import timm
import torch
from torch import nn
from torch.nn import functional
from torchvision.models.feature_extraction import create_feature_extractor

from featkit.backbones.base import Backbone, Network
from featkit.backbones.probe import probe, resolve_taps, row_shape
from featkit.backbones.taps import Tap, TapRunner, TokenLayout, pool, token_layout
from featkit.data.preprocessing import Preprocessing
from featkit.errors import BackboneError, UsageError

RESNET = "torchvision:resnet18?weights=none&size=64"
VIT = "timm:vit_tiny_patch16_224?weights=none"
SMALL = Preprocessing((8, 8), 8, "bilinear", (0.0,) * 3, (1.0,) * 3)


def wrap(module):
    return Backbone("small", "small", Network("small", module.eval(), SMALL))


@pytest.fixture(scope="module")
def graph(load):
    """torchvision's own feature extractor: what each module gave, before anything changed it."""
    nodes = ["bn1", "layer1.0.relu", "layer1.0.relu_1", "layer1", "layer2.0.downsample", "layer3"]
    nodes += ["layer4.1.conv2", "avgpool", "fc"]
    return create_feature_extractor(load(RESNET)[0].module, nodes)


def test_every_pooling_equals_torchvision_feature_extractor(read, graph, noise):
    images = noise(64, n=3)
    with torch.inference_mode():
        peer = graph(images)
    for node in ("layer1", "layer2.0.downsample", "layer3", "layer4.1.conv2", "avgpool"):
        maps = peer[node]
        wanted = [maps.mean((2, 3)), maps.amax((2, 3)), maps.flatten(1), maps]
        got = read(RESNET, images, *(f"{node}:{p}" for p in ("avg", "max", "flatten", "none")))
        torch.testing.assert_close(got[0], wanted[0], rtol=1e-5, atol=1e-6)
        for rows, reference in zip(got[1:], wanted[1:], strict=True):
            assert torch.equal(rows, reference)
            assert rows.is_contiguous()
    for pooling in ("avg", "max", "flatten", "none"):
        assert torch.equal(read(RESNET, images, f"fc:{pooling}")[0], peer["fc"])


def test_a_module_that_runs_twice_is_read_the_last_time(read, graph, noise):
    images = noise(64)
    with torch.inference_mode():
        peer = graph(images)
    (rows,) = read(RESNET, images, "layer1.0.relu:none")
    assert torch.equal(rows, peer["layer1.0.relu_1"])
    assert not torch.equal(rows, peer["layer1.0.relu"])


def test_an_output_that_is_changed_in_place_later_is_read_as_it_was(load, read, noise):
    images = noise(64)
    net = load(RESNET)[0].module
    with torch.inference_mode():
        stem = net.maxpool(net.relu(net.bn1(net.conv1(images))))
        block = net.layer1[0]
        bn1 = block.bn1(block.conv1(stem)).clone()
        bn2 = block.bn2(block.conv2(functional.relu(bn1))).clone()
    got = read(RESNET, images, "layer1.0.bn1:none", "layer1.0.bn2:none", "layer4:avg")
    assert torch.equal(got[0], bn1)
    assert torch.equal(got[1], bn2)
    assert got[0].min() < 0 > got[1].min()


def test_order_duplicates_and_several_poolings_of_one_module(read, noise):
    images = noise(64)
    taps = ["layer3:avg", "layer1:max", "layer3:flatten", "fc:none", "layer3:avg", "layer2:avg"]
    got = read(RESNET, images, *taps)
    for tap, rows in zip(taps, got, strict=True):
        assert torch.equal(rows, read(RESNET, images, tap)[0])
    assert torch.equal(got[0], got[4])


@pytest.mark.parametrize(
    ("taps", "runs"), [(["layer2:avg"], 0), (["layer2:avg", "layer4.0.conv1:avg"], 1)]
)
def test_the_forward_stops_at_the_deepest_tap(load, read, noise, taps, runs):
    module = load(RESNET)[0].module
    seen = []
    handles = [
        module.get_submodule(path).register_forward_pre_hook(lambda m, _: seen.append(m))
        for path in ("layer4", "layer4.0.conv2", "fc")
    ]
    read(RESNET, noise(64), *taps)
    for handle in handles:
        handle.remove()
    assert len(seen) == runs


def test_a_runner_can_run_again_and_leaves_no_hooks(load, noise):
    backbone, outputs = load(RESNET)
    images, others = noise(64), noise(64, n=3, seed=1)
    with torch.inference_mode():
        before = backbone.module(images)
        taps = [Tap("layer2", "avg"), Tap("layer1.0.relu", "max")]
        runner = TapRunner(backbone.module, taps, {p: o.calls for p, o in outputs.items()})
        first, second, third = runner(images), runner(others), runner(images)
        runner.close()
        after = backbone.module(images)
    assert torch.equal(first[0], third[0])
    assert torch.equal(first[1], third[1])
    assert second[0].shape == (3, 128)
    assert torch.equal(before, after)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in backbone.module.modules())


def test_channels_last_memory_gives_the_same_rows(read, noise):
    images = noise(64)
    taps = [f"layer2:{pooling}" for pooling in ("avg", "max", "flatten", "none")]
    last = images.contiguous(memory_format=torch.channels_last)
    for rows, others in zip(read(RESNET, images, *taps), read(RESNET, last, *taps), strict=True):
        torch.testing.assert_close(rows, others, rtol=1e-4, atol=1e-5)
        assert others.is_contiguous()


def test_rows_are_float32_under_bfloat16_autocast(read, noise):
    images = noise(64)
    taps = [f"layer2:{pooling}" for pooling in ("avg", "max", "flatten", "none")] + ["fc:none"]
    exact = read(RESNET, images, *taps)
    with torch.autocast("cpu", torch.bfloat16):
        low = read(RESNET, images, *taps)
    for rows, reference in zip(low, exact, strict=True):
        assert rows.dtype == torch.float32
        assert not torch.equal(rows, reference)
        assert (rows - reference).norm() < 0.05 * reference.norm()


def test_the_mean_of_half_precision_maps_is_taken_in_float32():
    maps = torch.tensor([1.0, 1 + 2**-10] * 2).half().view(1, 1, 2, 2)
    assert pool(maps, Tap("x", "avg"), TokenLayout()).item() == 1 + 2**-11  # no float16


def test_tokens_of_a_vit_against_forward_features(load, read, noise):
    images = noise(224)
    module = load(VIT)[0].module
    with torch.inference_mode():
        tokens = module.forward_features(images)
    cls, avg, top, flat, none = read(
        VIT, images, "norm:cls", "norm:avg", "norm:max", "norm:flatten", "norm:none"
    )
    assert torch.equal(cls, tokens[:, 0])
    torch.testing.assert_close(avg, tokens[:, 1:].mean(1), rtol=1e-5, atol=1e-6)
    assert torch.equal(top, tokens[:, 1:].amax(1))
    assert torch.equal(flat, tokens.flatten(1))
    assert torch.equal(none, tokens)


def test_patches_before_the_class_token_joins_them(load, read, noise):
    images = noise(224)
    backbone, outputs = load(VIT)
    with torch.inference_mode():
        patches = backbone.module.patch_embed(images)
    (rows,) = read(VIT, images, "patch_embed:avg")
    torch.testing.assert_close(rows, patches.mean(1), rtol=1e-5, atol=1e-6)
    assert resolve_taps(backbone, ["patch_embed", "blocks.0"], outputs) == [
        Tap("patch_embed", "avg"),
        Tap("blocks.0", "cls"),
    ]
    with pytest.raises(BackboneError, match=r"patch_embed:cls: no class token"):
        resolve_taps(backbone, ["patch_embed:cls"], outputs)


def test_a_class_token_that_joins_late(load):
    """cait: patches alone run through the blocks, the class token alone through the last two."""
    backbone, outputs = load("timm:cait_xxs24_224?weights=none")
    asked = ["blocks.3", "blocks_token_only.0", "norm"]
    taps = resolve_taps(backbone, asked, outputs)
    assert [tap.pooling for tap in taps] == ["avg", "cls", "cls"]
    with pytest.raises(BackboneError, match="no patch tokens in an output of shape"):
        resolve_taps(backbone, ["blocks_token_only.0:avg"], outputs)


def test_register_tokens_are_no_patches(load, read, noise):
    spec = "timm:vit_wee_patch16_reg1_gap_256?weights=none"
    module = load(spec)[0].module
    images = noise(256)
    with torch.inference_mode():
        tokens = module.forward_features(images)
    assert tokens.shape[1] == 1 + 16 * 16
    (avg,) = read(spec, images, "blocks.13:avg")
    torch.testing.assert_close(avg, tokens[:, 1:].mean(1), rtol=1e-5, atol=1e-6)
    with pytest.raises(BackboneError, match="no class token"):
        read(spec, images, "blocks.13:cls")


def test_class_and_register_tokens_together():
    module = timm.create_model("vit_tiny_patch16_224", reg_tokens=4)
    assert token_layout(module) == TokenLayout(5, class_token=True, patches=196)


def test_tokens_of_torchvision_vit(load, read, noise):
    spec = "torchvision:vit_b_32?weights=none"
    images = noise(224, n=1)
    (tokens,) = read(spec, images, "encoder.layers.encoder_layer_2:none")
    cls, avg = read(
        spec, images, "encoder.layers.encoder_layer_2:cls", "encoder.layers.encoder_layer_2:avg"
    )
    assert tokens.shape == (1, 50, 768)
    assert torch.equal(cls, tokens[:, 0])
    torch.testing.assert_close(avg, tokens[:, 1:].mean(1), rtol=1e-5, atol=1e-6)


def test_maps_of_timm_swin_have_their_channels_last(load, read, noise):
    spec = "timm:swin_tiny_patch4_window7_224?weights=none"
    module = load(spec)[0].module
    images = noise(224, n=1)
    with torch.inference_mode():
        maps = module.forward_features(images)
        stem = module.patch_embed.proj(images)
    assert maps.shape == (1, 7, 7, 768)
    avg, top, flat, none, conv = read(
        spec, images, "norm:avg", "norm:max", "norm:flatten", "norm:none", "patch_embed.proj:avg"
    )
    first = maps.permute(0, 3, 1, 2)
    torch.testing.assert_close(avg, maps.mean((1, 2)), rtol=1e-5, atol=1e-6)
    assert torch.equal(top, maps.amax((1, 2)))
    assert torch.equal(none, first)
    assert none.is_contiguous()
    assert torch.equal(flat, first.flatten(1))
    torch.testing.assert_close(conv, stem.mean((2, 3)), rtol=1e-5, atol=1e-6)


def test_maps_of_torchvision_swin_turn_round_on_the_way(load, read, noise):
    spec = "torchvision:swin_t?weights=none"
    module = load(spec)[0].module
    images = noise(224, n=1)
    with torch.inference_mode():
        conv = module.features[0][0](images)
        features = module.features(images)
        norm = module.norm(features)
    got = read(spec, images, "features.0.0:avg", "features:avg", "norm:avg", "permute:avg")
    wanted = [conv.mean((2, 3)), features.mean((1, 2)), norm.mean((1, 2)), norm.mean((1, 2))]
    for rows, reference in zip(got, wanted, strict=True):
        torch.testing.assert_close(rows, reference, rtol=1e-5, atol=1e-6)


def test_layer_norm_inside_a_convnext_block_has_channels_last(load, read, noise):
    spec = "timm:convnext_atto?weights=none"
    images = noise(224, n=1)
    norm, none, block = read(
        spec, images, "stages.0.blocks.0.norm:avg", "stages.0.blocks.0.norm:none", "stages.0:avg"
    )
    assert norm.shape == block.shape == (1, 40)
    torch.testing.assert_close(norm, none.mean((2, 3)), rtol=1e-5, atol=1e-6)
    scale = load(spec)[0].module.stages[0].blocks[0].norm
    normal = functional.layer_norm(none.permute(0, 2, 3, 1), (40,))
    torch.testing.assert_close(normal * scale.weight, none.permute(0, 2, 3, 1), atol=1e-3, rtol=0)


def test_where_the_shape_does_not_tell_the_class_of_network_does():
    maps = torch.arange(16.0 * 4).view(1, 4, 4, 4)
    last = TokenLayout(channels_last=("features",))
    assert torch.equal(pool(maps, Tap("features.1", "avg"), last), maps.mean((1, 2)))
    assert torch.equal(pool(maps, Tap("features_more", "avg"), last), maps.mean((2, 3)))
    assert torch.equal(pool(maps, Tap("features.1", "avg"), TokenLayout()), maps.mean((2, 3)))


@pytest.mark.parametrize("pooling", ["avg", "max", "flatten", "none"])
@pytest.mark.parametrize("shape", [(6, 4, 4), (4, 4, 6), (5, 6), (7,)])
def test_row_shape_is_the_shape_of_a_row(shape, pooling):
    tap = Tap("x", pooling)
    layout = TokenLayout(1, class_token=True)
    assert row_shape(shape, tap, layout) == pool(torch.rand(2, *shape), tap, layout).shape[1:]


def test_cls_of_a_map_is_refused(load, read, noise):
    backbone, outputs = load(RESNET)
    wanted = r"tap layer1:cls: no class token in an output of shape \(64, 16, 16\)"
    with pytest.raises(BackboneError, match=wanted):
        resolve_taps(backbone, ["layer1:cls"], outputs)
    with pytest.raises(BackboneError, match=r"tap layer1:cls: no class token"):
        read(RESNET, noise(64), "layer1:cls")


def test_an_unknown_tap_is_told_its_neighbours(load):
    backbone, outputs = load(RESNET)
    with pytest.raises(BackboneError, match=r"resnet18 has no tap 'layer5': did you mean layer"):
        resolve_taps(backbone, ["layer5"], outputs)
    with pytest.raises(UsageError, match="unknown pooling 'mean'; use avg, max, flatten, cls"):
        resolve_taps(backbone, ["layer4:mean"], outputs)


def test_taps_are_resolved_in_order_and_once(load):
    backbone, outputs = load(RESNET)
    taps = resolve_taps(backbone, ["layer2", "fc", "layer1:max", "layer2:avg"], outputs)
    assert list(map(str, taps)) == ["layer2:avg", "fc:none", "layer1:max"]


class Odd(nn.Module):
    """A tuple, a table of positions, windows as a batch, and a part that never runs."""

    def __init__(self):
        super().__init__()
        self.pair = nn.ModuleList([nn.Conv2d(3, 4, 1)])
        self.twin = Twin()
        self.positions = nn.Linear(2, 4)
        self.windows = nn.Identity()
        self.never = nn.Linear(1, 1)
        self.head = nn.Linear(4, 2)

    def forward(self, x):
        x = self.pair[0](x)
        x, _ = self.twin(x)
        position = self.positions(torch.ones(1, 2))
        windows = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5)
        self.windows(windows.reshape(-1, 4, 4, 4))
        return self.head(x.mean((2, 3)) + position)


class Twin(nn.Module):
    def forward(self, x):
        return x, x


@pytest.mark.parametrize("path", ["twin", "positions", "windows"])
def test_what_is_not_one_tensor_an_image_is_refused(path):
    backbone = wrap(Odd())
    outputs = probe(backbone)
    assert outputs[path].shape is None
    assert outputs["pair.0"].shape == (4, 8, 8)
    with pytest.raises(BackboneError, match=rf"'{path}' \(\w+\) does not give one row"):
        resolve_taps(backbone, [path], outputs)


def test_a_module_that_does_not_run_is_no_tap():
    backbone = wrap(Odd())
    with pytest.raises(BackboneError, match="has no tap 'never'"):
        resolve_taps(backbone, ["never"], probe(backbone))


def test_the_windows_of_swin_are_no_rows(load):
    _, outputs = load("timm:swin_tiny_patch4_window7_224?weights=none")
    assert outputs["layers.0.blocks.0.attn"].shape is None
    assert outputs["layers.0.blocks.0"].shape == (56, 56, 96)


def test_probe_describes_every_module(load):
    backbone, outputs = load(RESNET)
    assert outputs["layer1.0.relu"].calls == 2
    assert outputs["layer1.0.conv1"].calls == 1
    assert outputs["layer3"].shape == (256, 4, 4)
    assert outputs["fc"].shape == (1000,)
    assert outputs["fc"].parameters == 513_000
    assert (outputs["fc"].leaf, outputs["layer3"].leaf) == (True, False)
    assert list(outputs)[-2:] == ["avgpool", "fc"]
    assert list(outputs).index("layer1.1.bn2") < list(outputs).index("layer1")
    assert set(outputs) == {path for path, _ in backbone.module.named_modules() if path}


def test_a_size_the_network_cannot_take_is_explained():
    module = nn.Sequential(nn.Conv2d(3, 4, 16), nn.Flatten(), nn.Linear(4, 2))
    with pytest.raises(BackboneError, match=r"does not run on 8x8 pixels .*\?size=N") as caught:
        probe(wrap(module))
    assert "\n" not in str(caught.value)
    assert not any(child._forward_hooks for child in module.modules())
