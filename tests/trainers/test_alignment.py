"""What is said of untrained networks, and how one of them is chosen."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import stats
from sklearn.metrics import adjusted_mutual_info_score, normalized_mutual_info_score

import featkit
from featkit.backbones.architectures import build
from featkit.backbones.initialization import initialize
from featkit.errors import UsageError
from featkit.ops.kmeans import kmeans
from featkit.trainers import alignment
from featkit.trainers.alignment import initial_alignment, survey
from featkit.trainers.deepcluster import starts as starts_module
from featkit.trainers.deepcluster.clustering import Clusterer
from featkit.trainers.deepcluster.starts import PROXIES, PROXY
from tests.trainers.conftest import train

FEW: dict[str, Any] = {"clusters": 6, "pca": 8, "workers": 0, "precision": "fp32", "device": "cpu"}


def test_alignment_is_that_of_the_first_cycle_of_a_training(stripes: Path, tmp_path: Path) -> None:
    for seed in (0, 5):
        found = initial_alignment("lenet5", stripes, 6, pca=8, seed=seed, workers=0, device="cpu")
        options = {"clusters": 6, "cycles": 1, "held_out": 0.0, "precision": "auto", "seed": seed}
        result = train(stripes, tmp_path / f"run{seed}", "deepcluster", **options)
        (cycle,) = result.tables["cycles"]
        assert (cycle["nmi_labels"], cycle["ami_labels"]) == pytest.approx((found.nmi, found.ami))


def test_alignment_of_a_network_as_it_is(stripes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    call = Clusterer.__call__

    def watched(self: Clusterer, seed: int) -> Any:
        found = call(self, seed)
        seen.append((self.images.labels[self.rows], found.clusters.labels.numpy()))
        return found

    monkeypatch.setattr(Clusterer, "__call__", watched)
    network = build("cifar_resnet8", seed=3)
    before = {name: tensor.clone() for name, tensor in network.module.state_dict().items()}
    found = initial_alignment(network, stripes, 5, pca=4, workers=0, device="cpu")
    ((truth, labels),) = seen
    assert found.nmi == pytest.approx(normalized_mutual_info_score(truth, labels))
    assert found.ami == pytest.approx(adjusted_mutual_info_score(truth, labels))
    after = network.module.state_dict()
    assert all(torch.equal(tensor, after[name]) for name, tensor in before.items())


def test_a_network_in_training_stays_in_it(stripes: Path) -> None:
    network = build("cifar_resnet8")
    network.module.train()
    mean = network.module.bn1.running_mean.clone()
    torch.manual_seed(4)
    wanted = torch.rand(2)
    torch.manual_seed(4)
    trained = initial_alignment(network, stripes, 5, workers=0, device="cpu")
    assert torch.equal(torch.rand(2), wanted)
    assert network.module.training
    assert torch.equal(network.module.bn1.running_mean, mean)
    network.module.eval()
    assert initial_alignment(network, stripes, 5, workers=0, device="cpu") == trained


def test_a_start_of_a_transformer_is_that_of_a_training(stripes: Path, tmp_path: Path) -> None:
    """Its positions and tokens, which sec. 4.4.1 says nothing of, are of the seed too."""
    options = {**FEW, "arch": "timm:test_vit", "size": 32, "pca": 4}
    found = survey(stripes, 3, preset="tiny", **options, fit_share=1.0).tables["starts"]
    own = {"clusters": 6, "pca": 4, "arch": "timm:test_vit", "cycles": 1, "held_out": 0.0}
    result = train(stripes, tmp_path / "run", "deepcluster", seed=2, **own)
    assert result.tables["cycles"][0]["nmi_labels"] == pytest.approx(found[2]["nmi"])


def test_alignment_needs_labels(stripes: Path) -> None:
    with pytest.raises(UsageError, match="needs one label an image, and there are none"):
        initial_alignment("lenet5", stripes / "lying", 3, workers=0)
    with pytest.raises(UsageError, match="61 clusters, and 60 images"):
        initial_alignment("lenet5", stripes, 61, pca=8, workers=0)


@pytest.fixture(scope="module")
def surveyed(stripes: Path) -> Any:
    options = FEW | {"arch": "alexnet32", "precision": "auto"}
    return survey(stripes, 6, preset="tiny", seed=2, **options)


def test_a_survey_has_every_seed_with_and_without_sobel(surveyed: Any, stripes: Path) -> None:
    rows = surveyed.tables["starts"]
    assert [(row["arch"], row["seed"]) for row in rows] == [
        (arch, seed) for arch in ("alexnet32", "alexnet32_sobel") for seed in range(2, 8)
    ]
    third = initial_alignment(
        "alexnet32_sobel", stripes, 6, pca=8, fit_share=0.5, seed=4, workers=0, device="cpu"
    )
    (row,) = (r for r in rows if (r["arch"], r["seed"]) == ("alexnet32_sobel", 4))
    assert (row["nmi"], row["ami"]) == pytest.approx((third.nmi, third.ami))
    assert all(0 <= row[score] <= 1 for row in rows for score in PROXIES[:3])
    assert all(1 <= row["effective_rank"] <= 60 for row in rows)


def test_a_survey_sums_up_what_scipy_says(surveyed: Any) -> None:
    for summary in surveyed.tables["summary"]:
        own = [r for r in surveyed.tables["starts"] if r["arch"] == summary["arch"]]
        nmi = np.array([row["nmi"] for row in own])
        assert summary["starts"] == 6
        assert summary["nmi_mean"] == pytest.approx(nmi.mean())
        assert summary["nmi_sd"] == pytest.approx(stats.tstd(nmi))
        assert summary["nmi_skew"] == pytest.approx(stats.skew(nmi))
        for row in surveyed.tables["scores"]:
            if row["arch"] == summary["arch"]:
                wanted = stats.spearmanr([start[row["score"]] for start in own], nmi).statistic
                assert row["rho"] == pytest.approx(wanted)
                assert row["low"] <= row["rho"] <= row["high"]
    assert len(surveyed.tables["projection"]) == 2 * 60
    assert {figure.name for figure in surveyed.figures} == {"alignment", "projection"}


def test_without_labels_a_survey_has_scores_alone(stripes: Path) -> None:
    found = survey(stripes / "lying", 2, preset="tiny", arch="lenet5", **FEW | {"clusters": 3})
    assert [row["nmi"] for row in found.tables["starts"]] == [None, None]
    assert "scores" not in found.tables
    assert found.tables["summary"] == [{"arch": "lenet5", "starts": 2}]
    assert not found.arrays
    with pytest.raises(UsageError, match="survey of 0 starts"):
        survey(stripes, 0)


@pytest.mark.parametrize("is_stable", [True, False])
def test_scores_tell_stable_features_from_arbitrary_ones(
    stripes: Path, monkeypatch: pytest.MonkeyPatch, is_stable: bool
) -> None:
    """Those of an image and its view are either nearly the same, or drawn each by itself."""
    rng = np.random.default_rng(0)
    own = rng.normal(size=(60, 84)) + np.repeat([[-3.0], [3.0]], 30, 0)

    def features(
        self: Any, rows: Any, precision: str, device: Any, out: Any = None, views: Any = None
    ) -> torch.Tensor:
        base, spread = (own[rows], 0.01) if is_stable else (0.0, 1.0)
        drawn = torch.from_numpy(base + spread * rng.normal(size=(len(rows), 84))).float()
        return drawn if out is None else out.copy_(drawn)

    monkeypatch.setattr("featkit.trainers.features.FeaturePass.__call__", features)
    options = {**FEW, "preset": "tiny", "arch": "lenet5", "clusters": 2, "pca": 0}
    (start,) = survey(stripes, 1, **options).tables["starts"]
    for score in ("seed_agreement", "view_agreement", "neighbor_stability"):
        assert (start[score] > 0.9) if is_stable else (start[score] < 0.4), score
    assert start["effective_rank"] < 40 if is_stable else start["effective_rank"] > 40
    assert (start["nmi"] > 0.99) == is_stable


def test_the_best_start_by_the_score_is_taken(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores: list[tuple[int, float]] = []
    each = starts_module.each_start

    def watched(*given: Any) -> Any:
        for start, clustering in each(*given):
            scores.append((start.seed, getattr(start, PROXY)))
            yield start, clustering

    monkeypatch.setattr(starts_module, "each_start", watched)
    options = {"select_init": 4, "seed": 3, "cycles": 1, "keep_every": 1}
    result = train(stripes, tmp_path / "run", "deepcluster", **options)
    assert [seed for seed, _ in scores] == [3, 4, 5, 6]
    best = max(scores, key=lambda pair: pair[1])[0]
    assert f"seed {best} of 3 to 6 starts the training: the highest {PROXY}" in result.notes
    kept = load_file(tmp_path / "run" / "weights" / "epoch-0000.safetensors")
    wanted = build("lenet5")
    initialize(wanted.module, best)
    weight = wanted.module.state_dict()["features.0.weight"]
    assert torch.equal(kept["backbone.features.0.weight"], weight)


def test_a_training_that_goes_on_does_not_choose_again(
    stripes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from featkit.trainers import loop

    monkeypatch.setattr(loop, "STATE_SECONDS", 0.0)
    step, left = loop.Loop._step, [2]

    def stopping(self: loop.Loop, *given: Any) -> torch.Tensor:
        left[0] -= 1
        if not left[0]:
            raise KeyboardInterrupt
        return step(self, *given)

    monkeypatch.setattr(loop.Loop, "_step", stopping)
    options = {"select_init": 3, "cycles": 2}
    with pytest.raises(KeyboardInterrupt):
        train(stripes, tmp_path / "run", "deepcluster", **options)
    calls = []
    monkeypatch.setattr(starts_module, "each_start", lambda *given: calls.append(given))
    result = train(stripes, tmp_path / "run", "deepcluster", **options)
    assert not calls
    assert any(PROXY in note for note in result.notes)


def test_sobel_has_a_twin_only_where_there_is_one() -> None:
    found = {
        name: alignment._with_and_without_sobel(name)
        for name in ("alexnet96_bn_sobel", "lenet5", "torchvision:resnet18")
    }
    assert found["alexnet96_bn_sobel"] == ["alexnet96_bn_sobel", "alexnet96_bn"]
    assert found["lenet5"] == ["lenet5"]
    assert found["torchvision:resnet18"] == ["torchvision:resnet18"]


def test_more_clusters_than_chance_explains(stripes: Path) -> None:
    """Two classes of stripes are told apart by random filters; labels that are drawn are not."""
    found = featkit.initial_alignment("lenet5", stripes, 6, pca=8, workers=0, device="cpu")
    assert found.ami > 0.2
    rng = np.random.default_rng(0)
    drawn = [
        adjusted_mutual_info_score(
            np.repeat([0, 1], 30),
            kmeans(torch.from_numpy(rng.normal(size=(60, 8))).float(), 6).labels,
        )
        for _ in range(20)
    ]
    assert abs(np.mean(drawn)) < 0.05
