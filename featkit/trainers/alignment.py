"""How well clusters of untrained features align with labels, before anything is trained.

Source: Mustapha 2021, Unsupervised deep learning: inter-model interpretation and deep clustering
(thesis, American University of Beirut), sec. 4.4.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import stats  # type: ignore[import-untyped]

from featkit.analyses.base import Figure, Result
from featkit.backbones.base import Network
from featkit.backbones.device import choose_device
from featkit.backbones.nets import NETS
from featkit.backbones.precision import exact_products
from featkit.data.sources import Source, open_source
from featkit.errors import UsageError
from featkit.extraction.listing import list_samples
from featkit.ops.agreement import Agreement, cluster_agreement
from featkit.ops.projection import project
from featkit.ops.rank_correlation import rank_correlation
from featkit.progress import progress_bar
from featkit.trainers.deepcluster.clustering import Clusterer, check_counts
from featkit.trainers.deepcluster.config import DeepClusterConfig
from featkit.trainers.deepcluster.method import DeepCluster
from featkit.trainers.deepcluster.networks import clustered_rows, last_map, untrained
from featkit.trainers.deepcluster.starts import PROXIES, Start, each_start, seed_of
from featkit.trainers.features import FeaturePass
from featkit.trainers.images import TrainingImages, load_images
from featkit.trainers.settings import Training
from featkit.trainers.training import (
    describe_training,
    learned_count,
    resolve_precision,
    split_options,
)

SURVEY = "deepcluster-survey"
"""What a survey's result is called."""

_DRAWN = 2_000
"""Images that t-SNE shows, at most."""
_PERPLEXITY = 30.0
_RANKED = 4
"""Starts that scores are ranked by, at least."""


def initial_alignment(
    network: str | Network,
    source: str | Path | Source,
    k: int,
    *,
    pca: int | None = None,
    iterations: int = 20,
    fit_share: float = 1.0,
    images: int | None = None,
    size: int | None = None,
    seed: int = 0,
    device: str = "auto",
    workers: int | None = None,
) -> Agreement:
    """Return how well k-means of a network's features agrees with the labels: IA(θ, k).

    Features become clusters as in a cycle of ``featkit train deepcluster``: evaluation mode,
    principal components, whitening, unit length, k-means.

    Args:
        network: A name as DeepCluster's ``arch``, which is built and initialised by ``seed``; or a
            network as it is, and stays.
        source: Labelled images, one label each.
        k: Clusters.
        pca: Components that are whitened and clustered; 0 for the features as they are; None for
            256, or as many as there are.
        iterations: Of k-means.
        fit_share: Share of the images that k-means is fitted on.
        images: How many are taken, drawn at random; None for all.
        size: Pixels of the input of a network that is given by name; None for its own.
        seed: Of weights, drawn images and k-means.
        device: ``auto``, ``cpu``, ``cuda``, …
        workers: Decoding processes; None chooses by device.

    Returns:
        ``nmi``, in [0, 1], which grows with k whatever the clusters are, and ``ami``, which is
        about 0 by chance.

    Raises:
        UsageError: There are no labels, or fewer images than clusters.

    Cost: decoding, a forward of every image, and k-means.

    Source: Mustapha 2021, sec. 4.4.

    Example:
        >>> found = initial_alignment("lenet5", "digits", 10, pca=32, images=200, workers=0)
        >>> found.nmi > 0.2
        True
    """
    name = network if isinstance(network, str) else network.architecture
    config = DeepClusterConfig(
        arch=name, clusters=k, pca=pca or 0, iterations=iterations, fit_share=fit_share
    )
    training = Training(images=images, seed=seed, held_out=0.0, size=size)
    if isinstance(network, str):
        network = untrained(config, size, seed)
    else:
        network = replace(network, module=copy.deepcopy(network.module).eval())
    if pca is None:
        least = min(DeepClusterConfig.pca, clustered_rows(network, 0).dimensions)
        config = replace(config, pca=least)
    opened = open_source(source)
    if opened.labels is None or opened.labels.ndim != 1:
        what = "none" if opened.labels is None else "several each"
        raise UsageError(f"{opened.name}: alignment needs one label an image, and there are {what}")
    where = choose_device(device)
    with _computing(where):
        loaded = _load(opened, network, config, training, workers)
        clusterer = _clusterer(network, loaded, config, training, where)
        found = clusterer(seed_of(seed, 3, 1))
    assert loaded.labels is not None  # noqa: S101 - as checked
    return cluster_agreement(found.clusters.labels.cpu().numpy(), loaded.labels[clusterer.rows])


