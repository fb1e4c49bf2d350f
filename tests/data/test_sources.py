"""How sources are found, the built-in digits, and what all sources share."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from featkit.data.packed import PackedStrings, row_numbers
from featkit.data.sources import Source, open_source
from featkit.errors import SourceError, UsageError


def test_digits_are_those_of_scikit_learn():
    source, peer = open_source("digits"), load_digits()
    assert isinstance(source, Source)
    assert (list(source.ids[:2]), source.ids[-1], len(source.ids)) == (
        ["0000", "0001"],
        "1796",
        1797,
    )
    assert source.classes == tuple("0123456789")
    assert source.labels.dtype == np.int64
    np.testing.assert_array_equal(source.labels, peer.target)
    for row in (0, 1000, 1796):
        got = np.asarray(source.read(row))
        assert got.shape == (8, 8, 3)
        for (y, x), value in np.ndenumerate(peer.images[row]):
            assert got[y, x].tolist() == [round(value * 255 / 16)] * 3
    assert source.stamps() is None
    assert len({source.digest(row) for row in range(1797)}) == len(np.unique(peer.data, axis=0))


def test_digits_take_no_options():
    with pytest.raises(UsageError, match="unknown option 'size'"):
        open_source("digits?size=2")


def test_a_folder_called_digits(tmp_path, monkeypatch):
    (tmp_path / "digits").mkdir()
    Image.new("RGB", (1, 1)).save(tmp_path / "digits" / "a.png")
    monkeypatch.chdir(tmp_path)
    assert len(open_source("digits").ids) == 1797
    assert list(open_source("./digits").ids) == ["a.png"]


def test_a_source_is_returned_as_it_is():
    source = open_source("digits")
    assert open_source(source) is source


@pytest.mark.parametrize("spec", [None, 3, ["a"]])
def test_other_things_are_no_source(spec):
    with pytest.raises(SourceError, match="is no image source; a source is a folder"):
        open_source(spec)


@pytest.mark.parametrize("spec", ["", "nowhere/at/all", "a" * 5000, "nul\0", "hf:some/set"])
def test_what_does_not_exist(spec):
    with pytest.raises(SourceError, match=r"does not exist.*; a source is a folder"):
        open_source(spec)


def test_misspelt_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".digit").mkdir()
    with pytest.raises(SourceError, match=r"'digit' does not exist \(did you mean digits\?\)"):
        open_source("digit")
    with pytest.raises(SourceError, match="did you mean torchvision:CIFAR10"):
        open_source("torch-vision:CIFAR10")


def test_pickling_the_digits():
    source = open_source("digits")
    copy = pickle.loads(pickle.dumps(source))
    assert copy.digest(5) == source.digest(5)
    assert list(copy.ids) == list(source.ids)


def test_importing_sources_is_light():
    code = (
        "import sys, featkit.data.sources, featkit.data.preprocessing; "
        "print(sorted({'torch', 'torchvision', 'timm', 'sklearn', 'h5py'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_packed_strings_are_a_list():
    words = ["", "a", "é", "日本", "a", "x" * 1000]
    packed = PackedStrings(words)
    assert list(packed) == words
    assert [packed[i] for i in range(-6, 6)] == words * 2
    assert packed[1:5:2] == words[1:5:2]
    assert packed.index("日本") == 3
    assert list(pickle.loads(pickle.dumps(packed))) == words
    assert list(PackedStrings([])) == []
    for index in (6, -7):
        with pytest.raises(IndexError):
            packed[index]


def test_packed_strings_are_small():
    packed = row_numbers(100_000)
    assert packed[99_999] == "99999"
    assert len(pickle.dumps(packed)) < 100_000 * (5 + 8) + 1000


@pytest.mark.parametrize("spec", ["~nobody.of.this.name/x", "~nobody.of.this.name.csv?root=."])
def test_the_home_of_nobody_is_no_source(spec):
    with pytest.raises(SourceError, match="nobody"):
        open_source(spec)
