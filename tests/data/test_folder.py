"""Folders of images against torchvision's ImageFolder and trees made by hand."""

import hashlib
import os
import pickle
import sys
import time

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import ImageFolder

from featkit.data import files
from featkit.data.sources import Source, open_source
from featkit.errors import DecodeError, SourceError


def put(root, *paths):
    for number, path in enumerate(paths):
        target = root / path
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (3, 2), (number, 0, 0)).save(target, "PNG")
    return root


def test_class_subfolders_agree_with_torchvision(tmp_path):
    paths = ["cat/b.png", "cat/a.png", "dog/x/y.png", "dog/x-1.png", "dog/x.PNG", "Ant/1.jpg"]
    source = open_source(put(tmp_path, *paths))
    peer = ImageFolder(tmp_path)
    mine = dict(zip(source.ids, source.labels.tolist(), strict=True))
    theirs = {os.path.relpath(path, tmp_path): label for path, label in peer.samples}
    assert mine == theirs
    assert list(source.classes) == peer.classes == ["Ant", "cat", "dog"]
    assert source.labels.dtype == np.int64
    assert source.notes == ()


def test_order_is_that_of_code_points(tmp_path):
    paths = ["a/1.png", "a-b/1.png", "a/10.png", "a/2.png", "é/1.png", "B/1.png", "a/x/0.png"]
    source = open_source(put(tmp_path, *paths))
    assert list(source.ids) == [
        "B/1.png",
        "a-b/1.png",
        "a/1.png",
        "a/10.png",
        "a/2.png",
        "a/x/0.png",
        "é/1.png",
    ]


def test_flat_folder_has_no_labels(tmp_path):
    source = open_source(str(put(tmp_path, "b.png", "a.jpeg")))
    assert list(source.ids) == ["a.jpeg", "b.png"]
    assert source.labels is None
    assert source.classes is None
    assert isinstance(source, Source)
    assert source.name == str(tmp_path)


def test_images_beside_subfolders_mean_no_labels_and_a_note(tmp_path):
    source = open_source(put(tmp_path, "a.png", "cat/b.png", "cat/x/c.png"))
    assert list(source.ids) == ["a.png", "cat/b.png", "cat/x/c.png"]
    assert source.labels is None
    (note,) = source.notes
    assert "no labels: 1 images lie beside the subfolders (a.png)" in note


def test_hidden_things_are_skipped_and_other_files_are_told(tmp_path):
    put(tmp_path, "cat/a.png", ".thumbs/x.png", "cat/.b.png", "cat/.git/c.png")
    for name in ("z.txt", "cat/notes.md", "noextension", "cat/b.png.bak"):
        (tmp_path / name).write_text("x")
    source = open_source(tmp_path)
    assert list(source.ids) == ["cat/a.png"]
    assert source.notes == (
        "left out 4 files without an image extension: cat/b.png.bak, cat/notes.md, noextension, …",
    )


def test_every_extension_in_any_case(tmp_path):
    wanted = "jpg jpeg png ppm pgm bmp tif tiff webp gif jfif".split()  # noqa: SIM905
    names = [f"x.{end}" for end in wanted] + [f"X.{end.upper()}" for end in wanted]
    source = open_source(put(tmp_path, *names))
    assert sorted(source.ids) == sorted(names)
    assert source.notes == ()


def test_corrupt_files_keep_their_row(tmp_path):
    put(tmp_path, "a.png", "d.png")
    (tmp_path / "b.png").write_bytes(b"")
    (tmp_path / "c.jpg").write_bytes(b"noise")
    (tmp_path / "e.png").symlink_to(tmp_path / "gone.png")
    source = open_source(tmp_path)
    assert list(source.ids) == ["a.png", "b.png", "c.jpg", "d.png", "e.png"]
    assert source.read(3).getpixel((0, 0)) == (1, 0, 0)
    for row, reason in [
        (1, "empty file"),
        (2, "not an image"),
        (4, "cannot be read: No such file"),
    ]:
        with pytest.raises(DecodeError, match=f"^{reason}") as caught:
            source.read(row)
        assert str(tmp_path) not in str(caught.value)


def test_links_are_followed_and_loops_end(tmp_path):
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    put(root, "cat/a.png")
    put(elsewhere, "b.png", "deep/c.png")
    (root / "cat" / "link.png").symlink_to(elsewhere / "b.png")
    (root / "dog").symlink_to(elsewhere)
    (root / "cat" / "up").symlink_to(root)
    (elsewhere / "deep" / "self").symlink_to(elsewhere)
    (root / "cat" / "own").symlink_to("own")
    source = open_source(root)
    assert list(source.ids) == ["cat/a.png", "cat/link.png", "dog/b.png", "dog/deep/c.png"]
    assert source.classes == ("cat", "dog")
    assert any("cat/up, dog/deep/self" in note for note in source.notes)
    assert source.read(1).getpixel((0, 0)) == (0, 0, 0)


