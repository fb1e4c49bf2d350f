"""``featkit train`` as a user runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from featkit_cli.train import METHODS

from featkit.trainers import training
from tests.cli.conftest import Run
from tests.processes import Forked

QUICK = (
    *("--preset", "tiny", "--epochs", 2, "--batch-size", 16, "--size", 16, "--precision", "fp32"),
    *("--workers", 0, "--device", "cpu", "--quiet"),
)


def test_from_images_to_a_network_that_is_judged(run: Run, photos: Path, tmp_path: Path) -> None:
    folder, store = tmp_path / "run", tmp_path / "features"
    installed = [sys.executable, "-m", "featkit_cli", "train", "simclr", photos, "-o", folder]
    done = subprocess.run([*map(str, (*installed, *QUICK))], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[0].split() == ["epoch", "loss", "lr", "knn_top1"]
    assert [line.split()[0] for line in lines[1:4]] == ["0", "1", "2"]
    assert lines[-1] == f"next: featkit extract {photos} -b {folder} -o features"
    assert {path.name for path in folder.iterdir()} - {".lock"} == {
        "run.json", "result.json", "epochs.csv", "arrays.h5", "views.png", "loss.png", "knn.png",
        "weights",
    }  # fmt: skip
    status, out, _ = run("train", "simclr", photos, "-o", folder, *QUICK, "--json")
    assert status == 0
    assert json.loads(out) == json.loads((folder / "result.json").read_text())
    assert {"views.png", "loss.png", "knn.png", "arrays.h5"} <= {p.name for p in folder.iterdir()}
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
    process = Forked(code)
    while not (run / "state.safetensors").exists():
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    out, said = process.communicate(timeout=60)
    assert (process.returncode, out) == (130, "")
    assert said.strip() == "featkit: stopped; the same command goes on from here"


def test_a_tree_from_images_to_a_run(run: Run, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "tree"
    status, out, error = run(
        "train", "treenet", photos, "-o", folder, *QUICK, "--leaves", 2, "--channels", "4,8",
        "--join", "average", "--prototypes", 32, "--hidden", 16, "--no-blur", "--clip", 1.5,
    )  # fmt: skip
    assert (status, error) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["epoch", "loss", "lr", "knn_top1"]
    header = (folder / "epochs.csv").read_text().splitlines()[0]
    assert header.endswith(",seconds,teacher_entropy,prototype_entropy,feature_std")
    assert lines[-1] == f"next: featkit extract {photos} -b {folder} -o features"
    record = json.loads((folder / "run.json").read_text())
    assert record["method"] == "TreeNet"
    assert record["architecture"] == "treenet(leaves=2,join=average,channels=4-8)"
    asked = {
        "clip": 1.5,
        "channels": [4, 8],
        "optimizer": "adamw",
        "warmup": 1.0,
        "bottleneck": 256,
    }
    kept = {name: record["settings"][name] for name in asked}
    assert kept == asked  # given, the preset's, and the default
    _, described, _ = run("layers", folder)
    assert "head: 8 → 16 → 16 → 256 → 32" in described


def test_the_help_shows_what_the_paper_has(run: Run) -> None:
    _, out, _ = run("train", "treenet", "--help")
    text = " ".join(out.split())
    for flag, value in (("epochs", 100), ("batch-size", 384), ("lr", 0.0005), ("clip", 3.0)):
        said = text.partition(f"--{flag} ")[2].partition(" --")[0]
        assert f"[default: {value}" in said
    assert "[default: adamw" in text.partition("--optimizer ")[2].partition(" --")[0]
    assert "VISSL" not in text  # the sources of other defaults
    assert "Malviya" not in text
    assert "--arch" not in text
    _, other, _ = run("train", "simclr", "--help")
    assert "[default: 30" in " ".join(other.split()).partition("--epochs ")[2].partition(" --")[0]


LENET = ("--arch", "lenet5", "--clusters", 4, "--pca", 8, "--batch-size", 8, "--workers", 0)


def test_cycles_are_shown_and_told(run: Run, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    given = ("--preset", "tiny", *LENET, "--fit-share", 1, "--quiet", "--device", "cpu")
    status, out, error = run("train", "deepcluster", photos, "-o", folder, *given, "--cycles", 2)
    assert (status, error) == (0, "")
    lines = out.splitlines()
    assert lines[0].split() == ["cycle", "loss", "clusters", "nmi_previous", "nmi_labels"]
    assert [line.split()[0] for line in lines[1:3]] == ["1", "2"]
    assert lines[-1] == f"next: featkit extract {photos} -b {folder} -o features"
    record = json.loads((folder / "run.json").read_text())
    assert (record["method"], record["architecture"]) == ("DeepCluster", "lenet5")
    assert record["settings"]["epochs"] == 2
    names = {path.name for path in folder.iterdir()}
    assert {"cycles.csv", "agreement.png", "sizes.png", "times.png"} <= names


def test_a_survey_is_a_result_and_no_run(run: Run, photos: Path, tmp_path: Path) -> None:
    folder = tmp_path / "survey"
    given = ("--preset", "tiny", *LENET, "--fit-share", 1, "--quiet", "--device", "cpu")
    status, out, error = run("train", "deepcluster", photos, "-o", folder, *given, "--survey", 4)
    assert (status, error) == (0, "")
    assert out.splitlines()[0].split()[:4] == ["arch", "starts", "nmi_mean", "nmi_sd"]
    rows = (folder / "starts.csv").read_text().splitlines()
    assert len(rows) == 5
    assert {"alignment.png", "projection.png", "scores.csv"} <= {p.name for p in folder.iterdir()}
    assert not (folder / "run.json").exists()
    status, _, error = run("train", "deepcluster", photos, "-o", folder, *given)
    assert status == 2
    assert "holds a result of deepcluster-survey" in error


@pytest.mark.parametrize(
    ("output", "more", "said"),
    [
        ("photos/survey", (), "where figures would be images: give another"),
        ("survey", ("--overwrite",), "--overwrite is for trainings, and --survey trains nothing"),
        ("run", (), "run holds a training: give another folder"),
    ],
)
def test_where_no_survey_can_be(
    run: Run, photos: Path, tmp_path: Path, output: str, more: tuple[str, ...], said: str
) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    before = sorted(tmp_path.rglob("*"))
    given = ("--preset", "tiny", *LENET, "--fit-share", 1, "--quiet", "--survey", 2, *more)
    status, _, error = run("train", "deepcluster", photos, "-o", tmp_path / output, *given)
    assert status == 2
    assert said in error
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (["deepcluster", "digits", "-o", "run", "--epochs", "3"], "No such option '--epochs'"),
        (["deepcluster", "digits", "-o", "run", "--survey", "0"], "0 is not in the range x>=1"),
        (
            ["deepcluster", "digits", "-o", "run", "--preset", "tiny", "--clusters", "900"],
            "900 clusters, and 230 images to fit them on (0.5 of 461): give fewer clusters",
        ),
        (["simclt", "digits", "-o", "run"], "no method 'simclt': did you mean simclr?"),
        (["simclr", "digits"], "Missing option '-o' / '--output'"),
        (["simclr", "nowhere", "-o", "run"], "'nowhere' does not exist"),
        (["simclr", "digits", "-o", "run", "--lr", "-1"], "lr is -1.0: give a number above 0"),
        (["simclr", "digits", "-o", "run", "--depth", "9"], "no ResNet resnet9_32px: depths are"),
        (["simclr", "digits", "-o", "run", "--device", "cuda"], "device 'cuda' is not available"),
        (["treenet", "digits", "-o", "run", "--leaves", "0"], "leaves is 0: give a whole number"),
        (["treenet", "digits", "-o", "run", "--join", "sum"], "'sum' is not one of 'dense',"),
        (["treenet", "digits", "-o", "run", "--channels", "8,x"], "'x' is not a valid int"),
        (["treenet", "digits", "-o", "run", "--channels", "0"], "channels (0,): give one number"),
        (
            ["treenet", "digits", "-o", "run", "--leaves", "2", "--local-size", "5"],
            "does not run on views of 5x5 pixels",
        ),
        (
            ["treenet", "digits", "-o", "run", "--loss", "leaf-contrastive"],
            "give --join concat with it",
        ),
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
        own = {"deepcluster": ("--clusters", "--survey", "--halt")}
        for option in own.get(name, ("--temperature", "--epochs")):
            assert option in out
        for option in ("--keep-every", "--patience", "--preset"):
            assert option in out
        assert ("--survey" in out) == (name == "deepcluster")
        assert ("  --epochs " in out) == (name != "deepcluster")
