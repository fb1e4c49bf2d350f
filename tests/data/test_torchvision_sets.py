"""torchvision's sets against torchvision itself, with files in the layouts it reads."""

import gzip
import hashlib
import pickle
import struct

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from featkit.data.sources import Source, open_source
from featkit.errors import DecodeError, MissingExtraError, SourceError, UsageError

FAKE = "torchvision:FakeData?size=20&image_size=3,16,24&num_classes=4"


@pytest.fixture
def mnist(tmp_path):
    """MNIST's four files, with 30 training and 12 test images."""
    rng = np.random.default_rng(0)
    raw = tmp_path / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for split, n in (("train", 30), ("t10k", 12)):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        labels = rng.permutation(np.arange(n, dtype=np.uint8) % 10)
        for name, data, head in (
            ("images-idx3", images, struct.pack(">IIII", 2051, n, 28, 28)),
            ("labels-idx1", labels, struct.pack(">II", 2049, n)),
        ):
            (raw / f"{split}-{name}-ubyte").write_bytes(head + data.tobytes())
            with gzip.open(raw / f"{split}-{name}-ubyte.gz", "wb") as file:
                file.write(head + data.tobytes())
    return tmp_path


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """CIFAR-10's pickled batches, with 4 images each."""
    rng = np.random.default_rng(1)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]:
        batch = {"data": rng.integers(0, 256, (4, 3072), dtype=np.uint8)}
        batch["labels"] = rng.integers(0, 10, 4).tolist()
        (folder / name).write_bytes(pickle.dumps(batch))
    names = "airplane automobile bird cat deer dog frog horse ship truck"
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names.split()}))
    monkeypatch.setattr(datasets.CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *args: True)
    return tmp_path


def agree(source, peer):
    """Compare every image and label with the torchvision set."""
    assert len(source.ids) == len(peer)
    for row in range(len(peer)):
        image, target = peer[row]
        np.testing.assert_array_equal(
            np.asarray(source.read(row)), np.asarray(image.convert("RGB"))
        )
        assert source.labels[row] == target


def test_fake_data():
    source = open_source(FAKE)
    assert isinstance(source, Source)
    agree(source, datasets.FakeData(20, (3, 16, 24), 4))
    assert source.classes == ("0", "1", "2", "3")
    assert (source.ids[0], source.ids[-1]) == ("00", "19")
    assert source.stamps() is None
    digests = [source.digest(row) for row in range(20)]
    assert len(set(digests)) == 20
    assert digests == [open_source(FAKE).digest(row) for row in range(20)]
    assert digests[0] != open_source(FAKE + "&random_offset=1").digest(0)


def test_train_and_test_of_mnist(mnist):
    for split, train in (("/train", True), ("/test", False), ("", True)):
        source = open_source(f"torchvision:MNIST{split}?root={mnist}")
        agree(source, datasets.MNIST(mnist, train=train))
        assert source.labels.dtype == np.int64
        assert source.classes[7] == "7 - seven"
        assert source.notes == ()


def test_cifar10(cifar):
    for split, train in (("train", True), ("test", False)):
        source = open_source(f"torchvision:CIFAR10/{split}?root={cifar}")
        agree(source, datasets.CIFAR10(cifar, train=train))
        assert source.classes[9] == "truck"
    assert len({source.digest(row) for row in range(4)}) == 4


def test_a_changed_byte_changes_one_digest(mnist):
    spec = f"torchvision:MNIST/test?root={mnist}"
    before = open_source(spec)
    path = mnist / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    data = bytearray(path.read_bytes())
    data[16 + 5 * 784 + 100] ^= 1
    path.write_bytes(data)
    after = open_source(spec)
    assert [row for row in range(12) if before.digest(row) != after.digest(row)] == [5]


