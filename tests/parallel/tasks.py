"""What the tests let several processes do."""

from __future__ import annotations

import importlib
import os
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import nn

import featkit
from featkit.analyses.ensemble.run import fit_ensemble
from featkit.errors import UsageError
from featkit.parallel.group import (
    add_up,
    all_of,
    first,
    here,
    is_first,
    leave,
    on_first,
    rows_of_all,
)
from featkit.trainers.statistics import shared_statistics

NETWORK = "cifar_resnet8?weights=none"
TINY: dict[str, dict[str, Any]] = {
    "simclr": {"epochs": 1, "images": 80, "batch_size": 32},
    "treenet": {"epochs": 1, "images": 80, "batch_size": 16},
    "deepcluster": {"arch": "lenet5", "cycles": 2, "cycle_epochs": 1, "images": 80,
                    "clusters": 5, "batch_size": 16},
}  # fmt: skip
SGD = {"optimizer": "sgd", "lr": 0.003, "weight_decay": 0.0, "final_weight_decay": None,
       "precision": "fp32"}  # fmt: skip


def everything(folder: str) -> None:
    """Extract, train and fit, each as in every other test of one process."""
    root = Path(folder)
    extract(root / "store")
    for method in TINY:
        train(method, root / method)
    fit(root)
    say(root)


def extract(store: Path) -> None:
    backbones = [NETWORK, f"other={NETWORK}&seed=1"]
    featkit.extract("digits", backbones, store, workers=0, batch_size=16, precision="fp32")


def extract_few(photos: str, store: str) -> None:
    """Extract fewer parts than there are processes."""
    featkit.extract(photos, NETWORK, store, workers=0, batch_size=16, precision="fp32")


def train(method: str, run: Path, **options: Any) -> None:
    chosen = {**TINY[method], **SGD, **options}
    featkit.train(method, "digits", run, preset="tiny", workers=0, **chosen)


def fit(root: Path, overwrite: bool = False, **options: Any) -> None:
    ensemble = featkit.EnsembleRepresentation(epochs=4, batch_size=128, **options)
    store = featkit.open_store(root / "store")
    fit_ensemble(store, root / "psi", ensemble, overwrite=overwrite)


def say(root: Path) -> None:
    """Keep what each process hears of the others."""
    rank = here().rank
    rows = torch.full((2, 1), float(rank), requires_grad=True)
    gathered = rows_of_all(rows)
    (gathered * torch.tensor([[1.0], [2.0], [3.0], [4.0]]) * (rank + 1)).sum().backward()
    unequal = slice(0, 1) if rank == 0 else slice(1, 4)
    refused = ""
    try:
        first(_refuse)
    except UsageError as error:
        refused = str(error)
    heard = {
        "all": all_of(f"rank {rank}"),
        "sum": add_up(torch.tensor([rank + 1.0])).item(),
        "gathered": gathered.flatten().tolist(),
        "gradient": rows.grad.flatten().tolist(),
        "on_first": on_first(torch.full((unequal.stop - unequal.start, 1), rank), unequal).shape,
        "refused": refused,
        "share": here().share(7),
    }
    for number, what in enumerate(all_of(heard)):
        if is_first():
            (root / f"heard-{number}").write_text(repr(what))


def part(folder: str) -> None:
    """Leave the group, and keep which threads are left."""
    importlib.import_module("torch.distributed.nn.functional")  # as a library may
    rank = here().rank
    leave()
    (Path(folder) / f"threads-{rank}").write_text(threads())


def threads() -> str:
    """Return the names of this process's threads."""
    tasks = Path("/proc/self/task").iterdir()
    return " ".join((task / "comm").read_text().strip() for task in tasks)


def _refuse() -> None:
    assert here().rank == 0
    raise UsageError("not like this")


def normalize(out: str) -> None:
    """Write what batch normalisation gives a batch, and its gradients, to a file."""
    torch.manual_seed(0)
    x, slope = torch.randn(8, 3, 4, 5) * 2 + 5, torch.randn(8, 3, 4, 5)
    layer = nn.BatchNorm2d(3)
    nn.init.uniform_(layer.weight)
    own = here().share(8)
    part = x[own].clone().requires_grad_()
    with shared_statistics():
        y = layer(part)
    (y * slope[own]).sum().backward()
    found = {"y": rows_of_all(y.detach()), "dx": rows_of_all(part.grad)}
    found |= {name: add_up(parameter.grad) for name, parameter in layer.named_parameters()}
    found |= dict(layer.named_buffers())
    if is_first():
        save_file(found, out)


def die(folder: str, how: str) -> None:
    """Extract, and let one process end while the other waits for it."""
    if here().rank == 1 and how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    if here().rank == 1 and how == "raise":
        raise UsageError("this process has had enough")
    extract(Path(folder) / "store")


def hang_up(folder: str) -> None:
    """Send everyone what a terminal sends that is closed."""
    for process in (os.getppid(), os.getpid()):
        os.kill(process, signal.SIGHUP)
    time.sleep(0.5)
    if is_first():
        (Path(folder) / "done").touch()


def train_until_killed(run: str) -> None:
    """Train, and let one process be killed once an epoch is kept."""
    _kill_one_after(Path(run) / "weights" / "epoch-0001.safetensors")
    train("simclr", Path(run), epochs=3)


def fit_until_killed(folder: str) -> None:
    """Fit, and let one process be killed once an epoch is kept."""
    _kill_one_after(Path(folder) / "psi" / ".unfinished" / "state.safetensors")
    fit(Path(folder))


def fit_anew(folder: str) -> None:
    """Fit with other settings, instead of what is there."""
    fit(Path(folder), overwrite=True, lr=1e-4)


def _kill_one_after(file: Path) -> None:
    if here().rank == 1:
        threading.Thread(target=_kill_after, args=(file,), daemon=True).start()


def _kill_after(file: Path) -> None:
    while not file.exists():
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGKILL)


def weights(run: Path) -> dict[str, np.ndarray]:
    """Return the last weights of a training."""
    file = max((run / "weights").glob("*.safetensors"))
    return {name: tensor.double().numpy() for name, tensor in load_file(file).items()}
