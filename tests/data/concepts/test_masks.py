"""Folders of label maps in every layout, written here pixel by pixel."""

import json

import numpy as np
import pytest
from PIL import EpsImagePlugin, Image, ImageOps
from scipy.io import savemat

from featkit.data.concepts.base import CodeBook, Concept, ConceptSource
from featkit.data.concepts.layouts import open_masks
from featkit.data.concepts.masks import read_colours, read_index
from featkit.data.concepts.sources import LABELLED
from featkit.errors import DecodeError, SourceError, UsageError

CAR = {"8": {"name": "car", "category": "object"}, "300": {"name": "fur", "category": "material"}}


def put(path, rows, mode="L"):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = {"L": np.uint8, "I;16": np.uint16, "RGB": np.uint8}[mode]
    image = Image.fromarray(np.array(rows, dtype=kind))
    assert image.mode == mode
    image.save(path, "PNG")


def masks(folder):
    return LABELLED["masks"](f"masks:{folder}")


def o(name):
    return {(name, "object")}


@pytest.fixture
def told(tmp_path):
    (tmp_path / "classes.json").write_text(json.dumps(CAR))
    put(tmp_path / "a.png", [[8, 0, 9]])
    put(tmp_path / "deep" / "b.PNG", [[300, 8, 65535]], "I;16")
    return tmp_path


def test_numbers_mean_what_classes_json_says(told, named):
    source = masks(told)
    assert isinstance(source, ConceptSource)
    assert source.name == f"masks:{told}"
    assert source.concepts == (Concept("car", "object"), Concept("fur", "material"))
    source.check(["a.jpg", "deep/b.jpg"])
    assert named(source, "a.jpg", 3, 1) == [[o("car"), set(), set()]]
    assert named(source, "other/b.jpeg", 3, 1) == [[{("fur", "material")}, o("car"), set()]]


def test_several_numbers_may_mean_one_thing(tmp_path, named):
    book = {"1": CAR["8"], "0": CAR["8"], "2": {"name": "car", "category": "part"}}
    (tmp_path / "classes.json").write_text(json.dumps(book))
    put(tmp_path / "a.png", [[0, 1, 2]])
    source = masks(tmp_path)
    assert source.concepts == (Concept("car", "object"), Concept("car", "part"))
    assert named(source, "a.jpg", 3, 1) == [[o("car"), o("car"), {("car", "part")}]]


def test_palette_images_hold_their_indices(tmp_path, named):
    (tmp_path / "classes.json").write_text(json.dumps(CAR))
    image = Image.fromarray(np.array([[8, 7]], np.uint8))
    image.putpalette([255] * 768)
    image.save(tmp_path / "a.png")
    assert named(masks(tmp_path), "a.jpg", 2, 1) == [[o("car"), set()]]


def test_padding_is_unlabelled_even_where_zero_is_a_class(tmp_path, whole):
    (tmp_path / "classes.json").write_text(json.dumps({"0": CAR["8"]}))
    put(tmp_path / "a.png", [[0, 0]])
    labels = masks(tmp_path).label("a.jpg", Image.new("RGB", (2, 1)), whole(4, 3))
    assert labels[0].tolist() == [[0] * 4, [0, 1, 1, 0], [0] * 4]


def test_a_mask_of_half_the_resolution(tmp_path, named):
    (tmp_path / "classes.json").write_text(json.dumps(CAR))
    put(tmp_path / "a.png", [[8, 0]])
    assert named(masks(tmp_path), "a.jpg", 4, 2) == [[o("car"), o("car"), set(), set()]] * 2


def test_camvid(tmp_path, named):
    put(tmp_path / "CamVid" / "valannot" / "0001TP_1.png", [[0, 3, 8, 9, 11]])
    source = masks(tmp_path / "CamVid" / "valannot")
    row = [o("sky"), o("road"), o("car"), o("pedestrian"), set()]
    assert named(source, "0001TP_1.png", 5, 1) == [row]
    assert len(source.concepts) == 11
    put(tmp_path / "CamVid" / "valannot" / "0001TP_1.png", [[12] * 5])
    with pytest.raises(SourceError, match=r"0001TP_1.png holds the number 12, .*CamVid.*classes"):
        named(source, "0001TP_1.png", 5, 1)


@pytest.mark.parametrize("inner", ["", "SegmentationClass"])
def test_pascal_voc(tmp_path, named, inner):
    """The palette is that of the VOC devkit's VOCcolormap: bits of the index, highest first."""
    palette = []
    for index in range(256):
        rgb = [sum((index >> (3 * b + c) & 1) << (7 - b) for b in range(3)) for c in range(3)]
        palette += rgb
    image = Image.fromarray(np.array([[0, 7, 15, 20, 255]], np.uint8))
    image.putpalette(palette)
    (tmp_path / inner).mkdir(exist_ok=True)
    image.save(tmp_path / inner / "2007_000032.png")
    if inner:
        put(tmp_path / "SegmentationObject" / "2007_000032.png", [[1] * 5])
    source = masks(tmp_path)
    row = [set(), o("car"), o("person"), o("tvmonitor"), set()]
    assert named(source, "JPEGImages/2007_000032.jpg", 5, 1) == [row]
    assert len(source.concepts) == 20