def test_a_set_of_files(tmp_path):
    for name in ("cat/a.png", "dog/b.png", "dog/c.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (2, 3), (len(name), 1, 2)).save(tmp_path / name)
    source = open_source(f"torchvision:ImageFolder?root={tmp_path}")
    agree(source, datasets.ImageFolder(tmp_path))
    assert source.classes == ("cat", "dog")
    content = (tmp_path / "dog" / "c.png").read_bytes()
    assert source.digest(2) == hashlib.sha256(content).digest()
    assert source.stamps()[2, 0] == len(content)
    (tmp_path / "dog" / "b.png").write_bytes(content[:40])
    with pytest.raises(DecodeError):
        source.read(1)
    assert source.read(2).size == (2, 3)


def test_a_split_called_split_and_labels_of_a_private_list(tmp_path):
    root = tmp_path / "rendered-sst2"
    for folder in ("train", "valid", "test"):
        for label in ("negative", "positive"):
            (root / folder / label).mkdir(parents=True)
            Image.new("RGB", (4, 4), (len(folder), 0, 0)).save(root / folder / label / "a.png")
    source = open_source(f"torchvision:RenderedSST2/val?root={tmp_path}")
    agree(source, datasets.RenderedSST2(tmp_path, split="val"))
    assert source.classes == ("negative", "positive")
    assert source.stamps().shape == (2, 2)
    with pytest.raises(SourceError, match="'dev'"):
        open_source(f"torchvision:RenderedSST2/dev?root={tmp_path}")


def test_masks_are_no_labels(tmp_path):
    base = tmp_path / "VOCdevkit" / "VOC2012"
    for folder in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (base / folder).mkdir(parents=True)
    (base / "ImageSets" / "Segmentation" / "val.txt").write_text("a\nb\n")
    for name in "ab":
        Image.new("RGB", (4, 4)).save(base / "JPEGImages" / f"{name}.jpg")
        Image.new("P", (4, 4)).save(base / "SegmentationClass" / f"{name}.png")
    source = open_source(f"torchvision:VOCSegmentation/val?root={tmp_path}")
    assert len(source.ids) == 2
    assert source.labels is None
    assert source.classes is None
    assert source.notes == ("no labels: the targets of this set are not class indices",)


class _Set:
    """A set of n images with the targets given, found under torchvision's names in the tests."""

    def __init__(self, root: str = "", kind: str = "listed") -> None:
        self.kind = kind
        self.numbers = {"listed": [3, 7, 3], "negative": [-1, 0, -1]}.get(kind, [5, 5, 9])
        if kind == "listed":
            self.targets = self.numbers
        elif kind == "misleading":
            self.targets = [1, 0, 1]
        elif kind == "empty":
            self.numbers = []

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, row):
        if self.kind == "pair":
            return Image.new("L", (2, 2)), Image.new("L", (2, 2)), 1
        if self.kind == "array":
            return np.zeros((2, 2)), 1
        if self.kind == "damaged" and row == 1:
            raise OSError("image file is truncated")
        return Image.new("L", (2, 2), row), self.numbers[row]


@pytest.fixture
def made_up(monkeypatch):
    monkeypatch.setattr(datasets, "MadeUp", _Set, raising=False)
    monkeypatch.setattr(datasets, "__all__", (*datasets.__all__, "MadeUp"))


def test_numbers_without_names_become_classes_in_order(made_up):
    source = open_source("torchvision:MadeUp")
    assert source.classes == ("3", "7")
    assert source.labels.tolist() == [0, 1, 0]


@pytest.mark.parametrize("kind", ["unlisted", "misleading"])
def test_targets_are_read_where_no_list_agrees_with_them(made_up, kind):
    source = open_source(f"torchvision:MadeUp?kind={kind}")
    assert source.classes == ("5", "9")
    assert source.labels.tolist() == [0, 0, 1]


def test_negative_targets_mean_no_label(made_up):
    source = open_source("torchvision:MadeUp?kind=negative")
    assert source.labels is None
    assert source.notes == ("no labels: 2 of 3 samples have none",)


