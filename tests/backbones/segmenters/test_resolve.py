"""From specifications to sources."""

import json

import numpy as np
import pytest
from PIL import Image

from featkit.backbones.segmenters.resolve import open_concepts
from featkit.data.concepts.base import ConceptSource
from featkit.data.concepts.grid import Grid
from featkit.data.preprocessing import Preprocessing
from featkit.errors import SourceError, UsageError


@pytest.fixture
def drawn(tmp_path):
    book = {"1": {"name": "car", "category": "object"}}
    (tmp_path / "classes.json").write_text(json.dumps(book))
    Image.fromarray(np.ones((4, 4), np.uint8)).save(tmp_path / "a.png")
    return f"masks:{tmp_path}"


def test_several_sources_give_their_layers_in_order(drawn):
    source = open_concepts([drawn, "color", "texture"], parts="quad")
    assert isinstance(source, ConceptSource)
    recipe = Preprocessing((4, 4), None, "bilinear", (0.5,) * 3, (0.5,) * 3)
    labels = source.label("a.jpg", Image.new("RGB", (4, 4), (255, 0, 0)), Grid(recipe, (4, 4)))
    names = [[{source.concepts[i - 1].name for i in row if i} for row in layer] for layer in labels]
    assert names[0] == [{"car"}] * 4
    assert names[1] == [{"red"}] * 4
    assert names[2] == names[3] == [set()] * 4
    assert names[4] == [{"car-top"}] * 2 + [{"car-bottom"}] * 2
    assert names[5] == [{"car-left", "car-right"}] * 4
    assert source.name == f"{drawn} + color + texture"
    identity = source.identity()
    assert identity["parts"] == "quad"
    assert len(identity["sources"]) == 3
    with pytest.raises(SourceError, match="no labels for 1 of 1 images"):
        source.check(["b.jpg"])


def test_one_source_is_itself(drawn):
    assert open_concepts(drawn).name == drawn
    assert open_concepts([drawn]).identity() == open_concepts(drawn).identity()


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("mask:x", "'mask:x': did you mean masks:x\\?"),
        ("torchvison:fcn_resnet50", "did you mean torchvision:fcn_resnet50"),
        ("colour", "did you mean color"),
        ("/some/folder", "concepts are masks:DIR, panoptic:JSON"),
        ("", "concepts are masks:DIR"),
    ],
)
def test_unknown_sources_suggest_known_ones(spec, message):
    with pytest.raises(SourceError, match=message):
        open_concepts(spec)


def test_unknown_parts_and_no_sources():
    with pytest.raises(UsageError, match="parts 'quads' of objects are unknown: there is quad"):
        open_concepts("color", parts="quads")
    with pytest.raises(UsageError, match="no concepts are given; concepts are masks:DIR"):
        open_concepts([])
