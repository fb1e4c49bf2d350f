"""Dissections by hand, and unit by unit against loops written from the publications."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision import transforms

from featkit import load_backbone
from featkit.analyses.dissect import scratch, subject
from featkit.analyses.dissect.analysis import Dissection, Labeller, dissect
from featkit.analyses.dissect.config import DissectConfig
from featkit.analyses.dissect.subject import Subject
from featkit.backbones.base import Backbone, Network
from featkit.backbones.maps import MapRunner, map_tap
from featkit.backbones.probe import probe
from featkit.backbones.randomized import randomized
from featkit.backbones.segmenters.resolve import open_concepts
from featkit.data.concepts.grid import Grid
from featkit.data.preprocessing import Preprocessing
from featkit.errors import BackboneError, SourceError, UsageError
from featkit.ops.concept_tally import ConceptTally
from tests.analyses.scenes import CLASSES, SIZE, slow_iou, write_scenes

NET = f"cifar_resnet20?weights=none&seed=3&size={SIZE}"
TAP = "res3"
ONE_THREAD = {"OMP_NUM_THREADS": "1"}
GRID = Grid(Preprocessing((SIZE, SIZE), None, "bilinear", (0.5,) * 3, (0.5,) * 3), (16, 16))


class Channels(nn.Module):
    """Units that are the mean colour of 4 × 4 pixels, and one that is silent."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.AvgPool2d(4)
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.mean(x * self.weight)
        return torch.cat([x, torch.zeros_like(x[:, :1])], 1)