@pytest.mark.parametrize("kind", ["pair", "array"])
def test_only_single_images(made_up, kind):
    with pytest.raises(SourceError, match="does not consist of single images"):
        open_source(f"torchvision:MadeUp?kind={kind}")


def test_an_empty_set(made_up):
    with pytest.raises(SourceError, match="the set is empty"):
        open_source("torchvision:MadeUp?kind=empty")


def test_labels_that_cannot_be_read(made_up):
    with pytest.raises(SourceError, match="the labels cannot be read: image file is truncated"):
        open_source("torchvision:MadeUp?kind=damaged")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("torchvision:CIFAR11?root=x", "no set 'CIFAR11': did you mean CIFAR10"),
        ("torchvision:", "no set ''"),
        ("torchvision:VisionDataset?root=x", "no set 'VisionDataset'"),
        ("torchvision:CIFAR10/train", r"CIFAR10 needs root; write torchvision:CIFAR10\?root=…"),
        ("torchvision:CIFAR10/trian?root=x", "no split 'trian': did you mean train"),
        ("torchvision:CIFAR10/train?root=x&train=1", "the split is given twice"),
        ("torchvision:FakeData/train", "FakeData has no splits; leave out /train"),
        ("torchvision:FakeData?size=many", "size is of type int, not 'many'"),
        ("torchvision:CIFAR10?root=x&train=perhaps", "train is of type bool, not 'perhaps'"),
        ("torchvision:FakeData?image_size=3,a", "image_size is of type tuple, not '3,a'"),
        ("torchvision:FakeData?sise=3", "unknown option 'sise': did you mean size"),
        ("torchvision:MNIST?root=x&download=1", "unknown option 'download'"),
        ("torchvision:MNIST?root=x&transform=1", "unknown option 'transform'"),
        ("torchvision:SVHN/tset?root=x", "tset"),
    ],
)
def test_mistakes_are_named(spec, message):
    with pytest.raises(UsageError, match=message) as caught:
        open_source(spec)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["CIFAR10", "CIFAR100", "MNIST", "QMNIST", "SVHN", "STL10", "DTD"])
def test_missing_files_are_not_downloaded(name, tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("urllib.request.urlopen", lambda *args, **kwargs: asked.append(args))
    with pytest.raises(SourceError, match=r"not found or damaged under .*nothing is downloaded"):
        open_source(f"torchvision:{name}?root={tmp_path}")
    assert asked == []


def test_download_defaults_are_overruled(tmp_path, monkeypatch):
    """SEMEION is one of the sets that download unless told not to."""
    asked = []
    monkeypatch.setattr(datasets.SEMEION, "download", asked.append)
    with pytest.raises(SourceError, match="SEMEION is not found"):
        open_source(f"torchvision:SEMEION?root={tmp_path}")
    assert asked == []


def test_options_of_a_parent_constructor(mnist):
    """EMNIST hands train= to MNIST; QMNIST too."""
    with pytest.raises(SourceError, match="EMNIST is not found"):
        open_source(f"torchvision:EMNIST/test?split=letters&root={mnist}")
    with pytest.raises(SourceError, match="EMNIST needs split"):
        open_source(f"torchvision:EMNIST/test?root={mnist}")


def test_a_missing_package(made_up, monkeypatch):
    def fail(self):
        raise ModuleNotFoundError("No module named 'lmdb'")

    monkeypatch.setattr(_Set, "__init__", fail)
    with pytest.raises(MissingExtraError, match="needs a package: No module named 'lmdb'"):
        open_source("torchvision:MadeUp")


def test_options_are_read_as_their_type():
    source = open_source("torchvision:FakeData?size=3&image_size=3,4,5")
    assert source.read(0).size == (5, 4)


def test_pickling(mnist):
    for spec in (FAKE, f"torchvision:MNIST/test?root={mnist}"):
        source = open_source(spec)
        copy = pickle.loads(pickle.dumps(source))
        assert copy.digest(3) == source.digest(3)
        assert copy.labels.tolist() == source.labels.tolist()
        assert list(copy.ids) == list(source.ids)
