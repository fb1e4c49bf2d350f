"""Hostile and broken files: nothing of them runs, none of them hangs, all fail the same way."""

from __future__ import annotations

import io
import os
import pickle
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.backbones.checkpoints.handmade import (
    VALUES,
    array,
    call,
    dic,
    done,
    entry,
    index,
    legacy,
    name,
    numbers,
    safe,
    tensor,
    text,
    torch_zip,
)
from tests.backbones.checkpoints.hostile import EITHER, GROUPS, REFUSED, SPECIAL, Expected, Files
from tests.backbones.checkpoints.programs import CONTAINERS, PAYLOADS, UNTRIED, payloads
from tests.backbones.checkpoints.watched import SECONDS, Server, harmless

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server forks")

MEGABYTES = 1500


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A process that has every module loaded which an honest file needs."""
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder)
    honest = folder / "honest"
    honest.mkdir()
    good = dic(w=tensor(), a=array(), b=b"Vtext\n", c=b"S'text'\n", d=array(data=text("a" * 16)))
    (honest / "zip").write_bytes(torch_zip(good))
    (honest / "broken").write_bytes(torch_zip(dic(w=tensor(numbers(9)))))
    (honest / "cut").write_bytes(torch_zip(good)[:-30])
    (honest / "legacy").write_bytes(legacy())
    (honest / "a.safetensors").write_bytes(safe({"w": entry()}))
    (honest / "b.safetensors").write_bytes(safe({"w": entry(dtype="C64")}))
    (honest / "x.index.json").write_bytes(index({"w": "a.safetensors"}))
    server.ask("warm", *sorted(honest.iterdir()))
    yield server
    server.close()


def check(report: dict[str, Any], path: Path, expected: Expected) -> None:
    assert not report["events"]
    assert not (path.parent / "proof").exists()
    assert report["seconds"] < SECONDS
    assert report["megabytes"] < MEGABYTES
    if "error" in report:
        assert report["refused"], report
        message = report["message"]
        assert message.startswith(f"{path}: ")
        assert message.isprintable()
        assert len(message) < 1000
        assert expected in (REFUSED, EITHER), report
    else:
        assert expected != REFUSED, report
        assert report["shapes right"]
        if isinstance(expected, list):
            assert report["names"] == expected
            assert all(report["values"][key] == VALUES for key in expected)


CASES = {case: group for group in GROUPS for case in group()}


@pytest.fixture(scope="module")
def built():
    """The files of a group, made once and let go when the next group's are wanted."""
    held: dict[Callable[..., Any], Any] = {}

    def get(case: str) -> tuple[Files, Expected]:
        group = CASES[case]
        if group not in held:
            held.clear()
            held[group] = group()
        return held[group][case]

    return get


@pytest.mark.parametrize("case", CASES)
def test_a_hostile_file_is_refused_or_harmless(tmp_path, server, built, case):
    files, expected = built(case)
    files = files if isinstance(files, dict) else {"net.pth": files}
    for file, data in files.items():
        (tmp_path / file).write_bytes(data)
    path = tmp_path / next(iter(files))
    (report,) = server.open(path)
    check(report, path, expected)
    for file in files:
        (tmp_path / file).unlink()


@pytest.mark.parametrize("case", SPECIAL)
def test_what_is_no_file_is_refused(tmp_path, server, case):
    path = tmp_path / "net.pth"
    SPECIAL[case](path)
    (report,) = server.open(path)
    check(report, path, REFUSED)


def hidden(code: bytes, folder: Path) -> list[Path]:
    """A file of each kind with the code in it."""
    paths = [folder / container for container in CONTAINERS]
    for path, (pack, _) in zip(paths, CONTAINERS.values(), strict=True):
        path.write_bytes(pack(code))
    return paths


@pytest.mark.parametrize("payload", PAYLOADS)
def test_code_runs_in_pickle_and_not_here(tmp_path, server, payload):
    """The same program runs when it is unpickled the usual way: what protects is the reader."""
    proof, path = tmp_path / "proof", tmp_path / "net.pkl"
    code = payloads(proof)[payload]
    paths = hidden(code, tmp_path)
    for file, report in zip(paths, server.open(*paths), strict=True):
        names = CONTAINERS[file.name][1]
        broken = payload == "an argument of a tensor" and "error" in report
        check(report, file, REFUSED if names is None or broken else names)
    path.write_bytes(done(code))
    server.ask("run", path, torch=False)
    end = time.monotonic() + 5
    while not proof.exists() and time.monotonic() < end:
        time.sleep(0.01)
    assert proof.exists()


@pytest.mark.parametrize("container", [name for name in CONTAINERS if name != "pickle"])
def test_code_runs_in_torch_and_not_here(tmp_path, server, container):
    proof = tmp_path / "proof"
    paths = {path.name: path for path in hidden(payloads(proof)["os.system"], tmp_path)}
    names = CONTAINERS[container][1]
    (report,) = server.open(paths[container])
    check(report, paths[container], REFUSED if names is None else names)
    server.ask("run", paths[container], torch=True)
    assert proof.exists()


@pytest.mark.parametrize("function", UNTRIED)
def test_other_code_does_not_run(tmp_path, server, function):
    paths = hidden(call(name(function), *UNTRIED[function]), tmp_path)
    for path, report in zip(paths, server.open(*paths), strict=True):
        names = CONTAINERS[path.name][1]
        check(report, path, REFUSED if names is None else names)


def test_the_server_sees_harm(tmp_path, server):
    """The watch is worth something: what it must report, it does."""
    events = [
        ("open", ("/etc/passwd", "r", os.O_RDONLY)),
        ("open", (str(tmp_path / "x"), "w", os.O_WRONLY | os.O_CREAT)),
        ("open", (f"{tmp_path}/../x", "r", os.O_RDONLY)),
        ("open", (3, "r", os.O_RDONLY)),
        ("import", ("os", None, None, None, None)),
        ("os.system", (b"true",)),
        ("exec", (None,)),
        ("pickle.find_class", ("os", "system")),
    ]
    assert not any(harmless(event, args, str(tmp_path)) for event, args in events)
    assert harmless("open", (str(tmp_path / "x"), "r", os.O_RDONLY), str(tmp_path))


def test_numpy_agrees_that_the_arrays_are_arrays():
    """The builders make what the libraries read, so a refusal is not for a slip in them."""
    assert np.array_equal(pickle.loads(done(array())), np.array(VALUES, "f4"))
    for data in (torch_zip(dic(w=tensor())), legacy()):
        assert torch.load(io.BytesIO(data), weights_only=False)["w"].tolist() == VALUES
    assert zipfile.ZipFile(io.BytesIO(torch_zip(b"N"))).testzip() is None
