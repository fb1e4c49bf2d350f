"""The ensemble against the paper's algorithm written out with torch's own parts."""

from __future__ import annotations

import json
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load, load_file, save_file
from sklearn.base import clone
from sklearn.decomposition import PCA
from sklearn.exceptions import NotFittedError
from torch import Tensor, nn
from torch.nn import functional

import featkit
from featkit.analyses.ensemble import learning
from featkit.analyses.ensemble.representation import EnsembleRepresentation
from featkit.errors import DamagedError, UsageError
from featkit.ops import read_ahead
from featkit.store.fingerprint import signed_json
from featkit.store.tensors import with_tensors_digest
from tests.processes import Forked, run_forked


def models(n: int, *widths: int, seed: int = 0, rectified: bool = True) -> list[np.ndarray]:
    """Features that share a latent variable, as those of several networks do."""
    rng = np.random.default_rng(seed)
    latent = rng.standard_normal((n, 6))
    mixed = [
        latent @ rng.standard_normal((6, d)) + 0.3 * rng.standard_normal((n, d)) for d in widths
    ]
    return [(np.maximum(x, 0) if rectified else x).astype(np.float32) for x in mixed]


def relative(found: object, wanted: object) -> float:
    a, b = torch.as_tensor(found).double(), torch.as_tensor(wanted).double()
    return float((a - b).norm() / b.norm())


