"""TreeNet's trainer: its losses against lightly's, whole trainings, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

import featkit
from featkit.backbones.probe import default_tap, probe, row_shape
from featkit.backbones.taps import token_layout
from featkit.backbones.training_runs import read_run
from featkit.errors import UsageError
from featkit.ops.leaf_losses import leaf_contrastive, leaf_cosine
from featkit.trainers.base import Moment
from featkit.trainers.run_folder import RunFolder
from featkit.trainers.treenet import TreeNet, TreeNetConfig, TreeNetLearner
from tests.trainers.conftest import SMALL, train

SECOND = Moment(step=5, steps_per_epoch=4, epochs=10)
"""A step of the second epoch."""

LIGHTLY = pytest.mark.filterwarnings("ignore")  # lightly and what it imports warn of each other


def learner_of(**options: Any) -> TreeNetLearner:
    """A learner of small images, whose teacher has long been another than its student."""
    config = TreeNetConfig(**{**SMALL["treenet"], **options})
    learner = TreeNet(config).learner(12, 0)
    generator = torch.Generator().manual_seed(1)
    for tensor in (*learner.pair.teacher.parameters(), learner.pair.center):
        tensor.add_(torch.randn(tensor.shape, generator=generator), alpha=0.2)
    return learner


def pixels_of(b: int = 5) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (b, 3, 12, 12), generator=generator, dtype=torch.uint8)


ROWS = torch.arange(4)  # which images they are plays no part


def views_of(learner: TreeNetLearner, pixels: Tensor, each: int = 1) -> list[Tensor]:
    """The views that the next loss draws after the same seed, one by one."""
    torch.manual_seed(3)
    recipe = learner.network.preprocessing
    mean, std = (torch.tensor(v).view(3, 1, 1) for v in (recipe.mean, recipe.std))
    groups = learner.views(pixels.repeat_interleave(each, 0))
    views = [(view - mean) / std for group in groups for view in group]
    return [v.view(len(pixels), each, *v.shape[1:]) if each > 1 else v for v in views]


def loss_of(learner: TreeNetLearner, pixels: Tensor, moment: Moment = SECOND) -> Tensor:
    torch.manual_seed(3)
    return learner.loss(pixels, ROWS, moment)


def mean_of_pairs(student: Sequence[Any], teacher: Sequence[Any], loss: Any) -> Tensor:
    places = product(range(len(student)), range(len(teacher)))
    return torch.stack([loss(student[i], teacher[j]) for i, j in places if i != j]).mean()


@LIGHTLY
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"leaf_view": "each", "local_crops": 0},
        {"leaf_view": "part", "local_size": 8},
        {"baseline": "cifar_resnet8", "channels": None},
        {"baseline": "cnn"},
        {"leaf": "cifar_resnet8", "channels": None},
    ],
    ids=["same", "each", "part", "resnet", "cnn", "leaf"],
)
def test_loss_gradient_and_centre_are_those_of_lightly(options: dict[str, Any]) -> None:
    from lightly.loss import DINOLoss

    warm_up = {"first_temperature": 0.02, "teacher_temperature": 0.08, "temperature_warmup": 4}
    learner, pixels = learner_of(**options, **warm_up, center_momentum=0.7), pixels_of()
    views = views_of(learner, pixels, 2 if options.get("leaf_view") == "each" else 1)
    theirs = DINOLoss(
        32,
        warmup_teacher_temp=0.02,
        teacher_temp=0.08,
        warmup_teacher_temp_epochs=4,
        center_momentum=0.7,
    )
    theirs.center.copy_(learner.pair.center)
    student = [learner.pair.student(view) for view in views]
    teacher = [learner.pair.teacher(view) for view in views[:2]]
    wanted = theirs(teacher, student, epoch=1)
    loss = loss_of(learner, pixels)
    assert float(loss) == pytest.approx(float(wanted), rel=1e-4)
    torch.testing.assert_close(learner.pair.center, theirs.center.flatten(), rtol=1e-4, atol=1e-5)
    weights = list(learner.pair.student.parameters())
    found, theirs_ = (torch.autograd.grad(each, weights) for each in (loss, wanted))
    for own, other in zip(found, theirs_, strict=True):
        assert (own - other).norm() <= 1e-3 * other.norm() + 1e-6
    assert all(parameter.grad is None for parameter in learner.pair.teacher.parameters())


@LIGHTLY
@pytest.mark.parametrize("rising", [0, 1, 3])
def test_the_temperature_of_the_teacher_rises_as_in_lightly(rising: int) -> None:
    from lightly.loss import DINOLoss

    learner = learner_of(first_temperature=0.04, teacher_temperature=0.1, temperature_warmup=rising)
    theirs = DINOLoss(32, 0.04, 0.1, rising)
    student, teacher = torch.randn(2, 2, 3, 32, generator=torch.Generator().manual_seed(0))
    for epoch in range(5):
        learner.pair.center.zero_(), theirs.center.zero_()
        wanted = theirs(list(teacher), list(student), epoch=epoch)
        found, said = learner._distil(student, teacher, Moment(4 * epoch, 4, 5))
        assert float(found) == pytest.approx(float(wanted), rel=1e-5)
        torch.testing.assert_close(said.sum(2), torch.ones(2, 3))


@pytest.mark.parametrize("leaf_view", ["same", "each"])
def test_the_contrast_is_that_of_all_pairs_of_views(leaf_view: str) -> None:
    learner = learner_of(
        loss="leaf-contrastive", join="concat", temperature=0.3, leaf_view=leaf_view
    )
    views = views_of(learner, pixels_of(), 2 if leaf_view == "each" else 1)
    student, teacher = (
        [net.leaves(view) for view in views] for net in (learner.pair.student, learner.pair.teacher)
    )
    wanted = mean_of_pairs(student, teacher[:2], lambda s, t: leaf_contrastive(s, t, 0.3))
    assert float(loss_of(learner, pixels_of())) == pytest.approx(float(wanted), rel=1e-4)


def test_byol_is_twice_what_cosines_lack_of_1() -> None:
    learner = learner_of(loss="byol")
    learner.module.eval()
    views = views_of(learner, pixels_of())
    pair = learner.pair
    student = [pair.predictor(pair.student(view)) for view in views]
    teacher = [pair.teacher(view) for view in views[:2]]
    wanted = mean_of_pairs(
        student, teacher, lambda s, t: 2 - 2 * functional.cosine_similarity(s, t).mean()
    )
    assert float(loss_of(learner, pixels_of())) == pytest.approx(float(wanted), rel=1e-4)
    assert learner.epoch_columns().keys() == {"feature_std"}


def test_beta_weighs_the_cosines_of_the_students_leaves() -> None:
    plain, both = (float(loss_of(learner_of(beta=beta), pixels_of())) for beta in (0.0, 3.0))
    learner = learner_of()
    leaves = torch.cat([learner.pair.student.leaves(v) for v in views_of(learner, pixels_of())])
    cosines = functional.cosine_similarity(leaves[:, 0], leaves[:, 1])
    assert both - plain == pytest.approx(3 * float(cosines.mean()) * 2 / (2 * 2**2), abs=1e-4)


def test_a_large_beta_turns_leaves_away_from_each_other() -> None:
    found = []
    for beta in (0.0, 100.0):
        learner = learner_of(beta=beta, leaves=3, local_crops=0)
        optimizer = torch.optim.Adam(learner.pair.student.parameters(), 0.02)
        for step in range(10):
            optimizer.zero_grad()
            learner.loss(pixels_of(), ROWS, Moment(step, 100, 10)).backward()
            optimizer.step()
        (view, *_) = views_of(learner, pixels_of())
        found.append(float(leaf_cosine(learner.pair.student.leaves(view))))
    assert found[1] < -0.9 / (2 * 3) < found[0]  # -1 / 2m is the least that there is


@pytest.mark.parametrize("leaf_view", ["same", "each", "part"])
def test_what_leaves_are_shown(leaf_view: str) -> None:
    learner = learner_of(leaf_view=leaf_view, leaves=4, local_size=8)
    seen: list[Tensor] = []
    for net in (learner.pair.student, learner.pair.teacher):
        net.paths.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    loss_of(learner, pixels_of())
    sides = [tuple(images.shape[-2:]) for images in seen]
    counts = [len(images) for images in seen]
    assert counts == [10, 10, 10]  # two large views, two small ones, and the teacher's
    assert sides == (
        [(6, 6), (4, 4), (6, 6)] if leaf_view == "part" else [(12, 12), (8, 8), (12, 12)]
    )
    assert torch.equal(seen[0], seen[2])
    if leaf_view == "same":
        assert {images.ndim for images in seen} == {4}
        return
    for images in seen:
        assert images.shape[1] == 4
        for i in range(4):
            assert not any(torch.allclose(images[:, i], images[:, j]) for j in range(i))
    if leaf_view == "part":  # all of one view
        whole = torch.cat(views_of(learner, pixels_of())[:2])
        corners = [whole[..., t : t + 6, lf : lf + 6] for t in (0, 6) for lf in (0, 6)]
        torch.testing.assert_close(seen[0], torch.stack(corners, 1))


def test_what_was_seen_of_the_teacher_is_of_different_images() -> None:
    learner = learner_of()
    views = views_of(learner, pixels_of())
    said = [
        (learner.pair.teacher(view) - learner.pair.center).div(0.04).softmax(1)
        for view in views[:2]
    ]
    features = learner.pair.teacher.leaves(views[0]).mean(1)
    loss_of(learner, pixels_of())
    entropies = torch.distributions.Categorical(torch.cat(said)).entropy()
    both = torch.distributions.Categorical(torch.cat(said).mean(0)).entropy()
    center = functional.normalize(features).mean(0).norm()
    assert learner.epoch_columns() == pytest.approx(
        {
            "teacher_entropy": float(entropies.mean()),
            "prototype_entropy": float(both),
            "feature_std": math.sqrt(1 - float(center) ** 2),
        },
        rel=1e-3,
    )


@pytest.fixture(scope="module")
def finished(stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A run of two epochs, its result, and the state after each."""
    run = tmp_path_factory.mktemp("runs") / "tree"
    states: list[dict[str, Tensor]] = []
    write = RunFolder.write_state

    def kept(self: RunFolder, tensors: dict[str, Tensor], about: Any) -> None:
        states.append({name: tensor.clone() for name, tensor in tensors.items()})
        write(self, tensors, about)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "write_state", kept)
        result = train(
            stripes, run, "treenet", epochs=2, keep_every=1, optimizer="adamw", momentum=0.9
        )
    return run, result, states


