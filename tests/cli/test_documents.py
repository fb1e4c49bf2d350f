"""``--json`` of every command, against the schemas that scripts may rely on."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from featkit_cli.main import cli
from featkit_cli.schema import schema_of
from jsonschema import Draft202012Validator, ValidationError
from PIL import Image

from featkit.analyses.base import Result
from tests.analyses.dissections import write_models
from tests.analyses.scenes import SIZE, write_scenes
from tests.cli.conftest import Run
from tests.store.conftest import make_samples, make_table

NET = f"cifar_resnet20?weights=none&size={SIZE}"
TREE = "treenet(leaves=3,channels=4-8)?weights=none&size=16"
LOOK = ["--workers", 0, "--quiet", "--device", "cpu"]
TRAIN = [*LOOK, "--preset", "tiny", "--batch-size", 8, "--size", 16, "--precision", "fp32"]
WRITES_NO_DOCUMENT = {"completion", "schema"}
CHECKED_ELSEWHERE = {"demo"}  # tests/cli/test_commands.py


def walk(group: click.Group, before: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """Every command that can be called, by the words that call it."""
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        if isinstance(command, click.Group):
            yield from walk(command, (*before, name))
        else:
            yield (*before, name)


def command_of(words: tuple[str, ...]) -> click.Command:
    command: click.Command = cli
    for word in words:
        assert isinstance(command, click.Group)
        found = command.get_command(click.Context(command), word)
        assert found is not None
        command = found
    return command


COMMANDS = [words for words in walk(cli) if words[0] not in WRITES_NO_DOCUMENT]


def check(command: str, text: str) -> dict[str, Any]:
    """Return a document that follows the schema of its command."""
    schema = schema_of(command)
    Draft202012Validator.check_schema(schema)
    content: dict[str, Any] = json.loads(text)
    Draft202012Validator(schema).validate(content)
    return content


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stores, images, masks and dissections for every command to read."""
    root = tmp_path_factory.mktemp("here")
    rng = np.random.default_rng(0)
    for store, count in (("train", 120), ("test", 60), ("bank", 60), ("queries", 30)):
        labels = np.arange(count) % 3
        manifest = make_samples(root / store, labels, ["ant", "bee", "cow"])
        for name, noise in (("sharp", 0.5), ("blunt", 2.0)):
            x = np.eye(8)[labels] + noise * rng.random((count, 8))
            make_table(root / store, manifest, f"{name}/fc.none", x.astype("f4"), weights=name)
    write_scenes(root, 4)
    write_models(root / "models")
    for name in ("cat", "dog"):
        (root / "photos" / name).mkdir(parents=True)
        for i in range(12):
            pixels = rng.integers(0, 256, (20, 20, 3), np.uint8)
            Image.fromarray(pixels).save(root / "photos" / name / f"{i}.png")
    (root / "photos" / "dog" / "broken.png").write_text("no image")
    return root


EXTRACT = ["photos", "-b", NET, "-o", "store", "--workers", 0, "--device", "cpu"]
FEW = ["--shots", "2", "--episodes", "20", "--ways", "3", "--queries", "3"]
FIT = ["--epochs", 2, "--batch-size", 20, "--quiet"]

CALLS: dict[str, list[list[Any]]] = {
    "extract": [[*EXTRACT, "--dry-run"], EXTRACT, EXTRACT],
    "layers": [[NET]],
    "backbones": [["lenet"], ["simclr_rn101", "--zoo"]],
    "ls": [["train"]],
    "verify": [["train"]],
    "export": [["train:sharp", "-o", "train.npz"]],
    "ensemble-fit": [["bank", "--test", "queries", "-o", "both", *FIT]],
    "ensemble-transform": [["other", "queries", "--name", "again", "--quiet"]],
    "train simclr": [["photos", "-o", "simclr", *TRAIN, "--epochs", 1]],
    "train treenet": [["photos", "-o", "tree", *TRAIN, "--epochs", 1]],
    "train deepcluster": [
        ["photos", "-o", "clusters", *TRAIN, "--size", 32, "--cycles", 2, "--clusters", 4],
        ["photos", "-o", "survey", *TRAIN, "--size", 32, "--survey", 2, "--clusters", 4],
    ],
    "dissect": [["images", "-b", NET, "--tap", "res3", "-c", "color", "-o", "seen", *LOOK]],
    "saliency": [[TREE, "photos", "-o", "maps", *LOOK, "--shown", 2]],
    "report": [["models/ant", "-o", "page.html"]],
    "best-subset": [["train", "test"]],
    "diversity": [["test", "--train", "train", "--samples", 20]],
    "fewshot": [["train:sharp", "test:sharp", *FEW], ["train", "test", *FEW, "--merge"]],
    "knn": [["train", "test", "--combine", "concat"], ["train", "train", "--k", "1,3"]],
    "lce": [["models/ant", "models/bee", "models/cow", "models/dog", "--permutations", 19]],
    "pair-ensemble": [["train", "test"]],
    "probe": [["train", "test"], ["train:sharp", "test:sharp", "--protocol", "unregularised"]],
    "project": [["test", "--methods", "tsne", "--perplexity", 9]],
    "similarity": [["test", "--k", 3]],
    "spectrum": [["test"]],
}  # fmt: skip
"""What is asked of each."""

