"""Preprocessing bit for bit against the transforms of torchvision and timm."""

import json
import math

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torchvision import models, transforms
from torchvision.transforms import InterpolationMode

from featkit.data.preprocessing import Preprocessing
from featkit.errors import BackboneError, UsageError

# (width, height): landscape, portrait, square, smaller than the crop, one side smaller, thin
SIZES = [(500, 375), (333, 501), (224, 224), (256, 256), (31, 47), (100, 301), (640, 29), (1, 1)]
HALF = (0.5,) * 3


def picture(size, seed=0):
    rng = np.random.default_rng(seed)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def close_to(recipe, image, wanted):
    """Compare pixels bit for bit, and normalised values to the rounding of float32."""
    pixels = recipe.pixels(image)
    assert pixels.dtype == np.uint8
    got = recipe.normalize(torch.from_numpy(pixels)[None])[0]
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (recipe.mean, recipe.std))
    back = ((wanted * std + mean) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(pixels, back)
    torch.testing.assert_close(got, wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    "weights",
    [
        models.ResNet50_Weights.IMAGENET1K_V1,
        models.ResNet50_Weights.IMAGENET1K_V2,
        models.EfficientNet_B3_Weights.IMAGENET1K_V1,  # bicubic, 320 -> 300
        models.ViT_L_16_Weights.IMAGENET1K_SWAG_E2E_V1,  # 512 -> 512
    ],
    ids=str,
)
def test_torchvision_weights(weights, size):
    peer = weights.transforms()
    image = picture(size)
    close_to(Preprocessing.from_torchvision(peer), image, peer(image))


CONFIGS = {
    "centre": {"crop_pct": 0.875},
    "odd": {"crop_pct": 0.95, "input_size": (3, 240, 240), "interpolation": "bilinear"},
    "whole": {"crop_pct": 1.0, "mean": HALF, "std": HALF},
    "squash": {"crop_pct": 0.9, "crop_mode": "squash"},
    "squash oblong": {"crop_pct": 1.0, "crop_mode": "squash", "input_size": (3, 128, 256)},
    "lanczos": {"interpolation": "lanczos", "crop_pct": 0.96},
    "box": {"interpolation": "box"},
    "hamming": {"interpolation": "hamming"},
    "nearest": {"interpolation": "nearest"},
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", CONFIGS)
def test_timm_transforms(name, size):
    config = timm.data.resolve_data_config(CONFIGS[name], pretrained_cfg={})
    peer = timm.data.create_transform(**config, is_training=False)
    image = picture(size)
    close_to(Preprocessing.from_timm(config), image, peer(image))


def test_the_recipe_of_a_timm_model():
    model = timm.create_model("vit_tiny_patch16_224", pretrained=False)
    recipe = Preprocessing.from_timm(timm.data.resolve_model_data_config(model))
    assert recipe == Preprocessing((224, 224), math.floor(224 / 0.9), "bicubic", HALF, HALF)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("resize", [None, 40, (30, 77)])
def test_any_crop_is_that_of_torchvision(size, resize):
    height, width = 35, 60
    steps = [] if resize is None else [transforms.Resize(resize, InterpolationMode.BILINEAR)]
    peer = transforms.Compose([*steps, transforms.CenterCrop((height, width))])
    recipe = Preprocessing((height, width), resize, "bilinear", HALF, HALF)
    image = picture(size)
    np.testing.assert_array_equal(recipe.pixels(image), np.asarray(peer(image)))


def test_padding_is_black_and_centred():
    recipe = Preprocessing((5, 4), None, "bilinear", HALF, HALF)
    got = recipe.pixels(Image.new("RGB", (3, 2), (9, 9, 9)))[..., 0]
    assert got.tolist() == [[0] * 4, [9, 9, 9, 0], [9, 9, 9, 0], [0] * 4, [0] * 4]


def test_pixels_can_be_written_to():
    recipe = Preprocessing((4, 4), 4, "bilinear", HALF, HALF)
    assert recipe.pixels(picture((4, 4))).flags.writeable


@pytest.mark.parametrize("size", [(3000, 5), (5, 3000), (3000, 40)])
@pytest.mark.parametrize("resize", [32, 20])
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_long_thin_images_are_resized_in_part(size, resize, interpolation, monkeypatch):
    """The two ways agree within rounding; the whole one is torchvision's, tested above."""
    recipe = Preprocessing((24, 24), resize, interpolation, HALF, HALF)
    rng = np.random.default_rng(0)
    # mid-greys, so that no filter overshoots 0..255 between its two passes
    image = Image.fromarray(rng.integers(90, 166, (size[1], size[0], 3), dtype=np.uint8))
    whole = recipe.pixels(image).astype(int)
    monkeypatch.setattr("featkit.data.preprocessing._LARGEST", 1000)
    part = recipe.pixels(image).astype(int)
    assert np.abs(whole - part).max() <= 1
    assert whole.std() > 10


def test_a_very_long_image_takes_no_more_memory_than_its_crop():
    recipe = Preprocessing((224, 224), 256, "bilinear", HALF, HALF)
    assert recipe.pixels(Image.new("RGB", (60000, 1), (7, 8, 9)))[5, 5].tolist() == [7, 8, 9]


def test_normalize_is_that_of_torchvision():
    recipe = Preprocessing((16, 16), None, "bilinear", (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1).repeat(3, axis=2)
    peer = transforms.Compose(
        [transforms.ToTensor(), transforms.Normalize(recipe.mean, recipe.std)]
    )
    batch = torch.from_numpy(np.stack([every, every[::-1], every.transpose(1, 0, 2)]))
    got = recipe.normalize(batch)
    wanted = torch.stack([peer(each.numpy().copy()) for each in batch])
    assert got.dtype == torch.float32
    assert got.shape == (3, 3, 16, 16)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, wanted, rtol=3e-7, atol=3e-7)


def test_normalize_of_a_slice_is_channels_last():
    recipe = Preprocessing((4, 4), None, "bilinear", HALF, HALF)
    batch = torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8).permute(0, 2, 3, 1)[::2, :, ::2]
    got = recipe.normalize(batch)
    assert got.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(got, (batch.permute(0, 3, 1, 2) / 255 - 0.5) / 0.5)


def test_another_size_keeps_the_proportion():
    recipe = Preprocessing((224, 224), 256, "bicubic", HALF, HALF)
    assert recipe.resized(448) == Preprocessing((448, 448), 512, "bicubic", HALF, HALF)
    assert recipe.resized(224) == recipe
    squash = Preprocessing((100, 200), (110, 240), "box", HALF, HALF)
    assert squash.resized(50) == Preprocessing((50, 50), (55, 60), "box", HALF, HALF)
    assert Preprocessing((32, 32), None, "box", HALF, HALF).resized(64).resize is None


def test_dictionary_is_plain_json():
    recipe = Preprocessing((224, 200), (256, 240), "bicubic", (0, 0.5, 1), HALF)
    fields = recipe.as_dict()
    assert json.loads(json.dumps(fields)) == fields
    assert fields == {
        "size": [224, 200],
        "resize": [256, 240],
        "interpolation": "bicubic",
        "mean": [0.0, 0.5, 1.0],
        "std": [0.5, 0.5, 0.5],
    }
    same = Preprocessing((224, 200), (256, 240), "bicubic", (0.0, 0.5, 1.0), HALF)
    assert json.dumps(same.as_dict()) == json.dumps(fields)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"crop_mode": "border"}, "crop mode 'border' is unsupported"),
        ({"input_size": (1, 224, 224), "mean": (0.5,), "std": (0.5,)}, "1 channels is unsupported"),
        ({"input_size": (3, 128, 256)}, "centre crop to 128 x 256 is unsupported"),
    ],
)
def test_recipes_of_timm_that_are_refused(config, message):
    full = timm.data.resolve_data_config(config, pretrained_cfg={})
    with pytest.raises(BackboneError, match=message):
        Preprocessing.from_timm(full)


def test_other_transforms_are_refused():
    peer = models.segmentation.FCN_ResNet50_Weights.DEFAULT.transforms()
    with pytest.raises(BackboneError, match="SemanticSegmentation is not a classification preset"):
        Preprocessing.from_torchvision(peer)


@pytest.mark.parametrize(
    "change",
    [
        {"interpolation": "cubic"},
        {"size": (0, 5)},
        {"resize": 0},
        {"resize": (5, -1)},
        {"resize": (5,)},
        {"mean": (0.5,)},
        {"std": (0.5, 0.5, 0.0)},
    ],
)
def test_impossible_recipes_are_refused(change):
    fields = {"size": (5, 5), "resize": 5, "interpolation": "bicubic", "mean": HALF, "std": HALF}
    Preprocessing(**fields)
    with pytest.raises(UsageError):
        Preprocessing(**{**fields, **change})