def test_the_teacher_comes_out(finished: Any) -> None:
    run, result, states = finished
    assert len(states) == 3
    for epoch, state in enumerate(states):
        written = load_file(run / "weights" / f"epoch-{epoch:04d}.safetensors")
        for name, tensor in written.items():
            own = name.removeprefix("backbone.")
            assert torch.equal(tensor, state[f"module.teacher.{own}"])
        student = {
            name: state[f"module.student.{name.removeprefix('backbone.')}"] for name in written
        }
        alike = [torch.equal(student[name], tensor) for name, tensor in written.items()]
        assert all(alike) if epoch == 0 else not any(alike[:4])
    assert read_run(run).architecture == "treenet(leaves=2,join=average,channels=4-8)"
    backbone = featkit.load_backbone(str(run))
    weight = backbone.module.paths.convolutions[0].weight
    assert torch.equal(weight, states[-1]["module.teacher.paths.convolutions.0.weight"])
    report = backbone.network.checkpoint
    assert report is not None
    assert (report.method, report.epochs, report.heads) == ("TreeNet", 2, ("8 → 16 → 16 → 8 → 32",))
    images = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    again = TreeNet(TreeNetConfig(**SMALL["treenet"])).learner(16, 0).pair.teacher
    prefix = "module.teacher."
    again.load_state_dict(
        {n.removeprefix(prefix): t for n, t in states[-1].items() if n.startswith(prefix)}
    )
    with torch.no_grad():
        torch.testing.assert_close(backbone.module(images), again(images))
    assert result.config["leaves"] == 2


