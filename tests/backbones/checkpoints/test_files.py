"""Honest files: what is read from them is what torch, safetensors and pickle read."""

from __future__ import annotations

import argparse
import collections
import copy
import enum
import functools
import json
import os
import pathlib
import pickle
import random
import shutil
import sys
import types
import warnings
import zipfile
from dataclasses import dataclass, field

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from featkit.backbones.checkpoints.files import LEGACY_MAGIC, open_checkpoint
from featkit.errors import CheckpointError
from tests.processes import run_forked

FORMATS = ("zip", "legacy")

DTYPES = [
    *(torch.bool, torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64),
]

ZIP_ONLY = [
    getattr(torch, name)
    for name in (
        *("uint16", "uint32", "uint64"),
        *("float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu"),
    )
    if hasattr(torch, name)
]
"""What torch stores with its type apart, and reads back from zip files only."""

REST = (torch.complex64, torch.complex128)


class Color(enum.Enum):
    RED = 1
    BLUE = "b"


@dataclass
class Settings:
    lr: float = 0.1
    path: pathlib.Path = pathlib.Path("runs/1")
    steps: list[int] = field(default_factory=lambda: [1, 2])


class Outer:
    class Inner:
        def __init__(self):
            self.value = torch.ones(2)

    @staticmethod
    def method():
        return None


class Slotted:
    __slots__ = ("a",)

    def __init__(self):
        self.a = torch.zeros(1)


class Registry(dict):
    """A dictionary of a class of its own, with attributes."""

    def __init__(self, *args):
        super().__init__(*args)
        self.version = torch.ones(1)


class Marked(nn.Parameter):
    """A parameter's subclass."""


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, bias=False)
        self.blocks = nn.ModuleList([nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))])
        self.by_name = nn.ModuleDict({"a": nn.Linear(2, 2)})
        self.scales = nn.ParameterList([torch.ones(2), torch.zeros(3)])
        self.named = nn.ParameterDict({"left": torch.ones(1)})
        self.register_buffer("mean", torch.arange(3.0))
        self.register_buffer("cache", torch.arange(4), persistent=False)
        self.register_parameter("nothing", None)
        self.tied = self.conv.weight
        self.settings = Settings()
        self.register_forward_hook(_hook)


def _hook(*_):
    return None


def save(content, path, kind="zip", **options):
    torch.save(content, path, _use_new_zipfile_serialization=kind == "zip", **options)
    return path


