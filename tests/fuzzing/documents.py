"""JSON that featkit writes and reads again."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors.torch import save

from featkit.backbones.architectures import build
from featkit.backbones.training_runs import RunRecord
from featkit.store.fingerprint import signed_json
from tests.analyses.dissections import write_dissection
from tests.fuzzing import hdf5
from tests.fuzzing.mutate import any_json
from tests.fuzzing.target import Case, Target

NET = "cifar_resnet20"


def resealed(data: bytes) -> bytes:
    """Return JSON with the sha256 that belongs to it, if it is JSON."""
    try:
        content = json.loads(data)
        content.pop("sha256", None)
        return signed_json(content).encode("utf-8", "surrogatepass")
    except (ValueError, AttributeError, RecursionError):
        return data


def resealed_changes(content: Any, extra: tuple[Any, ...] = ()) -> SearchStrategy[bytes]:
    """Other JSON, mostly with the sha256 that belongs to it."""
    rest = {name: value for name, value in content.items() if name != "sha256"}
    made = any_json(rest, extra)
    return st.one_of(made.map(resealed), made.map(resealed), any_json(content, extra))


def is_json(name: str) -> Callable[[Path, tuple[str, ...]], object]:
    def starts(folder: Path, _words: tuple[str, ...]) -> object:
        json.loads((folder / name).read_bytes())
        return True

    return starts


def make_dissections(folder: Path) -> None:
    found = [{"object/car": 5, "color/red": 2}, {"object/car": 1, "part/wheel": 3},
             {"color/red": 4, "part/wheel": 1}, {"object/road": 2, "object/car": 2}]  # fmt: skip
    for name, detected in zip("abcd", found, strict=True):
        path = write_dissection(folder / name, detected, units=8, weights=name,
                                draws=[detected, detected])  # fmt: skip
        file = path / "result.json" if path.is_dir() else path
        file.write_bytes(resealed(file.read_bytes()))


def lce(folder: Path, _words: tuple[str, ...]) -> object:
    from featkit.analyses.base import Result, check_folder
    from featkit.analyses.lce.profiles import read_profiles

    results = [Result.load(name, "dissect") for name in "abcd"]
    check_folder("a", "dissect")
    found = results[0]
    profiles = read_profiles(results)
    told = [profiles.models, profiles.labels(), profiles.counts.tolist(), profiles.notes]
    text = found.to_json()
    (folder / "out").mkdir()
    (folder / "out" / "result.json").write_bytes((folder / "a" / "result.json").read_bytes())
    found.save("out")
    return [text, told, sorted(path.name for path in folder.rglob("*"))]


def _result_cases(folder: Path) -> SearchStrategy[Case]:
    content = json.loads((folder / "a" / "result.json").read_bytes())
    extra = ("../../x", "units", "car", "object", 0.5, ["car"], {"units": [{}]})
    return resealed_changes(content, extra).map(lambda data: Case({"a/result.json": data}))


RESULTS = Target(
    name="result.json", kind="JSON",
    modules=("featkit.analyses.base", "featkit.analyses.lce.profiles"),
    lay_out=make_dissections, cases=_result_cases, starts=is_json("a/result.json"), read=lce,
    output=(".",), is_fresh=True,
)  # fmt: skip


@cache
def _run_files() -> tuple[bytes, bytes]:
    network = build(NET, 0)
    head = f"{network.head}."
    tensors = {
        ("head." + name.removeprefix(head) if name.startswith(head) else f"backbone.{name}"): t
        for name, t in network.module.state_dict().items()
    }
    weights = save(tensors)
    digest = hashlib.sha256(weights).hexdigest()
    record = RunRecord("SimCLR", NET, network.preprocessing, {"seed": 0, "lr": 0.1}, {3: digest}, 3)
    return record.to_json().encode(), weights


def make_run(folder: Path) -> None:
    record, weights = _run_files()
    (folder / "run/weights").mkdir(parents=True)
    (folder / "run/run.json").write_bytes(record)
    (folder / "run/weights/epoch-0003.safetensors").write_bytes(weights)


def features(spec: str) -> list[Any]:
    """Return what a backbone is, and what it gives for one image."""
    import torch

    from featkit.backbones.resolve import load_backbone

    backbone = load_backbone(spec)
    recipe = backbone.preprocessing
    assert max(recipe.size) < 5000
    image = torch.linspace(0, 1, 3 * 32 * 32).reshape(1, 3, 32, 32)
    with torch.inference_mode():
        rows = backbone.module.eval()(image)
    return [backbone.name, backbone.network.architecture, recipe.as_dict(), backbone.network.head,
            hdf5.summary(rows.numpy())]  # fmt: skip


def _run_cases(folder: Path) -> SearchStrategy[Case]:
    content = json.loads((folder / "run/run.json").read_bytes())
    extra = ("../../x", "treenet(leaves=1000000)", "alexnet", "torchvision:resnet18", "timm:x", 3,
             "-3", [1e9, 1e9], [0, 0, 0], "bilinear", 10**6, "treenet(leaves=8)")  # fmt: skip
    data = resealed_changes(content, extra)
    specs = st.sampled_from(["run", "run", "run", "run?epoch=3", "run?epoch=-1", "run?size=32"])
    return st.builds(lambda d, s: Case({"run/run.json": d}, (s,)), data, specs)


RUNS = Target(
    name="run.json", kind="JSON", modules=("featkit.backbones.training_runs",), lay_out=make_run,
    cases=_run_cases, starts=is_json("run/run.json"),
    read=lambda _, words: features(words[0]), valid=(("run",), ("run?epoch=3",)),
)  # fmt: skip


def plan_file(folder: Path) -> str:
    """Return the plan of the unfinished table."""
    return next(folder.glob(".partial/*/plan.json")).relative_to(folder).as_posix()


def _plan_cases(folder: Path) -> SearchStrategy[Case]:
    file = plan_file(folder)
    content = json.loads((folder / file).read_bytes())
    data = resealed_changes(
        content, ("../../x", "net/fc.none", "../../outside/x", 4, 8, 10**9, True)
    )
    return data.map(lambda d: Case({file: d}))


PLANS = Target(
    name="plan.json", kind="JSON", modules=("featkit.store.plans",), lay_out=hdf5.make_store,
    cases=_plan_cases, read=hdf5.finish, output=(".",), is_fresh=True,
    starts=lambda folder, _: json.loads((folder / plan_file(folder)).read_bytes()) or True,
)  # fmt: skip


def _log_cases(folder: Path) -> SearchStrategy[Case]:
    lines = [json.loads(line) for line in (folder / "runs.jsonl").read_text().splitlines()]
    line = any_json(lines[0], ("net/fc.none", ["x"], [[1]], {"a": 1}))
    data = st.lists(line, min_size=1, max_size=3).map(b"\n".join)
    return data.map(lambda d: Case({"runs.jsonl": d}))


def _is_line(line: bytes) -> bool:
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


LOGS = Target(
    name="runs.jsonl", kind="JSON", modules=("featkit.store.runs",), lay_out=hdf5.make_store,
    cases=_log_cases, read=hdf5.read_store,
    starts=lambda folder, _: any(
        _is_line(line) for line in (folder / "runs.jsonl").read_bytes().splitlines()
    ),
)  # fmt: skip
