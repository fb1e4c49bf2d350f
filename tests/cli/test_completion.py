"""What Tab completes, by click's own machinery, and in a real bash."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy as np
import pytest
from click.shell_completion import get_completion_class
from click.testing import CliRunner
from featkit_cli import kinds
from featkit_cli.completion import VARIABLE
from featkit_cli.main import cli
from featkit_cli.train import METHODS

from featkit.analyses.base import RESULT_FILE
from featkit.backbones.training_runs import RUN_FILE
from featkit.store.schema import SAMPLES_FILE
from tests.analyses.dissections import write_models
from tests.cli.conftest import Run
from tests.store.conftest import make_samples, make_table
from tests.terminal import on_terminal


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("here")
    manifest = make_samples(root / "train", [0, 1], ["ant", "bee"])
    for name in (
        "resnet50/layer4.avg",
        "resnet50/layer4.max",
        "resnet50/avgpool.avg",
        "vit/norm.cls",
    ):
        make_table(root / "train", manifest, name, np.ones((2, 3), "f4"))
    (root / "train" / ".partial" / "key").mkdir(parents=True)
    write_models(root / "models")
    (root / "run").mkdir()
    (root / "run" / RUN_FILE).write_text("{}")
    (root / "tree").mkdir()
    (root / "tree" / RESULT_FILE).write_text('{\n "analysis": "treenet",\n "featkit": "0"}')
    return root


@pytest.fixture(scope="module", autouse=True)
def memory(here: Path) -> Iterator[Path]:
    """A cache of the module's own, in which nothing is remembered at first."""
    before = os.environ.get("FEATKIT_CACHE")
    os.environ["FEATKIT_CACHE"] = str(here / "cache")
    yield here / "cache" / "completion"
    if before is None:
        del os.environ["FEATKIT_CACHE"]
    else:
        os.environ["FEATKIT_CACHE"] = before