def trusted(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return torch.load(path, weights_only=False)


def flat(value, prefix=""):
    """Name tensors and arrays as ``open_checkpoint`` promises to, from the objects themselves."""
    parts, joint = [value], "/"
    if isinstance(value, nn.Module):
        parts, joint = [value._parameters, value._buffers, value._modules], "."
    for part in parts:
        for name, item in part.items() if isinstance(part, dict) else ():
            if not isinstance(name, str):
                continue
            if isinstance(item, np.ndarray):
                native = item.astype(item.dtype.newbyteorder("="), order="C")
                yield prefix + name, torch.from_numpy(native)
            elif isinstance(item, torch.Tensor):
                yield prefix + name, item.detach()
            else:
                yield from flat(item, f"{prefix}{name}{joint}")


def bits(tensor):
    """The bytes of a tensor: comparing them knows no NaN, and no type without ``equal``."""
    tensor = tensor.detach().resolve_conj().resolve_neg().contiguous()
    return tensor.flatten().view(torch.uint8) if tensor.numel() else tensor.flatten()


def assert_same(found, wanted):
    assert list(found) == list(wanted)
    for name, stored in found.items():
        tensor = stored.read()
        assert type(tensor) is torch.Tensor, name
        assert tensor.device.type == "cpu", name
        assert stored.shape == tuple(wanted[name].shape) == tuple(tensor.shape), name
        assert tensor.dtype == wanted[name].dtype, name
        assert torch.equal(bits(tensor), bits(wanted[name])), name


def assert_agrees(path):
    """Compare with torch, and say what there was."""
    wanted = dict(flat(trusted(path)))
    assert_same(open_checkpoint(path), wanted)
    return wanted


def noise(dtype, *shape):
    count = int(np.prod(shape)) * dtype.itemsize
    data = torch.randint(0, 2 if dtype == torch.bool else 256, (count,), dtype=torch.uint8)
    return data.view(dtype).reshape(shape)


# --------------------------------------------------------------------------------------------------
# Tensors


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_types_and_shapes(tmp_path, kind, dtype):
    base = noise(dtype, 6, 8)
    content = {
        "plain": noise(dtype, 2, 3, 4),
        "scalar": noise(dtype),
        "one": noise(dtype, 1),
        "empty": noise(dtype, 0),
        "empty of shape": noise(dtype, 3, 0, 2),
        "transposed": base.t(),
        "slice": base[2:4],
        "column": base[:, 3],
        "strided": base[::2, 1::3],
        "element": base[5, 7],
        "whole": base,
        "permuted": noise(dtype, 2, 3, 4).permute(2, 0, 1),
        "channels last": noise(dtype, 2, 3, 4, 5).contiguous(memory_format=torch.channels_last),
        "empty slice": base[6:],
    }
    assert len(assert_agrees(save(content, tmp_path / "net.pt", kind))) == len(content)


@pytest.mark.parametrize("dtype", ZIP_ONLY, ids=str)
def test_types_that_only_zip_files_hold(tmp_path, dtype):
    base = noise(dtype, 6, 8)
    content = {"a": base, "b": base.t(), "c": base[1:3, ::2], "d": base[5, 7], "e": noise(dtype, 0)}
    assert len(assert_agrees(save(content, tmp_path / "net.pt"))) == 5


def exotic():
    complex_ = torch.randn(3, 4, dtype=torch.complex64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantized = torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8)
        sparse = torch.eye(3).to_sparse_csr()
    return {
        "complex64": complex_,
        "complex128": torch.randn(3, dtype=torch.complex128),
        "conjugated": complex_.conj(),
        "negated": complex_.conj().imag,
        "real part": complex_.real,
        "expanded": torch.arange(3.0).expand(4, 3),
        "expanded scalar": torch.ones(()).expand(5),
        "unfolded": torch.arange(6.0).unfold(0, 3, 1),
        "sparse": torch.eye(3).to_sparse(),
        "compressed": sparse,
        "quantized": quantized,
        "meta": torch.ones(3, device="meta"),
        "text": np.array(["cat", "dog"]),
        "objects": np.array([None, {"a": 1}], object),
        "complex array": np.ones(2, "c8"),
        "dates": np.array(["2020-01-01"], "M8[D]"),
        "records": np.zeros(2, [("a", "f4"), ("b", "i2")]),
        "raw": np.zeros(2, "V3"),
        "long double": np.zeros(2, np.longdouble),
        "subclass": np.ma.masked_array([1.0, 2.0], [True, False]),
        "matrix": np.ones((2, 2)).view(np.recarray),
        "size": torch.Size([1, 2]),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
        "storage": torch.ones(2).storage,
    }


EXOTIC = tuple(exotic())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", EXOTIC)
def test_exotic_ballast_hinders_nothing(tmp_path, kind, name):
    """A file may hold what this reader does not know; it is right, refused when read, or absent."""
    what = exotic()[name]
    content = {"first": torch.ones(2), "odd": what, "last": torch.arange(3)}
    try:
        path = save(content, tmp_path / "net.pt", kind)
        trusted(path)
    except (RuntimeError, TypeError, AttributeError, pickle.PicklingError):
        pytest.skip("torch does not hold it")
    found = open_checkpoint(path)
    odd = found.pop("odd", None)
    assert_same(found, {"first": torch.ones(2), "last": torch.arange(3)})
    if odd is not None:
        assert odd.shape == tuple(what.shape)
        try:
            tensor = odd.read()
        except CheckpointError:
            return
        what = torch.from_numpy(np.asarray(what)) if isinstance(what, np.ndarray) else what
        assert tensor.dtype == what.dtype
        assert torch.equal(bits(tensor), bits(what))


@pytest.mark.parametrize("kind", FORMATS)
def test_tensors_that_share_memory(tmp_path, kind):
    flat_weights = torch.arange(100.0)
    content = {
        "all": flat_weights,
        "head": flat_weights[:10].view(2, 5),
        "tail": flat_weights[90:],
        "again": flat_weights,
    }
    path = save(content, tmp_path / "net.pt", kind)
    assert_agrees(path)
    found = open_checkpoint(path)
    first, second = found["all"].read(), found["again"].read()
    first.zero_()
    assert torch.equal(second, flat_weights)
    assert torch.equal(found["all"].read(), flat_weights)
    assert found["tail"].read().untyped_storage().nbytes() == 40


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
@pytest.mark.parametrize("kind", FORMATS)
def test_a_storage_of_many_tensors_is_not_read_for_each(tmp_path, kind):
    flat_weights = torch.randn(300, 5000)
    path = save({f"w{i}": row for i, row in enumerate(flat_weights)}, tmp_path / "net.pt", kind)
    found, before = open_checkpoint(path), bytes_read()
    for i, row in enumerate(flat_weights):
        assert torch.equal(found[f"w{i}"].read(), row)
    assert bytes_read() - before < 3 * path.stat().st_size


def bytes_read():
    return int(pathlib.Path("/proc/self/io").read_text().split()[1])


@pytest.mark.parametrize("kind", FORMATS)
def test_parameters(tmp_path, kind):
    plain = nn.Parameter(torch.randn(2, 3))
    stateful = nn.Parameter(torch.randn(4), requires_grad=False)
    stateful.tag = {"group": 1}
    marked = Marked(torch.randn(3))
    marked.tag = "x"
    buffer = nn.Buffer(torch.randn(2)) if hasattr(nn, "Buffer") else torch.randn(2)
    with_hook = torch.randn(3, requires_grad=True)
    attribute = torch.randn(2)
    attribute.note = "kept"
    content = {
        "plain": plain,
        "stateful": stateful,
        "marked": marked,
        "marked plainly": Marked(torch.randn(2)),
        "buffer": buffer,
        "grad": with_hook,
        "attribute": attribute,
    }
    assert len(assert_agrees(save(content, tmp_path / "net.pt", kind))) == 7


def test_views_of_storages_as_torch_0_1_wrote_them(tmp_path):
    class Storage:
        def __init__(self, *ident):
            self.ident = ident

    class Tensor:
        def __init__(self, storage, offset, size, stride):
            self.args = storage, offset, size, stride

        def __reduce__(self):
            return torch._utils._rebuild_tensor, self.args

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            return value.ident if isinstance(value, Storage) else None

    part = Storage("storage", torch.FloatStorage, "7", "cpu", 10, ("8", 4, 5))
    whole = Storage("storage", torch.FloatStorage, "7", "cpu", 10, None)
    content = {"w": Tensor(part, 1, (2, 2), (2, 1)), "v": Tensor(whole, 0, (10,), (1,))}
    path = tmp_path / "old.pth"
    system = {"protocol_version": 1001, "little_endian": True, "type_sizes": {}}
    with path.open("wb") as file:
        for value in (LEGACY_MAGIC, 1001, system, content, ["7"]):
            Pickler(file, protocol=2).dump(value)
        file.write((10).to_bytes(8, "little") + torch.arange(10.0).numpy().tobytes())
    assert assert_agrees(path)["w"].tolist() == [[5, 6], [7, 8]]


# --------------------------------------------------------------------------------------------------
# What is around the tensors


def containers():
    tensor = torch.arange(6.0).view(2, 3)
    default = collections.defaultdict(list, {"w": tensor + 1})
    nested = {"a": {"b": {"c": collections.OrderedDict(w=tensor), "empty": {}}}, "n": None}
    return {
        "dict": {"w": tensor, "b": tensor[0]},
        "OrderedDict": collections.OrderedDict([("z", tensor), ("a", tensor[1])]),
        "defaultdict": default,
        "default dictionaries": collections.defaultdict(dict, {"x": default, "y": {"z": tensor}}),
        "nested": nested,
        "Counter": collections.Counter(a=3),
        "a dictionary's subclass": {"model": Registry({"w": tensor})},
        "numbered": {"state": {0: {"exp_avg": tensor}, 1: {"exp_avg": tensor}}, "w": tensor},
        "other keys": {("a", 1): tensor, 3.5: tensor, None: tensor, b"k": tensor, "w": tensor},
        "odd names": {"": tensor, "a/b": tensor, "ü": tensor, "a b.c": tensor, "\n": tensor},
        "lists": {"models": [tensor, {"w": tensor}], "pair": (tensor, tensor), "w": tensor},
        "list": [tensor],
        "tensor": tensor,
        "number": 3,
        "nothing": None,
    }


CONTAINERS = tuple(containers())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", CONTAINERS)
def test_containers(tmp_path, name, kind, protocol):
    path = save(containers()[name], tmp_path / "net.pt", kind, pickle_protocol=protocol)
    assert_agrees(path)


def ballast():
    loop = {"name": "loop"}
    loop["self"] = [loop]
    return {
        "namespace": argparse.Namespace(lr=0.1, gpus=[0, 1], net=argparse.Namespace(a=1)),
        "scalars": [np.float32(1), np.int64(2), np.bool_(True), np.str_("a"), np.float64(3)],
        "set": {1, 2},
        "frozenset": frozenset({"a", (1, 2)}),
        "enum": Color.RED,
        "enums": {Color.BLUE: [Color.RED]},
        "dataclass": Settings(),
        "paths": [pathlib.PurePosixPath("a/b"), pathlib.PureWindowsPath("c")],
        "partial": functools.partial(Outer.method, 1, key=torch.ones(1)),
        "nested class": Outer.Inner(),
        "nested class itself": Outer.Inner,
        "static method": Outer.method,
        "slots": Slotted(),
        "functions": [len, torch.relu, nn.functional.gelu, nn.Linear],
        "bytes": [b"a" * 300, bytearray(b"xyz"), "ü" * 300, "\ud800"],
        "numbers": [2**70, -(2**2100), 1e300, float("nan"), True, None, 1j, -1, 255, 65536],
        "tuples": [(), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)],
        "simple namespace": types.SimpleNamespace(a=1),
        "deque": collections.deque([1, 2], 5),
        "error": ValueError("x"),
        "range and slice": [range(3), slice(1, 2, 3)],
        "dtype": [torch.float16, np.dtype("f4"), torch.Size([2]), torch.device("cpu")],
        "generator": np.random.default_rng(0),
        "loop": [loop],
        "many": list(range(3000)),
        "random state": [random.Random(0).getstate(), np.random.RandomState(0).get_state()[2:]],
    }