def _load(
    source: Source,
    network: Network,
    config: DeepClusterConfig,
    training: Training,
    workers: int | None,
    progress: bool = False,
) -> TrainingImages:
    check_counts(learned_count(source, training), config)
    scratch = Path(tempfile.gettempdir())
    return load_images(source, training, network.preprocessing, scratch, workers, progress)


def _clusterer(
    network: Network,
    images: TrainingImages,
    config: DeepClusterConfig,
    training: Training,
    device: torch.device,
) -> Clusterer:
    network.module.to(device)
    precision = resolve_precision(training.precision, device)
    return Clusterer(network, images, config, precision, device)


@contextmanager
def _computing(device: torch.device) -> Iterator[None]:
    """Compute as a training does, and leave torch's generators as they were."""
    gpus = range(torch.cuda.device_count()) if device.type == "cuda" else ()
    with torch.random.fork_rng(list(gpus)), exact_products():
        yield


def survey(
    source: str | Path | Source,
    starts: int,
    *,
    preset: str = "paper",
    device: str = "auto",
    workers: int | None = None,
    progress: bool = False,
    **options: Any,
) -> Result:
    """Describe many untrained networks by the clusters of their features.

    Args:
        source: Images; without labels there is no alignment, only what needs none.
        starts: How many seeds, from ``seed`` on.
        preset: Of ``featkit train deepcluster``.
        device: ``auto``, ``cpu``, ``cuda``, …
        workers: Decoding processes; None chooses by device.
        progress: Whether to draw progress bars on stderr.
        **options: As in :func:`featkit.train`; nothing is held out.

    Returns:
        Table ``summary`` (arch, starts, and of nmi and ami mean, sd, min, median, max, skew). Table
        ``starts`` (arch, seed, nmi, ami, and the scores of
        :class:`featkit.trainers.deepcluster.starts.Start`). Table ``scores``, of four starts and
        more: Spearman's ρ of each score with nmi, its 95 % interval, p. Table ``projection``: t-SNE
        of the first start's last maps. A network that there is with and without sobel is described
        as both.

    Raises:
        UsageError: A setting cannot be used.

    Cost: decoding once; of each start what :func:`each_start` says.
    """
    if starts < 1:
        raise UsageError(f"survey of {starts} starts: give a whole number, at least 1")
    config, training = split_options(DeepCluster, preset, options)
    training = replace(training, held_out=0.0)
    opened, where = open_source(source), choose_device(device)
    networks = {
        name: untrained(replace(config, arch=name), training.size, training.seed)
        for name in _with_and_without_sobel(config.architecture)
    }
    for network in networks.values():
        clustered_rows(network, config.pca)
    result = Result(
        SURVEY,
        {"starts": starts, **asdict(config), **asdict(training)},
        tables={"summary": [], "starts": []},
    )
    seeds = range(training.seed, training.seed + starts)
    with _computing(where):
        first = next(iter(networks.values()))  # which has the preprocessing of the other
        loaded = _load(opened, first, config, training, workers, progress)
        for name, network in networks.items():
            own = replace(config, arch=name)
            clusterer = _clusterer(network, loaded, own, training, where)
            _project(name, clusterer, opened, result)
            found = []
            with progress_bar(starts, name, "start", show=progress) as bar:
                for start, _ in each_start(clusterer, seeds):
                    found.append(start)
                    bar.update()
            _add_starts(name, found, result)
    _conclude(result, opened, loaded)
    samples = list_samples(opened, Path(tempfile.gettempdir()), progress).manifest
    result.provenance = {**describe_training(opened, samples, where), "seed": training.seed}
    return result