def test_ade20k_of_the_challenge(tmp_path, named):
    names = ["wall", "building, edifice", "bar", "bar, saloon"]
    lines = [f"{i + 1}\t0.1\t10\t1\t{name}" for i, name in enumerate(names)]
    (tmp_path / "objectInfo150.txt").write_text("\n".join(["Idx\tRatio\tTrain\tVal\tName", *lines]))
    folder = tmp_path / "annotations" / "validation"
    put(folder / "ADE_val_1.png", [[0, 1, 2, 3, 4]])
    row = [set(), o("wall"), o("building"), o("bar"), o("bar, saloon")]
    assert named(masks(folder), "images/validation/ADE_val_1.jpg", 5, 1) == [row]
    put(folder / "ADE_val_1.png", [[5]])
    with pytest.raises(SourceError, match="holds the number 5"):
        named(masks(folder), "ADE_val_1.jpg", 1, 1)


def ade20k(root, parts=True):
    """Number 514 is written as R = 20, G = 2, and the index has it at place 513 of its list."""
    names = np.array(["-", "car, auto", *["x"] * 511, "wheel", "car, railcar"], dtype=object)
    index = {"objectnames": names, "proportionClassIsPart": np.zeros(len(names))}
    index["proportionClassIsPart"][513] = 0.5
    savemat(root / "index_ade20k.mat", {"index": index})
    folder = root / "images" / "training" / "a"
    seg = np.zeros((1, 5, 3), np.uint8)
    seg[0, :, 0] = [0, 0, 29, 20, 0]  # R / 10 is 0, 0, 2, 2, 0
    seg[0, :, 1] = [2, 2, 2, 3, 0]
    seg[0, :, 2] = [1, 2, 3, 4, 5]  # instances
    put(folder / "ADE_1_seg.png", seg, "RGB")
    if parts:
        part = np.zeros((1, 5, 3), np.uint8)
        part[0, 1, :2] = 20, 2
        put(folder / "ADE_1_parts_1.png", part, "RGB")
        put(folder / "ADE_1_parts_2.png", part + 50, "RGB")
    return folder


@pytest.mark.parametrize("parts", [True, False])
def test_the_full_ade20k(tmp_path, named, parts):
    folder = ade20k(tmp_path, parts)
    source = masks(folder)
    car = ("car, auto", "object")
    row = [{car}, {car}, o("wheel"), o("car, railcar"), set()]
    row[1] |= {("wheel", "part")} if parts else set()
    assert named(source, "images/training/a/ADE_1.jpg", 5, 1) == [row]
    assert Concept("wheel", "part") in source.concepts
    assert Concept("car, auto", "part") not in source.concepts


def test_ade20k_without_its_index(tmp_path):
    folder = ade20k(tmp_path)
    (tmp_path / "index_ade20k.mat").write_bytes(b"MATLAB 5.0 no")
    with pytest.raises(SourceError, match=r"index_ade20k.mat cannot be read"):
        masks(folder)
    (tmp_path / "index_ade20k.mat").unlink()
    with pytest.raises(SourceError, match=r"names of its classes are in index_ade20k.mat"):
        masks(folder)


def test_an_unknown_layout_says_what_to_write(tmp_path):
    put(tmp_path / "m" / "a.png", [[1]])
    with pytest.raises(SourceError, match=r'write a file classes.json .*"8": .*CamVid, Pascal VOC'):
        masks(tmp_path / "m")


def test_folders_without_masks(tmp_path):
    (tmp_path / "masks").mkdir()
    with pytest.raises(SourceError, match="holds no label map"):
        masks(tmp_path / "masks")
    with pytest.raises(SourceError, match=r"no folder .*mask \(did you mean masks\?\)"):
        masks(tmp_path / "mask")
    with pytest.raises(SourceError, match="masks needs a folder, masks:DIR"):
        LABELLED["masks"]("masks:")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "is no JSON"),
        ("[1]", "maps numbers to concepts"),
        ("{}", "maps numbers to concepts"),
        ('{"car": {"name": "a", "category": "b"}}', "'car' is no number"),
        ('{"-1": {"name": "a", "category": "b"}}', "'-1' is no number"),
        ('{"1": "car"}', '1 has a name and a category, .* not "car"'),
        ('{"1": {"name": "a"}}', "1 has a name and a category"),
        ('{"1": {"name": " ", "category": "b"}}', "1 has a name and a category"),
        ('{"1": {"name": "a", "category": "b", "extra": 1}}', "1 has a name and a category"),
    ],
)
def test_wrong_classes_are_refused(told, text, message):
    (told / "classes.json").write_text(text)
    with pytest.raises(SourceError, match=message):
        masks(told)


def test_images_without_a_mask_are_named_before_the_work(told):
    with pytest.raises(SourceError, match=r"no labels for 2 of 3 images \(c.jpg, d/e.jpg\)"):
        masks(told).check(["a.jpg", "c.jpg", "d/e.jpg"])