BALLAST = tuple(ballast())


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("name", BALLAST)
def test_objects_of_all_kinds_beside_tensors(tmp_path, name, protocol):
    content = {"first": torch.ones(2), name: ballast()[name], "last": torch.arange(3)}
    for kind in FORMATS:
        path = save(content, tmp_path / kind, kind, pickle_protocol=protocol)
        assert set(assert_agrees(path)) == {"first", "last"}


@pytest.mark.parametrize("kind", FORMATS)
def test_numpy_arrays_beside_tensors(tmp_path, kind):
    content = {
        "mean": np.arange(3, dtype="f8"),
        "fortran": np.asfortranarray(np.arange(6, dtype="i4").reshape(2, 3)),
        "big": np.arange(3, dtype=">f4"),
        "scalar": np.array(3.0),
        "w": torch.ones(2),
    }
    for protocol in (2, 3, 4, 5):
        path = save(content, tmp_path / "net.pt", kind, pickle_protocol=protocol)
        assert len(assert_agrees(path)) == 5


@pytest.mark.parametrize("kind", FORMATS)
def test_modules_that_do_not_exist_any_more(tmp_path, monkeypatch, kind):
    gone = types.ModuleType("gone_project.models")
    code = (
        "import torch\n"
        "class Config(dict):\n    pass\n"
        "class Meter:\n    def __init__(self): self.sum, self.last = 3.0, torch.ones(1)\n"
        "class Net(torch.nn.Linear):\n    class Part(torch.nn.Linear): pass\n"
        "def schedule(step): return step\n"
    )
    exec(code, gone.__dict__)
    for name in ("gone_project", "gone_project.models"):
        monkeypatch.setitem(sys.modules, name, gone)
    net = gone.Net(2, 3)
    net.part = gone.Net.Part(1, 1)
    net.settings = gone.Config(a=1)
    content = {
        "config": gone.Config(w=torch.ones(2), depth=3),
        "meter": gone.Meter(),
        "schedule": gone.schedule,
        "class": gone.Net,
        "state_dict": net.state_dict(),
        "net": net,
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = save(content, tmp_path / "net.pt", kind)
    wanted = dict(flat(trusted(path)))
    assert {"config/w", "state_dict/part.weight", "net/weight", "net/part.bias"} <= wanted.keys()
    for name in ("gone_project", "gone_project.models"):
        monkeypatch.delitem(sys.modules, name)
    with pytest.raises(ModuleNotFoundError):
        trusted(path)
    assert_same(open_checkpoint(path), wanted)
    assert "gone_project" not in sys.modules


# --------------------------------------------------------------------------------------------------
# Networks


def networks():
    torch.manual_seed(0)
    net, state = Net(), Net().state_dict()
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.1)
    for parameter in net.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    momentum = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    momentum.step()
    net.zero_grad()
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 3)
    averaged = torch.optim.swa_utils.AveragedModel(nn.Linear(2, 2))
    return {
        "state": state,
        "state with metadata": {"state_dict": state, "epoch": 3},
        "module": net,
        "module in a dictionary": {"model": net, "ema": copy.deepcopy(net), "epoch": 1},
        "modules in dictionaries": {"nets": {"student": nn.Linear(2, 2), "teacher": net}},
        "parallel": nn.DataParallel(net),
        "parallel state": {"state_dict": nn.DataParallel(net).state_dict()},
        "averaged": averaged,
        "weight norm": nn.utils.parametrizations.weight_norm(nn.Linear(2, 3)).state_dict(),
        "attention": nn.TransformerEncoderLayer(8, 2, 16),
        "recurrent": nn.LSTM(3, 4, 2),
        "optimizer": {"optimizer": optimizer.state_dict(), "model": state},
        "momentum": {"optimizer": momentum.state_dict(), "model": state},
        "scheduler": {"scheduler": scheduler.state_dict(), "model": state},
        "loss": {"criterion": nn.CrossEntropyLoss(torch.ones(3)), "model": state},
    }