def test_a_pipe_is_not_opened(tmp_path):
    put(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert list(open_source(tmp_path).ids) == ["a.png"]


def test_class_folders_without_an_image_are_told(tmp_path):
    put(tmp_path, "cat/a.png")
    (tmp_path / "dog").mkdir()
    source = open_source(tmp_path)
    assert source.classes == ("cat",)
    assert source.notes == ("left out subfolders without an image: dog",)


def test_folders_of_splits_are_told(tmp_path):
    source = open_source(put(tmp_path, "train/cat/a.png", "val/cat/b.png"))
    assert any("train, val" in note for note in source.notes)


def test_a_folder_without_images(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    with pytest.raises(SourceError, match=r"holds no image \(1 other files\); give a folder"):
        open_source(tmp_path)


def test_a_missing_folder_suggests_its_sibling(tmp_path):
    put(tmp_path, "images/a.png")
    with pytest.raises(SourceError, match=r"imagse' does not exist \(did you mean images\?\)"):
        open_source(str(tmp_path / "imagse"))


def test_options_are_refused(tmp_path):
    with pytest.raises(ValueError, match="unknown option 'root'"):
        open_source(f"{put(tmp_path, 'a.png')}?root=x")


def test_a_question_mark_in_a_folder_name(tmp_path):
    put(tmp_path / "what?a=b", "a.png")
    assert len(open_source(str(tmp_path / "what?a=b")).ids) == 1
    assert len(open_source(tmp_path / "what?a=b").ids) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="the file system takes any bytes only there")
def test_names_that_are_not_utf8(tmp_path):
    put(tmp_path, "a.png")
    bad = os.fsencode(tmp_path) + b"/caf\xe9"
    with open(bad + b".txt", "wb"):  # noqa: PTH123
        pass
    (note,) = open_source(tmp_path).notes
    assert note.encode() == b"left out 1 file without an image extension: caf\\udce9.txt"
    with open(bad + b".png", "wb"):  # noqa: PTH123
        pass
    with pytest.raises(SourceError, match=r"caf\\udce9\.png is not UTF-8; rename the file"):
        open_source(tmp_path)


def test_digests_and_stamps_are_those_of_the_files(tmp_path, monkeypatch):
    source = open_source(put(tmp_path, "a.png", "b.png", "c.png"))
    (tmp_path / "c.png").unlink()
    before = [source.digest(row) for row in range(3)]
    content = (tmp_path / "a.png").read_bytes()
    assert before[0] == hashlib.sha256(content).digest()
    status = (tmp_path / "a.png").stat()
    assert source.stamps().tolist()[0] == [status.st_size, 0]  # it may still be written to
    time.sleep(0.02)
    monkeypatch.setattr(files, "SETTLED_NS", 0)
    stamps = source.stamps()
    assert stamps.dtype == np.int64
    assert stamps.tolist()[0] == [status.st_size, status.st_ctime_ns]
    assert stamps.tolist()[2] == [-1, -1]
    (tmp_path / "a.png").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    os.utime(tmp_path / "a.png", ns=(status.st_atime_ns, status.st_mtime_ns))
    time.sleep(0.02)
    assert source.stamps().tolist()[0] != stamps.tolist()[0]  # the same size, and time of writing
    after = [source.digest(row) for row in range(3)]
    assert [x == y for x, y in zip(before, after, strict=True)] == [False, True, True]
    assert all(len(digest) == 32 for digest in after)


def test_an_unreadable_file_has_the_digest_of_its_error(tmp_path, monkeypatch):
    source = open_source(put(tmp_path, "a.png", "b.png"))
    whole = source.digest(0)

    def refuse(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("pathlib.Path.open", refuse)
    assert source.digest(0) == source.digest(1) != whole
    monkeypatch.setattr("pathlib.Path.read_bytes", refuse)
    with pytest.raises(DecodeError, match=r"^cannot be read: Permission denied$"):
        source.read(0)


def test_a_folder_that_cannot_be_listed(tmp_path, monkeypatch):
    put(tmp_path, "cat/a.png")

    def refuse(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr("os.scandir", refuse)
    with pytest.raises(SourceError, match="cannot be listed: Permission denied"):
        open_source(tmp_path)


def test_pickling(tmp_path, monkeypatch):
    put(tmp_path, "cat/a.png", "dog/é.png")
    monkeypatch.chdir(tmp_path.parent)
    source = open_source(tmp_path.name)
    data = pickle.dumps(source)
    monkeypatch.chdir("/")  # a worker need not start where the user did
    copy = pickle.loads(data)
    assert list(copy.ids) == ["cat/a.png", "dog/é.png"]
    assert copy.labels.tolist() == [0, 1]
    assert copy.digest(1) == source.digest(1)
    assert np.asarray(copy.read(1))[0, 0].tolist() == [1, 0, 0]