def test_prototypes_stay_in_the_first_epoch(finished: Any) -> None:
    _, _, states = finished
    names = ("module.student.head.last_layer.weight_v", "module.student.head.mlp.0.weight")
    prototypes, hidden = ([state[name] for state in states] for name in names)
    assert torch.equal(prototypes[0], prototypes[1])
    assert not torch.equal(prototypes[1], prototypes[2])
    assert not torch.equal(hidden[0], hidden[1])


def test_an_epoch_says_what_its_teacher_does(finished: Any) -> None:
    _, result, _ = finished
    first, *trained = result.tables["epochs"]
    columns = {"teacher_entropy", "prototype_entropy", "feature_std"}
    assert not columns & first.keys()
    for row in trained:
        assert 0 <= row["teacher_entropy"] <= row["prototype_entropy"] + 1e-6 <= math.log(32)
        assert 0 < row["feature_std"] < 1
    encoder = 2 * (12 * 4 + 4 + 2 * 4 + 4 * 4 * 8 + 8 + 2 * 8 + 2 * (8 * 8 + 8))
    assert result.scalars["encoder_parameters"] == encoder
    head = 8 * 16 + 16 + 16 * 16 + 16 + 16 * 8 + 8 + 8 * 32
    assert result.scalars["parameters"] == encoder + head


def said_of_collapse(result: Any) -> list[str]:
    return [note for note in result.notes if note.startswith("collapse")]


