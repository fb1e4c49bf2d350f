"""torchvision's segmentation networks as sources of concepts."""

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models
from torchvision.transforms import v2

from featkit.backbones.segmenters.resolve import open_concepts
from featkit.data.concepts.base import Concept, ConceptSource
from featkit.data.concepts.grid import Grid
from featkit.data.preprocessing import Preprocessing
from featkit.errors import BackboneError, UsageError

SPEC = "torchvision:lraspp_mobilenet_v3_large?weights=none"


@pytest.fixture(scope="module")
def source():
    return open_concepts(f"{SPEC}&seed=0")


def grid(height, width, cells):
    return Grid(Preprocessing((height, width), None, "bilinear", (0.5,) * 3, (0.5,) * 3), cells)


def picture(width, height):
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC)


def test_concepts_are_the_classes_without_the_background(source):
    assert isinstance(source, ConceptSource)
    assert source.name == f"{SPEC}&seed=0"
    assert len(source.concepts) == 20
    assert source.concepts[0] == Concept("aeroplane", "object")
    assert source.concepts[14] == Concept("person", "object")
    source.check(["anything"])


def test_labels_are_the_networks_classes_at_the_cells():
    """Against torchvision's own transforms, resize 520 as its reference documents, and argmax.

    Random networks see one class everywhere; taking the mean scores from the biases of both helps.
    """
    source, image = open_concepts(f"{SPEC}&seed=0"), picture(260, 130)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        peer = models.segmentation.lraspp_mobilenet_v3_large(
            weights=None, weights_backbone=None, num_classes=21
        ).eval()
    steps = v2.Compose(
        [
            v2.Resize(520, antialias=True),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    inputs = steps(image)[None]
    with torch.no_grad():
        means = peer(inputs)["out"].mean((0, 2, 3))
        for network in (peer, source.module):
            network.classifier.low_classifier.bias -= means
        classes = peer(inputs)["out"][0].argmax(0)
    got = source.label("x", image, grid(130, 260, (13, 26)))
    assert classes.shape == (520, 1040)
    np.testing.assert_array_equal(got[0], classes[20::40, 20::40])
    assert len(np.unique(got)) > 3


def test_cells_beside_the_image_are_unlabelled(source):
    got = source.label("x", picture(40, 40), grid(40, 80, (4, 8)))
    assert got[0, :, [0, 1, 6, 7]].max() == 0


def test_identity_follows_the_weights(source):
    same, other = (open_concepts(f"{SPEC}&seed={seed}") for seed in (0, 1))
    assert same.identity() == source.identity()
    assert other.identity()["weights"] != source.identity()["weights"]
    assert source.identity()["network"] == "torchvision:lraspp_mobilenet_v3_large"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:lrasp_mobilenet", "did you mean lraspp_mobilenet_v3_large"),
        ("torchvision:resnet50", "no segmentation network 'resnet50'"),
        ("torchvision:fcn_resnet50?weights=COCO", "no weights 'COCO'"),
        ("torchvision:fcn_resnet50?seed=1", "only random weights"),
    ],
)
def test_wrong_networks_are_refused(spec, message):
    with pytest.raises(BackboneError, match=message):
        open_concepts(spec)


def test_wrong_options_are_refused():
    with pytest.raises(UsageError, match="unknown option 'weight': did you mean weights"):
        open_concepts("torchvision:fcn_resnet50?weight=none")
