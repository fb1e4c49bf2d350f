"""``featkit train`` as a user runs it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from featkit_cli.train import METHODS

from featkit.trainers import training
from tests.cli.conftest import Run
from tests.conftest import run_featkit

QUICK = (
    *("--preset", "tiny", "--epochs", 2, "--batch-size", 16, "--size", 16, "--precision", "fp32"),
    *("--workers", 0, "--device", "cpu", "--quiet"),
)


def test_from_images_to_a_network_that_is_judged(run: Run, photos: Path, tmp_path: Path) -> None:
    folder, store = tmp_path / "run", tmp_path / "features"
    done = run_featkit("train", "simclr", photos, "-o", folder, *QUICK)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["epoch", "loss", "lr", "knn_top1"]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
    assert lines[-1] == f"next: featkit extract {photos} -b {folder} -o features"
    assert {path.name for path in folder.iterdir()} - {".lock"} == {
        "run.json", "result.json", "epochs.csv", "loss.png", "knn.png", "weights"
    }  # fmt: skip
    status, out, _ = run("train", "simclr", photos, "-o", folder, *QUICK, "--json")
    assert status == 0
    assert json.loads(out) == json.loads((folder / "result.json").read_text())
    _, described, _ = run("layers", folder)
    assert "layout: featkit run" in described
    assert "head: 64 → 64 → 128" in described
    asked = lines[-1].removeprefix("next: featkit ").replace(" features", f" {store}").split()
    assert run(*asked, "--quiet", "--workers", 0)[0] == 0
    _, judged, _ = run("knn", store, store, "--k", "1", "--json")
    (row,) = json.loads(judged)["tables"]["accuracy"]
    assert row["features"] == "run/avgpool"


def test_options_go_before_the_preset(run: Run, photos: Path, tmp_path: Path) -> None:
    status, out, _ = run(
        "train", "simclr", photos, "-o", tmp_path / "run", *QUICK, "--norm", "layer", "--width", 2,
        "--optimizer", "lars", "--lr", 0.1, "--json",
    )  # fmt: skip
    assert status == 0
    config = json.loads(out)["config"]
    assert (config["norm"], config["width"], config["optimizer"]) == ("layer", 2, "lars")
    assert (config["temperature"], config["warmup"]) == (0.2, 1.0)  # the preset's
    record = json.loads((tmp_path / "run" / "run.json").read_text())
    assert record["architecture"] == "cifar_resnet8w2_ln"


def test_stopped_by_ctrl_c_it_says_that_it_goes_on(photos: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    given = ["train", "simclr", photos, "-o", run, *QUICK[:3], 500, *QUICK[4:]]
    code = (  # whatever started the tests may have told its children not to hear
        "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        f"from featkit_cli.main import main; main({list(map(str, given))!r})"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    while not (run / "state.safetensors").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert said.strip() == "featkit: stopped; the same command goes on from here"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["simclt", "digits", "-o", "run"], "no method 'simclt': did you mean simclr?"),
        (["simclr", "digits"], "Missing option '-o' / '--output'"),
        (["simclr", "nowhere", "-o", "run"], "'nowhere' does not exist"),
        (["simclr", "digits", "-o", "run", "--lr", "-1"], "lr is -1.0: give a number above 0"),
        (["simclr", "digits", "-o", "run", "--depth", "9"], "no ResNet resnet9_32px: depths are"),
        (["simclr", "digits", "-o", "run", "--device", "cuda"], "device 'cuda' is not available"),
    ],
)
def test_mistakes_end_with_one_line_and_status_2(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: list[str], said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, out, error = run("train", *given)
    assert (status, out) == (2, "")
    assert said in error
    assert error.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_diverged_training_ends_with_status_1(run: Run, photos: Path, tmp_path: Path) -> None:
    status, out, error = run(
        "train", "simclr", photos, "-o", tmp_path / "run", *QUICK, "--norm", "layer",
        "--optimizer", "sgd", "--lr", 1e30, "--warmup", 0,
    )  # fmt: skip
    assert (status, out) == (1, "")
    assert "training stopped" in error
    assert "with a lower --lr" in error


def test_every_method_has_a_command_and_its_help(run: Run) -> None:
    assert METHODS.keys() == training.METHODS.keys()
    _, listed, _ = run("train", "--help")
    for name, text in METHODS.items():
        assert name in listed
        status, out, _ = run("train", name, "--help")
        assert status == 0
        assert text.rstrip(".") in " ".join(out.split())
        for option in ("--temperature", "--epochs", "--keep-every", "--patience", "--preset"):
            assert option in out
