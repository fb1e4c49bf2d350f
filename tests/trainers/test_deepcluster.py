"""DeepCluster, against its parts taken from elsewhere, and where features or labels go wrong."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from sklearn.decomposition import PCA
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score
from torch import Tensor, nn

import featkit
from featkit.backbones.architectures import build
from featkit.backbones.initialization import initialize
from featkit.errors import UsageError
from featkit.ops.kmeans import kmeans
from featkit.trainers.base import Moment
from featkit.trainers.deepcluster.clustering import Clusterer
from featkit.trainers.deepcluster.config import DeepClusterConfig
from featkit.trainers.deepcluster.learner import DeepClusterLearner
from featkit.trainers.deepcluster.method import DeepCluster
from featkit.trainers.deepcluster.networks import clustered_rows, untrained
from featkit.trainers.deepcluster.sampling import uniform_over_clusters
from featkit.trainers.images import TrainingImages, load_images
from featkit.trainers.loop import DivergedError
from featkit.trainers.settings import Training
from tests.trainers.conftest import train as train_any

CPU = torch.device("cpu")
CONFIG = DeepClusterConfig(arch="lenet5", clusters=4, pca=8, cycles=3)


def train(source: Path | str, run: Path, **options: Any) -> Any:
    return train_any(source, run, "deepcluster", **options)


@pytest.fixture(scope="module")
def images(stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainingImages:
    recipe = build("lenet5").preprocessing
    source = featkit.open_source(stripes)
    return load_images(source, Training(), recipe, tmp_path_factory.mktemp("scratch"), 0)


def learner_of(images: TrainingImages, config: DeepClusterConfig = CONFIG) -> DeepClusterLearner:
    learner = DeepCluster(config).learner(None, seed=0)
    training = Training(precision="fp32", lr=0.1, weight_decay=0.01, optimizer="sgd")
    learner.attach(images, training, CPU)
    learner.optimizers(training)
    learner.module.train()
    return learner


def normal(learner: DeepClusterLearner, pixels: Tensor) -> Tensor:
    recipe = learner.network.preprocessing
    mean, std = (torch.tensor(v)[:, None, None] for v in (recipe.mean, recipe.std))
    return (pixels.float() / 255 - mean) / std


def by_hand(images: TrainingImages, learner: DeepClusterLearner) -> Tensor:
    """Features before the last ReLU of LeNet-5, the layers called one by one."""
    module = learner.network.module
    x = normal(learner, images.pixels[torch.from_numpy(images.learned)])
    with torch.no_grad():
        x = module.features(module.grey(x)).flatten(1)
        layers = list(module.classifier)
        assert isinstance(layers[-1], nn.ReLU)
        for layer in layers[:-1]:
            x = layer(x)
    return x


def test_labels_are_k_means_of_whitened_features_of_unit_length(images: TrainingImages) -> None:
    learner = learner_of(images)
    found = learner.cluster(3)
    features = by_hand(images, learner)
    torch.testing.assert_close(found.features, features, rtol=1e-4, atol=1e-7)
    points = PCA(8, whiten=True, svd_solver="full").fit_transform(features.double().numpy())
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    cosines = np.abs((points.T @ found.points.numpy()).diagonal())
    lengths = np.linalg.norm(points, axis=0) * np.linalg.norm(found.points.numpy(), axis=0)
    np.testing.assert_allclose(cosines, lengths, rtol=1e-3)  # but for the signs of components
    again = kmeans(torch.from_numpy(points).float(), 4, iterations=20, seed=3)
    ours, theirs = found.clusters.labels.numpy(), again.labels.numpy()
    assert normalized_mutual_info_score(ours, theirs) > 0.999
    assert len(np.unique(ours)) == 4


def test_without_components_features_are_clustered_as_they_are(images: TrainingImages) -> None:
    learner = learner_of(images, replace(CONFIG, pca=0))
    found = learner.cluster(0)
    wanted = nn.functional.normalize(by_hand(images, learner), dim=1)
    torch.testing.assert_close(found.points, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("arch", "path"),
    [
        ("alexnet", "classifier.4"),
        ("alexnet32", "classifier.4"),
        ("alexnet32_sobel", "classifier.4"),
        ("lenet5", "classifier.2"),
        ("cifar_resnet8", "avgpool"),
        ("torchvision:resnet18", "avgpool"),
        ("timm:resnet10t", "global_pool"),
    ],
)
def test_what_is_clustered_is_before_the_last_relu(arch: str, path: str) -> None:
    size = 224 if arch == "alexnet" else 32
    network = untrained(DeepClusterConfig(arch=arch, clusters=5), size, seed=0)
    found = clustered_rows(network, 0)
    assert found.tap.path == path
    assert found.dimensions == network.module.get_submodule(network.head).in_features


def test_each_cluster_is_drawn_as_often_as_any_other() -> None:
    rng = np.random.default_rng(0)
    labels = rng.permutation(np.repeat([2, 3, 8, 9], [1, 5, 30, 164]))
    drawn = [uniform_over_clusters(labels, rng) for _ in range(200)]
    assert all(len(rows) == len(labels) for rows in drawn)
    counts = np.array([np.bincount(labels[rows], minlength=10) for rows in drawn])
    assert counts[:, [0, 1, 4, 5, 6, 7]].sum() == 0
    most = len(labels) // 4 + 1
    assert counts.max() == most
    assert (most - counts[:, [2, 3, 8, 9]]).sum(1).tolist() == [4 * most - len(labels)] * 200
    large = np.flatnonzero(labels == 9)
    for rows in drawn:  # of a cluster that is larger than its share no image comes twice
        own = rows[labels[rows] == 9]
        assert len(np.unique(own)) == len(own)
    seen = np.bincount(np.concatenate(drawn), minlength=len(labels))[large]
    expected = 200 * most / len(large)
    assert abs(seen - expected).max() < 5 * math.sqrt(expected)
    first = np.concatenate([rows[:10] for rows in drawn])  # the order is that of no cluster
    assert abs((labels[first] == 9).mean() - 1 / 4) < 5 * math.sqrt(3 / 16 / len(first))


def test_the_loss_is_that_of_pseudo_labels(images: TrainingImages) -> None:
    learner = learner_of(images)
    learner.begin_epoch(0)
    rows = torch.from_numpy(images.learned[[5, 0, 9]])
    pixels = images.pixels[rows]
    torch.manual_seed(1)
    loss = learner.loss(pixels, rows, Moment(0, 3, 3))
    torch.manual_seed(1)
    (views,) = learner.views_of(pixels)
    scores = learner.network.module(normal(learner, views[0] * 255))
    truth = [int(learner.trained.labels[row]) for row in rows]
    wanted = -sum(scores[i].log_softmax(0)[label] for i, label in enumerate(truth)) / 3
    torch.testing.assert_close(loss, wanted)
    assert (learner.trained.labels[torch.from_numpy(images.judged)] == -1).all()


def test_views_are_crops_mirrored_or_not_and_nothing_else(images: TrainingImages) -> None:
    plain = images.pixels[:1].expand(400, -1, -1, -1)
    flat = torch.full_like(plain, 77)
    learner = learner_of(images)
    (views,) = learner.views_of(flat)
    torch.testing.assert_close(views, torch.full_like(views, 77 / 255))
    whole = learner_of(images, replace(CONFIG, crop=1.0))
    (views,) = whole.views_of(plain)
    square = views[0][[float((v - plain[0] / 255).abs().max()) < 1e-4 for v in views[0]]]
    flipped = [float((v - plain[0].flip(2) / 255).abs().max()) < 1e-4 for v in views[0]]
    assert len(square)
    assert any(flipped)


def test_a_new_head_in_each_cycle_with_an_optimiser_of_its_own(images: TrainingImages) -> None:
    """The head moves by its own gradient alone, the rest with momentum."""
    learner = learner_of(images, replace(CONFIG, cycle_epochs=2))
    optimizer = learner.head_optimizer
    learner.begin_epoch(0)
    first = learner.head.weight.detach().clone()
    assert abs(float(first.std()) / 0.01 - 1) < 0.2
    assert not learner.head.bias.any()
    rows = torch.from_numpy(images.learned[:16])
    for _ in range(2):
        before = learner.head.weight.detach().clone()
        optimizer.zero_grad()
        learner.loss(images.pixels[rows], rows, Moment(0, 3, 6)).backward()
        gradient = learner.head.weight.grad + 0.01 * before
        optimizer.step()
        torch.testing.assert_close(learner.head.weight.detach(), before - 0.1 * gradient)
    after = learner.head.weight.detach().clone()
    learner.begin_epoch(1)  # of the same cycle
    assert torch.equal(learner.head.weight, after)
    learner.begin_epoch(2)
    assert not torch.equal(learner.head.weight, after)
    assert not torch.equal(learner.head.weight, first)
    assert abs(float(learner.head.weight.detach().std()) / 0.01 - 1) < 0.2


def test_cycles_are_told_as_scikit_learn_counts_them(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    call = Clusterer.__call__

    def watched(self: Clusterer, *given: Any) -> Any:
        found = call(self, *given)
        seen.append((found.clusters.labels.numpy(), self.images.labels[self.rows]))
        return found

    monkeypatch.setattr(Clusterer, "__call__", watched)
    result = train(stripes, tmp_path / "run", cycles=4, cycle_epochs=2, lr=0.05)
    cycles = result.tables["cycles"]
    assert [row["cycle"] for row in cycles] == [1, 2, 3, 4]
    assert [row["epoch"] for row in result.tables["epochs"]] == list(range(9))
    assert "nmi_labels" not in result.tables["epochs"][1]
    before = None
    for row, (labels, truth) in zip(cycles, seen, strict=True):
        assert row["nmi_labels"] == pytest.approx(normalized_mutual_info_score(truth, labels))
        assert row["ami_labels"] == pytest.approx(adjusted_mutual_info_score(truth, labels))
        if before is None:
            assert row["nmi_previous"] is row["ami_previous"] is None
        else:
            wanted = normalized_mutual_info_score(before, labels)
            assert row["nmi_previous"] == pytest.approx(wanted)
        sizes = np.bincount(labels)
        sizes = sizes[sizes > 0]
        assert row["clusters"] == len(sizes)
        assert (row["smallest"], row["largest"]) == (sizes.min(), sizes.max())
        assert row["median"] == np.median(sizes)
        assert min(row[f"{what}_seconds"] for what in ("feature", "cluster", "training")) > 0
        before = labels
    saved = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"cycles.csv", "agreement.csv", "times.csv"} <= saved


def test_after_the_halt_labels_and_head_stay_and_no_features_are_computed(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []
    call = Clusterer.__call__
    monkeypatch.setattr(
        Clusterer, "__call__", lambda self, *given: calls.append(given[0]) or call(self, *given)
    )
    heads = []
    begin = DeepClusterLearner.begin_epoch

    def watched(self: DeepClusterLearner, epoch: int) -> None:
        before = self.head.weight.detach().clone()
        begin(self, epoch)
        heads.append(torch.equal(before, self.head.weight))

    monkeypatch.setattr(DeepClusterLearner, "begin_epoch", watched)
    result = train(stripes, tmp_path / "run", cycles=6, halt=0.5)
    assert len(calls) == len(set(calls)) == 3
    assert heads == [False] * 3 + [True] * 3
    cycles = result.tables["cycles"]
    assert [row["clusters"] is None for row in cycles] == [False] * 3 + [True] * 3
    assert all(row["feature_seconds"] == row["cluster_seconds"] == 0 for row in cycles[3:])
    assert len({row["cycle"] for row in result.tables["times"]}) == 6


@pytest.mark.parametrize(
    ("cycles", "halt", "clusterings"),
    [(150, None, 150), (150, 2 / 3, 100), (150, 15, 15), (150, 1, 1), (3, 0.1, 1), (5, 5, 5)],
)
def test_which_cycles_cluster(cycles: int, halt: float | None, clusterings: int) -> None:
    assert DeepClusterConfig(cycles=cycles, halt=halt).clusterings == clusterings


def test_it_learns_what_its_clusters_are(stripes: Path, tmp_path: Path) -> None:
    options = {"arch": "cifar_resnet8", "size": 16, "cycles": 1, "cycle_epochs": 12, "crop": 0.5}
    result = train(stripes, tmp_path / "run", lr=0.05, **options)
    losses = [row["loss"] for row in result.tables["epochs"][1:]]
    assert losses[0] == pytest.approx(math.log(4), rel=0.1)  # a new head knows nothing
    assert losses[-1] < 0.7 * losses[0]


def test_the_first_network_is_initialised_as_the_thesis_says(stripes: Path, tmp_path: Path) -> None:
    train(stripes, tmp_path / "run", cycles=1, keep_every=1, seed=7)
    kept = load_file(tmp_path / "run" / "weights" / "epoch-0000.safetensors")
    wanted = build("lenet5")
    initialize(wanted.module, 7)
    for name, tensor in wanted.module.state_dict().items():
        if not name.startswith("top_layer"):
            assert torch.equal(kept[f"backbone.{name}"], tensor), name


@pytest.mark.parametrize("arch", ["lenet5", "alexnet32_sobel", "cifar_resnet8", "timm:resnet10t"])
def test_a_finished_run_is_a_backbone(stripes: Path, tmp_path: Path, arch: str) -> None:
    run = tmp_path / "run"
    train(stripes, run, arch=arch, cycles=1, batch_size=27)
    backbone = featkit.load_backbone(str(run))
    report = backbone.network.checkpoint
    assert (report.method, report.epochs) == ("DeepCluster", 1)
    store = featkit.extract(stripes, [str(run)], tmp_path / "store", workers=0)
    (table,) = store.tables()
    features = {"lenet5": 84, "alexnet32_sobel": 2048, "cifar_resnet8": 64, "timm:resnet10t": 512}
    assert table.shape == (60, features[arch])
    with torch.no_grad():
        assert backbone.module(torch.zeros(1, 3, 32, 32)).shape == (1, 4)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"clusters": 55}, "55 clusters, and 54 images to fit them on: give fewer clusters"),
        ({"size": 20}, "arch lenet5 does not run on 20x20 pixels: give another --size"),
        ({"pca": 1}, "pca is 1: what has one dimension and length 1 is 1 or -1"),
        ({"halt": 4}, "halt is 4: give the number of a cycle, 1 to 3, or a share"),
        ({"halt": -1}, "halt is -1: give the number of a cycle"),
        ({"schedule": "constant", "final_lr": 0.1}, "final_lr is where a cosine ends"),
        ({"arch": "torchvision:densenet121"}, "no module gives just what its head reads"),
        ({"clusters": 6, "fit_share": 0.1}, r"6 clusters, and 5 images .* \(0.1 of 54\)"),
        ({"pca": 85}, "pca is 85, and features of lenet5 have 84 dimensions"),
        ({"clusters": 1}, "clusters is 1: give a whole number, at least 2"),
        ({"halt": 2.5}, "halt is 2.5: give the number of a cycle"),
        ({"halt": 0.0}, "halt is 0.0: give the number of a cycle"),
        ({"fit_share": 1.5}, "fit_share is 1.5: give a share above 0, up to 1"),
        ({"iterations": 0}, "iterations is 0"),
        ({"arch": "alexnet96_bn_conv", "size": 224}, "ends in no linear layer"),
        ({"epochs_": 3}, "DeepCluster has no option 'epochs_'"),
    ],
)
def test_what_cannot_be_clustered_is_refused_and_nothing_is_left(
    stripes: Path, tmp_path: Path, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        train(stripes, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


def test_epochs_follow_from_cycles(stripes: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no option 'epochs'"):
        featkit.train("deepcluster", stripes, tmp_path / "run", preset="tiny", epochs=3)
    result = train(stripes, tmp_path / "run", cycles=2, cycle_epochs=2)
    assert result.config["epochs"] == 4


def test_images_that_are_all_the_same_are_called_collapsed(tmp_path: Path) -> None:
    for i in range(40):
        folder = tmp_path / "grey" / "ab"[i % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (90, 90, 90)).save(folder / f"{i}.png")
    for pca in (8, 0):
        result = train(tmp_path / "grey", tmp_path / f"run{pca}", pca=pca, cycles=2)
        (note,) = [note for note in result.notes if "collapse" in note]
        assert "36 of 36 images are in one of 4 clusters of cycle 2" in note
        assert not any("nothing learned" in note for note in result.notes)
        assert [row["clusters"] for row in result.tables["cycles"]] == [1, 1]
        assert all(math.isfinite(row["loss"]) for row in result.tables["cycles"])


def test_clusters_without_images_are_survived(tmp_path: Path, stripes: Path) -> None:
    """Twelve different images, three times each, in up to 16 clusters: some stay empty."""
    rng = np.random.default_rng(0)
    for kind in "ab":
        (tmp_path / "few" / kind).mkdir(parents=True)
        for i in range(6):
            pixels = Image.fromarray(rng.integers(0, 255, (32, 32, 3), np.uint8))
            for copy in "xyz":
                pixels.save(tmp_path / "few" / kind / f"{i}{copy}.png")
    options = {"clusters": 16, "cycles": 4, "held_out": 0.0, "lr": 0.05}
    result = train(tmp_path / "few", tmp_path / "run", **options)
    counts = [row["clusters"] for row in result.tables["cycles"]]
    assert max(counts) <= 12
    assert all(math.isfinite(row["loss"]) for row in result.tables["cycles"])


def test_a_loss_that_is_no_number_ends_the_training(stripes: Path, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match="keeps the network of epoch"):
        train(stripes, tmp_path / "run", lr=1e12, cycles=5)
    assert (tmp_path / "run" / "run.json").exists()


@pytest.mark.parametrize("size", [1e30, 1e12])
@pytest.mark.parametrize("pca", [8, 0])
def test_features_that_are_no_numbers_end_the_training(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: float, pca: int
) -> None:
    """Weights of 1e30 are finite, what comes of them is not; of 1e12, the squares are not."""
    begin = DeepClusterLearner.begin_epoch

    def broken(self: DeepClusterLearner, epoch: int) -> None:
        if epoch == 1:
            for parameter in self.network.module.classifier.parameters():
                parameter.data.fill_(1e30)
        begin(self, epoch)

    monkeypatch.setattr(DeepClusterLearner, "begin_epoch", broken)
    with pytest.raises(DivergedError, match="a feature that is to be clustered is not finite"):
        train(stripes, tmp_path / "run", held_out=0.0, pca=pca)


def test_two_uneven_clusters_are_no_collapse(stripes: Path, tmp_path: Path) -> None:
    result = train(stripes, tmp_path / "run", clusters=2)
    sizes = [row["largest"] for row in result.tables["cycles"]]
    assert any(size != 27 for size in sizes)
    assert not any("collapse" in note for note in result.notes)


def test_a_loss_that_stays_is_said(stripes: Path, tmp_path: Path) -> None:
    """As that of LeNet-5 does by SGD from N(0, 0.01)."""
    result = train(stripes, tmp_path / "run", lr=0.01, cycles=3)
    (note,) = result.notes
    assert note.startswith("nothing learned yet: no epoch's loss is below ln k, 1.386; try")
    assert not train(stripes, tmp_path / "two", lr=0.01, cycles=2).notes


def test_a_cycle_under_way_has_its_row(stripes: Path, tmp_path: Path) -> None:
    options = {"cycles": 2, "cycle_epochs": 3, "patience": 1, "lr": 1e-6}
    result = train(stripes, tmp_path / "run", **options)
    assert len(result.tables["epochs"]) < 4
    (cycle,) = result.tables["cycles"]
    assert cycle["clusters"] == 4
    assert cycle["nmi_labels"] is not None


def test_numbers_of_clusters_that_change_from_cycle_to_cycle(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call, left = Clusterer.__call__, [4, 2, 3]

    def fewer(self: Clusterer, *given: Any) -> Any:
        found = call(self, *given)
        labels = found.clusters.labels % left.pop(0)
        return replace(found, clusters=replace(found.clusters, labels=labels))

    monkeypatch.setattr(Clusterer, "__call__", fewer)
    result = train(stripes, tmp_path / "run", lr=0.05)
    assert [row["clusters"] for row in result.tables["cycles"]] == [4, 2, 3]
    assert all(math.isfinite(row["loss"]) for row in result.tables["cycles"])


def test_another_training_in_its_place_leaves_nothing(stripes: Path, tmp_path: Path) -> None:
    train(stripes, tmp_path / "run", keep_every=1)
    result = train(stripes, tmp_path / "run", cycles=1, overwrite=True, pca=0)
    assert [row["cycle"] for row in result.tables["cycles"]] == [1]
    kept = {path.name for path in (tmp_path / "run" / "weights").iterdir()}
    assert kept <= {"epoch-0000.safetensors", "epoch-0001.safetensors"}


def test_without_labels_there_is_no_truth_to_agree_with(stripes: Path, tmp_path: Path) -> None:
    result = train(stripes / "lying", tmp_path / "run", batch_size=10)
    assert [row["nmi_labels"] for row in result.tables["cycles"]] == [None] * 3
    assert result.tables["cycles"][1]["nmi_previous"] is not None
    assert {row["with"] for row in result.tables["agreement"]} == {
        "NMI, clustering before",
        "AMI, clustering before",
    }
