"""``ensemble-fit`` and ``ensemble-transform`` as a user runs them."""

from __future__ import annotations

import inspect
import json
import signal
import sys
from pathlib import Path

import click
import numpy as np
import pytest
from featkit_cli.main import cli

from featkit.analyses.ensemble.representation import PRESETS, EnsembleRepresentation
from featkit.store.reader import open_store
from tests.cli.conftest import Run
from tests.conftest import run_featkit
from tests.store.conftest import make_samples, make_table
from tests.terminal import on_terminal

QUICK = ["--epochs", 3, "--batch-size", 20, "--lr", 0.01, "--quiet"]


def make(path: Path, count: int, seed: int) -> Path:
    """Two models that see three classes, one better than the other."""
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 3
    manifest = make_samples(path, labels, ["ant", "bee", "cow"])
    for name, noise in (("sharp", 0.5), ("blunt", 3.0)):
        centres = np.random.default_rng(len(name)).random((3, 6)) * 4
        x = np.maximum(centres[labels] + noise * rng.standard_normal((count, 6)), 0)
        make_table(path, manifest, f"{name}/fc.none", x.astype(np.float32), weights=name)
    return path


def test_from_two_models_to_their_neighbours(tmp_path: Path) -> None:
    train, test = make(tmp_path / "train", 90, 0), make(tmp_path / "test", 60, 1)
    folder = tmp_path / "both"
    done = run_featkit("ensemble-fit", train, "--test", test, "-o", folder, "--k", "1,5", *QUICK)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split("  ")[0] == "features"
    assert [line.split()[0] for line in lines[1:6]] == [
        "individual:blunt/fc", "individual:sharp/fc", "average", "concat", "ensemble"
    ]  # fmt: skip
    rows = json.loads((folder / "result.json").read_text())["tables"]["knn"]
    blunt = next(row for row in rows if row["features"] == "individual:blunt/fc" and row["k"] == 5)
    assert blunt["p"] < 0.05
    assert f"{blunt['top1']:.3f}*" in lines[1]
    assert "* the ensemble is better, ° worse (paired test, 5 %)" in lines
    asked = f"featkit knn {train}:ensemble-both {test}:ensemble-both"
    assert lines[-1] == f"next: {asked}"
    after = run_featkit(*asked.split()[1:], "--k", "5", "--json")
    ours = next(row for row in rows if row["features"] == "ensemble" and row["k"] == 5)
    (accuracy,) = json.loads(after.stdout)["tables"]["accuracy"]
    assert accuracy["top1"] == ours["top1"]
    pictures = {"knn.png", "recovery.png", "singular_values.png", "maximum_similarity.png"}
    assert {path.name for path in folder.iterdir()} == pictures | {
        "model.safetensors", "model.json", "members.json", "result.json", "arrays.h5", "knn.csv",
        "recovery.csv", "stages.csv",
    }  # fmt: skip
    other = make(tmp_path / "other", 30, 2)
    found = run_featkit("ensemble-transform", folder, other, "--quiet")
    assert found.stdout == f"{other}:ensemble-both/psi.none  30 × 6\n"
    assert open_store(other)["ensemble-both"].shape == (30, 6)
    listed = run_featkit("ls", other).stdout
    assert "ensemble-both/psi.none" in listed


def test_every_setting_is_an_option_with_the_estimators_default() -> None:
    command = cli.get_command(click.Context(cli), "ensemble-fit")
    options = {option.name: option for option in command.params}  # type: ignore[union-attr]
    for name, parameter in inspect.signature(EnsembleRepresentation).parameters.items():
        if name not in {"checkpoint", "max_memory", "verbose"}:
            assert options[name].default == parameter.default, name
    assert list(options["preset"].type.choices) == list(PRESETS)  # type: ignore[attr-defined]


