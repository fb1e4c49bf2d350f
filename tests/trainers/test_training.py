"""Whole trainings: what comes out, what stays, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save, save_file
from torch import Tensor

import featkit
from featkit.analyses.base import Result
from featkit.backbones.training_runs import read_run
from featkit.errors import (
    BackboneError,
    CheckpointError,
    ConflictError,
    DamagedError,
    UsageError,
)
from featkit.store.tensors import with_tensors_digest
from featkit.trainers.loop import DivergedError
from tests.trainers.conftest import train


@pytest.fixture(scope="module")
def finished(stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "mine"
    train(stripes, run, epochs=4, keep_every=2)
    return run


def test_the_loss_falls_and_every_epoch_has_its_row(stripes: Path, tmp_path: Path) -> None:
    result = train(stripes, tmp_path / "run", epochs=12)
    rows = result.tables["epochs"]
    assert [row["epoch"] for row in rows] == list(range(13))
    assert rows[0]["loss"] is None
    losses = [row["loss"] for row in rows[1:]]
    assert losses[-1] < losses[0] - 0.2
    assert all(0 <= row["knn_top1"] <= 1 for row in rows)
    assert result.scalars["images"] == 54
    assert result.scalars["held_out"] == 6
    saved = json.loads((tmp_path / "run" / "result.json").read_text())
    assert saved["tables"]["epochs"] == rows
    assert saved["analysis"] == "simclr"
    assert set(saved["config"]) > {"temperature", "lr", "epochs", "seed"}


def test_a_finished_run_is_a_backbone_for_other_commands(
    finished: Path, stripes: Path, tmp_path: Path
) -> None:
    specs = [str(finished), f"{finished}?epoch=0", f"other={finished}?epoch=2"]
    store = featkit.extract(stripes, specs, tmp_path / "store", taps=["avgpool", "head"], workers=0)
    assert {table.backbone for table in store.tables()} == {"mine", "mine-epoch0", "other"}
    rows = {name: store[f"{name}/avgpool"].numpy() for name in ("mine", "mine-epoch0", "other")}
    assert not np.allclose(rows["mine"], rows["mine-epoch0"])
    last = featkit.load_backbone(f"{finished}?epoch=4")
    assert last.weights == store["mine/avgpool"].provenance["backbone"]["weights"]
    assert store["mine/head"].shape == (60, 128)
    assert store["mine/avgpool"].provenance["preprocessing"]["size"] == [16, 16]


def test_the_head_is_what_the_loss_saw(finished: Path) -> None:
    """Two linear layers with a ReLU between, by the weights in the file alone."""
    weights = load_file(finished / "weights" / "epoch-0004.safetensors")
    backbone = featkit.load_backbone(str(finished))
    seen = []
    backbone.module.avgpool.register_forward_hook(lambda *given: seen.append(given[2].flatten(1)))
    images = torch.randn(5, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        embeddings = backbone.module(images)
    inner = (seen[0] @ weights["head.0.weight"].T + weights["head.0.bias"]).clamp(min=0)
    wanted = inner @ weights["head.2.weight"].T + weights["head.2.bias"]
    torch.testing.assert_close(embeddings, wanted)
    report = backbone.network.checkpoint
    assert report is not None
    assert (report.method, report.epochs, report.layout) == ("SimCLR", 4, "featkit run")


def test_the_epochs_that_were_asked_for_stay_and_the_best(finished: Path) -> None:
    kept = set(read_run(finished).weights)
    best = Result.load(finished, "simclr").scalars["best_epoch"]
    assert kept == {0, 2, 4, best}
    assert {int(p.stem[-4:]) for p in (finished / "weights").iterdir()} == kept
    assert not (finished / "state.safetensors").exists()


def test_a_network_from_a_run_is_described_to_the_diversity_study(
    finished: Path, stripes: Path, tmp_path: Path
) -> None:
    from featkit.analyses.diversity.family import describe_model

    specs = [f"{finished}?epoch=2", "ln=cifar_resnet8w2_ln?weights=none"]
    store = featkit.extract(stripes, specs, tmp_path / "store", workers=0)
    run, other = (describe_model(store[f"{name}/avgpool"]) for name in ("mine-epoch2", "ln"))
    assert (run.epochs, run.method, run.depth, run.width, run.norm) == (2, "SimCLR", 8, 1, "batch")
    assert (other.norm, other.width, other.epochs) == ("layer", 2, None)


@pytest.mark.parametrize("optimizer", ["adam", "lars", "sgd"])
def test_the_seed_decides_everything(stripes: Path, tmp_path: Path, optimizer: str) -> None:
    weights = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        torch.manual_seed(len(weights))  # what the process has drawn before plays no part
        train(stripes, tmp_path / name, epochs=1, optimizer=optimizer, seed=seed)
        weights.append((tmp_path / name / "weights" / "epoch-0001.safetensors").read_bytes())
    assert weights[0] == weights[1] != weights[2]


def test_the_callers_generator_is_left_as_it_was(stripes: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    wanted = torch.rand(3)
    torch.manual_seed(5)
    train(stripes, tmp_path / "run", epochs=1)
    assert torch.equal(torch.rand(3), wanted)


def test_what_is_held_out_is_never_learned_from(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featkit.trainers.simclr import SimCLRLearner

    seen: list[torch.Tensor] = []
    loss = SimCLRLearner.loss

    def watched(self: SimCLRLearner, pixels: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(pixels.clone())
        return loss(self, pixels, *rest)

    monkeypatch.setattr(SimCLRLearner, "loss", watched)
    train(stripes, tmp_path / "run", epochs=9, held_out=0.5, batch_size=10)
    different = {pixels.numpy().tobytes() for batch in seen for pixels in batch}
    assert len(different) == 30
    assert all(len(batch) == 10 for batch in seen)
    assert len(seen) == 9 * 3


def test_images_without_labels_are_all_learned_from(stripes: Path, tmp_path: Path) -> None:
    result = train(stripes / "lying", tmp_path / "run", epochs=1)
    assert (result.scalars["images"], result.scalars["held_out"]) == (30, 0)
    assert [row["knn_top1"] for row in result.tables["epochs"]] == [None, None]


def test_patience_without_labels_is_refused(stripes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no image is held out"):
        train(stripes / "lying", tmp_path / "run", patience=2)


@pytest.mark.parametrize("arch", ["torchvision:resnet18", "timm:mobilenetv3_small_050"])
def test_networks_of_torchvision_and_timm_learn_too(
    stripes: Path, tmp_path: Path, arch: str
) -> None:
    run = tmp_path / "run"
    train(stripes, run, arch=arch, size=32, epochs=1, optimizer="lars", lr=0.1, blur=0.5)
    backbone = featkit.load_backbone(str(run))
    assert backbone.network.architecture == arch
    assert backbone.preprocessing.size == (32, 32)
    with torch.no_grad():
        assert backbone.module(torch.zeros(1, 3, 32, 32)).shape == (1, 128)


def test_a_few_images_are_drawn_at_random(stripes: Path, tmp_path: Path) -> None:
    result = train(stripes, tmp_path / "run", epochs=1, images=40, held_out=0.25, batch_size=8)
    assert (result.scalars["images"], result.scalars["held_out"]) == (30, 10)


def test_an_image_that_cannot_be_read_is_left_out_and_named(stripes: Path, tmp_path: Path) -> None:
    source = shutil.copytree(stripes, tmp_path / "images")
    (source / "lying" / "03.png").write_bytes(b"\x89PNG broken")
    result = train(source, tmp_path / "run", epochs=1)
    assert result.scalars["images"] + result.scalars["held_out"] == 59
    assert any(note.startswith("lying/03.png is left out:") for note in result.notes)


def test_patience_stops_and_the_best_epoch_is_the_network(stripes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    result = train(stripes, run, epochs=60, patience=2, lr=1e-9)
    accuracies = [row["knn_top1"] for row in result.tables["epochs"]]
    best = accuracies.index(max(accuracies))
    assert len(accuracies) == best + 3  # the best, and two that were not better
    assert read_run(run).chosen == best == result.scalars["best_epoch"]
    report = featkit.load_backbone(str(run)).network.checkpoint
    assert report is not None
    assert report.epochs == best


def test_a_diverged_training_says_so_and_keeps_what_was_good(stripes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(DivergedError) as caught:
        train(stripes, run, epochs=9, optimizer="sgd", lr=1e30, warmup=6.0, arch="cifar_resnet8_ln")
    said = str(caught.value)
    assert "the loss is nan at step" in said or "a weight is not finite" in said
    assert "start again in another folder with a lower --lr (it was 1e+30)" in said
    kept = max(read_run(run).weights)
    assert f"?epoch={kept}" in said
    good = featkit.load_backbone(f"{run}?epoch={kept}")
    assert all(torch.isfinite(p).all() for p in good.module.parameters())
    with pytest.raises(BackboneError, match="this run is not finished"):
        featkit.load_backbone(str(run))


def test_a_finished_run_is_not_trained_again(finished: Path, stripes: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    result = train(stripes, finished, epochs=4, keep_every=2)
    assert [row["epoch"] for row in result.tables["epochs"]] == [0, 1, 2, 3, 4]
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*") if path.is_file()}
    lock = finished / ".lock"
    assert {**before, lock: 0} == {**after, lock: 0}


def test_other_settings_or_images_in_the_same_folder_are_refused(
    finished: Path, stripes: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConflictError, match=r"lr: 0\.002 there, 0\.1 asked"):
        train(stripes, finished, epochs=4, keep_every=2, lr=0.1)
    with pytest.raises(ConflictError, match="width"):
        train(stripes, finished, epochs=4, keep_every=2, width=2)
    source = shutil.copytree(stripes, tmp_path / "images")
    (source / "lying" / "03.png").unlink()
    with pytest.raises(ConflictError, match="samples"):
        train(source, finished, epochs=4, keep_every=2)


def test_other_labels_are_another_training(stripes: Path, tmp_path: Path) -> None:
    names = [path.relative_to(stripes).as_posix() for path in sorted(stripes.rglob("*.png"))]
    tables = {
        "none": ["path", *names],
        "one": ["path,label", *(f"{name},{name[:3]}" for name in names)],
        "several": ["path,label", *(f"{name},{name[:3]};any" for name in names)],
    }
    for name, lines in tables.items():
        (tmp_path / "list.csv").write_text("\n".join(lines))
        source = f"{tmp_path / 'list.csv'}?root={stripes}"
        result = train(source, tmp_path / name, epochs=1)
        assert result.scalars["held_out"] == (6 if name == "one" else 0)
        said = [note for note in result.notes if "neighbours do not judge" in note]
        assert len(said) == (0 if name == "one" else 1)
        assert len(result.figures) == (3 if name == "one" else 2)
        if name != "none":
            with pytest.raises(ConflictError, match="labels"):
                train(source, tmp_path / "none", epochs=1)


class Stopped(Exception):
    """In place of a kill, in this process."""


@pytest.mark.parametrize(
    "options",
    [
        {"optimizer": "adam"},
        {"optimizer": "sgd", "lr": 0.1},
        {"optimizer": "lars", "lr": 0.5, "weight_decay": 1e-4},
        {"precision": "bf16"},
        {"norm": "layer", "blur": 0.5},
        {"patience": 3, "epochs": 30, "lr": 1e-9},
        {
            "method": "treenet",
            "optimizer": "adamw",
            "clip": 0.1,
            "head_norm": True,
            "leaf_view": "each",
            "weight_decay": 0.04,
            "final_weight_decay": 0.4,
        },
        {"method": "treenet", "loss": "byol"},
        {"method": "deepcluster", "lr": 0.05},
        {"method": "deepcluster", "optimizer": "adam", "cycle_epochs": 2, "cycles": 2, "halt": 1},
    ],
    ids=[
        *("adam", "sgd", "lars", "bf16", "layer", "patience", "treenet", "byol"),
        *("deepcluster", "halted"),
    ],
)
def test_stopped_in_any_step_it_goes_on_to_the_same_bytes(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    from featkit.trainers import loop

    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    train(stripes, tmp_path / "whole", **options)
    step = loop.Loop._step
    left = [2, 3, 1]  # steps until a stop: in the middle of epochs, and at an end

    def stopping(self: loop.Loop, *given: Any) -> torch.Tensor:
        if left:
            if not left[0]:
                left.pop(0)
                raise Stopped
            left[0] -= 1
        return step(self, *given)

    monkeypatch.setattr(loop.Loop, "_step", stopping)
    for _ in range(len(left)):
        with pytest.raises(Stopped):
            train(stripes, tmp_path / "parts", **options)
    train(stripes, tmp_path / "parts", **options)
    assert not left
    whole, parts = (
        {path.name: path.read_bytes() for path in (tmp_path / run / "weights").iterdir()}
        for run in ("whole", "parts")
    )
    assert whole == parts
    assert read_run(tmp_path / "whole") == read_run(tmp_path / "parts")


def test_overwrite_starts_again(stripes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(stripes, run, epochs=1, keep_every=1)
    (run / "weights" / "epoch-0009.safetensors.tmp").write_bytes(b"of a kill")
    train(stripes, run, epochs=2, overwrite=True)
    assert read_run(run).chosen == 2
    assert {int(path.stem[-4:]) for path in (run / "weights").iterdir()} == set(
        read_run(run).weights
    )
    assert read_run(run).settings["keep_every"] is None


def test_a_folder_with_something_else_is_refused(stripes: Path, tmp_path: Path) -> None:
    for name in ("letter.txt", "run.json", "weights/mine.safetensors"):
        file = tmp_path / name.partition("/")[0].partition(".")[0] / name
        file.parent.mkdir(parents=True)
        file.write_text("{}")
        folder = tmp_path / name.partition("/")[0].partition(".")[0]
        for overwrite in (False, True):
            with pytest.raises(UsageError, match="no training run"):
                train(stripes, folder, overwrite=overwrite)
        assert [path for path in folder.rglob("*") if path.is_file()] == [file]


@pytest.mark.parametrize("name", ["", "a=1", "a?epoch=3"])
def test_a_name_that_no_backbone_can_have_is_refused(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="name"):
        train(stripes, Path(name) if name else "", epochs=1)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"epochs": 0}, "epochs is 0: give a whole number, at least 1"),
        ({"lr": 0.0}, r"lr is 0\.0: give a number above 0"),
        ({"lr": float("nan")}, "lr is nan"),
        ({"lr": 10**400}, "lr is 1000"),
        ({"held_out": 1.0}, r"held_out is 1\.0: give a share below 1"),
        ({"held_out": 0.0, "patience": 3}, "patience needs images to judge on"),
        ({"optimizer": "adan"}, "optimizer is 'adan': use adam, adamw, lars, sgd"),
        ({"clip": -1.0}, r"clip is -1\.0: give a number, at least 0"),
        ({"final_weight_decay": "a"}, "final_weight_decay is 'a': give a number"),
        ({"temperature": -1.0}, r"temperature is -1\.0"),
        ({"crop": 0.0}, r"crop is 0\.0"),
        ({"blur": 2.0}, r"blur is 2\.0"),
        ({"hidden": 0}, "hidden is 0"),
        ({"batch_size": 1}, "batch_size is 1: give a whole number, at least 2"),
        ({"size": 4}, "size is 4: give a whole number, at least 8"),
        ({"projection": 64.5}, r"projection is 64\.5: give a whole number"),
        ({"temperature": "a"}, "temperature is 'a': give a number"),
        ({"depth": 0}, "depth is 0: give a whole number"),
        ({"norm": "foo"}, "norm 'foo': use batch, layer"),
        ({"held_out": 0.999}, r"held_out 0\.999 of 60 images leaves none"),
        ({"batch_size": 55}, "54 images to learn from, and a batch takes 55"),
        ({"epoch": 3}, "SimCLR has no option 'epoch': did you mean epochs"),
        ({"preset": "papr"}, "no preset 'papr': did you mean paper"),
        ({"arch": "timm:vit_tiny_patch16_224", "depth": 3}, "depth, width and norm are those of"),
        ({"arch": "cifar_resnet9"}, "no network 'cifar_resnet9': did you mean"),
        ({"arch": "torchvision:densenet121", "size": 8}, "does not run on 8x8 pixels"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_written(
    stripes: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        train(stripes, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("options", [{"batch_size": 55}, {"arch": "nothing"}, {"patience": 0}])
def test_a_mistake_does_not_cost_the_run_that_is_there(
    finished: Path, stripes: Path, tmp_path: Path, options: dict[str, Any]
) -> None:
    run = shutil.copytree(finished, tmp_path / "run")
    with pytest.raises(UsageError):
        train(stripes, run, overwrite=True, **options)
    assert featkit.load_backbone(str(run)).weights == featkit.load_backbone(str(finished)).weights


def test_no_method_of_that_name(stripes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no method 'simclt': did you mean simclr"):
        featkit.train("simclt", stripes, tmp_path / "run")


@pytest.mark.parametrize(
    ("query", "said"),
    [
        ("?epoch=3", "epoch 3 is not kept; kept are"),
        ("?epoch=x", "epoch is a whole number"),
        ("?weights=teacher", "a training run says all of that itself"),
        ("?arch=resnet18", "a training run says all of that itself"),
    ],
)
def test_what_a_run_does_not_have(finished: Path, query: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        featkit.load_backbone(f"{finished}{query}")


def test_a_damaged_run_is_noticed(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "mine")
    file = run / "weights" / "epoch-0004.safetensors"
    content = bytearray(file.read_bytes())
    content[-5] ^= 1
    file.write_bytes(content)
    with pytest.raises(CheckpointError, match="damaged, or another file"):
        featkit.load_backbone(str(run))
    record = json.loads((run / "run.json").read_text())
    del record["sha256"]  # whoever writes one knows its own
    for broken, said in (
        ("{", "is damaged, or no training run"),
        (json.dumps({**record, "version": 9}), "newer than 1: upgrade featkit"),
        (json.dumps({**record, "format": "other"}), "no training run of this featkit"),
        (json.dumps({k: v for k, v in record.items() if k != "weights"}), "it has no 'weights'"),
        (json.dumps({**record, "preprocessing": {"size": [0, 0]}}), "is damaged"),
        (json.dumps([]), "is damaged"),
    ):
        (run / "run.json").write_text(broken)
        with pytest.raises(CheckpointError, match=said):
            featkit.load_backbone(str(run))


def test_weights_of_another_shape_are_refused(finished: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished, tmp_path / "mine")
    record = json.loads((run / "run.json").read_text())
    del record["sha256"]
    (run / "run.json").write_text(json.dumps({**record, "architecture": "cifar_resnet8w2"}))
    with pytest.raises(CheckpointError, match="not the weights of cifar_resnet8w2"):
        featkit.load_backbone(str(run))


def test_a_finished_run_without_its_result_says_so(
    finished: Path, stripes: Path, tmp_path: Path
) -> None:
    run = shutil.copytree(finished, tmp_path / "mine")
    (run / "result.json").unlink()
    with pytest.raises(UsageError, match=r"its result\.json is gone"):
        train(stripes, run, epochs=4, keep_every=2)


def test_an_architecture_goes_before_a_run_of_its_name_where_weights_are_random(
    finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(finished, tmp_path / "cifar_resnet20")
    monkeypatch.chdir(tmp_path)
    random = featkit.load_backbone("cifar_resnet20?weights=none").network
    assert (random.architecture, random.checkpoint) == ("cifar_resnet20", None)
    assert featkit.load_backbone("cifar_resnet20").network.architecture == "cifar_resnet8"


def test_the_file_of_an_epoch_is_a_checkpoint_of_its_own(finished: Path, tmp_path: Path) -> None:
    file = finished / "weights" / "epoch-0004.safetensors"
    alone = featkit.load_backbone(f"a={file}")
    assert alone.weights == featkit.load_backbone(str(finished)).weights
    tensors = load_file(file)
    del tensors["backbone.layer1.0.conv1.weight"]
    save_file(tensors, tmp_path / "less.safetensors")
    with pytest.raises(CheckpointError):
        featkit.load_backbone(str(tmp_path / "less.safetensors"))


def test_a_run_among_the_images_it_learns_from_is_refused(stripes: Path) -> None:
    with pytest.raises(UsageError, match="where figures would be images"):
        train(stripes, stripes / "lying" / "run")
    assert not (stripes / "lying" / "run").exists()


def test_pixels_beyond_memory_lie_in_a_mapped_file(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train(stripes, tmp_path / "held", epochs=1)
    monkeypatch.setattr("featkit.trainers.images._IN_MEMORY", 0.0)
    monkeypatch.setattr("featkit.ops.read_ahead.free_for_files", lambda: 0)
    told: list[int] = []
    monkeypatch.setattr(
        "featkit.ops.read_ahead._Mapped.read", lambda _, rows: told.extend(rows.tolist())
    )
    train(stripes, tmp_path / "mapped", epochs=1)
    assert len(told) == len(set(told)) > 0
    weights = [tmp_path / run / "weights" / "epoch-0001.safetensors" for run in ("held", "mapped")]
    assert weights[0].read_bytes() == weights[1].read_bytes()
    assert {path.name for path in (tmp_path / "mapped").iterdir()} == {
        "run.json", "result.json", "epochs.csv", "arrays.h5", "weights", ".lock"
    }  # fmt: skip


def test_views_of_fewer_images_than_are_usually_shown(stripes: Path, tmp_path: Path) -> None:
    from featkit.report.figures import draw_figures

    result = train(stripes, tmp_path / "run", images=6, held_out=0.5, batch_size=2, epochs=1)
    assert result.arrays["views"].shape == (3, 3, 16, 16, 3)
    assert {path.name for path in draw_figures(result, tmp_path)} >= {"views.png", "loss.png"}


def kept_state(run: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    path = run / "state.safetensors"
    with safe_open(path, framework="pt") as file:
        return load(path.read_bytes()), file.metadata()


def test_a_state_that_is_not_what_was_written_is_refused(stripes: Path, tmp_path: Path) -> None:
    def stopped(*_: object) -> None:
        raise Stopped

    run = tmp_path / "run"
    with pytest.raises(Stopped):
        train(stripes, run, epochs=1, draw=stopped)
    path = run / "state.safetensors"
    whole = path.read_bytes()
    tensors, metadata = kept_state(run)
    about = json.loads(metadata["about"])
    other = {"module.more": torch.ones(3)}
    damaged = [whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:], whole.replace(b"best", b"bess")]
    damaged += [
        save(tensors | more, with_tensors_digest({"about": told}, tensors | more))
        for told, more in (
            ("[" * 100_000, {}),
            ("[1]", {}),
            ("3", {}),
            (json.dumps(about | {"epoch": "1"}), {}),
            (json.dumps(about | {"rows": [1]}), {}),
            (json.dumps(about | {"more": 1}), {}),
            (metadata["about"], other),
            (metadata["about"], {"more.0": torch.ones(3)}),
            (metadata["about"], {"optimizer.0.exp_avg": torch.ones(3)}),
            (metadata["about"], {"optimizer.999.exp_avg": torch.ones(3)}),
        )
    ]
    for content in damaged:
        path.write_bytes(content)
        with pytest.raises(DamagedError, match=r"start again in another folder, or with --over"):
            train(stripes, run, epochs=1, draw=stopped)
    path.write_bytes(save(tensors, {"about": metadata["about"]}))  # as files were without a sha256
    assert train(stripes, run, epochs=1).tables["epochs"] == about["rows"]


def test_stopped_while_figures_are_drawn_it_draws_them_again(stripes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"

    def stopped(result: Result, folder: Path) -> None:
        assert (len(result.tables["epochs"]), folder) == (2, run)
        raise Stopped

    run.mkdir()
    (run / "run.json.tmp").write_text("{")  # as a kill at the very beginning leaves it
    with pytest.raises(Stopped):
        train(stripes, run, epochs=1, draw=stopped)
    assert json.loads((run / "run.json").read_text())["chosen"] is None
    state = (run / "state.safetensors").read_bytes()
    drawn: list[Path] = []
    train(stripes, run, epochs=1, draw=lambda _, folder: drawn.append(folder))
    assert drawn == [run]
    assert not (run / "state.safetensors").exists()
    (run / "state.safetensors").write_bytes(state)  # as a kill between the last two steps leaves it
    assert train(stripes, run, epochs=1, draw=stopped).origin
    assert not (run / "state.safetensors").exists()