NETWORKS = tuple(networks())


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_and_training_states(tmp_path, name, kind):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = save(networks()[name], tmp_path / "net.pt", kind)
    assert assert_agrees(path)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_module_has_the_names_of_its_state_dict(tmp_path, kind):
    net = nn.DataParallel(Net())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        path = save(net, tmp_path / "net.pt", kind)
    found = open_checkpoint(path)
    assert found.keys() - net.state_dict().keys() == {"module.cache"}
    assert {k: found[k].shape for k in net.state_dict()} == {
        k: tuple(v.shape) for k, v in net.state_dict().items()
    }


# --------------------------------------------------------------------------------------------------
# Zip files


def rewritten(path, change):
    """The file with other records; ``change`` maps names to bytes, None for records to drop."""
    with zipfile.ZipFile(path) as old:
        records = [(info.filename, old.read(info)) for info in old.infolist()]
    with zipfile.ZipFile(path, "w") as new:
        for name, data in records:
            changed = change.get(name.partition("/")[2], data)
            if changed is not None:
                new.writestr(name, changed)
    return path


def test_byte_order(tmp_path):
    path = save({"w": torch.arange(3.0)}, tmp_path / "net.pt")
    assert_agrees(rewritten(path, {"byteorder": b"little"}))
    with pytest.raises(CheckpointError, match="big-endian"):
        open_checkpoint(rewritten(path, {"byteorder": b"big"}))
    assert_agrees(rewritten(path, {"byteorder": None}))