def test_the_loss_falls_where_the_teacher_stays(stripes: Path, tmp_path: Path) -> None:
    """To learn what a network of random weights says is to learn something (BYOL, sec. 2)."""
    result = train(
        stripes, tmp_path / "run", "treenet", epochs=5, lr=5e-3, momentum=1.0, center_momentum=0.5,
        freeze_last=0, held_out=0.0,
    )  # fmt: skip
    losses = [row["loss"] for row in result.tables["epochs"][1:]]
    assert losses[-1] < losses[1] - 1
    assert said_of_collapse(result) == []


def test_byols_loss_falls(stripes: Path, tmp_path: Path) -> None:
    result = train(
        stripes, tmp_path / "run", "treenet", epochs=3, loss="byol", lr=5e-3, held_out=0.0
    )
    losses = [row["loss"] for row in result.tables["epochs"][1:]]
    assert losses[-1] < losses[0] - 0.3
    assert said_of_collapse(result) == []
    assert read_run(tmp_path / "run").settings["loss"] == "byol"


def test_a_teacher_that_says_nothing_is_reported(stripes: Path, tmp_path: Path) -> None:
    result = train(
        stripes, tmp_path / "run", "treenet", epochs=1, teacher_temperature=1e4, held_out=0.0
    )
    (note,) = said_of_collapse(result)
    assert note.startswith("collapse in epoch 1, or nothing learned yet: its teacher's entropy is")
    assert f"and ln K {math.log(32):.3f}" in note


def test_images_that_all_belong_to_one_prototype_are_reported(
    stripes: Path, tmp_path: Path
) -> None:
    """Without a centre, and with a teacher that is certain."""
    result = train(
        stripes, tmp_path / "run", "treenet", epochs=2, teacher_temperature=0.01,
        center_momentum=1.0, momentum=0.99, held_out=0.0,
    )  # fmt: skip
    (note,) = said_of_collapse(result)
    assert "its prototypes tell images apart by 0.000 nats" in note


@pytest.mark.parametrize(
    ("options", "architecture", "width"),
    [
        (
            {"loss": "leaf-contrastive", "join": "concat", "pool": "recurrent"},
            "treenet(leaves=2,join=concat,pool=recurrent,channels=4-8)",
            16,
        ),
        (
            {"head_norm": True, "precision": "bf16", "join": "attention", "leaf_view": "each"},
            "treenet(leaves=2,join=attention,channels=4-8)",
            8,
        ),
        ({"leaf_view": "part"}, "treenet(leaves=2,join=average,channels=4-8,view=part)", 8),
        ({"baseline": "cnn"}, "treenet(leaves=1,channels=4-8)", 256),
        ({"baseline": "cifar_resnet8", "channels": None}, "cifar_resnet8", 64),
        (
            {"leaf": "cifar_resnet8", "channels": None},
            "treenet(leaves=2,join=average,leaf=cifar_resnet8)",
            64,
        ),
    ],
    ids=["contrast", "bf16", "part", "cnn", "resnet", "leaf"],
)
def test_every_kind_is_a_backbone_afterwards(
    stripes: Path, tmp_path: Path, options: dict[str, Any], architecture: str, width: int
) -> None:
    run = tmp_path / "run"
    result = train(stripes, run, "treenet", epochs=1, images=20, keep_every=1, **options)
    assert math.isfinite(result.tables["epochs"][1]["loss"])
    assert read_run(run).architecture == architecture
    backbone = featkit.load_backbone(str(run))
    outputs = probe(backbone)
    tap = default_tap(backbone, outputs)
    assert row_shape(outputs[tap.path].shape, tap, token_layout(backbone.module)) == (width,)
    first = featkit.load_backbone(f"{run}?epoch=0")
    assert first.weights != backbone.weights


def test_a_baseline_has_as_many_parameters_as_its_tree() -> None:
    """But where its channels are given."""
    config = TreeNetConfig(leaves=4, baseline="cnn")
    wanted = TreeNetConfig(leaves=4)
    tree, one = (featkit_parameters(each) for each in (wanted, config))
    assert one == pytest.approx(tree, rel=0.02)
    given = TreeNetConfig(leaves=4, baseline="cnn", channels=(32, 128, 256, 512, 1028))
    assert given.architecture() == "treenet(leaves=1,channels=32-128-256-512-1028)"  # table 1


def featkit_parameters(config: TreeNetConfig) -> int:
    module = featkit.load_backbone(f"{config.architecture()}?weights=none").module
    head = sum(p.numel() for p in module.head.parameters())
    return sum(p.numel() for p in module.parameters()) - head