def test_a_preset_gives_way_to_what_is_said(run: Run, tmp_path: Path) -> None:
    train = make(tmp_path / "train", 30, 0)
    for extra, wanted in (([], "usual"), (["--last-bias", "mean"], "mean")):
        command = ["--preset", "paper", "-o", tmp_path / wanted, "--json", *QUICK, *extra]
        _, out, _ = run("ensemble-fit", train, *command)
        assert json.loads(out)["config"]["last_bias"] == wanted
        assert json.loads(out)["config"]["epochs"] == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--features", "sharp,dull"], "dull: no such table"),
        (["--epochs", "0"], "epochs is 0: give a whole number, at least 1"),
        (["--lr", "-1"], "lr is -1.0: give a number above 0"),
        (["--k", "0"], "k is 0: give whole numbers, at least 1"),
        (["--k", "x"], "'x' is not a valid integer"),
        (["--init", "mean"], "'mean' is not one of 'auto', 'average', 'pca'"),
        (["--width", "99"], "width 99: the features of 30 images in 12 dimensions together"),
        (["--preset", "peper"], "'peper' is not one of"),
        (["--name", "../x"], "name '../x': use letters, digits"),
        (["--name", ""], "name '': use letters, digits"),
        (["--test", "nowhere"], "nowhere"),
        (["--test", "store:sharp"], "--test store:sharp: give the store alone"),
        (["--init", "average", "--width", "5"], "use init pca"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(
    options: list[str], message: str, run: Run, tmp_path: Path
) -> None:
    train = make(tmp_path / "train", 30, 0)
    status, out, err = run("ensemble-fit", train, "-o", tmp_path / "out", "--quiet", *options)
    assert status in (1, 2)
    assert message in err
    assert err.startswith("featkit: ")
    assert err.count("\n") == 1
    assert out == ""
    assert not (tmp_path / "out").exists()


def test_train_may_name_its_tables(run: Run, tmp_path: Path) -> None:
    train = make(tmp_path / "train", 30, 0)
    _, out, _ = run("ensemble-fit", f"{train}:sharp", "-o", tmp_path / "one", *QUICK)
    assert "individual:sharp/fc" in out
    assert "blunt" not in out
    assert out.splitlines()[-1].endswith(f"{train}:ensemble-one {train}:ensemble-one")
    both = ["--features", "blunt", "-o", tmp_path / "two"]
    _, _, err = run("ensemble-fit", f"{train}:sharp", *both, *QUICK)
    assert "names tables, and so does --features" in err


def test_verify_checks_the_model_too(run: Run, tmp_path: Path) -> None:
    train, folder = make(tmp_path / "train", 30, 0), tmp_path / "both"
    run("ensemble-fit", train, "-o", folder, *QUICK)
    status, out, _ = run("verify", folder)
    files = [line.split() for line in out.splitlines()]
    names = ["model.json", "model.safetensors", "members.json", "result.json"]
    assert (status, files[:4]) == (0, [["ok", name] for name in names])
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    status, out, err = run("verify", folder)
    assert (status, "WRONG    model.safetensors" in out) == (1, True)
    assert "something is wrong with 1 file" in err


def test_features_that_are_not_finite_are_refused(run: Run, tmp_path: Path) -> None:
    train = make(tmp_path / "train", 30, 0)
    manifest = open_store(train).samples.manifest
    bad = np.ones((30, 6), np.float32)
    path = make_table(train, manifest, "bad/fc.none", bad)
    content = bytearray(path.read_bytes())
    place = content.rindex(np.float32(1).tobytes() * 6)
    content[place : place + 4] = np.float32(np.inf).tobytes()
    path.write_bytes(content)
    status, _, err = run("ensemble-fit", train, "-o", tmp_path / "out", *QUICK)
    assert status == 2
    assert "1 of 30 rows of model 0 hold NaN or infinity" in err
    assert err.count("\n") == 1


def test_stopped_by_the_keyboard(tmp_path: Path) -> None:
    train = make(tmp_path / "train", 600, 0)
    command = ["ensemble-fit", str(train), "-o", str(tmp_path / "e"), "--epochs", "5000"]
    code = (
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from featkit_cli.main import main; main({command!r})"
    )
    with on_terminal([sys.executable, "-c", code]) as process:
        process.read_until(b"loss=")
        process.send_signal(signal.SIGINT)
        message = process.read_to_end()
    assert process.returncode == 130
    assert "stopped; the same command goes on from here" in message
    assert "Traceback" not in message