def test_records_that_older_versions_of_torch_did_not_write(tmp_path):
    path = save({"w": torch.arange(3.0)}, tmp_path / "net.pt")
    for record in (".data/serialization_id", ".format_version", ".storage_alignment", "byteorder"):
        assert_agrees(rewritten(path, {record: None}))
    with zipfile.ZipFile(path) as archive:
        names = [name.partition("/")[2] for name in archive.namelist()]
    assert sorted(names) == ["data.pkl", "data/0", "version"]


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize("name", ["net", "net.zip", "data.pkl", "a.safetensors", "a b.ü.pth.tar"])
def test_the_name_of_the_file_does_not_matter(tmp_path, name, kind):
    content = {"w": torch.arange(3.0)}
    path = save(content, tmp_path / "net.pt", kind)
    assert_same(open_checkpoint(path.rename(tmp_path / name)), content)
    assert_same(open_checkpoint(save(content, tmp_path / name, kind)), content)


def payload(path, size):
    """Where the bytes of the tensor of that many bytes are."""
    with zipfile.ZipFile(path) as archive:
        (info,) = [i for i in archive.infolist() if "/data/" in i.filename and i.file_size == size]
    header = path.read_bytes()[info.header_offset :][:30]
    return info.header_offset + 30 + sum(np.frombuffer(header[26:30], "<u2").tolist())