def test_presets_are_trainings_of_dinos_defaults() -> None:
    """Constants of ``main_dino.py``, and batches of 384 (sec. 5.1)."""
    paper = TreeNet.presets["paper"]
    assert paper == {
        "epochs": 100, "batch_size": 384, "optimizer": "adamw", "lr": 5e-4, "warmup": 10.0,
        "final_lr": 1e-6, "weight_decay": 0.04, "final_weight_decay": 0.4, "clip": 3.0,
    }  # fmt: skip
    defaults = asdict(TreeNetConfig())
    wanted = {
        "student_temperature": 0.1, "teacher_temperature": 0.04, "first_temperature": 0.04,
        "temperature_warmup": 0, "center_momentum": 0.9, "momentum": 0.996, "freeze_last": 1,
        "local_crops": 8, "hidden": 2048, "bottleneck": 256,
    }  # fmt: skip
    assert wanted.items() <= defaults.items()
    for preset in TreeNet.presets.values():
        assert preset["optimizer"] == "adamw"


def test_probing_leaves_statistics_as_they_are() -> None:
    """Batch norms of heads do not count what only tries a network out."""
    learner = TreeNet(TreeNetConfig(**{**SMALL["treenet"], "loss": "byol"})).learner(12, 0)
    norms = [m for m in learner.module.modules() if isinstance(m, nn.BatchNorm1d)]
    assert len(norms) == 3  # of student, teacher and predictor
    assert all(norm.num_batches_tracked == 0 for norm in norms)
    assert not learner.network.module.training


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"loss": "leaf-contrastive"}, "leaf-contrastive has no part for a join: give --join conc"),
        (
            {"loss": "leaf-contrastive", "join": "concat", "leaves": 1},
            "leaf-contrastive compares leaves with each other",
        ),
        (
            {"beta": 1.0, "leaves": 1},
            "beta compares leaves with each other: it needs a tree of two",
        ),
        ({"beta": 1.0, "baseline": "cnn"}, "beta compares leaves .*, and no baseline"),
        ({"baseline": "cnn", "leaf_view": "each"}, "leaf_view is of a tree's leaves"),
        ({"baseline": "resnet9", "channels": None}, "no network 'resnet9'"),
        (
            {"baseline": "torchvision:squeezenet1_0", "channels": None},
            "ends in no linear layer that a head could",
        ),
        ({"leaf": "cifar_resnet8"}, "leaf cifar_resnet8: pool, order and channels are those of"),
        ({"baseline": "cifar_resnet8"}, "leaf and channels are of trees"),
        ({"leaves": 129}, "a TreeNet has 1 to 128 leaves, not 129"),
        ({"leaves": 0}, "leaves is 0: give a whole number, at least 1"),
        ({"join": "sum"}, "join 'sum': use dense, average"),
        ({"pool": "min"}, "pool 'min': use avg, max"),
        ({"loss": "simclr"}, "loss is 'simclr': use dino, byol, leaf-contrastive"),
        ({"leaf_view": "whole"}, "leaf_view is 'whole': use same, each, part"),
        ({"teacher_temperature": 0.0}, r"teacher_temperature is 0\.0: give a number above 0"),
        ({"momentum": 1.1}, r"momentum is 1\.1: give a number, 0 to 1"),
        ({"center_momentum": -0.1}, r"center_momentum is -0\.1: give a number, at least 0"),
        ({"prototypes": 1}, "prototypes is 1: give a whole number, at least 2"),
        ({"temperature_warmup": 0.5}, r"temperature_warmup is 0\.5: give a whole number"),
        ({"local_size": 3}, "local_size is 3: give a whole number, at least 4"),
        ({"leaf_view": "part", "local_size": 4}, r"4x4 pixels .*larger --local-size or --size"),
        (
            {"channels": None, "size": 10},
            r"5x5 pixels \(images of 5 x 5 pixels: 5 convolutions need 6 or more\): give a larger",
        ),
        (
            {"baseline": "timm:test_vit", "channels": None},
            "timm:test_vit does not run on views of 8x8 pixels",
        ),
        ({"channels": (8, 0)}, r"channels \(8, 0\): give one number or more"),
        ({"temprature": 1}, "TreeNet has no option 'temprature': did you mean temperature"),
    ],
)
def test_what_cannot_be_trained_is_said_before_anything_is_written(
    stripes: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        train(stripes, tmp_path / "run", "treenet", **options)
    assert not (tmp_path / "run").exists()


def test_before_the_first_epoch_nothing_is_said_of_collapse() -> None:
    assert learner_of().notes([{"epoch": 0, "loss": None}]) == []