@pytest.fixture(autouse=True)
def _there(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(here)


def completed(line: str) -> list[str]:
    """What may stand in place of the last word; files and folders as ``<dir>``."""
    *words, last = line.split(" ")
    made = get_completion_class("fish")
    assert made is not None
    items = made(cli, {}, "featkit", VARIABLE).get_completions(words[1:], last)
    return [item.value if item.type == "plain" else f"<{item.type}>" for item in items]


def test_the_files_that_tell_what_a_folder_is() -> None:
    told = (kinds.SAMPLES_FILE, kinds.RESULT_FILE, kinds.RUN_FILE)
    assert told == (SAMPLES_FILE, RESULT_FILE, RUN_FILE)


@pytest.mark.parametrize(
    ("line", "wanted"),
    [
        ("featkit e", ["extract", "ensemble-fit", "ensemble-transform", "export"]),
        ("featkit train ", list(METHODS)),
        ("featkit train simclr --pres", ["--preset"]),
        ("featkit train simclr --preset t", ["tiny"]),
        ("featkit knn --vo", ["--vote"]),
        ("featkit knn --vote ", ["majority", "dino"]),
        ("featkit knn train train --taps resnet50/layer4,n", ["resnet50/layer4,norm"]),
        ("featkit ensemble-fit train --features v", ["vit", "vit/norm"]),
        ("featkit ls tr", ["train", "<dir>"]),
        (
            "featkit knn train",
            [
                "train:resnet50",
                "train:vit",
                "train:resnet50/avgpool",
                "train:resnet50/layer4.avg",
                "train:resnet50/layer4.max",
                "train:vit/norm",
                "train",
                "<dir>",
            ],
        ),
        (
            "featkit knn train train:resnet50/l",
            ["train:resnet50/layer4.avg", "train:resnet50/layer4.max"],
        ),
        ("featkit export ./train:v", ["./train:vit", "./train:vit/norm"]),
        ("featkit lce models/b", ["models/bee", "<dir>"]),
        ("featkit report t", ["tree", "<dir>"]),
        ("featkit lce t", ["<dir>"]),
        ("featkit layers ru", ["run", "<file>"]),
        ("featkit layers zoo:dino_vitb8", ["zoo:dino_vitb8", "zoo:dino_vitb8_full"]),
        (
            "featkit extract photos -b a=torchvision:resnet1",
            ["a=torchvision:resnet18", "a=torchvision:resnet101", "a=torchvision:resnet152"],
        ),
        (
            "featkit extract photos -b timm:vit_tiny_patch16_384.",
            ["timm:vit_tiny_patch16_384.augreg_in21k_ft_in1k"],
        ),
        ("featkit layers offline:", [f"offline:efficientnet_lite{i}" for i in range(3)]),
        ("featkit layers lenet5", ["lenet5?weights=none", "<file>"]),
        ("featkit extract di", ["digits", "<file>"]),
        ("featkit extract torchvision:CIFAR", ["torchvision:CIFAR10", "torchvision:CIFAR100"]),
        ("featkit extract photos -o train --tap res", []),
        ("featkit extract photos -o train --tap a", ["avgpool"]),
        ("featkit extract photos -o train --tap layer4:m", ["layer4:max"]),
        ("featkit dissect photos -c te", ["texture"]),
        ("featkit saliency run photos --device c", ["cpu", "cuda"]),
        ("featkit schema ex", ["extract", "export"]),
        ("featkit completion ", ["bash", "zsh", "fish"]),
    ],
)
def test_what_may_come_next(line: str, wanted: list[str]) -> None:
    assert sorted(completed(line)) == sorted(wanted)


def test_every_option_of_every_command_is_completed() -> None:
    from tests.cli.test_documents import command_of, walk

    for words in walk(cli):
        found = completed(f"featkit {' '.join(words)} --")
        for parameter in command_of(words).params:
            if isinstance(parameter, click.Option):
                assert set(parameter.opts) & set(found), (words, parameter.name)


def test_what_is_remembered_may_be_lost(memory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert completed("featkit ls --j") == ["--json"]
    file = memory / "command-ls.json"
    for content in ("", "[]", '{"state": 1}', file.read_text().replace('"--json"', '"--other"')):
        file.write_text(content)
        found = completed("featkit ls --j")
        assert found == ([] if "--other" in content else ["--json"])
    kept = json.loads(file.read_text())
    file.write_text(json.dumps({**kept, "state": "of another version"}))
    assert completed("featkit ls --j") == ["--json"]
    (memory.parent / "no-folder").write_text("")
    monkeypatch.setenv("FEATKIT_CACHE", str(memory.parent / "no-folder"))
    assert completed("featkit ls --j") == ["--json"]


def test_a_command_that_is_remembered_needs_no_torch(here: Path) -> None:
    assert "--vote" in completed("featkit knn --")
    code = (
        "import sys\nfrom featkit_cli.main import main\n"
        "try: main()\nfinally: print(sorted({'torch', 'numpy', 'h5py'} & set(sys.modules)))"
    )
    environment = {**os.environ, VARIABLE: "bash_complete", "COMP_LINE": "featkit knn train --vo"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, cwd=here
    )
    assert (done.stdout, done.stderr) == ("plain,--vote\n[]\n", "")


def test_what_goes_wrong_is_silent() -> None:
    environment = {**os.environ, VARIABLE: "bash_complete"}  # without COMP_LINE
    done = subprocess.run(
        [sys.executable, "-m", "featkit_cli"], env=environment, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "")


@pytest.fixture(scope="module")
def script(here: Path) -> Path:
    """The script for bash, and a featkit that it finds."""
    tools = here / "tools"
    tools.mkdir()
    (tools / "featkit").write_text(f'#!/bin/sh\nexec {sys.executable} -m featkit_cli "$@"\n')
    (tools / "featkit").chmod(0o755)
    done = CliRunner().invoke(cli, ["completion", "bash"])
    assert (done.exit_code, done.stderr) == (0, "")
    (here / "featkit.bash").write_text(done.stdout)
    return here / "featkit.bash"


def bash(script: Path) -> dict[str, str]:
    return {**os.environ, "PATH": f"{script.parent / 'tools'}:{os.environ['PATH']}", "PS1": "$ "}


@pytest.mark.parametrize(
    ("words", "current", "wanted"),
    [
        (["featkit", "knn", "train", ":", "vit/"], "vit/", ["vit/norm"]),  # as bash splits them
        (["featkit", "knn", "train", ":"], "", ["resnet50", "vit", "resnet50/avgpool",
         "resnet50/layer4.avg", "resnet50/layer4.max", "vit/norm"]),
        (["featkit", "knn", "train", "--vote", "=", "d"], "d", ["dino"]),
        (["featkit", "ls", "tr"], "tr", ["train", "train", "tree"]),
        (["featkit", "train", "s"], "s", ["simclr"]),
    ],
)  # fmt: skip
def test_bash_completes(script: Path, words: list[str], current: str, wanted: list[str]) -> None:
    line = " ".join(words).replace(" : ", ":").replace(" :", ":").replace(" = ", "=")
    given = " ".join(f"'{word}'" for word in words)
    code = (
        f"source {script}; COMP_WORDS=({given}); COMP_CWORD={len(words) - 1}\n"
        f"COMP_LINE='{line}'; COMP_POINT=${{#COMP_LINE}}\n"
        f"_featkit_completion featkit '{current}' x; printf '%s\\n' \"${{COMPREPLY[@]}}\""
    )
    done = subprocess.run(
        ["bash", "--norc", "-c", code], env=bash(script), capture_output=True, text=True
    )
    assert (sorted(done.stdout.splitlines()), done.stderr) == (sorted(wanted), "")


def test_tab_in_a_terminal(script: Path) -> None:
    with on_terminal(
        ["bash", "--norc", "-i"], env=bash(script), own_stdin=True, stdout=subprocess.DEVNULL
    ) as shell:
        shell.write(f"source {script}; bind 'set bell-style none'\n")
        shell.write("featkit knn train:v\t/\t")
        shell.read_until(b"vit/norm")
        shell.write("\x15exit\n")  # what was typed is not run
        said = shell.read_to_end()
    assert "featkit knn train:vit/norm" in said


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_the_scripts_of_other_shells(run: Run, shell: str) -> None:
    status, out, err = run("completion", shell)
    assert (status, err) == (0, "")
    assert f"{VARIABLE}={shell}_complete" in out