def test_a_flipped_byte_is_noticed_here_and_not_by_torch(tmp_path):
    weights = torch.randn(1000)
    path = save({"other": torch.ones(3), "w": weights}, tmp_path / "net.pt")
    data, start = path.read_bytes(), payload(path, 4000)
    assert data[start : start + 4000] == weights.numpy().tobytes()
    for place in {0, 1, 3999, *random.Random(0).sample(range(4000), 50)}:
        damaged = bytearray(data)
        damaged[start + place] ^= 1 << place % 8
        path.write_bytes(damaged)
        found = open_checkpoint(path)
        assert torch.equal(found["other"].read(), torch.ones(3))
        with pytest.raises(CheckpointError, match=r"net\.pt: tensor w: damaged"):
            found["w"].read()
        assert not torch.equal(bits(trusted(path)["w"]), bits(weights))
        assert not torch.equal(bits(torch.load(path, weights_only=True)["w"]), bits(weights))


@pytest.mark.parametrize("kind", FORMATS)
def test_a_file_that_changes_after_it_was_opened(tmp_path, kind):
    path = save({"w": torch.randn(1000)}, tmp_path / "net.pt", kind)
    found = open_checkpoint(path)
    os.truncate(path, path.stat().st_size - 4000)
    with pytest.raises(CheckpointError, match=r"net\.pt"):
        found["w"].read()
    path.unlink()
    with pytest.raises(CheckpointError, match=r"net\.pt"):
        found["w"].read()


# --------------------------------------------------------------------------------------------------
# Pickles of arrays


def arrays():
    base = np.arange(24).reshape(4, 6)
    return {
        **{code: base.astype(code) for code in ("f2", "f4", "f8", "i1", "i2", "i4", "i8", "u1")},
        **{code: base.astype(code) for code in (">f4", ">f8", ">i2", ">i8", "<f4")},
        "b1": base % 3 == 0,
        "fortran": np.asfortranarray(base.astype("f4")),
        "fortran, big-endian": np.asfortranarray(base.astype(">f4")),
        "transposed": base.astype("f4").T,
        "strided": base.astype("f4")[::2, ::-1],
        "three axes": np.asfortranarray(np.arange(24.0).reshape(2, 3, 4)),
        "scalar": np.array(3.5, "f4"),
        "empty": np.zeros((0, 3), "f4"),
        "empty, fortran": np.zeros((3, 0), "f4", order="F"),
        "of all bytes": np.arange(256, dtype="u1"),
        "read-only": np.frombuffer(b"abcdefgh", "f4"),
    }


@pytest.mark.parametrize("protocol", range(6))
def test_pickled_arrays(tmp_path, protocol):
    content = {"blobs": arrays(), "names": ["x"], "note": "ü", "again": arrays()["f4"]}
    path = tmp_path / "net.pkl"
    path.write_bytes(pickle.dumps(content, protocol))
    wanted = dict(flat(pickle.loads(path.read_bytes())))
    assert len(wanted) == len(arrays()) + 1
    assert_same(open_checkpoint(path), wanted)
    for name, stored in open_checkpoint(path).items():
        array = content["again"] if name == "again" else content["blobs"][name.partition("/")[2]]
        assert np.array_equal(stored.read().numpy(), array)
        stored.read().fill_(0)
        assert np.array_equal(stored.read().numpy(), array)


