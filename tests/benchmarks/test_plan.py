"""The plan at scale: its page is what its formulas say, and its formulas are what the code does."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks import plan
from benchmarks.plan import H100, IMAGENET, LAION, RESNET, VIT, Images, Rates
from featkit.extraction.planning import PART_BATCHES
from featkit.ops.linear_probe import PENALTIES
from featkit.ops.row_adam import AdamSettings, RowAdam
from featkit.ops.sampled_energy import sample_energy
from featkit.store.samples import Samples, read_samples, write_samples

RATES = Rates(100.0, 5e8, 0.25, 2e11, 1e11, 0.3)


def test_the_page_is_what_the_formulas_say() -> None:
    page = (Path(plan.__file__).parents[1] / "ARCHITECTURE.md").read_text()
    told = page.partition("<!-- plan -->\n")[2].partition("<!-- end of plan -->")[0]
    assert told == plan.page(plan.measured())


def test_a_pass_by_hand() -> None:
    found = plan.extraction(LAION, VIT, H100, RATES)
    assert found.forward == pytest.approx(1e9 * 123.2e9 / (989e12 * 0.25) / 3600)
    assert found.decoding == pytest.approx(1e7 / 3600)
    assert found.cores == pytest.approx(found.decoding / found.forward)
    assert found.hashing == pytest.approx(25e12 / 5e8 / 3600)
    assert found.writing == pytest.approx(4.096e12 / 3.125e9 / 3600)
    assert plan.stored(IMAGENET, RESNET)["float16"] == 1_331_167 * 2048 * 2
    assert plan.searching(IMAGENET, RESNET, 50_000) == 2 * 50_000 * 1_331_167 * 2048


def test_defaults_are_those_of_featkit() -> None:
    from featkit.extraction.planning import Options

    assert PART_BATCHES * Options().batch_size == plan.PART_ROWS
    assert len(PENALTIES) == plan.SWEEP


def test_an_open_store_takes_what_the_plan_says(tmp_path: Path) -> None:
    n = 20_000
    paths = [f"{row:0{plan.PATH_BYTES}d}" for row in range(n)]
    digests = np.zeros((n, 32), np.uint8)
    stamps = np.zeros((n, 2), np.int64)
    labels, images = np.zeros(n, np.int64), Images("some", n, 1e5, 10, 1, 1)
    write_samples(tmp_path, Samples(paths, digests, labels, ("a",), "", stamps))
    said = plan.stored(images, RESNET)
    about = sum(said[name] for name in ("digests", "stamps", "labels", "paths"))
    assert (tmp_path / "samples.h5").stat().st_size == pytest.approx(about, rel=0.05)
    tracemalloc.start()
    held = read_samples(tmp_path)
    taken = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(held) == n
    assert taken == pytest.approx(plan.opened(images), rel=0.05)


def test_a_representation_takes_what_the_plan_says() -> None:
    adam = RowAdam(torch.zeros(50, 24), AdamSettings())
    taken = sum(
        x.numel() * x.element_size() for x in (adam.rows, adam.first, adam.second, adam.last)
    )
    assert taken == plan.representation(Images("some", 50, 1e5, 10, 1, 1), 24)


def test_the_error_of_a_sampled_energy_falls_with_the_root_of_n() -> None:
    x = np.random.default_rng(0).standard_normal((16_000, 12))
    few, many = (sample_energy(x[:n], block=plan.BLOCK) for n in (4000, 16_000))
    assert few.error / many.error == pytest.approx(2, rel=0.2)