def test_two_images_do_not_share_a_mask(told):
    with pytest.raises(SourceError, match=r"x/b.jpg, y/b.jpg would share the labels of deep/b"):
        masks(told).check(["x/b.jpg", "y/b.jpg"])


def test_a_stem_in_two_folders_is_found_by_its_path_only(told, named):
    put(told / "other" / "b.png", [[8]])
    assert named(masks(told), "other/b.jpg", 1, 1) == [[o("car")]]
    with pytest.raises(SourceError, match=r"2 label maps for x/b.jpg \(deep/b, other/b\)"):
        named(masks(told), "x/b.jpg", 1, 1)


def test_masks_that_cannot_be_read(told, named):
    put(told / "a.png", [[[8, 8, 8]]], "RGB")
    with pytest.raises(SourceError, match=r"a.png cannot be read: its mode is RGB"):
        named(masks(told), "a.jpg", 1, 1)
    (told / "a.png").write_bytes(b"noise")
    with pytest.raises(SourceError, match=r"a.png cannot be read: not an image"):
        named(masks(told), "a.jpg", 1, 1)
    with pytest.raises(SourceError, match=r"b.PNG has 3x1 pixels and its image 1x3"):
        named(masks(told), "deep/b.jpg", 1, 3)


def test_links_to_a_folder_they_lie_in_end(told):
    (told / "deep" / "up").symlink_to(told)
    assert list(masks(told).files.items) == ["a", "deep/b"]


def test_identity_changes_with_what_decides_the_labels(told, tmp_path_factory):
    first = masks(told).identity()
    assert json.loads(json.dumps(first)) == first
    elsewhere = tmp_path_factory.mktemp("copy") / "m"
    elsewhere.mkdir()
    for file in ("classes.json", "a.png", "deep/b.PNG"):
        (elsewhere / file).parent.mkdir(exist_ok=True)
        (elsewhere / file).write_bytes((told / file).read_bytes())
    assert masks(elsewhere).identity() == first
    put(elsewhere / "a.png", [[8, 0, 8]])
    changed = masks(elsewhere).identity()
    assert changed["files"] != first["files"]
    (elsewhere / "classes.json").write_text(json.dumps(CAR).replace("car", "bus"))
    assert masks(elsewhere).identity()["codes"] != first["codes"]
    (elsewhere / "classes.json").write_text(json.dumps(CAR).replace('"8"', '"9"'))
    assert masks(elsewhere).identity()["codes"] != first["codes"]


def test_a_code_book_tells_the_unknown_from_the_unlabelled():
    pairs = [(5, Concept("a", "object"))]
    codes = np.array([-1, 0, 4, 5, 6, 10**6])
    assert CodeBook(pairs).labels(codes).tolist() == [0, 0, 0, 1, 0, 0]
    assert CodeBook(pairs, [0, 6]).labels(codes).tolist() == [0, 0, -1, 1, 0, -1]


def test_rotated_masks_are_those_of_another_picture(tmp_path, named):
    (tmp_path / "classes.json").write_text(json.dumps(CAR))
    image = Image.fromarray(np.full((30, 40), 8, np.uint8))
    ImageOps.mirror(image).rotate(90, expand=True).save(tmp_path / "a.png")
    with pytest.raises(SourceError, match="30x40 pixels and its image 40x30"):
        named(masks(tmp_path), "a.jpg", 40, 30)


def test_open_masks_takes_options_for_nothing(told):
    assert open_masks("x", told).name == "x"
    with pytest.raises(UsageError, match="no folder"):
        masks(f"{told}?layout=voc")


def test_no_program_is_asked_to_read_a_label_map(told, tmp_path, monkeypatch):
    """Pillow gives PostScript to Ghostscript, whatever a file is called."""
    program, proof = tmp_path / "bin" / "gs", tmp_path / "proof"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch {proof}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.setattr(EpsImagePlugin, "gs_binary", None)
    file = next(told.glob("*.png"))
    Image.new("RGB", (4, 1)).save(file, "EPS")
    with Image.open(file) as image, pytest.raises(OSError, match="cannot identify"):
        image.load()
    assert proof.exists()
    proof.unlink()
    with pytest.raises(DecodeError, match="not an image"):
        read_index(file)
    with pytest.raises(DecodeError, match="not an image"):
        read_colours(file)
    assert not proof.exists()


@pytest.mark.parametrize("text", ["[" * 100_000, json.dumps({"9" * 5000: {}}), '{"\\ud800": 1}'])
def test_classes_that_no_file_should_have(told, text):
    (told / "classes.json").write_text(text)
    with pytest.raises(SourceError, match="classes.json"):
        masks(told)


@pytest.mark.parametrize("table", [b"\xc9dx,Name\n", b"Idx,Ratio,Name\n1\n", b"Idx,Name\n-1,a\n",
                                   b"Idx,Name\n99999999999,a\n"])  # fmt: skip
def test_a_damaged_table_of_the_challenge(tmp_path, table):
    put(tmp_path / "a.png", [[1, 2]])
    (tmp_path / "objectInfo150.txt").write_bytes(table)
    with pytest.raises(SourceError, match="no table with the columns Idx and Name"):
        masks(tmp_path)
