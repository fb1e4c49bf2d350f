"""What ImageNet-1k and a billion images take, from rates that were measured, and where they bind.

``python -m benchmarks.table`` puts the tables into ARCHITECTURE.md.
"""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from benchmarks.harness import RESULTS

ARRAYS_OF_ROW = 3
"""ψ and two moments of Adam."""


@dataclass(frozen=True)
class Network:
    """One that is run: operations of an image at 224 px, and the width of its features.

    Attributes:
        name: As people call it.
        operations: Of one forward, twice the multiplications that the authors of timm count.
        width: d.
    """

    name: str
    operations: float
    width: int


@dataclass(frozen=True)
class Images:
    """A set of images.

    Attributes:
        name: As people call it.
        count: n.
        file_bytes: Of a mean image file.
        classes: Labels are of; 0 for none.
        queries: Images that are asked of it by neighbours.
        gpus: That work on it.
    """

    name: str
    count: int
    file_bytes: float
    classes: int
    queries: int
    gpus: int


@dataclass(frozen=True)
class Gpu:
    """Peaks of a data sheet, without sparsity.

    Attributes:
        name: As the data sheet calls it.
        bf16: Operations a second of bfloat16 products.
        fp32: Of float32 outside of tensor cores, which exact searches need.
    """

    name: str
    bf16: float
    fp32: float


RESNET, VIT = Network("ResNet-50", 2 * 4.09e9, 2048), Network("ViT-L/16", 2 * 61.6e9, 1024)
IMAGENET = Images("ImageNet-1k", 1_281_167 + 50_000, 115e3, 1000, 50_000, 1)
LAION = Images("10⁹ images", 1_000_000_000, 25e3, 0, 50_000, 64)
A100 = Gpu("A100 SXM 80 GB", 312e12, 19.5e12)
H100 = Gpu("H100 SXM", 989e12, 67e12)

PATH_BYTES, STRING_BYTES = 40, 57
"""Of a path as UTF-8, and of an empty ``str`` of Python with the pointer to it."""

LINK = 25e9 / 8
"""Bytes a second of a network of 25 Gbit/s, or of two disks."""

PART_ROWS, SWEEP, EPOCHS, BLOCK = 256, 45, 50, 256
"""Rows of a part (8 batches of 32), penalties of a probe, epochs of an ensemble, rows of a block of
a sampled energy; as featkit has them by default."""

PASSES, PRODUCTS, HELD = 15, 20, 2**28
"""Of a probe: passes over all rows by all penalties; products with second derivatives a penalty
(5 to 50 are usual); numbers that are held of the rows for these."""


@dataclass(frozen=True)
class Rates:
    """What was measured, a second; each with the file that it is from.

    Attributes:
        decoded: Images that a core decodes and cuts (``rates.json``).
        hashed: Bytes that a core hashes (``rates.json``).
        forward: Share of the floor of a matrix product at which ResNet-50 runs, channels last in
            bf16 (``forward.json``).
        searched: Operations of an exact search on two cores (``neighbors.json``).
        paired: Operations of an exact energy on one core (``energy.json``).
        sampled: Relative standard error of the sampled energy of one row, so to speak: that of n
            is √n times smaller (``million.json``).
    """

    decoded: float
    hashed: float
    forward: float
    searched: float
    paired: float
    sampled: float


def measured() -> Rates:
    """Read the rates from the results."""
    rates, forward, energy = _read("rates")["rates"], _read("forward"), _read("energy")
    resnet = forward["images_per_second"]["channels last bf16"]
    search = statistics.median(_read("neighbors")["seconds"]["featkit"])
    exact = statistics.median(energy["seconds"]["energy"])
    million = _read("million")
    sampled = million["steps"]["sampled energy"]["answer"]
    return Rates(
        decoded=statistics.median(rates["images_per_second"]),
        hashed=statistics.median(rates["hashed_bytes_per_second"]),
        forward=resnet * RESNET.operations / (forward["gflops"]["bf16"] * 1e9),
        searched=2 * 2000 * 50_000 * 1024 / search,
        paired=20_000**2 * 512 / exact,
        sampled=sampled["error"] / sampled["mean"] * million["rows"] ** 0.5,
    )


def _read(name: str) -> dict:  # type: ignore[type-arg]
    return json.loads((RESULTS / f"{name}.json").read_text())  # type: ignore[no-any-return]