def test_arrays_pickled_by_old_versions_of_numpy_and_python(tmp_path):
    path = tmp_path / "net.pkl"
    data = pickle.dumps({"a": np.arange(3, dtype="f4")}, 2)
    assert b"numpy._core" in data or b"numpy.core" in data
    path.write_bytes(data.replace(b"numpy._core", b"numpy.core"))
    assert open_checkpoint(path)["a"].read().tolist() == [0, 1, 2]
    python2 = (
        b"\x80\x02}U\x01acnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\0\x85U\x01btR"
        b"(K\x01K\x02\x85cnumpy\ndtype\n(U\x02f4K\0K\x01tR(K\x03U\x01<NNNJ\xff\xff\xff\xffJ\xff\xff"
        b"\xff\xffK\0tb\x89U\x08\0\0\x80\x3f\0\0\x80\xbftbs."
    )
    path.write_bytes(python2)
    assert open_checkpoint(path)["a"].read().tolist() == [1, -1]
    assert pickle.loads(python2, encoding="latin1")["a"].tolist() == [1, -1]


# --------------------------------------------------------------------------------------------------
# Safetensors


def stored():
    content = {str(dtype): noise(dtype, 2, 3) for dtype in (*DTYPES, *ZIP_ONLY, torch.complex64)}
    content |= {
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0),
        "empty of shape": torch.zeros(2, 0, 3),
        "a/b.c ü": torch.ones(1),
    }
    return content


def test_safetensors(tmp_path):
    path, content = tmp_path / "net.safetensors", {}
    for name, tensor in stored().items():
        try:
            safetensors.torch.save_file({name: tensor}, path)
            safetensors.torch.load_file(path)
        except (KeyError, ValueError, safetensors.SafetensorError):
            continue
        content[name] = tensor
    assert len(content) >= len(DTYPES) + 6
    safetensors.torch.save_file(content, path, metadata={"format": "pt"})
    wanted = safetensors.torch.load_file(path)
    found = open_checkpoint(path)
    assert found.keys() == wanted.keys()
    assert_same({name: found[name] for name in wanted}, wanted)
    first = found["scalar"].read()
    first.zero_()
    assert found["scalar"].read() == 3.5
    moved = shutil.copy(path, tmp_path / "net.bin")
    assert open_checkpoint(pathlib.Path(moved)).keys() == wanted.keys()


@pytest.mark.parametrize("suffix", ["safetensors", "bin"])
def test_shards(tmp_path, suffix):
    torch.manual_seed(0)
    content = {f"layer{i}.weight": torch.randn(3, i + 1) for i in range(7)}
    names = {name: f"net-{i % 3}.{suffix}" for i, name in enumerate(content)}
    for file in set(names.values()):
        part = {name: content[name] for name in content if names[name] == file}
        if suffix == "safetensors":
            safetensors.torch.save_file(part, tmp_path / file)
        else:
            save(part, tmp_path / file)
    index = tmp_path / f"net.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": names}))
    assert_same(open_checkpoint(index), content)
    (tmp_path / f"net-1.{suffix}").unlink()
    with pytest.raises(CheckpointError, match=rf"net-1\.{suffix}"):
        open_checkpoint(index)


# --------------------------------------------------------------------------------------------------
# Cost


MEASURE = """
import resource, sys
from pathlib import Path
from featkit.backbones.checkpoints.files import open_checkpoint

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def now():
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20

for path in sys.argv[1:]:
    for warm in (Path(path).with_name("small-" + Path(path).name), Path(path)):
        # what importing once took, and is free again, must hide nothing
        filling = bytearray(b"x") * int(max(0, peak() - now()) * 2**20)
        before = peak()
        found = open_checkpoint(warm)
        found["small"].read()
        opened = peak() - before
        found["large"].read()
        read = peak() - before
        del filling
    print(opened, read)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="/proc")
def test_opening_reads_no_tensors(tmp_path):
    paths = []
    for prefix, size in (("", 60 << 20), ("small-", 1 << 10)):
        content = {"large": torch.zeros(size, dtype=torch.uint8), "small": torch.ones(2)}
        for kind in (*FORMATS, "safetensors"):
            path = tmp_path / f"{prefix}{kind}"
            if kind == "safetensors":
                safetensors.torch.save_file(content, path)
            else:
                save(content, path, kind)
            paths.append(path)
    run = run_forked(MEASURE, *paths[:3])
    for kind, line in zip((*FORMATS, "safetensors"), run.stdout.splitlines(), strict=True):
        opened, read = map(float, line.split())
        assert opened < 8, kind
        assert read > 50, kind
    for path in paths:
        path.unlink()
