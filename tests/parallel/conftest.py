"""What two processes do together, and one alone, once for all tests."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
import torch

from featkit.parallel.launch import run_on_ranks
from tests.parallel import tasks


@pytest.fixture(scope="session")
def without_gpus():
    """Let this process and those it starts compute as they do where there are no GPUs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr(torch.cuda, "is_available", bool)
        yield


@pytest.fixture(scope="session")
def found_by_ranks(without_gpus):
    """Let processes find this package, and compute with one thread as the reference does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))
        patch.setenv("OMP_NUM_THREADS", "1")
        yield


@pytest.fixture(scope="session")
def together(tmp_path_factory, found_by_ranks):
    folder = tmp_path_factory.mktemp("together")
    run_on_ranks(tasks.everything, {"folder": str(folder)}, 2)
    return folder


@pytest.fixture(scope="session")
def alone(tmp_path_factory, without_gpus):
    folder, threads = tmp_path_factory.mktemp("alone"), torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        tasks.extract(folder / "store")
        for method in tasks.TINY:
            tasks.train(method, folder / method)
        tasks.fit(folder)
    finally:
        torch.set_num_threads(threads)
    return folder


def free_port():
    with socket.create_server(("", 0)) as server:
        return str(server.getsockname()[1])


@pytest.fixture
def environment(without_gpus):
    """Let new Python processes find these packages."""
    root = tasks.__file__.partition("/tests/")[0]
    path = os.pathsep.join([root, f"{root}/cli", os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": path}
