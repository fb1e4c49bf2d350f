"""Broden: a folder of it, written here after its README."""

import numpy as np
import pytest
from PIL import Image

from featkit.data.concepts.base import Concept
from featkit.data.concepts.sources import LABELLED
from featkit.errors import SourceError

CATEGORIES = "name,first,last,frequency\ncolor,1,2,9\nobject,3,700,9\npart,4,4,1\nscene,5,5,1\n"
LABELS = (
    "number,name,category,frequency,coverage,syns\n"
    "1,red-c,color(4),4,1.5,\n"
    "2,blue-c,color(3),3,1.5,\n"
    "3,door,object(20);part(7),27,4.1,double door\n"
    "4,wheel,part(2),2,0.1,\n"
    "5,street-s,scene(2),2,2,\n"
    "700,car,object(9),9,1.2,auto;automobile\n"
)
INDEX = (
    "image,split,ih,iw,sh,sw,color,object,part,scene\n"
    "ade20k/ADE_1.jpg,train,2,4,1,2,ade20k/ADE_1_color.png,ade20k/ADE_1_object.png,"
    "ade20k/ADE_1_part_1.png;ade20k/ADE_1_part_2.png,5\n"
    "dtd/dotted_1.jpg,val,2,4,1,2,,,,\n"
)


def put(root, name, numbers):
    path = root / "images" / name
    path.parent.mkdir(parents=True, exist_ok=True)
    rgb = [[(n % 256, n // 256, 77) for n in row] for row in numbers]  # blue carries nothing
    Image.fromarray(np.array(rgb, dtype=np.uint8)).save(path)


@pytest.fixture
def broden(tmp_path):
    for name, text in (("category", CATEGORIES), ("label", LABELS), ("index", INDEX)):
        (tmp_path / f"{name}.csv").write_text(text)
    put(tmp_path, "ade20k/ADE_1_color.png", [[1, 2]])
    put(tmp_path, "ade20k/ADE_1_object.png", [[700, 3]])
    put(tmp_path, "ade20k/ADE_1_part_1.png", [[4, 0]])
    put(tmp_path, "ade20k/ADE_1_part_2.png", [[3, 0]])
    return tmp_path


def opened(root):
    return LABELLED["masks"](f"masks:{root}")


def test_every_pixel_has_the_labels_of_all_maps(broden, named):
    source = opened(broden)
    source.check(["ade20k/ADE_1.jpg", "dotted_1.jpg"])
    left = {("red", "color"), ("car", "object"), ("wheel", "part"), ("door", "part")}
    right = {("blue", "color"), ("door", "object")}
    scene = {("street", "scene")}
    row = [left | scene, left | scene, right | scene, right | scene]
    assert named(source, "ade20k/ADE_1.jpg", 4, 2) == [row, row]
    assert named(source, "dtd/dotted_1.jpg", 4, 2) == [[set()] * 4] * 2


def test_a_label_is_a_concept_in_each_of_its_categories(broden):
    concepts = opened(broden).concepts
    assert Concept("door", "object") in concepts
    assert Concept("door", "part") in concepts
    assert len(concepts) == 7


def test_whole_image_labels_end_with_the_image(broden, whole):
    source = opened(broden)
    labels = source.label("ADE_1.jpg", Image.new("RGB", (4, 2)), whole(6, 2))
    assert len(labels) == 5
    street = source.concepts.index(Concept("street", "scene")) + 1
    assert labels[-1].tolist() == [[0, *[street] * 4, 0]] * 2


def test_identity_follows_the_maps_and_the_index(broden):
    first = opened(broden).identity()
    put(broden, "ade20k/ADE_1_part_2.png", [[4, 0]])
    second = opened(broden).identity()
    assert second["files"] != first["files"]
    (broden / "index.csv").write_text(INDEX.replace("ADE_1_part_2.png,5", "ADE_1_part_2.png,"))
    assert opened(broden).identity()["files"] not in (first["files"], second["files"])


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("label", "number", "id", "label.csv or category.csv is not as in Broden"),
        ("index", "part,scene", "part,place", "is not as in Broden"),
        ("label", "700,car", "x,car", "is not as in Broden"),
    ],
)
def test_damaged_tables(broden, file, old, new, message):
    path = broden / f"{file}.csv"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(SourceError, match=message):
        opened(broden)


def test_damaged_maps(broden, named):
    put(broden, "ade20k/ADE_1_color.png", [[1, 701]])
    with pytest.raises(SourceError, match=r"ADE_1_color.png holds the label 701, not in label"):
        named(opened(broden), "ADE_1.jpg", 4, 2)
    Image.new("L", (2, 1)).save(broden / "images/ade20k/ADE_1_color.png")
    with pytest.raises(SourceError, match=r"ADE_1_color.png cannot be read: its mode is L"):
        named(opened(broden), "ADE_1.jpg", 4, 2)
    with pytest.raises(SourceError, match=r"no labels for 1 of 1 images \(ADE_2.jpg\)"):
        opened(broden).check(["ADE_2.jpg"])


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("index", "ade20k/ADE_1_color.png", "../../far.png", "not inside its folder"),
        ("index", "ade20k/ADE_1_color.png", "/etc/passwd", "not inside its folder"),
        ("index", "ade20k/ADE_1_color.png", "a\0.png", "not inside its folder"),
        ("index", "ade20k/ADE_1_color.png", "999999999999", "the label 999999999999, not in label"),
        ("label", "700,car", "70000000000,car", "numbers no label"),
        ("category", CATEGORIES.partition("\n")[2], "", "numbers no label"),
    ],
)
def test_tables_that_lead_elsewhere(broden, file, old, new, message):
    path = broden / f"{file}.csv"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(SourceError, match=message):
        opened(broden)