BEFORE = {"ensemble-transform": ["ensemble-fit", "bank", "-o", "other", *FIT]}
"""What makes what a command reads."""


def test_every_command_is_asked() -> None:
    names = {" ".join(words) for words in COMMANDS}
    assert names - CHECKED_ELSEWHERE == set(CALLS)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_every_command_has_json(words: tuple[str, ...]) -> None:
    assert any("--json" in parameter.opts for parameter in command_of(words).params)


@pytest.mark.parametrize(
    "words", [w for w in COMMANDS if w[0] not in CHECKED_ELSEWHERE], ids=" ".join
)
def test_stdout_is_one_document_that_follows_its_schema(
    words: tuple[str, ...], here: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(here)
    if words[0] in BEFORE:
        run(*BEFORE[words[0]])
    for arguments in CALLS[" ".join(words)]:
        status, out, err = run(*words, *arguments, "--json")
        assert status == 0, err
        content = check(words[0], out)
        if "analysis" in content and "-o" in arguments:
            saved = Path(arguments[arguments.index("-o") + 1], "result.json")
            assert saved.read_text() == out


def test_a_schema_fails_where_scripts_would() -> None:
    """Every name that scripts rely on is required, and of its type."""
    names = {
        "knn": ("tables.accuracy", ("features", "vote", "k", "top1")),
        "probe": ("scalars", ("top1", "mean_per_class", "lambda")),
        "fewshot": ("scalars", ("accuracy", "ci95")),
        "diversity": (
            "tables.energy",
            ("backbone", "tap", "over", "power", "space", "kernel", "n", "d", "energy",
             "mean_energy", "diversity"),
        ),
        "ensemble-fit": ("tables.recovery", ("model", "after_warmup", "final", "inference")),
        "dissect": (
            "tables.units", ("unit", "concept", "category", "iou", "threshold", "detector")
        ),
        "lce": ("tables.embedding", ("model", "pc1", "pc2", "pc3")),
        "deepcluster": ("tables.cycles", ("cycle", "nmi_previous", "nmi_labels")),
        "treenet": ("tables.epochs", ("epoch", "loss", "knn_top1")),
    }  # fmt: skip
    schema = schema_of("result")
    told = {part["if"]["properties"]["analysis"]["const"]: part["then"] for part in schema["allOf"]}
    for analysis, (place, keys) in names.items():
        found = told[analysis]
        for step in place.split("."):
            found = found["properties"][step]
        found = found.get("items", found)
        assert set(keys) <= set(found.get("required") or found["oneOf"][0]["required"])
        assert all({"type", "enum"} & set(found["properties"][key]) for key in keys)
    assert {"analysis", "featkit", "config", "scalars", "tables", "provenance"} <= set(
        schema["required"]
    )


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (("tables", "accuracy", 0, "top1"), "0.5"),
        (("tables", "accuracy", 0, "top1"), 83.4),
        (("tables", "accuracy", 0, "k"), None),
        (("tables", "accuracy"), {}),
        (("scalars",), None),
        (("provenance",), []),
    ],
)
def test_a_document_that_breaks_a_promise_fails(place: tuple[Any, ...], value: Any) -> None:
    row = {"features": "net/fc", "vote": "majority", "k": 1, "top1": 0.5}
    found = Result("knn", {}, tables={"accuracy": [row]})
    check("knn", found.to_json())
    for change in ({place[-1]: value}, None):
        content = json.loads(found.to_json())
        inner = content
        for step in place[:-1]:
            inner = inner[step]
        if change is None:
            del inner[place[-1]]
        else:
            inner |= change
        with pytest.raises(ValidationError):
            check("knn", json.dumps(content))


def test_a_failure_leaves_stdout_empty(run: Run, here: Path, tmp_path: Path) -> None:
    for words in COMMANDS:
        arguments = ["no-such-thing"] * (3 if words[0] != "train" else 1)
        status, out, err = run(*words, *arguments, "--json")
        assert (status in (1, 2), out) == (True, ""), words
        assert err.count("\n") == 1
    dark = tmp_path / "dark"
    dark.mkdir()
    (dark / "a.png").write_text("no image")
    status, out, err = run("extract", dark, *EXTRACT[1:3], "-o", tmp_path / "s", "--json", *LOOK)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert "none of the 1 image could be read" in err


def test_damage_is_told_by_document_and_status(run: Run, here: Path, tmp_path: Path) -> None:
    shutil.copytree(here / "train", tmp_path / "hurt")
    file = tmp_path / "hurt" / "sharp" / "fc.none.h5"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    status, out, err = run("verify", tmp_path / "hurt", "--json")
    content = check("verify", out)
    assert (status, content["sound"], err.count("\n")) == (1, False, 1)
    wrong = {one["name"] for one in content["files"] if one["problems"]}
    assert wrong == {"sharp/fc.none.h5"}


def test_the_schema_command(run: Run) -> None:
    for name in ("ls", "knn", "result"):
        status, out, _ = run("schema", name)
        assert (status, json.loads(out)) == (0, schema_of(name))
    for name, message in (("lss", "did you mean ls?"), ("completion", "prints no document")):
        status, out, err = run("schema", name)
        assert (status, out) == (2, "")
        assert message in err
