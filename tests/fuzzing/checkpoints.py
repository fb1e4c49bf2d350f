"""Checkpoints of several layouts, and the index of one in parts."""

from __future__ import annotations

import io
import json
import struct
import zipfile
from functools import cache
from pathlib import Path
from typing import Any

import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors.torch import save

from featkit.backbones.architectures import build
from tests.backbones.checkpoints.hostile import GROUPS
from tests.fuzzing.documents import NET, features
from tests.fuzzing.mutate import any_json, changed, changes
from tests.fuzzing.target import Case, Target

FILE = "net.pth"
_TOKENS = (b"cos\nsystem\n", b"\x85R", b"(", b"t", b"}", b"u", b"0", b"2", b"\x8c\x02os", b"\x93",
           b"Q", b".", b"\x80\x04", b"ctorch\nFloatStorage\n", b"cbuiltins\nexec\n")  # fmt: skip


@cache
def state() -> dict[str, torch.Tensor]:
    """Return the tensors of a small network."""
    return {f"module.{name}": t for name, t in build(NET, 0).module.state_dict().items()}


@cache
def whole(kind: str) -> bytes:
    """Return a sound checkpoint: ``zip``, ``legacy`` or ``safetensors``."""
    if kind == "safetensors":
        return save(state())
    buffer = io.BytesIO()
    content = {"state_dict": state(), "epoch": 3, "optimizer": {"lr": 0.1}}
    torch.save(content, buffer, _use_new_zipfile_serialization=kind == "zip")
    return buffer.getvalue()


def _zip(made: tuple[list[tuple[str, int, int]], int, str]) -> bytes:
    """A zip with a record changed under a right checksum, or with another name."""
    changes_made, which, name = made
    records = []
    with zipfile.ZipFile(io.BytesIO(whole("zip"))) as archive:
        records = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    at = which % len(records) if which < 200 else 0  # mostly the pickle
    old, data = records[at]
    records[at] = (name or old, changed(data, changes_made, _TOKENS))
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for record, content in records:
            archive.writestr(zipfile.ZipInfo(record), content)
    return buffer.getvalue()


def _safetensors(data: bytes) -> bytes:
    """The tensors of a sound file under another header."""
    whole_file = whole("safetensors")
    (size,) = struct.unpack("<Q", whole_file[:8])
    return struct.pack("<Q", len(data)) + data + whole_file[8 + size :]


def _header() -> Any:
    whole_file = whole("safetensors")
    (size,) = struct.unpack("<Q", whole_file[:8])
    content = json.loads(whole_file[8 : 8 + size])
    return {name: content[name] for name in list(content)}


def _pickle(made: list[tuple[str, int, int]]) -> bytes:
    """A legacy file with its pickles changed, and not its numbers."""
    data = whole("legacy")
    end = data.rindex(b"epoch") + 200
    return changed(data[:end], made, _TOKENS, start=20) + data[end:]


@cache
def _hostile() -> tuple[bytes, ...]:
    files = [case[0] for group in GROUPS for case in group().values()]
    return tuple(f for f in files if isinstance(f, bytes) and len(f) < 1_000_000)


def cases(_folder: Path) -> SearchStrategy[Case]:
    names = st.sampled_from([""] * 8 + ["../x", "/etc/passwd", "a/data.pkl", "net/data/0", ""])
    tokens = (0, -1, [2**40], "F16", "I64", "BF16", [0, 2**60], "../x", [1, 0])
    flips = st.sampled_from(["zip", "legacy", "safetensors"]).flatmap(
        lambda kind: changes(3).map(lambda made: changed(whole(kind), made, _TOKENS, 64))
    )
    data = st.one_of(
        st.tuples(changes(3), st.integers(0, 250), names).map(_zip),
        st.tuples(changes(2), st.just(250), st.just("")).map(_zip),
        any_json(_header(), tokens).map(_safetensors),
        changes(3).map(_pickle),
        flips,
        st.tuples(st.sampled_from(_hostile()), changes(1)).map(
            lambda made: changed(made[0], made[1], _TOKENS)
        ),
    )
    options = st.sampled_from([FILE] * 6 + [f"{FILE}?arch={NET}", f"{FILE}?weights=ema/"])
    return st.builds(lambda d, spec: Case({FILE: d}, (spec,)), data, options)


def starts(folder: Path, _words: tuple[str, ...]) -> object:
    """Whether the container can be read: the zip's directory, the header, or the first pickle."""
    import pickletools

    data = (folder / FILE).read_bytes()
    if data.startswith(b"PK"):
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return any(name.endswith("data.pkl") for name in archive.namelist())
    if data[8:9] == b"{":
        (size,) = struct.unpack("<Q", data[:8])
        return isinstance(json.loads(data[8 : 8 + size]), dict)
    return len(list(pickletools.genops(io.BytesIO(data)))) > 0


def _lay_out(folder: Path) -> None:
    (folder / FILE).write_bytes(whole("zip"))


CHECKPOINTS = Target(
    name="checkpoints", kind="checkpoints",
    modules=tuple(f"featkit.backbones.checkpoints.{name}"
                  for name in ("files", "unpickle", "tensors", "load", "families", "choose")),
    lay_out=_lay_out, cases=cases, starts=starts, read=lambda _, words: features(words[0]),
    valid=((FILE,), (f"{FILE}?arch={NET}",)),
)  # fmt: skip

INDEX = "net.safetensors.index.json"


def make_shards(folder: Path) -> None:
    """Write the network as two files and their index."""
    names = sorted(state())
    parts = {"one.safetensors": names[::2], "two.safetensors": names[1::2]}
    for file, own in parts.items():
        (folder / file).write_bytes(save({name: state()[name] for name in own}))
    index = {name: file for file, own in parts.items() for name in own}
    (folder / INDEX).write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": index}))


def _shard_cases(folder: Path) -> SearchStrategy[Case]:
    content = json.loads((folder / INDEX).read_bytes())
    extra = ("../outside/x.safetensors", "/etc/passwd", "one.safetensors", ".", INDEX, "a\\b",
             "two.safetensors\0", {"x": "one.safetensors"})  # fmt: skip
    small = {**content, "weight_map": dict(list(content["weight_map"].items()))}
    return any_json(small, extra).map(lambda d: Case({INDEX: d}, (INDEX,)))


SHARDS = Target(
    name="index.json", kind="JSON", modules=("featkit.backbones.checkpoints.files",),
    lay_out=make_shards, cases=_shard_cases, read=lambda _, words: features(words[0]),
    starts=lambda folder, _: "weight_map" in json.loads((folder / INDEX).read_bytes()),
    valid=((INDEX,),),
)  # fmt: skip
