"""What two processes say to each other, against what is known beforehand."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

from featkit.parallel.launch import run_on_ranks
from tests.parallel import tasks
from tests.parallel.conftest import free_port


@pytest.fixture(scope="module")
def heard(together):
    files = sorted(together.glob("heard-*"))
    scope = {"slice": slice, "torch": torch}
    return [eval(file.read_text(), scope) for file in files]


def test_all_hear_the_same(heard):
    assert len(heard) == 2
    for told in heard:
        assert told["all"] == ["rank 0", "rank 1"]
        assert told["sum"] == 3
        assert told["gathered"] == [0, 0, 1, 1]


def test_what_the_first_raises_all_raise(heard):
    assert [told["refused"] for told in heard] == ["not like this"] * 2


def test_the_gradient_of_gathered_rows_is_that_of_the_sum_over_processes(heard):
    assert heard[0]["gradient"] == [1 * (1 + 2), 2 * (1 + 2)]
    assert heard[1]["gradient"] == [3 * (1 + 2), 4 * (1 + 2)]


def test_unequal_shares_meet_in_the_first(heard):
    assert heard[0]["on_first"] == (4, 1)
    assert heard[1]["on_first"] == (3, 1)
    assert [told["share"] for told in heard] == [slice(0, 3), slice(3, 7)]


def test_batch_normalisation_sees_the_batch_of_all(tmp_path, found_by_ranks):
    """The oracle is torch's own, in one process, in float64."""
    run_on_ranks(tasks.normalize, {"out": str(tmp_path / "found")}, 2)
    found = load_file(tmp_path / "found")
    torch.manual_seed(0)
    x, slope = torch.randn(8, 3, 4, 5) * 2 + 5, torch.randn(8, 3, 4, 5)
    layer = nn.BatchNorm2d(3)
    nn.init.uniform_(layer.weight)
    layer, x, slope = layer.double(), x.double().requires_grad_(), slope.double()
    y = layer(x)
    (y * slope).sum().backward()
    wanted = {"y": y, "dx": x.grad, "weight": layer.weight.grad, "bias": layer.bias.grad}
    for name, tensor in {**wanted, **dict(layer.named_buffers())}.items():
        if name == "num_batches_tracked":
            assert found[name] == 1
            continue
        torch.testing.assert_close(found[name].double(), tensor.detach(), rtol=2e-5, atol=2e-6)


NEEDS_TASKS = pytest.mark.skipif(
    not Path("/proc/self/task").exists(), reason="threads are read from /proc"
)


@NEEDS_TASKS
def test_no_thread_is_left_to_meet_an_interpreter_that_is_gone(tmp_path, found_by_ranks):
    """One that still held a tensor would end the process by SIGABRT after its work was done."""
    run_on_ranks(tasks.part, {"folder": str(tmp_path)}, 2)
    threads = [(tmp_path / f"threads-{rank}").read_text() for rank in range(2)]
    assert "gloo" not in threads[0] + threads[1], threads


SCRIPT = """
import atexit
from tests.parallel import tasks
from featkit.parallel.group import all_of, join
atexit.register(lambda: print(tasks.threads()))
print(join().count, len(all_of(1)), "gloo" in tasks.threads())
"""


@NEEDS_TASKS
def test_a_script_of_several_processes_ends_as_well(environment):
    given = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}
    given |= {"MASTER_PORT": free_port()}
    started = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT],
            env=environment | given | {"RANK": rank, "LOCAL_RANK": rank},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    said = [process.communicate(timeout=120)[0].splitlines() for process in started]
    assert [process.returncode for process in started] == [0, 0]
    for before, after in said:
        assert before == "2 2 True"
        assert "gloo" not in after