def stored(images: Images, network: Network) -> dict[str, float]:
    """Return bytes on disk: features in float32 and float16, and what is kept of every image."""
    n, d = images.count, network.width
    return {
        "float32": 4.0 * n * d,
        "float16": 2.0 * n * d,
        "digests": 32.0 * n,
        "stamps": 16.0 * n,
        "labels": 8.0 * n if images.classes else 0.0,
        "paths": (PATH_BYTES + 32.0) * n,  # a string of HDF5 has a reference and a header
    }


def opened(images: Images) -> float:
    """Return the bytes of memory that an open store takes before a row is read."""
    return images.count * (PATH_BYTES + STRING_BYTES + 32.0 + (8.0 if images.classes else 0.0) + 17)


def parts(images: Images) -> int:
    """Return the part files of a table that is being made."""
    return -(-images.count // PART_ROWS)


@dataclass(frozen=True)
class Pass:
    """An extraction on one GPU, in hours of each thing alone.

    Attributes:
        forward: Of the GPU.
        cores: That decode as fast as it computes.
        decoding: Hours of one core.
        hashing: Hours of one core.
        reading: Hours of the link.
        writing: Hours of the link, for float32.
    """

    forward: float
    cores: float
    decoding: float
    hashing: float
    reading: float
    writing: float


def extraction(images: Images, network: Network, gpu: Gpu, rates: Rates) -> Pass:
    """Return the hours of one pass."""
    n = images.count
    forward = n * network.operations / (gpu.bf16 * rates.forward)
    decoding = n / rates.decoded
    return Pass(
        forward / 3600,
        decoding / forward,
        decoding / 3600,
        n * images.file_bytes / rates.hashed / 3600,
        n * images.file_bytes / LINK / 3600,
        4 * n * network.width / LINK / 3600,
    )


def searching(images: Images, network: Network, queries: int) -> float:
    """Return the operations of an exact search, 2 q n d."""
    return 2.0 * queries * images.count * network.width


def probing(images: Images, network: Network) -> float:
    """Return the operations of a probe: passes over all rows, and products with those held."""
    held = min(images.count, HELD // (network.width + 1))
    rows = PASSES * images.count + PRODUCTS * held
    return 4.0 * rows * network.width * images.classes * SWEEP


def learning(images: Images, width: int, models: int) -> float:
    """Return the operations of an ensemble, 6 n m (w h + h d) an epoch with w = h = d."""
    return 6.0 * images.count * models * 2 * width**2 * EPOCHS


def representation(images: Images, width: int) -> float:
    """Return the bytes of ψ with its moments and counts, 12 n w + 8 n."""
    return (4.0 * ARRAYS_OF_ROW * width + 8) * images.count


def energies(images: Images, network: Network) -> tuple[float, float]:
    """Return the operations of the exact energy, n² d, and of the sampled one, 2 n b d."""
    n, d = images.count, network.width
    return float(n) ** 2 * d, 2.0 * n * BLOCK * d


def error(images: Images, rates: Rates) -> float:
    """Return the relative error of the sampled energy: it falls as 1 / √(n b)."""
    return float(rates.sampled / images.count**0.5)


def page(rates: Rates) -> str:
    """Return the tables of ARCHITECTURE.md."""
    return "\n\n".join([_rates(rates), _bytes(), _extraction(rates), _analyses(rates)]) + "\n"


def _rates(rates: Rates) -> str:
    rows = [
        ["decoded and cut to 224 px, a core", f"{rates.decoded:.0f} images/s", "rates.json"],
        ["hashed, a core", f"{rates.hashed / 1e6:.0f} MB/s", "rates.json"],
        ["forward, of the peak of products", f"{rates.forward:.0%}", "forward.json"],
        ["exact search, two cores", f"{rates.searched / 1e9:.0f} GFLOP/s", "neighbors.json"],
        ["exact energy, a core", f"{rates.paired / 1e9:.0f} GFLOP/s", "energy.json"],
        ["sampled energy of n rows", f"error {rates.sampled:.2g} / √n of it", "million.json"],
    ]
    rows += [
        [
            f"{gpu.name}, peaks of its data sheet",
            f"{gpu.bf16 / 1e12:.0f} TFLOP/s bf16, {gpu.fp32 / 1e12:g} fp32",
            "NVIDIA; not measured here",
        ]
        for gpu in (A100, H100)
    ]
    rows.append(["network or disks", f"{LINK / 1e9:.1f} GB/s (25 Gbit/s)", "assumed"])
    return _table(["rate", "", "from"], rows)


def _bytes() -> str:
    rows = []
    for images in (IMAGENET, LAION):
        for network in (RESNET, VIT):
            found = stored(images, network)
            about = sum(found[name] for name in ("digests", "stamps", "labels", "paths"))
            rows.append(
                [
                    f"{images.name}, {network.name}",
                    _size(found["float32"]),
                    _size(found["float16"]),
                    _size(about),
                    _size(opened(images)),
                    f"{parts(images):,}",
                ]
            )
    header = ["n × d", "4nd", "2nd", "`samples.h5`", "open, in memory", f"parts of {PART_ROWS}"]
    return _table(header, rows)


def _extraction(rates: Rates) -> str:
    rows = []
    for images in (IMAGENET, LAION):
        for network in (RESNET, VIT):
            for gpu in (A100, H100):
                found = extraction(images, network, gpu, rates)
                share = images.gpus
                hours = {
                    "GPU": found.forward / share,
                    "network": (found.reading + found.writing) / share,
                }
                # a server has some 16 cores a GPU
                hours["decoding"] = found.decoding / (16 * share)
                binds = max(hours, key=lambda name: hours[name])
                rows.append(
                    [
                        f"{images.name}, {network.name}, {share} × {gpu.name.partition(' ')[0]}",
                        _hours(hours["GPU"]),
                        f"{found.cores:.0f}",
                        _hours(hours["decoding"]),
                        _hours(found.hashing / (16 * share)),
                        _hours(hours["network"]),
                        binds,
                    ]
                )
    header = [
        "a pass, a link and 16 cores a GPU", "forward", "cores a GPU to keep up", "decoding",
        "hashing", "reading and writing", "bound by",
    ]  # fmt: skip
    return _table(header, rows)


def _analyses(rates: Rates) -> str:
    rows = []
    for images, network in ((IMAGENET, RESNET), (LAION, VIT)):
        name, gpus = f"{images.name}, d = {network.width:,}", images.gpus
        on_gpu = gpus * H100.fp32 / 2
        reading = stored(images, network)["float32"] / LINK

        def row(
            what: str,
            operations: float,
            bound: str,
            rate: float = rates.searched,
            name: str = name,
            on_gpu: float = on_gpu,
            gpus: int = gpus,
        ) -> list[str]:
            return [
                f"{what}, {name}",
                f"{operations:.1e}",
                _hours(operations / rate / 3600),
                f"{_hours(operations / on_gpu / 3600)} ({gpus})",
                bound,
            ]

        few = searching(images, network, images.queries)
        every = searching(images, network, images.count)
        exact, sampled = energies(images, network)
        all_rows = f"a pass reads {_hours(reading / 3600)} of one link"
        rows.append(row(f"{images.queries:,} queries, exact", few, all_rows))
        rows.append(row("leave-one-out, exact", every, "arithmetic"))
        rows.append(row("energy, exact", exact, "arithmetic", 2 * rates.paired))
        bound = f"random reads; error {error(images, rates):.0e}"
        rows.append(row("energy, sampled", sampled, bound, 2 * rates.paired))
        if images.classes:
            bound = f"arithmetic of {images.classes:,} classes"
            rows.append(row(f"probe, {SWEEP} penalties", probing(images, network), bound))
        whole = representation(images, network.width)
        bound = f"ψ and moments, {_size(whole / gpus)} a rank of {gpus}"
        if gpus > 1:
            bound += f"; rank 0 writes the state, {_size(whole)}"
        rows.append(row("ensemble of 4", learning(images, network.width, 4), bound))
    header = [
        "analysis", "operations", "two cores", "half of H100s' fp32, did it run there (how many)",
        "bound by",
    ]  # fmt: skip
    return _table(header, rows)


def _table(header: list[str], rows: Iterable[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _size(count: float) -> str:
    for unit, scale in (("TB", 1e12), ("GB", 1e9), ("MB", 1e6)):
        if count >= scale:
            return f"{count / scale:.3g} {unit}"
    return f"{count:.0f} B"


def _hours(hours: float) -> str:
    """Return hours as people say them."""
    for unit, scale in (
        ("years", 24 * 365.25),
        ("days", 24.0),
        ("h", 1.0),
        ("min", 1 / 60),
        ("s", 1 / 3600),
    ):
        if hours >= 1.5 * scale or unit == "s":
            return (
                f"{hours / scale:.2g} {unit}"
                if hours < 100 * scale
                else (f"{hours / scale:,.0f} {unit}")
            )
    raise AssertionError


if __name__ == "__main__":
    print(page(measured()))