class Literal:
    """Algorithm 1 as it stands: perceptrons in a loop, one Adam over all of the bank."""

    def __init__(self, features: list[np.ndarray], ensemble: EnsembleRepresentation) -> None:
        self.targets = [functional.normalize(torch.from_numpy(x)) for x in features]
        mean = torch.stack(self.targets).mean(0)
        self.psi = nn.Parameter(mean / mean.norm(dim=1, keepdim=True))
        width = self.psi.shape[1]
        torch.manual_seed(ensemble.random_state)
        self.mlps = [
            nn.Sequential(
                nn.Linear(width, width), nn.ReLU(), nn.Linear(width, z.shape[1]), nn.ReLU()
            )
            for z in self.targets
        ]

    def take_weights(self, mappers: nn.Module) -> None:
        """Start from the same weights: torch draws those of a loop in another order."""
        for j, mlp in enumerate(self.mlps):
            mlp[0].weight.data = mappers.weights[0][j].T.clone()
            mlp[0].bias.data = mappers.biases[0][j, 0].clone()
            mlp[2].weight.data = mappers.last_weights[0][j].T.clone()
            mlp[2].bias.data = mappers.last_biases[0][j, 0].clone()

    def loss(self, psi: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        losses = [
            1 - functional.cosine_similarity(mlp(psi), z[index])
            for mlp, z in zip(self.mlps, self.targets, strict=True)
        ]
        return torch.stack(losses).mean()

    def train(self, orders: list[torch.Tensor], batch: int, warmup: int, **adam: float) -> None:
        weights = [p for mlp in self.mlps for p in mlp.parameters()]
        first = torch.optim.Adam(weights, lr=3e-4, **adam)
        second = torch.optim.Adam([self.psi], lr=3e-4)
        for epoch, order in enumerate(orders):
            for index in order.split(batch):
                first.zero_grad()
                second.zero_grad()
                self.loss(self.psi[index], index).backward()
                first.step()
                if epoch >= warmup:
                    second.step()


@pytest.fixture
def orders(monkeypatch: pytest.MonkeyPatch) -> list[torch.Tensor]:
    """The orders in which images are visited, as they are drawn."""
    drawn: list[torch.Tensor] = []
    randperm = torch.randperm

    def record(*args: object, **options: object) -> torch.Tensor:
        drawn.append(randperm(*args, **options))  # type: ignore[call-overload]
        return drawn[-1]

    monkeypatch.setattr(torch, "randperm", record)
    return drawn


@pytest.fixture
def first_weights(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """φ as it was before it learned."""
    import copy

    seen: list[nn.Module] = []
    start = learning.Learner.__init__

    def record(self, targets, psi, mappers, *more):  # type: ignore[no-untyped-def]
        seen.append(copy.deepcopy(mappers))
        start(self, targets, psi, mappers, *more)

    monkeypatch.setattr(learning.Learner, "__init__", record)
    return seen


@pytest.mark.parametrize("weight_decay", [0.0, 1e-3])
def test_equals_the_algorithm_written_out(
    orders: list[torch.Tensor], first_weights: list[nn.Module], weight_decay: float
) -> None:
    features = models(2000, 24, 24, 24)
    ensemble = EnsembleRepresentation.from_preset(
        "paper", epochs=6, batch_size=100, weight_decay=weight_decay
    )
    found = ensemble.fit_transform(features)
    literal = Literal(features, ensemble)
    start = literal.psi.detach().clone()
    literal.take_weights(first_weights[0])
    literal.train(orders, 100, warmup=3, weight_decay=weight_decay)
    assert relative(found, literal.psi.detach()) < 1e-5
    assert relative(found, start) > 1e-3
    assert relative(found - start.numpy(), literal.psi.detach() - start) < 1e-3
    for j, mlp in enumerate(literal.mlps):
        assert relative(ensemble.mappers_.weights[0][j].T, mlp[0].weight.detach()) < 1e-4


def test_a_new_image_is_found_by_the_same_descent() -> None:
    features, new = models(640, 16, 16), models(40, 16, 16, seed=1)
    ensemble = EnsembleRepresentation(epochs=8, batch_size=64).fit(features)
    found = ensemble.transform(new)
    literal = Literal(new, ensemble)
    literal.take_weights(ensemble.mappers_)
    idle = 640 // 64 - 1
    optimizer, every = torch.optim.Adam([literal.psi], lr=3e-4), torch.arange(40)
    for step in range(8 * (idle + 1) - idle + 2 * idle):
        optimizer.zero_grad()
        if step >= idle // 2 and (step - idle // 2) % (idle + 1) == 0 and step < 8 * (idle + 1):
            (literal.loss(literal.psi, every) * 40 / 64).backward()
        else:
            literal.psi.grad = torch.zeros_like(literal.psi)
        if step < idle // 2 + 8 * (idle + 1):
            optimizer.step()
    assert relative(found, literal.psi.detach()) < 1e-5


def test_a_row_does_not_depend_on_the_others() -> None:
    ensemble = EnsembleRepresentation(epochs=4, batch_size=32).fit(models(200, 12, 12))
    new = models(90, 12, 12, seed=3)
    whole = ensemble.transform(new)
    some = ensemble.transform([x[[70, 3, 41]] for x in new])
    assert relative(some, whole[[70, 3, 41]]) < 1e-6


def test_recovery_grows_when_the_representation_may_move() -> None:
    features = models(600, 32, 32, 32)
    ensemble = EnsembleRepresentation(epochs=30, batch_size=50, lr=2e-3).fit(features)
    ensemble.transform(models(100, 32, 32, 32, seed=2))
    recovery = {name: np.mean(values) for name, values in ensemble.recovery_.items()}
    assert recovery["after_warmup"] < recovery["final"] < 1
    assert all(len(values) == 3 for values in ensemble.recovery_.values())
    assert recovery["inference"] > 0.5


def test_row_wise_adam_moves_less() -> None:
    features = models(500, 16, 16)
    moved = {}
    for rule in ("dense", "row"):
        ensemble = EnsembleRepresentation(epochs=8, batch_size=20, optimizer=rule).fit(features)
        start = featkit_average(features)
        moved[rule] = np.linalg.norm(ensemble.embedding_ - start)
    assert moved["dense"] > 3 * moved["row"] > 0


def featkit_average(features: list[np.ndarray]) -> np.ndarray:
    total = sum(x / np.linalg.norm(x, axis=1, keepdims=True) for x in features)
    return total / np.linalg.norm(total, axis=1, keepdims=True)


def test_without_movement_it_is_the_average() -> None:
    features = models(60, 10, 10)
    ensemble = EnsembleRepresentation(epochs=2, warmup=1.0).fit(features)
    np.testing.assert_allclose(ensemble.embedding_, featkit_average(features), atol=1e-6)


@pytest.mark.parametrize("widths", [(8, 12, 20), (12, 12)])
def test_the_start_by_components_is_scikit_learns(widths: tuple[int, ...]) -> None:
    features = models(300, *widths)
    ensemble = EnsembleRepresentation(epochs=1, warmup=1.0, init="pca", width=9).fit(features)
    units = [x / np.linalg.norm(x, axis=1, keepdims=True) for x in features]
    pca = PCA(9, svd_solver="full").fit(np.concatenate(units, 1))
    wanted = pca.transform(np.concatenate(units, 1))
    wanted /= np.linalg.norm(wanted, axis=1, keepdims=True)
    signs = np.sign((wanted * ensemble.embedding_).sum(0))
    np.testing.assert_allclose(ensemble.embedding_, wanted * signs, atol=1e-4)
    assert ensemble.init_ == "pca"
    new = models(5, *widths, seed=8)
    assert ensemble.transform(new).shape == (5, 9)


def test_widths_choose_the_start() -> None:
    assert EnsembleRepresentation(epochs=1).fit(models(50, 8, 8)).init_ == "average"
    different = EnsembleRepresentation(epochs=1).fit(models(50, 8, 10))
    assert (different.init_, different.embedding_.shape) == ("pca", (50, 10))
    narrow = EnsembleRepresentation(epochs=1, width=4).fit(models(50, 8, 8))
    assert (narrow.init_, narrow.embedding_.shape) == ("pca", (50, 4))


def test_the_last_layer_fits_the_features() -> None:
    mixed = [models(50, 8)[0], models(50, 8, rectified=False)[0]]
    assert EnsembleRepresentation(epochs=1).fit(mixed).relus_ == (True, False)
    linear = EnsembleRepresentation(epochs=1, last_layer="linear").fit(models(50, 8, 8))
    assert linear.relus_ == (False, False)
    with pytest.raises(UsageError, match="model 1 has negative features"):
        EnsembleRepresentation(epochs=1, last_layer="relu").fit(mixed)


def test_restrictions_hold() -> None:
    features = models(200, 10, 10)
    common = {"epochs": 10, "batch_size": 20, "lr": 1e-2}
    free = EnsembleRepresentation(**common).fit(features)
    positive = EnsembleRepresentation(**common, non_negative=True).fit(features)
    sparse = EnsembleRepresentation(**common, l1=0.1).fit(features)
    assert free.embedding_.min() < 0 <= positive.embedding_.min()
    assert positive.transform(models(9, 10, 10, seed=1)).min() >= 0
    assert np.abs(sparse.embedding_).sum() < 0.8 * np.abs(free.embedding_).sum()


def test_the_bank_can_be_found_anew() -> None:
    features = models(150, 10, 10)
    common = {"epochs": 6, "batch_size": 30}
    trained = EnsembleRepresentation(**common).fit(features)
    refitted = EnsembleRepresentation(**common, bank="refit").fit(features)
    np.testing.assert_array_equal(refitted.embedding_, trained.transform(features))
    assert relative(refitted.embedding_, trained.embedding_) > 1e-4


def test_bf16_products_change_little() -> None:
    features = models(400, 64, 64)
    exact = EnsembleRepresentation(epochs=6, batch_size=40).fit(features)
    fast = EnsembleRepresentation(epochs=6, batch_size=40, precision="bf16").fit(features)
    assert fast.embedding_.dtype == np.float32
    assert relative(fast.embedding_, exact.embedding_) < 0.05
    np.testing.assert_allclose(fast.recovery_["final"], exact.recovery_["final"], atol=0.01)


def test_seeds() -> None:
    features, before = models(80, 8, 8), torch.random.get_rng_state()
    a, b, c = (EnsembleRepresentation(epochs=4, random_state=s).fit(features) for s in (0, 0, 1))
    np.testing.assert_array_equal(a.embedding_, b.embedding_)
    assert not np.array_equal(a.embedding_, c.embedding_)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_it_is_an_estimator() -> None:
    ensemble = EnsembleRepresentation(epochs=3, hidden=5)
    assert clone(ensemble).get_params() == ensemble.get_params()
    with pytest.raises(NotFittedError):
        ensemble.transform(models(5, 8, 8))
    with pytest.raises(NotFittedError):
        ensemble.save("nowhere")
    assert EnsembleRepresentation.from_preset("paper").last_bias == "usual"
    with pytest.raises(UsageError, match="no preset 'papre': did you mean paper"):
        EnsembleRepresentation.from_preset("papre")


def test_tables_of_a_store_are_features_too(photos: Path, tmp_path: Path) -> None:
    nets = [f"net{seed}=cifar_resnet20?weights=none&seed={seed}" for seed in (0, 1)]
    store = featkit.extract(photos, nets, tmp_path / "s", workers=0, precision="fp32")
    tables = [store["net0"], store["net1"]]
    ensemble = EnsembleRepresentation(epochs=2)
    by_table = ensemble.fit_transform(tables)
    np.testing.assert_array_equal(by_table, ensemble.fit_transform([t.numpy() for t in tables]))


# ---------------------------------------------------------------------------------- what is kept


@pytest.mark.parametrize("widths", [(8, 8), (6, 9)])
def test_a_saved_model_finds_the_same(tmp_path: Path, widths: tuple[int, ...]) -> None:
    ensemble = EnsembleRepresentation(epochs=4, depth=3, hidden=7).fit(models(60, *widths))
    ensemble.save(tmp_path / "model")
    loaded = EnsembleRepresentation.load(tmp_path / "model")
    new = models(20, *widths, seed=5)
    np.testing.assert_array_equal(loaded.transform(new), ensemble.transform(new))
    assert loaded.get_params() == ensemble.get_params()
    assert (loaded.init_, loaded.relus_) == (ensemble.init_, ensemble.relus_)
    assert sorted(p.name for p in (tmp_path / "model").iterdir()) == [
        "model.json",
        "model.safetensors",
    ]


def test_a_damaged_model_is_refused(tmp_path: Path) -> None:
    EnsembleRepresentation(epochs=1).fit(models(30, 6, 6)).save(tmp_path / "m")
    with pytest.raises(UsageError, match="holds no ensemble"):
        EnsembleRepresentation.load(tmp_path)
    weights, about = tmp_path / "m" / "model.safetensors", tmp_path / "m" / "model.json"
    whole, text = weights.read_bytes(), about.read_text()
    for data in (b"", whole[:-8], whole[:40]):
        weights.write_bytes(data)
        with pytest.raises(DamagedError, match="a damaged ensemble"):
            EnsembleRepresentation.load(tmp_path / "m")
    weights.write_bytes(whole)
    for changed in ("", "{}", "[]", text.replace('"depth": 2', '"depth": 3'), text[:-20]):
        about.write_text(changed)
        with pytest.raises(DamagedError, match="a damaged ensemble"):
            EnsembleRepresentation.load(tmp_path / "m")


def test_a_model_is_what_was_written(tmp_path: Path) -> None:
    EnsembleRepresentation(epochs=1, lr=1e-3).fit(models(30, 6, 6)).save(tmp_path)
    about, weights = tmp_path / "model.json", tmp_path / "model.safetensors"
    text, whole = about.read_text(), weights.read_bytes()
    about.write_text(text.replace("0.001", "0.003"))
    with pytest.raises(DamagedError, match="does not say what was written .* with --overwrite"):
        EnsembleRepresentation.load(tmp_path)
    about.write_text(text)
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(DamagedError, match=r"bytes of model\.safetensors are not the ones"):
        EnsembleRepresentation.load(tmp_path)
    weights.write_bytes(whole)
    before = {n: v for n, v in json.loads(text).items() if n not in ("sha256", "weights")}
    about.write_text(json.dumps(before))  # as files were that had no sha256
    assert EnsembleRepresentation.load(tmp_path).lr == 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"depth": 4, "hidden": 10**6}},
        {"settings": {"depth": 10**6}},
        {"settings": {"lr": 10**400}},
        {"settings": {"checkpoint": "elsewhere", "max_memory": 1e-9}},
        {"widths": [6, 7]},
        {"widths": [0, 0]},
        {"widths": []},
        {"relus": [True, True, True]},
        {"relus": [1, 1]},
        {"init": "pca"},
        {"init": []},
        {"idle": 2**70},
        {"recovery": 3},
    ],
)
def test_a_model_that_nobody_wrote_takes_no_memory(tmp_path: Path, changes: dict[str, Any]) -> None:
    EnsembleRepresentation(epochs=1).fit(models(30, 6, 6)).save(tmp_path)
    path = tmp_path / "model.json"
    content = json.loads(path.read_text())
    settings = content["settings"] | changes.pop("settings", {})
    del content["sha256"]
    path.write_text(signed_json(content | changes | {"settings": settings}))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(DamagedError, match="a damaged ensemble"):
        EnsembleRepresentation.load(tmp_path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize(
    ("name", "other"),
    [
        ("mappers.weights.0", torch.zeros(2, 6, 6, dtype=torch.float64)),
        ("pca.mean", torch.zeros(3)),
        ("pca.components", torch.zeros(6, 3)),
    ],
)
def test_weights_of_another_kind_are_refused(tmp_path: Path, name: str, other: Tensor) -> None:
    EnsembleRepresentation(epochs=1, init="pca").fit(models(30, 6, 6)).save(tmp_path)
    path = tmp_path / "model.json"
    content = json.loads(path.read_text())
    save_file(load_file(tmp_path / "model.safetensors") | {name: other}, tmp_path / "w")
    (tmp_path / "w").replace(tmp_path / "model.safetensors")
    path.write_text(json.dumps({n: content[n] for n in content if n not in ("sha256", "weights")}))
    with pytest.raises(DamagedError, match="a damaged ensemble"):
        EnsembleRepresentation.load(tmp_path)


SCRIPT = """
import sys
import numpy as np
from featkit.analyses.ensemble.representation import EnsembleRepresentation
features = [np.load(path) for path in sys.argv[3:]]
ensemble = EnsembleRepresentation(epochs=10, batch_size=64, checkpoint=sys.argv[1])
np.save(sys.argv[2], ensemble.fit_transform(features))
"""


def test_a_killed_run_goes_on_to_the_same_numbers(tmp_path: Path) -> None:
    features = models(600, 16, 16)
    files = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for file, x in zip(files, features, strict=True):
        np.save(file, x)
    kept = tmp_path / "kept"
    given = kept, tmp_path / "psi.npy", *files
    state = kept / "state.safetensors"
    process = Forked(SCRIPT, *given)
    changes = set()
    while len(changes) < 6 and process.poll() is None:
        if state.exists():
            changes.add(state.stat().st_mtime_ns)
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert not (tmp_path / "psi.npy").exists()
    before = state.stat().st_mtime_ns
    assert run_forked(SCRIPT, *given).returncode == 0
    assert state.stat().st_mtime_ns > before
    straight = EnsembleRepresentation(epochs=10, batch_size=64).fit_transform(features)
    np.testing.assert_array_equal(np.load(tmp_path / "psi.npy"), straight)


def test_a_checkpoint_of_another_run_is_refused(tmp_path: Path) -> None:
    features = models(60, 8, 8)
    EnsembleRepresentation(epochs=2, checkpoint=tmp_path).fit(features)
    with pytest.raises(UsageError, match="other features or settings"):
        EnsembleRepresentation(epochs=3, checkpoint=tmp_path).fit(features)
    features[1][3, 2] += 1
    with pytest.raises(UsageError, match="other features or settings"):
        EnsembleRepresentation(epochs=2, checkpoint=tmp_path).fit(features)
    save_file({"a": torch.ones(1)}, tmp_path / "state.safetensors")
    with pytest.raises(UsageError, match="other features or settings"):
        EnsembleRepresentation(epochs=2, checkpoint=tmp_path).fit(features)
    (tmp_path / "state.safetensors").write_bytes(b"broken")
    with pytest.raises(DamagedError, match="delete it"):
        EnsembleRepresentation(epochs=2, checkpoint=tmp_path).fit(features)


def kept_state(folder: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    path = folder / "state.safetensors"
    with safe_open(path, framework="pt") as file:
        return load(path.read_bytes()), file.metadata()


def test_a_state_with_a_lost_bit_is_refused(tmp_path: Path) -> None:
    features = models(60, 8, 8)
    run = EnsembleRepresentation(epochs=2, checkpoint=tmp_path)
    wanted = run.fit(features).embedding_
    path = tmp_path / "state.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-3] + bytes([whole[-3] ^ 4]) + whole[-2:])
    with pytest.raises(DamagedError, match=r"not the ones that were written .*; delete it"):
        run.fit(features)
    path.write_bytes(whole.replace(b"after_warmup", b"after_warmuq"))
    with pytest.raises(DamagedError, match=r"not the ones that were written .*; delete it"):
        run.fit(features)
    path.write_bytes(whole)
    tensors, about = kept_state(tmp_path)
    del about["sha256"]
    save_file(tensors, path, about)  # as files were that had none
    np.testing.assert_array_equal(run.fit(features).embedding_, wanted)


@pytest.mark.parametrize(
    ("recovery", "changes"),
    [
        ("[" * 100_000, {}),
        ("[1]", {}),
        ('{"final": 3}', {}),
        ("{}", {"epochs": torch.ones(2)}),
        ("{}", {"mappers.weights.0": torch.ones(2, 7, 8)}),
        ("{}", {"bank.rows": torch.ones(70, 8)}),
        ("{}", {"adam.0.exp_avg": torch.ones(1)}),
    ],
)
def test_a_state_that_nobody_wrote_is_refused(
    tmp_path: Path, recovery: str, changes: dict[str, Tensor]
) -> None:
    features = models(60, 8, 8)
    run = EnsembleRepresentation(epochs=2, checkpoint=tmp_path)
    run.fit(features)
    tensors, about = kept_state(tmp_path)
    told = with_tensors_digest({"run": about["run"], "recovery": recovery}, tensors | changes)
    save_file(tensors | changes, tmp_path / "state.safetensors", told)
    with pytest.raises(DamagedError, match="delete it"):
        run.fit(features)


FULL = """
import resource, signal, sys
import numpy as np
from featkit.analyses.ensemble.representation import EnsembleRepresentation
from featkit.errors import UsageError
features = [np.random.default_rng(0).random((400, 32)) for _ in range(2)]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
ensemble = EnsembleRepresentation(epochs=1).fit(features)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
for write in (
    lambda: ensemble.save(sys.argv[1]),
    lambda: EnsembleRepresentation(epochs=1, checkpoint=sys.argv[1]).fit(features),
    lambda: EnsembleRepresentation(
        epochs=1, checkpoint=sys.argv[1], max_memory=1e-6
    ).fit(features),
):
    try:
        write()
    except UsageError as error:
        print(error)
"""


def test_a_file_that_cannot_be_written_whole_is_not_there(tmp_path: Path) -> None:
    """A limit on the size of files stands for a full disk."""
    done = run_forked(FULL, tmp_path / "m")
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 3
    assert lines[2].startswith(f"cannot write 51.2 kB of representations to {tmp_path / 'm'} (")
    assert lines[0].startswith(f"cannot write {tmp_path / 'm' / 'model.safetensors'} (")
    assert lines[1].startswith(f"cannot write {tmp_path / 'm' / 'state.safetensors'} (")
    assert list((tmp_path / "m").iterdir()) == []
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(UsageError, match="cannot write"):
        EnsembleRepresentation(epochs=1).fit(models(9, 4, 4)).save(tmp_path / "file")


def test_divergence_is_an_error_and_never_a_number() -> None:
    features = models(60, 8, 8)
    with pytest.raises(UsageError, match=r"the ensemble diverged.*lower lr \(1e\+20\)"):
        EnsembleRepresentation(lr=1e20, epochs=3).fit(features)
    ensemble = EnsembleRepresentation(epochs=2).fit(features)
    ensemble.set_params(representation_lr=1e38, epochs=50)
    with pytest.raises(UsageError, match="diverged"):
        ensemble.transform(features)


def test_settings_may_come_from_numpy_and_features_be_of_any_type() -> None:
    features = models(60, 8, 8)
    wanted = EnsembleRepresentation(epochs=2, lr=1e-3, random_state=1).fit_transform(features)
    found = EnsembleRepresentation(
        epochs=np.int64(2), lr=np.float64(1e-3), random_state=np.int32(1)
    ).fit_transform([torch.tensor(x) for x in features])
    np.testing.assert_array_equal(found, wanted)
    for value in (True, np.inf, "1"):
        with pytest.raises(UsageError, match="lr is"):
            EnsembleRepresentation(lr=value).fit(features)
    half = [torch.tensor(x).bfloat16() for x in features]
    again = [x.float().numpy() for x in half]
    np.testing.assert_array_equal(
        EnsembleRepresentation(epochs=2).fit_transform(half),
        EnsembleRepresentation(epochs=2).fit_transform(again),
    )


def test_a_row_that_is_not_finite_is_named_by_its_number() -> None:
    features = models(9000, 4, 4)
    features[1][8999, 2] = np.nan
    with pytest.raises(UsageError, match=r"model 1 from row 8,192 .*row 807"):
        EnsembleRepresentation(epochs=1).fit(features)


def test_few_images_have_few_principal_components() -> None:
    few = [x[:3] for x in models(9, 8, 5)]
    assert EnsembleRepresentation(epochs=1).fit_transform(few).shape == (3, 3)
    with pytest.raises(UsageError, match="width 4: the features of 3 images"):
        EnsembleRepresentation(epochs=1, width=4).fit(few)


def test_half_of_an_odd_number_of_epochs() -> None:
    found = [EnsembleRepresentation(epochs=n).settings().warmup_epochs for n in (1, 2, 3, 5, 7)]
    assert found == [1, 1, 2, 3, 4]


def test_others_may_read_the_model(tmp_path: Path) -> None:
    EnsembleRepresentation(epochs=1).fit(models(9, 4, 4)).save(tmp_path)
    (tmp_path / "plain").touch()
    modes = {path.stat().st_mode for path in tmp_path.iterdir()}
    assert len(modes) == 1


# ------------------------------------------------------------------------------- little memory


def test_mapped_representations_are_the_same_and_leave_no_file(tmp_path: Path) -> None:
    features = models(600, 16, 16)
    straight = EnsembleRepresentation(epochs=4, batch_size=50)
    wanted = straight.fit_transform(features), straight.transform(features)
    mapped = EnsembleRepresentation(
        epochs=4, batch_size=50, max_memory=1e-6, checkpoint=tmp_path / "kept"
    )
    np.testing.assert_array_equal(mapped.fit_transform(features), wanted[0])
    np.testing.assert_array_equal(mapped.transform(features), wanted[1])
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["state.safetensors"]
    # the state of a run does not depend on where it lay
    again = EnsembleRepresentation(epochs=4, batch_size=50, checkpoint=tmp_path / "kept")
    np.testing.assert_array_equal(again.fit_transform(features), wanted[0])


def test_rows_of_each_batch_are_announced_before_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("featkit.ops.read_ahead.free_for_files", lambda: 0)
    told: list[list[int]] = []
    announce = read_ahead._Mapped.read

    def noted(self: Any, rows: Any) -> None:
        told.append(rows.tolist())
        announce(self, rows)

    read: list[list[int]] = []
    step = learning.Learner.step

    def stepped(self: Any, index: Tensor, moves: bool) -> Tensor:
        read.append(sorted(index.tolist()))
        return step(self, index, moves)

    monkeypatch.setattr(read_ahead._Mapped, "read", noted)
    monkeypatch.setattr(learning.Learner, "step", stepped)
    features = models(100, 8, 8)
    np.save(tmp_path / "a.npy", features[0])
    mapped = [np.load(tmp_path / "a.npy", mmap_mode="r"), features[1]]
    settings = {"epochs": 2, "batch_size": 30}
    found = EnsembleRepresentation(**settings, max_memory=1e-6).fit_transform(mapped)
    # one model, then ψ, and its moments when it learns
    assert told == [rows for rows in read[:4] for _ in range(2)] + [
        rows for rows in read[4:] for _ in range(4)
    ]
    monkeypatch.undo()
    wanted = EnsembleRepresentation(**settings).fit_transform(features)
    np.testing.assert_array_equal(found, wanted)


LITTLE = """
import pathlib, resource, sys
import numpy as np
import torch
from featkit.analyses.ensemble.representation import EnsembleRepresentation
from featkit.errors import UsageError
torch.set_num_threads(1)
features = [np.load(path, mmap_mode="r") for path in sys.argv[2:]]
settings = {"epochs": 1, "warmup": 0, "batch_size": 8192, "checkpoint": None}
EnsembleRepresentation(**settings).fit([x[:9000] for x in features])
taken = int(pathlib.Path("/proc/self/status").read_text().split("VmData:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_DATA, (taken * 1024 + 2**26, taken * 1024 + 2**26))
try:
    psi = EnsembleRepresentation(**settings, max_memory=float(sys.argv[1])).fit_transform(features)
    print(psi.shape, bool(np.isfinite(psi).all()))
except (MemoryError, RuntimeError):
    print("no memory")
"""


def test_representations_may_be_larger_than_the_memory(tmp_path: Path) -> None:
    """Of private memory, 67 MB are left; ψ and its moments take 115 MB."""
    files = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for file, x in zip(files, models(150_000, 64, 64), strict=True):
        np.save(file, x)
    said = [run_forked(LITTLE, limit, *files).stdout for limit in ("9", "0.01")]
    assert said == ["no memory\n", "(150000, 64) True\n"]


def test_mapped_representations_need_a_place(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    ensemble = EnsembleRepresentation(epochs=1, max_memory=1e-9, checkpoint=tmp_path / "file")
    with pytest.raises(UsageError, match="cannot write 160 B of representations to .*file"):
        ensemble.fit(models(10, 4, 4))
    with pytest.raises(UsageError, match="max_memory is 0: give GB"):
        EnsembleRepresentation(max_memory=0).fit(models(10, 4, 4))


# ------------------------------------------------------------------------------- odd features


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (np.ones((3, 4)), "a list of arrays"),
        ([], "a list of arrays"),
        ([np.ones((3, 4)), np.ones((4, 4))], r"different numbers of images, \[3, 4\]"),
        ([np.ones((3, 4)), np.ones(3)], "model 1 are float64 \\(3,\\)"),
        ([np.ones((0, 4))], "model 0 are"),
        ([np.array([["a"]])], "real numbers"),
        ([np.ones((3, 4)), np.full((3, 4), np.nan)], "3 of 3 rows of model 1 hold NaN"),
        ([np.full((3, 4), np.inf)], "model 0 hold NaN or infinity"),
    ],
)
def test_features_that_cannot_be_used(features: object, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        EnsembleRepresentation(epochs=1).fit(features)


def test_another_width_is_told() -> None:
    ensemble = EnsembleRepresentation(epochs=1).fit(models(30, 6, 8))
    with pytest.raises(UsageError, match=r"have \[6, 9\] dimensions, and .* fitted on \[6, 8\]"):
        ensemble.transform(models(5, 6, 9))
    with pytest.raises(UsageError, match="fitted on"):
        ensemble.transform(models(5, 6))
    with pytest.raises(UsageError, match="init average"):
        EnsembleRepresentation(init="average").fit(models(5, 6, 8))
    with pytest.raises(UsageError, match="1 to 5 principal components"):
        EnsembleRepresentation(width=7).fit(models(5, 8, 8))


@pytest.mark.parametrize(
    ("option", "value"),
    [
        *(("epochs", v) for v in (0, -1, 2.5, True)),
        *(("batch_size", v) for v in (0, 1.0)),
        *((f"{n}lr", v) for n in ("", "representation_") for v in (0, -1, float("nan"), "x")),
        ("lr", float("inf")),
        ("lr", 10**400),
        ("non_negative", "yes"),
        *(("warmup", v) for v in (-0.1, 1.1, float("nan"))),
        *((name, v) for name in ("l1", "weight_decay") for v in (-1, float("inf"), float("nan"))),
        *(("random_state", v) for v in (None, -1, 2**32, 0.5)),
        ("depth", 0),
        ("hidden", 0),
        *((name, "other") for name in ("init", "last_layer", "last_bias", "optimizer", "bank")),
        ("precision", "fp64"),
    ],
)
def test_settings_that_mean_nothing(option: str, value: object) -> None:
    with pytest.raises(UsageError, match=f"{option} is "):
        EnsembleRepresentation(**{option: value}).fit(models(9, 4, 4))


def odd_features() -> dict[str, list[np.ndarray]]:
    usual = models(40, 6, 6)
    zeros = [x.copy() for x in usual]
    zeros[0][3] = zeros[1][3] = zeros[1][7] = 0
    opposed = models(40, 6, rectified=False)
    return {
        "zero rows": zeros,
        "a constant model": [usual[0], np.ones((40, 6), np.float32)],
        "a model of zeros": [usual[0], np.zeros((40, 6), np.float32)],
        "models that cancel": [opposed[0], -opposed[0]],
        "one image": [x[:1] for x in usual],
        "one model": usual[:1],
        "one dimension": [x[:, :1] for x in usual],
        "one dimension beside six": [usual[0], usual[1][:, :1]],
        "tiny": [x * 1e-30 for x in usual],
        "huge": [x * 1e30 for x in usual],
        "whole numbers": [(10 * x).astype(np.int64) for x in usual],
        "half precision": [x.astype(np.float16) for x in usual],
    }


@pytest.mark.parametrize("case", odd_features())
def test_odd_features_never_give_nan(case: str) -> None:
    features = odd_features()[case]
    ensemble = EnsembleRepresentation(epochs=6, batch_size=8, lr=1e-2).fit(features)
    assert np.isfinite(ensemble.embedding_).all()
    assert np.isfinite(ensemble.transform(features)).all()
    assert np.isfinite([*ensemble.recovery_.values()]).all()


def test_an_image_without_features_stays_at_zero() -> None:
    features = odd_features()["zero rows"]
    ensemble = EnsembleRepresentation(epochs=6, batch_size=8).fit(features)
    assert not ensemble.embedding_[3].any()
    assert ensemble.embedding_[7].any()
    assert not ensemble.transform(features)[3].any()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_the_scale_of_features_does_not_matter(scale: float) -> None:
    features = models(60, 8, 8)
    usual = EnsembleRepresentation(epochs=2).fit_transform(features)
    scaled = EnsembleRepresentation(epochs=2).fit_transform([x * scale for x in features])
    assert relative(scaled, usual) < 1e-5