class Stage(nn.Module):
    """A network that is one module, so that it can be tapped."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.stage(x).mean((2, 3))


def made(module: nn.Module, size: int) -> Backbone:
    recipe = Preprocessing((size, size), None, "bilinear", (0.0,) * 3, (1.0,) * 3)
    return Backbone("made", "made", Network("made", module.eval(), recipe))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("scenes")
    write_scenes(root)
    return root


def run(root: Path, *, net: str | Backbone = NET, tap: str = TAP, **options: object) -> Dissection:
    others = {
        name: options.pop(name)
        for name in ("batch_size", "workers", "precision")
        if name in options
    }
    settings = {"draws": 0, "chance": 0} | options
    config = DissectConfig(**settings)  # type: ignore[arg-type]
    return dissect(
        root / "images",
        net,
        tap,
        f"masks:{root / 'masks'}",
        config,
        **{"workers": 0, "device": "cpu", **others},  # type: ignore[arg-type]
    )


def test_by_hand(tmp_path: Path) -> None:
    """Two images of 16 × 16 pixels, 4 × 4 cells, a unit a colour channel.

    Image 1: the upper left quarter (4 cells) is red and a car; image 2 has one red cell, and a car
    in this and the cell to its right. With a share of 5/31 the level is the sixth largest of 32
    numbers, 0: red is active in 5 cells, a car in 6, both in 5.
    """
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    for i, (red, car) in enumerate([((8, 8), (8, 8)), ((4, 4), (4, 8))]):
        pixels, labels = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
        pixels[: red[0], : red[1], 0] = 255
        labels[: car[0], : car[1]] = 1
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(labels).save(tmp_path / "masks" / f"{i}.png")
    (tmp_path / "masks" / "classes.json").write_text('{"1": {"name": "car", "category": "object"}}')
    net = made(Stage(Channels()), 16)
    found = run(tmp_path, net=net, tap="stage", quantile=5 / 31, top=1)
    red, green, _, silent = found.result.tables["units"]
    assert (red["concept"], red["iou"], red["active"]) == ("car", 5 / 6, 5 / 32)
    assert red["detector"] is True
    assert [green["concept"], green["iou"], green["active"], green["detector"]] == ["", 0, 0, False]
    assert silent["iou"] == 0
    assert "3 of 4 units are active nowhere: their IoU is 0" in found.result.notes
    assert found.gallery.names == {0: "0.png"}  # of equal peaks the earlier image
    wanted = np.zeros((4, 4), bool)
    wanted[:2, :2] = True
    np.testing.assert_array_equal(found.gallery.region(0, 0), wanted)


@pytest.mark.parametrize(
    ("variant", "iou"),
    [("dissect", 5 / 9), ("netdissect", 22 / 49), ("netdissect-lite", 22 / 40)],
)
def test_variants_by_hand(tmp_path: Path, variant: str, iou: float) -> None:
    """Four images of 16 × 16 pixels whose maps have 4 × 4 places; 7 of 64 are red, the level is 0.

    Image 1: the upper left quarter is red and a car. 2: the first place is red, a car there and to
    its right. 3: the first place is red, nothing is labelled. 4: the same, a car in the last place.

    dissect, cells as large as places: A = 4 + 1 + 1 + 1, G = 4 + 2 + 1, I = 4 + 1: 5 / 9.

    The others have 8 × 8 cells; a red place reaches one half of the next one (both ways of
    upsampling differ in by how much only), so that 25, 9, 9 and 9 cells are active, 16, 8, 0 and 4
    are cars, 16 + 2 · 3 are both. netdissect leaves image 3 out of A, as nothing is labelled there:
    22 / (43 + 28 - 22). netdissect-lite leaves image 4 out, too, as no label lies under the mask:
    22 / (34 + 28 - 22).
    """
    (tmp_path / "images").mkdir()
    (tmp_path / "masks").mkdir()
    cars = [np.s_[:8, :8], np.s_[:4, :8], np.s_[:0, :0], np.s_[12:, 12:]]
    for i, car in enumerate(cars):
        pixels, labels = np.zeros((16, 16, 3), np.uint8), np.zeros((16, 16), np.uint8)
        side = 8 if i == 0 else 4
        pixels[:side, :side, 0] = 255
        labels[car] = 1
        Image.fromarray(pixels).save(tmp_path / "images" / f"{i}.png")
        Image.fromarray(labels).save(tmp_path / "masks" / f"{i}.png")
    (tmp_path / "masks" / "classes.json").write_text('{"1": {"name": "car", "category": "object"}}')
    net = made(Stage(Channels()), 16)
    found = run(tmp_path, net=net, tap="stage", variant=variant, quantile=7 / 63)
    red = found.result.tables["units"][0]
    assert (red["concept"], red["iou"]) == ("car", pytest.approx(iou, rel=1e-12))
    assert red["threshold"] == 0


@pytest.mark.parametrize("variant", ["dissect", "netdissect", "netdissect-lite"])
def test_variants_are_those_published(scenes: Path, variant: str) -> None:
    """Maps by torch and torchvision alone, levels by numpy, upsampling as each author's library."""
    found = run(scenes, variant=variant).result
    net = load_backbone(NET)
    read = transforms.Compose(
        [
            transforms.ToTensor(),
            transforms.Normalize(net.preprocessing.mean, net.preprocessing.std),
        ]
    )
    files = sorted((scenes / "images").iterdir())
    pixels = torch.stack([read(Image.open(file).convert("RGB")) for file in files])
    kept: list[torch.Tensor] = []
    path = found.provenance["module"]
    net.module.get_submodule(path).register_forward_hook(lambda _m, _i, out: kept.append(out))
    with torch.no_grad():
        net.module(pixels)
    side = 4 if variant == "dissect" else 2
    centres = np.arange(SIZE // side) * side + side // 2  # the pixel right below a cell's centre
    code = np.zeros(256, np.int64)
    code[list(CLASSES)] = range(1, len(CLASSES) + 1)
    grids = [
        code[np.asarray(Image.open(scenes / "masks" / file.name))][np.ix_(centres, centres)][None]
        for file in files
    ]
    categories = [category for _, category in CLASSES.values()]
    wanted = slow_iou(variant, kept[0].double().numpy(), grids, categories)
    names = [name for name, _ in CLASSES.values()]
    order = [names.index(name) for name in found.arrays["concept_names"].tolist()]
    np.testing.assert_allclose(found.arrays["iou"], wanted[:, order], rtol=1e-6, atol=1e-7)
    assert wanted.max() > 0.05  # there is something to agree about
    for row, best in zip(found.tables["units"], wanted.max(1), strict=True):
        assert row["iou"] == pytest.approx(best, rel=1e-6)
        assert row["detector"] == (best > 0.04)


def test_batches_processes_and_order_do_not_matter(scenes: Path) -> None:
    whole = run(scenes, draws=5)
    for options in ({"batch_size": 2}, {"batch_size": 4, "workers": 1}):
        other = run(scenes, draws=5, **options)
        for name in ("units", "concepts", "bootstrap"):
            assert other.result.tables[name] == whole.result.tables[name]
        assert other.gallery.rows.tolist() == whole.gallery.rows.tolist()


def test_top_images_are_those_of_the_largest_activations(scenes: Path) -> None:
    found = run(scenes, top=3)
    net = load_backbone(NET)
    outputs = probe(net)
    runner = MapRunner(net, map_tap(net, TAP, outputs), outputs)
    peaks = []
    for file in sorted((scenes / "images").iterdir()):
        image = net.preprocessing.pixels(Image.open(file).convert("RGB"))
        with torch.no_grad():
            peaks.append(runner(net.preprocessing.normalize(torch.from_numpy(image)[None]))[0])
    runner.close()
    order = np.argsort(-torch.stack(peaks).amax((2, 3)).numpy(), axis=0, kind="stable")[:3].T
    np.testing.assert_array_equal(found.gallery.rows, order)
    assert set(found.gallery.images) == set(order.ravel().tolist())
    assert all(found.gallery.region(unit, 0).any() for unit in range(len(order)))


def test_levels_from_a_sample_of_places(scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run(scenes).result
    monkeypatch.setattr(subject, "PLACES", 9 * 200)
    found = run(scenes).result
    assert any("levels are from 1,800 of 2,304 activations a unit" in n for n in found.notes)
    active = np.array([row["active"] for row in found.tables["units"]])
    assert abs(active.mean() - 0.01) < 0.002  # 64 units, a standard error of 0.002 each
    assert found.arrays["levels"].tolist() != whole.arrays["levels"].tolist()
    assert run(scenes).result.tables == found.tables


def test_an_image_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    write_scenes(tmp_path, 6)
    broken = tmp_path / "images" / "02.png"
    whole = broken.read_bytes()
    broken.write_bytes(whole[:200])
    found = run(tmp_path).result
    assert found.scalars["images"] == 5
    assert any(note.startswith("1 of 6 images cannot be read") for note in found.notes)
    broken.unlink()
    (tmp_path / "masks" / "02.png").unlink()
    assert run(tmp_path).result.tables["units"] == found.tables["units"]


def test_no_image_can_be_read(tmp_path: Path) -> None:
    write_scenes(tmp_path, 2)
    for file in (tmp_path / "images").iterdir():
        file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(UsageError, match=r"none of the 2 images of .* can be read; the first is"):
        run(tmp_path)


def test_nothing_is_labelled(tmp_path: Path) -> None:
    write_scenes(tmp_path, 3)
    for file in (tmp_path / "masks").glob("*.png"):
        Image.fromarray(np.zeros((SIZE, SIZE), np.uint8)).save(file)
    for variant in ("dissect", "netdissect", "netdissect-lite"):
        found = run(tmp_path, variant=variant, draws=3, chance=1).result
        assert not found.arrays["iou"].any()
        assert found.scalars["detectors"] == 0
        assert "4 of 4 concepts occur in no image: their IoU is 0" in found.notes
        assert "NaN" not in found.to_json()


def test_chance_is_what_a_random_network_reaches(scenes: Path) -> None:
    found = run(scenes, chance=1, seed=5).result
    net = load_backbone(NET)
    twin = run(scenes, net=randomized(net, 5)).result
    best = [row["iou"] for row in twin.tables["units"]]
    assert found.scalars["chance_iou"] == pytest.approx(np.quantile(best, 0.95), rel=1e-9)
    for row in found.tables["units"]:
        assert row["above_chance"] == (row["iou"] > found.scalars["chance_iou"])
        chance = {each["category"]: each["chance_iou"] for each in found.tables["categories"]}
        assert row["above_category"] == (row["iou"] > chance.get(row["category"], 0))
    names = twin.arrays["concept_names"].tolist()
    parts = twin.arrays["iou"][:, [names.index("wheel")]].max(1)
    (chance_of_parts,) = (
        row["chance_iou"] for row in found.tables["categories"] if row["category"] == "part"
    )
    assert chance_of_parts == pytest.approx(np.quantile(parts, 0.95), rel=1e-5)
    levels = dict(zip(twin.arrays["concept_names"], twin.arrays["iou"].T, strict=True))
    for row in found.tables["concepts"]:
        wanted = np.quantile(levels[row["concept"]], 0.95)
        assert row["chance_iou"] == pytest.approx(wanted, rel=1e-5, abs=1e-12)


def test_chance_of_several_random_networks_is_that_of_their_units_together(scenes: Path) -> None:
    found = run(scenes, chance=3, seed=5).result
    twins = [run(scenes, net=randomized(load_backbone(NET), 5, i)).result for i in range(3)]
    best = np.array([[row["iou"] for row in twin.tables["units"]] for twin in twins])
    scalars = found.scalars
    assert scalars["chance_iou"] == pytest.approx(np.quantile(best, 0.95), rel=1e-9)
    levels = np.quantile(best, 0.95, axis=1)
    assert scalars["chance_iou_least"] == pytest.approx(levels.min(), rel=1e-9)
    assert scalars["chance_iou_largest"] == pytest.approx(levels.max(), rel=1e-9)
    assert levels.min() < levels.max()
    for row in found.tables["concepts"]:
        at = twins[0].arrays["concept_names"].tolist().index(row["concept"])
        pooled = np.concatenate([twin.arrays["iou"][:, at] for twin in twins])
        assert row["chance_iou"] == pytest.approx(np.quantile(pooled, 0.95), rel=1e-5, abs=1e-12)
    names = twins[0].arrays["concept_names"].tolist()
    categories = np.array([dict(CLASSES.values())[name] for name in names])
    passed = []
    for i, twin in enumerate(twins):
        others = np.concatenate([other.arrays["iou"] for j, other in enumerate(twins) if j != i])
        for unit in twin.arrays["iou"]:
            if unit.max() > 0.04:
                same = categories == categories[unit.argmax()]
                passed.append(unit.max() > np.quantile(others[:, same].max(1), 0.95))
    assert scalars["random_above_category_chance"] == pytest.approx(np.mean(passed))
    silent = sum(row["active"] == 0 for twin in twins for row in twin.tables["units"])
    note = f"{silent} of {best.size} units of the random networks are active nowhere"
    assert any(text.startswith(note) for text in found.notes) == (silent > 0)


@pytest.mark.parametrize("room", [0, 1, 3.5, 1000])
def test_what_finds_no_room_among_temporary_files_goes_through_the_network_again(
    scenes: Path, monkeypatch: pytest.MonkeyPatch, room: float
) -> None:
    """Of nine images some, none or all are kept; the dissection is the same."""
    options = {"draws": 4, "chance": 1, "batch_size": 2, "top": 3}
    whole = run(scenes, **options)
    image = 64 * 64 * 3 + 16 * 16 * 4 + 2 * 32 * 32 * 32 * 4  # pixels, labels, 2 maps
    monkeypatch.setattr(scratch, "MOST", int(room * image))
    passed: list[int] = []
    forward = Subject.maps
    monkeypatch.setattr(
        Subject, "maps", lambda self, images: passed.append(len(images)) or forward(self, images)
    )
    other = run(scenes, **options)
    again = max(0, 9 - int(room) // 2 * 2)  # in the batches of the first pass
    assert sum(passed) == 2 * (9 + again)
    assert other.result.tables == whole.result.tables
    assert other.gallery.images == whole.gallery.images
    for key, region in whole.gallery.regions.items():
        np.testing.assert_array_equal(other.gallery.regions[key], region)


def test_a_label_map_that_cannot_be_read_ends_the_run_in_the_first_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_scenes(tmp_path, 4)
    broken = tmp_path / "masks" / "02.png"
    broken.write_bytes(broken.read_bytes()[:60])
    monkeypatch.setattr(ConceptTally, "add", None)
    for workers in (0, 1):
        with pytest.raises(SourceError, match=r"02\.png"):
            run(tmp_path, workers=workers)


def test_confidence_is_the_share_of_draws_with_the_same_label(scenes: Path) -> None:
    found = run(scenes, draws=40, min_iou=0).result
    draws, names = found.arrays["draws"], found.arrays["concept_names"]
    assert draws.shape == (40, len(found.tables["units"]))
    for unit, own in zip(found.tables["units"], draws.T, strict=True):
        same = np.mean([names[label] == unit["concept"] for label in own if label >= 0] or [0])
        same *= np.mean(own >= 0)
        assert unit["confidence"] == (pytest.approx(same) if unit["concept"] else None)
    rows = found.tables["bootstrap"]
    for draw, labels in enumerate(draws):
        counted = {row["concept"]: row["units"] for row in rows if row["draw"] == draw}
        detected = names[labels[labels >= 0]].tolist()
        assert counted == {name: detected.count(name) for name in set(detected)}
    sure = [unit["confidence"] for unit in found.tables["units"] if unit["concept"]]
    assert 0.2 < np.mean(sure) < 1


def test_random_weights_are_of_all_modules_and_leave_the_network_alone() -> None:
    net = load_backbone("timm:vit_tiny_patch16_224?weights=none&size=32")
    before = net.weights
    state = torch.random.get_rng_state()
    other = randomized(net, 1)
    assert net.weights == before == load_backbone(net.spec).weights
    assert torch.equal(torch.random.get_rng_state(), state)
    assert other.weights == randomized(net, 1).weights != randomized(net, 2).weights
    ones, others = net.module.state_dict(), other.module.state_dict()
    for name in ("pos_embed", "cls_token", "blocks.3.mlp.fc1.weight", "patch_embed.proj.weight"):
        assert not torch.equal(ones[name], others[name])


def test_patches_of_a_transformer_are_places(scenes: Path) -> None:
    net = made(timm.create_model("vit_tiny_patch16_224", img_size=SIZE), SIZE)
    outputs = probe(net)
    runner = MapRunner(net, map_tap(net, "blocks.11", outputs), outputs)
    images = torch.randn(2, 3, SIZE, SIZE)
    with torch.no_grad():
        maps = runner(images)
        runner.close()
        kept: list[torch.Tensor] = []
        net.module.get_submodule("blocks.11").register_forward_hook(
            lambda _m, _i, out: kept.append(out)
        )
        net.module(images)
    assert maps.shape == (2, 192, 4, 4)
    torch.testing.assert_close(maps[1, 7, 2, 3], kept[0][1, 1 + 2 * 4 + 3, 7])
    found = run(scenes, net=net, tap="blocks.11")
    assert found.result.scalars["units"] == 192


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        (
            {"tap": "avgpool"},
            BackboneError,
            "gives 64 × 1 × 1 an image, which has no places",
        ),
        ({"tap": "res3:avg"}, UsageError, "a map is not pooled; write 'res3'"),
        ({"tap": "res9"}, BackboneError, "has no tap 'res9': did you mean res"),
        ({"quantile": 1.5}, UsageError, "quantile 1.5: give a share between 0 and 1"),
        ({"min_iou": -1}, UsageError, "min_iou -1: give a number from 0 to 1"),
        ({"draws": -1}, UsageError, "give whole numbers, 0 or more"),
        ({"batch_size": 0}, UsageError, "give a batch of 1 or more"),
    ],
)
def test_what_cannot_be_used(
    scenes: Path, options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        run(scenes, **options)


def test_an_image_without_labels(tmp_path: Path) -> None:
    write_scenes(tmp_path, 3)
    (tmp_path / "masks" / "01.png").unlink()
    with pytest.raises(SourceError, match=r"01"):
        run(tmp_path)


def test_labelling_can_be_done_in_a_process_that_is_spawned(scenes: Path) -> None:
    """What goes there must be pickled, and a network with hooks cannot be."""
    labeller = Labeller(
        open_concepts([f"masks:{scenes / 'masks'}", "color"], "quad"), ("00",), GRID
    )
    image = Image.open(scenes / "images" / "00.png").convert("RGB")
    copy = pickle.loads(pickle.dumps(labeller))
    np.testing.assert_array_equal(copy(0, image), labeller(0, image))


def test_a_random_network_is_never_its_own_twin() -> None:
    """torch's own initialisation after its own seed is what ``weights=none`` means, too."""
    net = load_backbone("torchvision:alexnet?weights=none")
    assert randomized(net, 0).weights != net.weights


def test_chance_does_not_depend_on_the_precision_of_the_forward(scenes: Path) -> None:
    plain = run(scenes, chance=1).result
    found = run(scenes, chance=1, precision="bf16").result
    assert found.scalars["chance_iou"] == plain.scalars["chance_iou"]


PEAK = """
import resource, sys
from featkit.analyses.dissect.analysis import dissect
from featkit.analyses.dissect.config import DissectConfig
net = "cifar_resnet20?weights=none&size=128"
config = DissectConfig(chance=0, draws=5)
for root in sys.argv[1:]:
    found = dissect(f"{root}/images", net, "res2", f"masks:{root}/masks", config, workers=0)
    print(found.result.scalars["images"], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="needs ru_maxrss in kB")
def test_memory_does_not_grow_with_the_images(tmp_path: Path) -> None:
    """Of 150 more images the maps alone, 16 × 128 × 128 numbers each, would be 157 MB."""
    counts = (30, 180)
    for count in counts:
        root = tmp_path / str(count)
        write_scenes(root)
        for i in range(9, count):
            for folder in ("images", "masks"):
                (root / folder / f"{i}.png").hardlink_to(root / folder / f"0{i % 9}.png")
    command = [sys.executable, "-c", PEAK, *(str(tmp_path / str(count)) for count in counts)]
    said = subprocess.run(
        command, capture_output=True, text=True, check=True, env=os.environ | ONE_THREAD
    )
    images, peaks = zip(*(map(int, line.split()) for line in said.stdout.splitlines()), strict=True)
    assert images == counts
    assert peaks[1] - peaks[0] < 78_000, peaks


class Given(nn.Module):
    """Maps that are drawn beforehand, whatever the image; its number is the image's first red."""

    def __init__(self, maps: torch.Tensor) -> None:
        super().__init__()
        self.register_buffer("maps", maps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.maps[(x[:, 0, 0, 0] * 255).round().long().clamp(0, len(self.maps) - 1)]


def numbered(root: Path, count: int, side: int = 16) -> None:
    """Images that say their number, with some labelled pixels."""
    (root / "images").mkdir()
    (root / "masks").mkdir()
    for i in range(count):
        pixels, labels = np.zeros((side, side, 3), np.uint8), np.zeros((side, side), np.uint8)
        pixels[..., 0] = i
        labels[:8, : 4 + i % 9] = 1
        Image.fromarray(pixels).save(root / "images" / f"{i:02d}.png")
        Image.fromarray(labels).save(root / "masks" / f"{i:02d}.png")
    (root / "masks" / "classes.json").write_text('{"1": {"name": "car", "category": "object"}}')


@pytest.mark.parametrize("variant", ["dissect", "netdissect", "netdissect-lite"])
@pytest.mark.parametrize("shift", [-5.0, 0.0, 5.0])
def test_units_of_any_sign_are_those_of_the_publication(
    tmp_path: Path, variant: str, shift: float
) -> None:
    """What is skipped as it cannot matter does not matter: maps below, around and above 0."""
    count = 60
    numbered(tmp_path, count)
    maps = torch.randn(count, 40, 3, 3, generator=torch.Generator().manual_seed(1)) + shift
    maps[5:, 1] -= 20  # active in the first images only
    maps[:, 2] = 6.0 + shift  # the same everywhere
    maps[2, 3] = 0.0
    net = made(Stage(Given(maps)), 16)
    found = run(tmp_path, net=net, tap="stage", variant=variant).result
    side = 4 if variant == "dissect" else 2
    grids = []
    for i in range(count):
        grid = np.zeros((16 // side, 16 // side), np.int64)
        centres = np.arange(16 // side) * side + side // 2
        grid[np.ix_(centres < 8, centres < 4 + i % 9)] = 1
        grids.append(grid[None])
    wanted = slow_iou(variant, maps.double().numpy(), grids, ["object"])
    np.testing.assert_allclose(found.arrays["iou"], wanted, rtol=1e-6, atol=1e-7)
    assert found.tables["units"][2]["active"] == 0 or variant == "dissect"
    assert (wanted > 0).sum() >= 4


@pytest.mark.parametrize("variant", ["dissect", "netdissect", "netdissect-lite"])
def test_levels_of_a_sample_are_close_to_those_of_all_places(
    tmp_path: Path, variant: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Maps whose numbers say where they are: a sample of some corner would be far off."""
    count = 40
    numbered(tmp_path, count)
    rising = torch.arange(196.0).view(1, 1, 14, 14) + torch.arange(float(count)).view(-1, 1, 1, 1)
    maps = torch.cat([rising, -rising, rising.flip(2), rising.flip(3)], 1)
    net = made(Stage(Given(maps)), 16)
    options = {"tap": "stage", "variant": variant, "quantile": 0.2}
    whole = run(tmp_path, net=net, **options).result
    looked = 4 if variant == "dissect" else 40
    monkeypatch.setattr(subject, "PLACES", count * looked * 20 + 100)
    monkeypatch.setattr(subject, "USUAL", 0.01)
    found = run(tmp_path, net=net, **options).result
    assert any(f"levels are from {count * looked:,} of" in note for note in found.notes)
    shares = [row["active"] for row in found.tables["units"]]
    error = 4 * np.sqrt(0.2 * 0.8 / (count * looked))
    wanted = [row["active"] for row in whole.tables["units"]]
    np.testing.assert_allclose(shares, wanted, atol=error)
    assert found.arrays["levels"].tolist() != whole.arrays["levels"].tolist()


@pytest.mark.parametrize("variant", ["dissect", "netdissect", "netdissect-lite"])
def test_images_in_which_no_unit_is_active(tmp_path: Path, variant: str) -> None:
    numbered(tmp_path, 6)
    maps = torch.zeros(6, 3, 3, 3)
    maps[2, :, 0, 0] = torch.tensor([1.0, 2.0, 3.0])
    found = run(tmp_path, net=made(Stage(Given(maps)), 16), tap="stage", variant=variant).result
    assert found.scalars["images"] == 6
    assert all(row["active"] > 0 for row in found.tables["units"])


def test_units_that_their_activation_bounds_are_active_nowhere(tmp_path: Path) -> None:
    """Of 8 × 8 places on 15 × 15 cells, where weights are no round numbers; 6 is the most."""
    numbered(tmp_path, 8, side=60)
    drawn = torch.rand(8, 64, 8, 8, generator=torch.Generator().manual_seed(2)) * 12
    net = made(Stage(Given(drawn.clamp(max=6.0))), 60)
    found = run(tmp_path, net=net, tap="stage").result
    assert {row["threshold"] for row in found.tables["units"]} == {6.0}
    assert {row["active"] for row in found.tables["units"]} == {0}


def test_a_random_network_that_overflows_is_named(tmp_path: Path) -> None:
    numbered(tmp_path, 3)

    class Huge(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.mean, self.factor = nn.AvgPool2d(4), nn.Linear(1, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                known = bool(self.factor.weight == 0)
            return self.mean(x) * (1.0 if known else torch.inf)

    module = Stage(Huge())
    nn.init.zeros_(module.stage.factor.weight)  # type: ignore[union-attr]
    assert run(tmp_path, net=made(module, 16), tap="stage").result.scalars["units"] == 3
    with pytest.raises(UsageError, match=r"^random-made: activations of unit \d hold NaN or inf"):
        run(tmp_path, net=made(module, 16), tap="stage", chance=1)
