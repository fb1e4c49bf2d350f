"""CSV tables written line by line."""

import pickle

import numpy as np
import pytest
from PIL import Image

from featkit.data.sources import open_source
from featkit.errors import SourceError, UsageError


@pytest.fixture
def root(tmp_path):
    for number, name in enumerate(["a.png", "b.png", "sub/c.png", "d,e.png", "é.png"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 2), (number, 0, 0)).save(tmp_path / name)
    return tmp_path


def table(root, text, name="list.csv", encoding="utf-8"):
    (root / name).write_bytes(text.encode(encoding))
    return str(root / name)


def test_rows_keep_their_order_and_labels_their_names(root):
    spec = table(root, "path,label\nsub/c.png,dog\na.png,cat\nb.png,dog\n")
    source = open_source(spec)
    assert list(source.ids) == ["sub/c.png", "a.png", "b.png"]
    assert source.classes == ("cat", "dog")
    assert source.labels.tolist() == [1, 0, 1]
    assert source.labels.dtype == np.int64
    assert [source.read(row).getpixel((0, 0))[0] for row in range(3)] == [2, 0, 1]
    assert source.name == spec
    assert source.stamps().shape == (3, 2)


def test_columns_are_found_by_name(root):
    text = '\ufeffid, label,path,note\r\n1,x,"d,e.png","two\nlines"\r\n\r\n2,y,é.png,\r\n'
    source = open_source(table(root, text))
    assert list(source.ids) == ["d,e.png", "é.png"]
    assert source.classes == ("x", "y")


def test_a_byte_order_mark_is_no_part_of_the_first_column(root):
    assert list(open_source(table(root, "\ufeffpath\na.png\n")).ids) == ["a.png"]


def test_without_labels(root):
    for text in ("path\na.png\nb.png\n", "path,label\na.png,\nb.png\n"):
        source = open_source(table(root, text))
        assert list(source.ids) == ["a.png", "b.png"]
        assert source.labels is None
        assert source.classes is None


def test_whole_numbers_are_ordered_as_numbers(root):
    source = open_source(table(root, "path,label\na.png,10\nb.png,9\nsub/c.png,-1\n"))
    assert source.classes == ("-1", "9", "10")
    assert source.labels.tolist() == [2, 1, 0]
    source = open_source(table(root, "path,label\na.png,10\nb.png,9\nsub/c.png,1.5\n"))
    assert source.classes == ("1.5", "10", "9")


def test_several_labels(root):
    text = "path,label\na.png,tree;sky\nb.png,\nsub/c.png,sky\né.png, sky ; sky;\n"
    source = open_source(table(root, text))
    assert source.classes == ("sky", "tree")
    assert source.labels.dtype == np.uint8
    assert source.labels.tolist() == [[1, 1], [0, 0], [1, 0], [1, 0]]


def test_another_root(root, tmp_path_factory, monkeypatch):
    elsewhere = tmp_path_factory.mktemp("lists")
    spec = table(elsewhere, "path\na.png\n")
    assert open_source(f"{spec}?root={root}").read(0).getpixel((0, 0)) == (0, 0, 0)
    monkeypatch.chdir(root.parent)
    assert list(open_source(f"{spec}?root={root.name}").ids) == ["a.png"]
    with pytest.raises(SourceError, match="is not a folder"):
        open_source(f"{spec}?root={root / 'none'}")


def test_paths_are_normalised(root):
    text = f"path\n./a.png\nsub/../b.png\n{root / 'sub' / 'c.png'}\n"
    assert list(open_source(table(root, text)).ids) == ["a.png", "b.png", "sub/c.png"]


def test_a_link_may_lead_outside(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside") / "x.png"
    Image.new("RGB", (1, 1)).save(outside)
    (root / "link.png").symlink_to(outside)
    assert open_source(table(root, "path\nlink.png\n")).read(0).size == (1, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path\na.png\n../x.png\n", r"line 3: '\.\./x\.png' is not inside .*give \?root=DIR"),
        ("path\nsub/../../x.png\n", r"line 2: .* is not inside"),
        ("path\n/etc/hostname\n", r"line 2: '/etc/hostname' is not inside"),
        ("path\n.\n", r"line 2: '\.' is not inside"),
        ("path,label\na.png,x\n,y\n", "line 3: the path is empty"),
        ("path\na\0.png\n", "line 2: the path is invalid|NUL"),
        ("path\na.png\n\nb.png\n./a.png\n", r"line 5: '\./a\.png' is listed on line 2 already"),
        ("path,label\na.png,x\nb.png,\n", "line 3: no label while other rows have one"),
        ("path,label\na.png,\nb.png,x\n", "line 2: no label while other rows have one"),
        ("path,label\nb.png,x,y\n", "line 2: 3 cells under 2 columns"),
        ("path\na.png\nd,e.png\n", "line 3: 2 cells under 1 columns"),
        ('path\n"a.png\n', "line 2: unexpected end of data"),
        ("path\nx.png\na.png\ny.png\n", r"2 of 3 paths name no file .*'x\.png' \(line 2\), 'y\.pn"),
        ("path\nsub\n", r"1 of 1 paths name no file .*'sub' \(line 2\)"),
        ("paht,label\na.png,x\n", r"has no column 'path' \(did you mean paht\?\)"),
        ("a.png\nb.png\n", r"has no column 'path' \(there is a\.png\)"),
        ("path;label\na.png;x\n", "separated by commas"),
        ("path,path\na.png,b.png\n", "has two columns 'path'"),
        ("", "has no column 'path'"),
        ("path,label\n", "lists no image"),
    ],
)
def test_mistakes_are_named(root, text, message):
    with pytest.raises(SourceError, match=message) as caught:
        open_source(table(root, text))
    assert "\n" not in str(caught.value)


def test_other_encodings_are_refused(root):
    with pytest.raises(SourceError, match="is not UTF-8 text"):
        open_source(table(root, "path\né.png\n", encoding="latin-1"))


def test_a_file_that_is_no_table(root):
    with pytest.raises(SourceError, match="is a file and no CSV table; a source is a folder"):
        open_source(root / "a.png")


def test_unknown_options_are_refused(root):
    with pytest.raises(UsageError, match="unknown option 'rot': did you mean root"):
        open_source(table(root, "path\na.png\n") + "?rot=x")


def test_pickling(root):
    source = open_source(table(root, "path,label\nb.png,x;y\na.png,x\n"))
    copy = pickle.loads(pickle.dumps(source))
    assert list(copy.ids) == ["b.png", "a.png"]
    assert copy.labels.tolist() == [[1, 1], [1, 0]]
    assert copy.digest(0) == source.digest(0)


def test_a_header_that_steers_terminals_is_shown_as_text(tmp_path):
    path = tmp_path / "list.csv"
    path.write_text("\x1b[2Jpfad,\0label\n")
    with pytest.raises(SourceError) as error:
        open_source(str(path))
    assert str(error.value).isprintable()
