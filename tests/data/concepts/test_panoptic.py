"""COCO panoptic annotations, written here."""

import json

import numpy as np
import pytest
from PIL import Image

from featkit.data.concepts.base import Concept
from featkit.data.concepts.sources import LABELLED
from featkit.errors import SourceError, UsageError

CONTENT = {
    "images": [{"id": 1, "file_name": "000000000001.jpg", "width": 5, "height": 1}],
    "annotations": [
        {
            "image_id": 1,
            "file_name": "000000000001.png",
            "segments_info": [
                {"id": 3 + 256 * 4 + 65536 * 5, "category_id": 3, "iscrowd": 0},
                {"id": 5 + 256 * 4 + 65536 * 3, "category_id": 187, "iscrowd": 0},
                {"id": 7, "category_id": 3, "iscrowd": 1},
            ],
        }
    ],
    "categories": [
        {"id": 3, "name": "car", "isthing": 1, "supercategory": "vehicle"},
        {"id": 187, "name": "sky-other-merged", "isthing": 0, "supercategory": "sky"},
        {"id": 1, "name": "person", "isthing": 1, "supercategory": "person"},
    ],
}


@pytest.fixture
def coco(tmp_path):
    folder = tmp_path / "panoptic_val2017"
    folder.mkdir()
    pixels = [[(3, 4, 5), (5, 4, 3), (7, 0, 0), (0, 0, 0), (3, 4, 5)]]
    Image.fromarray(np.array(pixels, np.uint8)).save(folder / "000000000001.png")
    path = tmp_path / "panoptic_val2017.json"
    path.write_text(json.dumps(CONTENT))
    return path


def opened(path, more=""):
    return LABELLED["panoptic"](f"panoptic:{path}{more}")


@pytest.mark.parametrize("moved", [False, True])
def test_things_and_stuff_are_objects(coco, named, moved):
    if moved:
        coco.with_suffix("").rename(coco.parent / "png")
    source = opened(coco, f"?masks={coco.parent / 'png'}" if moved else "")
    car, sky = {("car", "object")}, {("sky-other-merged", "object")}
    got = named(source, "val2017/000000000001.jpg", 5, 1)
    assert got == [[car, sky, car, set(), car]]
    assert Concept("person", "object") in source.concepts
    source.check(["000000000001.jpg"])


def test_padding_is_unlabelled(coco, whole):
    image = Image.new("RGB", (5, 1))
    labels = opened(coco).label("000000000001.jpg", image, whole(7, 3))
    assert labels[0].astype(bool).tolist() == [[False] * 7, [0, 1, 1, 1, 0, 1, 0], [False] * 7]


def test_identity_follows_segments_and_pixels(coco):
    first = opened(coco).identity()
    assert json.loads(json.dumps(first)) == first
    changed = json.loads(json.dumps(CONTENT))
    changed["annotations"][0]["segments_info"][0]["category_id"] = 1
    coco.write_text(json.dumps(changed))
    assert opened(coco).identity() != first
    coco.write_text(json.dumps(CONTENT))
    assert opened(coco).identity() == first
    Image.new("RGB", (5, 1)).save(coco.with_suffix("") / "000000000001.png")
    assert opened(coco).identity() != first


def damaged(**changes):
    content = json.loads(json.dumps(CONTENT))
    content.update(changes)
    return json.dumps(content)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "no panoptic annotation"),
        (damaged(categories=3), "no panoptic annotation"),
        (damaged(categories=[]), "names no category 3"),
        (damaged(categories=[], annotations=[]), "has no categories"),
        (damaged(annotations=[{"file_name": "a.png"}]), "KeyError: 'segments_info'"),
    ],
)
def test_damaged_annotations(coco, text, message):
    coco.write_text(text)
    with pytest.raises(SourceError, match=message):
        opened(coco)


def test_files_that_are_missing_or_disagree(coco, named):
    source = opened(coco)
    with pytest.raises(SourceError, match=r"no labels for 1 of 1 images \(2.jpg\)"):
        source.check(["2.jpg"])
    Image.new("RGB", (5, 1), (9, 0, 0)).save(coco.with_suffix("") / "000000000001.png")
    with pytest.raises(SourceError, match="holds the segment 9, which the JSON does not"):
        named(source, "000000000001.jpg", 5, 1)
    (coco.with_suffix("") / "000000000001.png").unlink()
    with pytest.raises(SourceError, match="cannot be read: cannot be read: No such file"):
        named(source, "000000000001.jpg", 5, 1)
    with pytest.raises(SourceError, match=r"no folder .*; give \?masks=DIR"):
        opened(coco.with_name("other.json"))
    with pytest.raises(UsageError, match="unknown option 'mask': did you mean masks"):
        opened(coco, "?mask=x")
    with pytest.raises(SourceError, match="needs a file, panoptic:JSON"):
        LABELLED["panoptic"]("panoptic:")


@pytest.mark.parametrize("name", ["../far.png", "/etc/passwd", "a/../../far.png", "a\0.png", ""])
def test_files_stay_in_their_folder(coco, name):
    content = json.loads(coco.read_text())
    content["annotations"].append({**content["annotations"][0], "file_name": name})
    coco.write_text(json.dumps(content))
    with pytest.raises(SourceError, match="not inside its folder|no panoptic annotation"):
        opened(coco)


@pytest.mark.parametrize("number", [10**18, 2**25, -1])
def test_numbers_of_categories_take_no_memory(coco, number):
    content = json.loads(coco.read_text())
    content["categories"].append({"id": number, "name": "x"})
    coco.write_text(json.dumps(content))
    with pytest.raises(SourceError, match="outside 0"):
        opened(coco)


def test_json_without_an_end(coco):
    coco.write_text('{"a":' * 100_000)
    with pytest.raises(SourceError, match="nested too deeply"):
        opened(coco)
