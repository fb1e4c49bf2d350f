"""Networks of transformers, with a tiny random Segformer made here."""

import sys

import numpy as np
import pytest
import torch
from PIL import Image

from featkit.backbones.segmenters.resolve import open_concepts
from featkit.data.concepts.grid import Grid
from featkit.data.preprocessing import Preprocessing
from featkit.errors import BackboneError, MissingExtraError


@pytest.fixture
def folder(tmp_path):
    transformers = pytest.importorskip("transformers")
    names = {0: "background", 1: "wall", 2: "sky", 3: "car"}
    config = transformers.SegformerConfig(
        num_encoder_blocks=2,
        depths=[1, 1],
        sr_ratios=[2, 1],
        hidden_sizes=[8, 8],
        patch_sizes=[3, 3],
        strides=[2, 2],
        num_attention_heads=[1, 2],
        mlp_ratios=[2, 2],
        decoder_hidden_size=8,
        id2label=names,
        label2id={name: i for i, name in names.items()},
    )
    torch.manual_seed(0)
    transformers.SegformerForSemanticSegmentation(config).save_pretrained(tmp_path)
    size = {"height": 64, "width": 64}
    transformers.SegformerImageProcessor(size=size).save_pretrained(tmp_path)
    return tmp_path


def test_labels_are_the_networks_classes_at_the_cells(folder):
    import transformers

    source = open_concepts(f"hf:{folder}")
    assert [c.name for c in source.concepts] == ["wall", "sky", "car"]
    pixels = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    recipe = Preprocessing((64, 64), None, "bilinear", (0.5,) * 3, (0.5,) * 3)
    got = source.label("x", Image.fromarray(pixels), Grid(recipe, (32, 32)))
    peer = transformers.SegformerForSemanticSegmentation.from_pretrained(folder).eval()
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    inputs = torch.from_numpy((pixels / 255 - mean) / std).permute(2, 0, 1)[None].float()
    with torch.inference_mode():
        classes = peer(inputs).logits[0].argmax(0)
    assert classes.shape == (32, 32)
    np.testing.assert_array_equal(got[0], classes)
    assert len(np.unique(got)) > 1


def test_identity_follows_the_weights(folder):
    first = open_concepts(f"hf:{folder}").identity()
    assert open_concepts(f"hf:{folder}").identity() == first
    import transformers

    peer = transformers.SegformerForSemanticSegmentation.from_pretrained(folder)
    torch.nn.init.ones_(peer.decode_head.classifier.weight)
    peer.save_pretrained(folder)
    assert open_concepts(f"hf:{folder}").identity()["weights"] != first["weights"]


def test_without_the_package_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(MissingExtraError, match="pip install transformers"):
        open_concepts("hf:nvidia/segformer-b0-finetuned-ade-512-512")


def test_a_name_is_needed():
    with pytest.raises(BackboneError, match="hf:OWNER/REPO"):
        open_concepts("hf:")
