"""Extraction: the same numbers as a plain loop, kept whole and not computed twice."""

from __future__ import annotations

import dataclasses
import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import ImageFolder
from torchvision.transforms import v2

import featkit
from featkit.backbones.precision import agreement
from featkit.backbones.resolve import load_backbone
from featkit.data import files
from featkit.data.sources import open_source
from featkit.errors import (
    ConflictError,
    DecodeError,
    DiskFullError,
    FeatkitError,
    SourceError,
    UsageError,
)
from featkit.extraction import listing, pipeline, planning
from featkit.extraction.planning import Options, plan_extraction
from featkit.store import writer
from featkit.store.reader import Store
from featkit.store.runs import read_runs
from tests.conftest import NET
from tests.processes import run_forked


def extract(photos: Path, store: Path, *backbones: str, **options: object) -> Store:
    options = {"precision": "fp32", "workers": 0, "batch_size": 8, **options}
    return featkit.extract(photos, list(backbones) or [NET], store, **options)  # type: ignore[arg-type]


def forbidden(*_: object, **__: object) -> None:
    raise AssertionError("decoded again")


def by_plain_loop(photos: Path, spec: str, module: str) -> np.ndarray:
    """The loop that everyone writes: torchvision's folder and transforms, a hook, a list."""
    transform = v2.Compose(
        [
            v2.Resize(32, v2.InterpolationMode.BICUBIC),
            v2.CenterCrop(32),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    network = load_backbone(spec).module
    seen: list[torch.Tensor] = []
    network.get_submodule(module).register_forward_hook(lambda m, i, o: seen.append(o.clone()))
    with torch.no_grad():
        for image, _ in ImageFolder(str(photos), transform):
            network(image[None])
    return torch.cat(seen).numpy()


def test_equal_to_a_plain_loop(photos: Path, tmp_path: Path) -> None:
    other = "other=cifar_resnet20?weights=none&seed=5"
    taps = ["layer3:avg", "other/layer1:none", "cifar_resnet20/conv1:max", "avgpool"]
    store = extract(photos, tmp_path / "s", NET, other, taps=taps, workers=1)
    assert [table.name for table in store.tables()] == [
        "cifar_resnet20/layer3.avg",
        "cifar_resnet20/conv1.max",
        "cifar_resnet20/avgpool.avg",
        "other/layer3.avg",
        "other/layer1.none",
        "other/avgpool.avg",
    ]
    close = {"rtol": 1e-4, "atol": 1e-5}
    for name, spec in (("cifar_resnet20", NET), ("other", other)):
        wanted = by_plain_loop(photos, spec, "layer3").mean((2, 3))
        np.testing.assert_allclose(store[f"{name}/layer3"].numpy(), wanted, **close)
        np.testing.assert_allclose(store[f"{name}/avgpool"].numpy(), wanted, **close)
    maps = by_plain_loop(photos, other, "layer1")
    np.testing.assert_allclose(store["other/layer1"].numpy(), maps, **close)
    peaks = by_plain_loop(photos, NET, "relu").max((2, 3))
    np.testing.assert_allclose(store["cifar_resnet20/conv1"].numpy(), peaks, **close)
    folder = ImageFolder(str(photos))
    assert store.samples.labels is not None
    assert store.samples.labels.tolist() == folder.targets
    assert list(store.samples.paths) == [
        Path(path).relative_to(photos).as_posix() for path, _ in folder.samples
    ]


def test_float16_is_the_rounded_float32(photos: Path, tmp_path: Path) -> None:
    full = extract(photos, tmp_path / "a")[NET.partition("?")[0]]
    half = extract(photos, tmp_path / "b", dtype="float16")[NET.partition("?")[0]]
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half.numpy(), full.numpy().astype(np.float16))


def test_nothing_is_computed_twice(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = extract(photos, tmp_path / "s")
    before = first.tables()[0].path.read_bytes()

    monkeypatch.setattr(pipeline, "load_batches", forbidden)
    again = extract(photos, tmp_path / "s", precision="auto")
    assert again.tables()[0].path.read_bytes() == before
    (tmp_path / "s").chmod(0o500)
    extract(photos, tmp_path / "s")
    (tmp_path / "s").chmod(0o700)
    assert [run["event"] for run in read_runs(tmp_path / "s")] == ["started", "finished"]


def test_unchanged_files_are_not_hashed_twice(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "SETTLED_NS", 0)  # they are new, and yet stay as they are
    extract(photos, tmp_path / "s")
    source = open_source(photos)
    read: list[int] = []
    hashed = type(source).digest
    monkeypatch.setattr(
        type(source), "digest", lambda self, row: (read.append(row), hashed(self, row))[1]
    )
    samples = listing.list_samples(source, tmp_path / "s")
    assert read == []
    (photos / "dog" / "03.png").touch()
    assert listing.list_samples(open_source(photos), tmp_path / "s").manifest == samples.manifest
    assert read == [23]


def test_bad_images_keep_their_rows_and_harm_no_other(photos: Path, tmp_path: Path) -> None:
    clean = extract(photos, tmp_path / "clean")["cifar_resnet20"].numpy().copy()
    whole = (photos / "cat" / "05.png").read_bytes()
    (photos / "cat" / "05.png").write_bytes(whole[: len(whole) // 2])
    (photos / "dog" / "00.png").write_bytes(b"")
    (photos / "dog" / "19.png").write_text("this is no image")
    store = extract(photos, tmp_path / "s", workers=2)
    table = store["cifar_resnet20"]
    bad = [5, 20, 39]
    assert np.flatnonzero(~table.valid).tolist() == bad
    assert np.isnan(table.numpy()[bad]).all()
    np.testing.assert_array_equal(table.numpy()[table.valid], np.delete(clean, bad, 0))
    reasons = {store.samples.paths[row]: why for row, why in table.failures.items()}
    assert list(reasons) == ["cat/05.png", "dog/00.png", "dog/19.png"]
    assert "truncated" in reasons["cat/05.png"]
    assert "empty" in reasons["dog/00.png"]
    with pytest.raises(DecodeError, match=r"cat/05\.png could not be read \(truncated"):
        extract(photos, tmp_path / "f", on_error="fail")


def test_all_images_bad(photos: Path, tmp_path: Path) -> None:
    for path in photos.glob("*/*.png"):
        path.write_bytes(b"")
    table = extract(photos, tmp_path / "s", precision="auto")["cifar_resnet20"]
    assert not table.valid.any()


def test_other_weights_or_preprocessing_under_the_same_name_are_refused(
    photos: Path, tmp_path: Path
) -> None:
    extract(photos, tmp_path / "s")
    before = (tmp_path / "s" / "cifar_resnet20" / "avgpool.avg.h5").read_bytes()
    for spec, field in ((f"{NET}&seed=1", "backbone.weights"), (f"{NET}&size=40", "preprocessing")):
        with pytest.raises(ConflictError, match=field):
            extract(photos, tmp_path / "s", spec)
    with pytest.raises(ConflictError, match="dtype: float32 there, float16 asked"):
        extract(photos, tmp_path / "s", dtype="float16")
    with pytest.raises(ConflictError, match="precision: fp32 there, bf16 asked"):
        extract(photos, tmp_path / "s", precision="bf16")
    assert (tmp_path / "s" / "cifar_resnet20" / "avgpool.avg.h5").read_bytes() == before
    store = extract(photos, tmp_path / "s", f"seed1={NET}&seed=1")
    assert len(store.tables()) == 2
    replaced = extract(photos, tmp_path / "s", f"{NET}&seed=1", overwrite=True)
    np.testing.assert_array_equal(replaced["cifar_resnet20"].numpy(), replaced["seed1"].numpy())


RECIPE = load_backbone(NET).preprocessing


@pytest.mark.parametrize(
    "change",
    [
        {"size": (30, 32)},
        {"resize": 36},
        {"interpolation": "bilinear"},
        {"mean": (0.5, 0.456, 0.406)},
        {"std": (0.229, 0.224, 0.2251)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_every_part_of_the_preprocessing_counts(
    photos: Path, tmp_path: Path, change: dict[str, object]
) -> None:
    backbone = load_backbone(NET)
    common = {"precision": "fp32", "workers": 0}
    featkit.extract(photos, backbone, tmp_path / "s", **common)  # type: ignore[arg-type]
    recipe = dataclasses.replace(RECIPE, **change)  # type: ignore[arg-type]
    network = dataclasses.replace(backbone.network, preprocessing=recipe)
    other = dataclasses.replace(backbone, network=network)
    with pytest.raises(ConflictError, match=f"preprocessing.{next(iter(change))}"):
        featkit.extract(photos, other, tmp_path / "s", **common)  # type: ignore[arg-type]


@pytest.mark.parametrize("option", ["size=40", "mean=0.5", "std=0.2,0.3,0.4", "interpolation=box"])
def test_another_preprocessing_of_a_checkpoint_is_another_table(
    photos: Path, tmp_path: Path, option: str
) -> None:
    path = tmp_path / "net.th"
    torch.save({"state_dict": load_backbone(NET).module.state_dict()}, path)
    before = extract(photos, tmp_path / "s", str(path))["net"].numpy()
    with pytest.raises(ConflictError, match=f"preprocessing.{option.partition('=')[0]}"):
        extract(photos, tmp_path / "s", f"{path}?{option}")
    after = extract(photos, tmp_path / "s", f"other={path}?{option}")["other"].numpy()
    assert not np.allclose(before, after, rtol=1e-2)


def test_a_table_tells_how_its_checkpoint_was_understood(photos: Path, tmp_path: Path) -> None:
    state = load_backbone(NET).module.state_dict()
    path = tmp_path / "net.pth.tar"
    torch.save({"epoch": 3, "state_dict": {f"module.{k}": v for k, v in state.items()}}, path)
    store = extract(photos, tmp_path / "s", str(path), f"{NET}&seed=1", taps=["res4", "head"])
    report = store["net/res4"].checkpoint
    assert report is not None
    assert report == store["net/head"].checkpoint
    assert report["file"] == "net.pth.tar"
    assert report["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
    assert report["architecture"] == "cifar_resnet20"
    assert report["tensors"] == len(state)
    assert len(report["heads"]) == 1
    assert store["cifar_resnet20/res4"].checkpoint is None


def test_weights_that_change_in_memory_are_noticed(photos: Path, tmp_path: Path) -> None:
    backbone = load_backbone(NET)
    extract(photos, tmp_path / "s", backbone)  # type: ignore[arg-type]
    with torch.no_grad():
        backbone.module.get_submodule("conv1").weight.mul_(-1)
    with pytest.raises(ConflictError, match=r"backbone\.weights"):
        extract(photos, tmp_path / "s", backbone)  # type: ignore[arg-type]


def test_a_network_in_training_mode_is_evaluated(photos: Path, tmp_path: Path) -> None:
    wanted = extract(photos, tmp_path / "a")["cifar_resnet20"].numpy()
    backbone = load_backbone(NET)
    backbone.module.train()
    before = backbone.weights
    store = extract(photos, tmp_path / "b", backbone)  # type: ignore[arg-type]
    assert backbone.weights == before
    np.testing.assert_array_equal(store["cifar_resnet20"].numpy(), wanted)


SETTINGS = ["pass", "torch.set_float32_matmul_precision('medium')"]
if hasattr(torch.backends, "fp32_precision"):
    SETTINGS.append("torch.backends.mkldnn.matmul.fp32_precision = 'bf16'")


def test_fp32_is_fp32_whatever_was_set(photos: Path, tmp_path: Path) -> None:
    """In processes of their own: torch does not take such settings back."""
    code = (
        "import sys, warnings, featkit, torch\n"
        "warnings.simplefilter('error')\n"
        "x = torch.randn(64, 64, generator=torch.Generator().manual_seed(0))\n"
        "exec(sys.argv[1])\n"
        "before = x @ x\n"
        "spec = 'timm:vit_tiny_patch16_224?weights=none'\n"
        "store = featkit.extract(sys.argv[2], spec, sys.argv[3], precision='fp32', workers=0)\n"
        "assert torch.equal(before, x @ x)\n"
    )
    tables = []
    for i, setting in enumerate(SETTINGS):
        store = str(tmp_path / str(i))
        done = run_forked(code, setting, photos / "cat", store)
        assert done.returncode == 0, done.stderr
        tables.append(featkit.open_store(store)["vit_tiny_patch16_224"].path.read_bytes())
    assert len(set(tables)) == 1


def test_one_disagreeing_tap_is_enough(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "native_precision", lambda _: "bf16")
    monkeypatch.setattr(pipeline, "agreement", lambda *_: [1.0, 0.99])
    store = extract(photos, tmp_path / "s", precision="auto", taps=["layer1", "avgpool"])
    assert {table.provenance["precision"] for table in store.tables()} == {"fp32"}


def test_two_names_for_one_table_are_refused(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="one table under two names"):
        extract(photos, tmp_path / "s", f"a={NET}", f"b={NET}")


def test_what_another_process_wrote_meanwhile_is_seen(photos: Path, tmp_path: Path) -> None:
    def plan(folder: Path, spec: str) -> planning.Plan:
        backbones = [load_backbone(spec)]
        options = Options(precision="fp32", workers=0)
        return plan_extraction(open_source(folder), backbones, tmp_path / "s", [], options)

    first, same = plan(photos / "cat", NET), plan(photos / "cat", NET)
    other_images = plan(photos / "dog", f"other={NET}")
    other_weights = plan(photos / "cat", f"{NET}&seed=1")
    pipeline.run_plan(first)
    before = featkit.open_store(tmp_path / "s").tables()[0].path.read_bytes()
    with pytest.raises(ConflictError, match="other images"):
        pipeline.run_plan(other_images)
    with pytest.raises(ConflictError, match=r"backbone\.weights"):
        pipeline.run_plan(other_weights)
    assert pipeline.run_plan(same).images == 0
    tables = featkit.open_store(tmp_path / "s").tables()
    assert [table.path.read_bytes() for table in tables] == [before]


def test_leftovers_of_a_crash_are_swept(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed after a table has appeared and before its parts are gone."""
    monkeypatch.setattr(writer, "drop", lambda _: None)
    store = extract(photos, tmp_path / "s")
    assert len(list((tmp_path / "s" / ".partial").iterdir())) == 1
    monkeypatch.undo()
    without_plan = tmp_path / "s" / ".partial" / ("0" * 64)
    half_dropped = tmp_path / "s" / ".partial" / ("1" * 64 + ".dropped")
    for folder in (without_plan, half_dropped):
        folder.mkdir()
        (folder / "part-000000.h5").write_bytes(b"x")
    extract(photos, tmp_path / "s", taps="layer1")
    assert list((tmp_path / "s" / ".partial").iterdir()) == []
    assert len(store.tables()) == 2
    # even where nothing else is to do
    half_dropped.mkdir()
    extract(photos, tmp_path / "s", taps="layer1")
    assert list((tmp_path / "s" / ".partial").iterdir()) == []


def test_a_killed_overwrite_goes_on_too(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The table that is being replaced is there, and has the key of the parts."""
    before = extract(photos, tmp_path / "s").tables()[0].path.read_bytes()
    original = writer.PartialTable.write

    def stop_at_the_second(self: writer.PartialTable, part: int, *rows: object) -> None:
        if part == 1:
            raise KeyboardInterrupt
        original(self, part, *rows)  # type: ignore[arg-type]

    monkeypatch.setattr(planning, "PART_BATCHES", 2)
    monkeypatch.setattr(writer.PartialTable, "write", stop_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        extract(photos, tmp_path / "s", overwrite=True)
    (first,) = (tmp_path / "s").glob(".partial/*/part-*.h5")
    made: list[int] = []
    monkeypatch.setattr(
        writer.PartialTable,
        "write",
        lambda self, part, *rows: (made.append(part), original(self, part, *rows)),
    )
    store = extract(photos, tmp_path / "s", overwrite=True)
    assert first.name == "part-000000.h5"
    assert made == [1, 2]
    assert store.tables()[0].path.read_bytes() == before


def test_a_failing_image_of_a_finished_table_fails_too(photos: Path, tmp_path: Path) -> None:
    (photos / "cat" / "00.png").write_bytes(b"")
    extract(photos, tmp_path / "s")
    with pytest.raises(DecodeError, match=r"cat/00\.png"):
        extract(photos, tmp_path / "s", on_error="fail")


class OwnSource:
    """A source of somebody else, with what is given wrong about it."""

    name = "own"
    notes = ()
    classes = ("a",)

    def __init__(self, ids: list[str], labels: list[int]) -> None:
        self.ids = ids
        self.labels = np.array(labels)

    def read(self, row: int) -> Image.Image:
        return Image.new("RGB", (32, 32), (row, 0, 0))

    def digest(self, row: int) -> bytes:
        return bytes([row] * 32)

    def stamps(self) -> None:
        return None


def test_sources_of_somebody_else(tmp_path: Path) -> None:
    store = extract(OwnSource(["x", "y"], [0, 0]), tmp_path / "s")  # type: ignore[arg-type]
    assert store["cifar_resnet20"].shape == (2, 64)
    for ids, labels, message in (
        ([], [], "holds no image"),
        (["x", "x"], [0, 0], "the same name"),
        (["x", "y"], [0], "2 samples with 1 labels"),
    ):
        with pytest.raises(SourceError, match=message):
            extract(OwnSource(ids, labels), tmp_path / "t")  # type: ignore[arg-type]


def test_one_changed_pixel_makes_another_set_of_images(photos: Path, tmp_path: Path) -> None:
    path = photos / "cat" / "00.bmp"
    Image.new("RGB", (32, 32)).save(path)
    extract(photos, tmp_path / "s")
    changed = bytearray(path.read_bytes())
    changed[-1] ^= 1
    path.write_bytes(bytes(changed))
    with pytest.raises(ConflictError, match=r"content of cat/00\.bmp has changed"):
        extract(photos, tmp_path / "s")
    path.unlink()
    with pytest.raises(ConflictError, match="other images: 41 from .* these 40"):
        extract(photos, tmp_path / "s")


def test_other_labels_of_the_same_images(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"{c}/{i:02d}.png" for c in ("cat", "dog") for i in range(20)]
    table = photos / "labels.csv"
    table.write_text("path,label\n" + "".join(f"{n},{n[:3]}\n" for n in names))
    extract(table, tmp_path / "s")
    before = (tmp_path / "s" / "cifar_resnet20" / "avgpool.avg.h5").read_bytes()
    table.write_text("path,label\n" + "".join(f"{n},{i % 4}\n" for i, n in enumerate(names)))
    with pytest.raises(ConflictError, match="other labels"):
        extract(table, tmp_path / "s")
    shutil.copytree(tmp_path / "s", tmp_path / "t")
    monkeypatch.setattr(pipeline, "load_batches", forbidden)
    store = extract(table, tmp_path / "t", overwrite=True)
    assert store.samples.labels is not None
    assert store.samples.labels.tolist() == [0, 1, 2, 3] * 10
    assert (tmp_path / "t" / "cifar_resnet20" / "avgpool.avg.h5").read_bytes() == before


def test_a_dry_plan_writes_nothing_and_knows_the_sizes(photos: Path, tmp_path: Path) -> None:
    backbones = [load_backbone(NET)]
    taps = ["layer1:none", "avgpool"]
    plan = plan_extraction(open_source(photos), backbones, tmp_path / "s", taps, Options())
    assert not (tmp_path / "s").exists()
    assert [spec.nbytes for spec in plan.pending] == [40 * 16 * 32 * 32 * 4, 40 * 64 * 4]


def test_a_plan_that_does_not_fit_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "free_bytes", lambda _: 1_000)
    with pytest.raises(DiskFullError, match=r"20\.5 kB needed, 1\.0 kB free"):
        extract(photos, tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_auto_takes_the_fast_format_only_where_it_agrees(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "native_precision", lambda _: "bf16")
    fast = extract(photos, tmp_path / "a", precision="auto")["cifar_resnet20"]
    exact = extract(photos, tmp_path / "b")["cifar_resnet20"]
    assert fast.provenance["precision"] == "bf16"
    ours = fast.torch()
    assert agreement([ours], [exact.torch()])[0] >= 0.999
    assert not np.array_equal(fast.numpy(), exact.numpy())
    monkeypatch.setattr(pipeline, "AGREEMENT", 1.1)
    plan = plan_extraction(
        open_source(photos), [load_backbone(NET)], tmp_path / "c", [], Options(workers=0)
    )
    summary = pipeline.run_plan(plan)
    assert "fp32, because bf16 agrees only to" in summary.notes[-1]
    assert featkit.open_store(tmp_path / "c")["cifar_resnet20"].provenance["precision"] == "fp32"


def test_agreement_by_hand() -> None:
    reference = [torch.tensor([[1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])]
    assert agreement(reference, reference) == [1.0]
    turned = [torch.tensor([[1.0, 1.0], [0.0, 2.0], [0.0, 0.0]])]
    assert agreement(turned, reference) == [pytest.approx(0.5**0.5, abs=1e-6)]
    broken = [torch.tensor([[1.0, torch.inf], [0.0, 2.0], [0.0, 0.0]])]
    assert agreement(broken, reference) == [-1.0]


def test_compiled_networks_give_the_same(photos: Path, tmp_path: Path) -> None:
    if shutil.which("c++") is None:
        pytest.skip("torch.compile needs a C++ compiler")
    taps = ["layer1", "avgpool"]
    net = "cifar_resnet8?weights=none"
    plain = extract(photos, tmp_path / "a", net, taps=taps)
    torch.compiler.reset()
    fast = extract(photos, tmp_path / "b", net, taps=taps, compile=True)
    for one, other in zip(plain.tables(), fast.tables(), strict=True):
        np.testing.assert_allclose(one.numpy(), other.numpy(), rtol=1e-3, atol=1e-4)


def test_numbers_that_cannot_be_held_are_refused(photos: Path, tmp_path: Path) -> None:
    backbone = load_backbone(NET)
    with torch.no_grad():
        backbone.module.get_submodule("bn1").weight.mul_(1e6)
    with pytest.raises(FeatkitError, match="stored as float16, cannot hold.*--dtype float32"):
        featkit.extract(
            photos,
            backbone,
            tmp_path / "s",
            taps="bn1",
            dtype="float16",
            precision="fp32",
            workers=0,
        )
    assert not list((tmp_path / "s").glob("*/*.h5"))
    hooks = [m._forward_hooks for m in backbone.module.modules() if m._forward_hooks]
    assert hooks == []
    with pytest.raises(UsageError, match="no backbone given"):
        featkit.extract(photos, [], tmp_path / "t")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "fp8"}, "precision 'fp8': use auto, fp32, bf16, fp16"),
        ({"dtype": "int8"}, "dtype 'int8': use float32, float16"),
        ({"batch_size": 0}, "batch size 0"),
        ({"workers": -1}, "workers -1"),
        ({"on_error": "stop"}, "use skip or fail"),
        ({"device": "tpu"}, "device 'tpu' is not available"),
        ({"device": "cuda:7"}, "device 'cuda:7' is not available"),
        ({"taps": ["nope/avgpool"]}, "no backbone 'nope'"),
    ],
)
def test_options_that_mean_nothing(
    photos: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        extract(photos, tmp_path / "s", **options)


def test_two_backbones_of_one_name(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="two backbones are called 'cifar_resnet20'"):
        extract(photos, tmp_path / "s", NET, f"{NET}&seed=1")