def _with_and_without_sobel(name: str) -> list[str]:
    other = name.removesuffix("_sobel") if name.endswith("_sobel") else f"{name}_sobel"
    return [name, *([other] if other in NETS else [])]


def _add_starts(name: str, found: Sequence[Start], result: Result) -> None:
    rows = [
        {
            "arch": name,
            "seed": start.seed,
            "nmi": None if start.alignment is None else start.alignment.nmi,
            "ami": None if start.alignment is None else start.alignment.ami,
            **{score: getattr(start, score) for score in PROXIES},
        }
        for start in found
    ]
    result.tables["starts"] += rows
    summary: dict[str, Any] = {"arch": name, "starts": len(found)}
    result.tables["summary"].append(summary)
    if found[0].alignment is None:
        return
    for kind in ("nmi", "ami"):
        told = _described(np.array([row[kind] for row in rows]))
        summary |= {f"{kind}_{what}": value for what, value in told.items()}
    nmi = np.array([row["nmi"] for row in rows])
    result.arrays[f"nmi/{name}"] = nmi
    for score in PROXIES:
        values = np.array([row[score] for row in rows])
        if len(found) >= _RANKED and np.ptp(values) and np.ptp(nmi):
            ranked = asdict(rank_correlation(values, nmi))
            result.tables.setdefault("scores", []).append({"arch": name, "score": score, **ranked})


def _described(values: NDArray[np.float64]) -> dict[str, float]:
    skew = float(stats.skew(values)) if np.ptp(values) else 0.0
    return {
        "mean": float(values.mean()),
        "sd": float(values.std(ddof=1)) if len(values) > 1 else 0.0,
        "min": float(values.min()),
        "median": float(np.median(values)),
        "max": float(values.max()),
        "skew": skew,
    }


def _project(name: str, clusterer: Clusterer, source: Source, result: Result) -> None:
    """Add what the network as it is makes of some images, on a plane by t-SNE."""
    maps, images = last_map(clusterer.network), clusterer.images
    if maps is None:
        result.notes.append(f"{name}: no t-SNE: it has no maps")
        return
    drawn = np.random.default_rng(0).permutation(len(clusterer.rows))[:_DRAWN]
    rows = clusterer.rows[np.sort(drawn)]
    extract = FeaturePass(clusterer.network, maps.tap, maps.calls, images)
    features = extract(rows, clusterer.precision, clusterer.device).numpy()
    try:
        points = project(features, "tsne", perplexity=min(_PERPLEXITY, (len(rows) - 1) / 3))
    except UsageError as error:
        result.notes.append(f"{name}: no t-SNE: {error}")
        return
    labels, known = images.labels, source.classes
    classes: Sequence[str | None] = [None] * len(rows)
    if labels is not None:
        classes = [str(own) if known is None else known[own] for own in labels[rows]]
    result.tables.setdefault("projection", []).extend(
        {"arch": name, "method": "tsne", "class": own, "x": float(x), "y": float(y)}
        for own, (x, y) in zip(classes, points, strict=True)
    )


def _conclude(result: Result, source: Source, images: TrainingImages) -> None:
    result.scalars = {"images": len(images.learned), "clusters": result.config["clusters"]}
    result.notes += [f"{name} is left out: {why}" for name, why in images.unreadable.items()]
    coloured = source.labels is not None and source.labels.ndim == 1
    if coloured:
        result.figures.append(
            Figure("alignment", "histogram", "nmi", "Initial alignment", "NMI", "starts")
        )
        classes = dict.fromkeys(row["class"] for row in result.tables.get("projection", ()))
        result.arrays["classes"] = np.array(sorted(classes))
    if "projection" in result.tables:
        result.figures.append(
            Figure(
                "projection", "facets", "projection", "Last maps, untrained, by t-SNE", "x", "y",
                hue="class" if coloured else None, labels="classes" if coloured else None,
                panels=("method", "arch"),
            )
        )  # fmt: skip
    shown = ("arch", "starts", "nmi_mean", "nmi_sd", "nmi_min", "nmi_max", "ami_mean", "ami_sd")
    result.shown = {"summary": shown if coloured else (), "scores": ()}
