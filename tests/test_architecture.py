"""The rooms, the import order, and what ``import featkit`` costs."""

from __future__ import annotations

import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import featkit_cli
import pytest

import featkit

ROOT = Path(__file__).parents[1]
HEAVY = {"torch", "torchvision", "timm", "faiss", "matplotlib", "sklearn", "h5py", "numpy"}


def test_imports_follow_the_rooms() -> None:
    command = "from importlinter.cli import lint_imports_command; lint_imports_command()"
    linted = subprocess.run(
        [sys.executable, "-c", command, "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert linted.returncode == 0, linted.stdout
    assert "9 kept, 0 broken" in linted.stdout


@pytest.mark.parametrize(
    "code",
    [
        "import featkit; featkit.__version__; dir(featkit)",
        "from featkit_cli.main import main\ntry: main(['--help'])\nexcept SystemExit: pass",
        "from featkit_cli.main import main\ntry: main(['extract', '--help'])\n"
        "except SystemExit: pass",
    ],
    ids=["import", "help", "command help"],
)
def test_nothing_heavy_is_imported_before_it_is_used(code: str) -> None:
    seen = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('LOADED', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = set(seen.stdout.rpartition("LOADED")[2].split())
    assert "featkit" in loaded
    assert not loaded & HEAVY


def test_what_the_readme_calls_is_there() -> None:
    called = set(re.findall(r"\bfeatkit\.([A-Za-z_]+)\(", (ROOT / "README.md").read_text()))
    assert {"extract", "linear_cka", "sample_episodes", "hyperspherical_energy"} <= called
    assert called <= set(dir(featkit))
    assert dir(featkit) == featkit.__all__ == sorted(featkit.__all__)


def test_every_module_imports_and_every_export_exists() -> None:
    modules = [
        module.name
        for package in (featkit, featkit_cli)
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        if not module.name.endswith("__main__")
    ]
    assert len(modules) > 40
    for name in modules:
        importlib.import_module(name)
    for name in featkit.__all__:
        assert getattr(featkit, name) is not None
    with pytest.raises(AttributeError):
        featkit.nothing  # noqa: B018
