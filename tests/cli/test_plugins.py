"""Analyses of other packages: as the README writes one, and as they should not be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from featkit_cli.schema import schema_of
from jsonschema import Draft202012Validator

import featkit as library
from tests.store.conftest import make_samples, make_table

README = Path(library.__file__).parents[1] / "README.md"


def install_by_hand(site: Path, points: str, code: str = "", name: str = "other") -> Path:
    """Write what pip would have, of a package with a module ``width_plugin``."""
    info = site / f"{name}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[featkit.analyses]\n{points}\n")
    (site / "width_plugin.py").write_text(code)
    return site


def featkit(site: Path, *arguments: object, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command in a process that sees what is installed in a folder."""
    paths = os.pathsep.join([str(site), os.environ.get("PYTHONPATH", "")])
    return subprocess.run(
        [sys.executable, "-m", "featkit_cli", *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": paths, **variables},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture
def store(tmp_path: Path) -> Path:
    path = tmp_path / "store"
    manifest = make_samples(path, [0, 1, 0], ["ant", "bee"])
    make_table(path, manifest, "net/fc.none", np.eye(3, 4, dtype="f4"))
    make_table(path, manifest, "net/wide.none", np.eye(3, 8, dtype="f4"))
    return path


def written() -> dict[str, str]:
    """The blocks of code of the README's chapter, by language."""
    chapter = README.read_text("utf-8").split("\n## An analysis of your own\n")[1].split("\n## ")[0]
    return dict(re.findall(r"```(\w+)\n(.*?)```", chapter, re.DOTALL))


def test_the_package_of_the_readme(store: Path, tmp_path: Path) -> None:
    blocks, package, site = written(), tmp_path / "package", tmp_path / "site"
    package.mkdir()
    (package / "featkit_width.py").write_text(blocks["python"])
    (package / "pyproject.toml").write_text(blocks["toml"])
    offline = ["--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    pip = [sys.executable, "-m", "pip", "install", *offline, "--target", site, package]
    installed = subprocess.run(pip, capture_output=True, text=True)
    assert installed.returncode == 0, installed.stdout + installed.stderr

    listed = featkit(site, "--help").stdout
    assert "width How wide tables are, and how much of that is used." in " ".join(listed.split())
    helped = featkit(site, "width", "--help").stdout
    assert "--scale FLOAT" in helped
    assert "STORE: any tables of vectors" in helped
    done = featkit(site, "width", store, "--scale", 2, "--json", "-o", tmp_path / "answer")
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads(done.stdout)
    Draft202012Validator(schema_of("width")).validate(content)
    assert content["tables"]["widths"] == [
        {"table": "net/fc.none", "width": 8.0, "used": 3},
        {"table": "net/wide.none", "width": 16.0, "used": 3},
    ]
    assert content["config"] == {"scale": 2.0}
    assert (tmp_path / "answer" / "result.json").read_text() == done.stdout
    told = featkit(site, "report", tmp_path / "answer", "-o", tmp_path / "page.html")
    assert told.stderr == ""
    assert "net/wide.none" in (tmp_path / "page.html").read_text()

    def completed(line: str) -> list[str]:
        asked = {"_FEATKIT_COMPLETE": "bash_complete", "COMP_LINE": line}
        cache = str(tmp_path / "cache")
        said = featkit(site, COMP_CUR=line.rsplit(maxsplit=1)[-1], FEATKIT_CACHE=cache, **asked)
        return said.stdout.split()

    assert completed("featkit wi") == ["plain,width"]
    assert completed("featkit width --s") == ["plain,--scale"]
    module = site / "featkit_width.py"
    module.write_text(module.read_text().replace("scale:", "size:"))  # a later version
    assert completed("featkit width --s") == ["plain,--size"]
    assert completed(f"featkit width {store}:net/w") == [f"plain,{store}:net/wide"]


PLUGIN = '''
from dataclasses import dataclass
from featkit.analyses.base import Input, Result, option

@dataclass(frozen=True)
class WidthConfig:
    scale: float = option(2.0, "Times this.", "nobody 1999")
    names: tuple[str, ...] = option((), "Names.")
    loud: bool = option(False, "Shout.")

class Width:
    """How wide tables are."""

    inputs = (
        Input("STORE", "any tables", several=True),
        Input("OTHER", "more tables", optional=True),
        Input("BEFORE", "an earlier result", optional=True, of="width"),
    )
    requires = frozenset()
    Config = WidthConfig

    def __init__(self, config=None):
        self.config = config or WidthConfig()

    def run(self, inputs):
        tables = [*inputs["store"], *inputs.get("other", ())]
        rows = [{"table": t.name, "width": t.shape[1] * self.config.scale} for t in tables]
        rows += [row for result in inputs.get("before", ()) for row in result.tables["widths"]]
        return Result("width", {"loud": self.config.loud}, {}, {"widths": rows})
'''


def test_what_inputs_and_options_can_be(store: Path, tmp_path: Path) -> None:
    site = install_by_hand(tmp_path / "site", "width = width_plugin:Width", PLUGIN)

    def call(*arguments: object) -> str:
        done = featkit(site, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    content = json.loads(call("width", store, "--scale", "3", "--loud", "--json"))
    assert [row["width"] for row in content["tables"]["widths"]] == [12, 24]
    assert content["config"] == {"loud": True}
    one, other = f"{store}:net/fc", f"{store}:net/wide"
    content = json.loads(call("width", one, other, one, "--other", other, "--json"))
    assert [row["width"] for row in content["tables"]["widths"]] == [8, 16, 8, 16]
    call("width", one, "-o", tmp_path / "saved")
    content = json.loads(call("width", other, "--before", tmp_path / "saved", "--json"))
    assert [row["width"] for row in content["tables"]["widths"]] == [16, 8]


def test_a_package_that_cannot_be_imported(store: Path, tmp_path: Path) -> None:
    points = "gone = gone_package.thing:Gone\nbroken = width_plugin:Width"
    site = install_by_hand(tmp_path / "site", points, "import nothing_of_this_name")
    helped = featkit(site, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    said = " ".join(helped.stdout.split())
    assert "gone (cannot be imported: gone_package.thing:Gone)" in said
    for name, missing in (("gone", "gone_package"), ("broken", "nothing_of_this_name")):
        done = featkit(site, name, store)
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == (
            f"featkit: analysis '{name}' of the package other cannot be imported "
            f"(ModuleNotFoundError: No module named '{missing}'); repair or uninstall it\n"
        )
    assert featkit(site, "ls", store).returncode == 0


def test_a_package_that_is_no_python(store: Path, tmp_path: Path) -> None:
    site = install_by_hand(tmp_path / "site", "broken = width_plugin:Width", "def width(")
    helped = featkit(site, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    assert "broken (cannot be imported: width_plugin:Width)" in " ".join(helped.stdout.split())
    done = featkit(site, "broken", store)
    assert (done.returncode, done.stdout) == (1, "")
    assert "analysis 'broken' of the package other cannot be imported (SyntaxError" in done.stderr


def test_names_that_are_taken(store: Path, tmp_path: Path) -> None:
    site = install_by_hand(tmp_path / "site", "ls = width_plugin:Width\nwidth = width_plugin:Width")
    install_by_hand(tmp_path / "site", "width = rival:Width", name="rival")
    helped = featkit(site, "--help")
    assert (helped.returncode, helped.stderr) == (0, "")
    said = " ".join(helped.stdout.split())
    wanted = "offered by width_plugin:Width; uninstall one of their packages)"
    assert f"ls (left out: it has the name of a command; {wanted}" in said
    done = featkit(site, "width", store)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    for part in ("analysis 'width': offered by", "rival:Width", "uninstall one of their packages"):
        assert part in done.stderr
    assert "net/wide.none" in featkit(site, "ls", store).stdout
