"""Learning φ and ψ: the training loop, and the search for ψ of new images."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import Tensor

from featkit.analyses.ensemble.targets import Targets
from featkit.errors import UsageError
from featkit.ops.mappers import Mappers, recovery
from featkit.ops.row_adam import AdamSettings, RowAdam, Rule

Init: TypeAlias = Literal["auto", "average", "pca"]
LastBias: TypeAlias = Literal["mean", "usual"]
LastLayer: TypeAlias = Literal["auto", "relu", "linear"]
Precision: TypeAlias = Literal["fp32", "bf16"]
Bank: TypeAlias = Literal["trained", "refit"]


@dataclass(frozen=True)
class Settings:
    """Every constant; sections are those of Wallace et al. 2021, arXiv:2110.10293.

    See :class:`featkit.analyses.ensemble.representation.EnsembleRepresentation`.
    """

    epochs: int = 50
    batch_size: int = 256
    lr: float = 3e-4
    representation_lr: float | None = None
    warmup: float = 0.5
    depth: int = 2
    hidden: int | None = None
    width: int | None = None
    init: Init = "auto"
    last_layer: LastLayer = "auto"
    last_bias: LastBias = "mean"
    optimizer: Rule = "dense"
    weight_decay: float = 0.0
    l1: float = 0.0
    non_negative: bool = False
    bank: Bank = "trained"
    precision: Precision = "fp32"
    random_state: int = 0

    def __post_init__(self) -> None:
        """Refuse values that mean nothing."""
        for name in ("epochs", "batch_size", "depth", "hidden", "width"):
            value = getattr(self, name)
            if value is not None and (type(value) is not int or value < 1):
                raise UsageError(f"{name} is {value!r}: give a whole number, at least 1")
        for name, most in (("warmup", 1.0), ("weight_decay", math.inf), ("l1", math.inf)):
            if not 0 <= getattr(self, name) <= most:
                raise UsageError(f"{name} is {getattr(self, name)!r}: give 0 to {most:g}")
        for name in ("lr", "representation_lr"):
            value = getattr(self, name)
            if value is not None and not 0 < value < math.inf:
                raise UsageError(f"{name} is {value!r}: give a number above 0")
        for name, kind in (
            ("init", Init),
            ("last_layer", LastLayer),
            ("last_bias", LastBias),
            ("optimizer", Rule),
            ("bank", Bank),
            ("precision", Precision),
        ):
            if getattr(self, name) not in get_args(kind):
                raise UsageError(
                    f"{name} is {getattr(self, name)!r}: use {' or '.join(get_args(kind))}"
                )

    @property
    def warmup_epochs(self) -> int:
        """Epochs in which ψ stands still."""
        return round(self.epochs * self.warmup)

    def adam(self, rows: Tensor) -> RowAdam:
        """Return the optimizer of ψ, (n, w)."""
        settings = AdamSettings(self.representation_lr or self.lr)
        least = 0.0 if self.non_negative else None
        return RowAdam(rows, settings, self.optimizer, least=least)

    def computing(self) -> AbstractContextManager[None]:
        """Run products in the format that was asked for."""
        found: AbstractContextManager[None] = torch.autocast(
            "cpu", torch.bfloat16, enabled=self.precision == "bf16"
        )
        return found


_ROWS = ("rows", "first", "second", "last")


class Learner:
    """φ and the bank of ψ while they are learned.

    ``min Σ_i Σ_j 1 - cos(φ_j(ψ_i), z_i^j)`` over φ in the first epochs, then over φ and ψ.

    Args:
        targets: z.
        start: ψ0, (n, w), float32; becomes ψ.
        mappers: φ.
        settings: Constants.

    Attributes:
        epochs: How many have run.
    """

    def __init__(
        self, targets: Targets, start: Tensor, mappers: Mappers, settings: Settings
    ) -> None:
        self.targets, self.mappers, self.settings = targets, mappers, settings
        self.bank = settings.adam(start)
        self.optimizer = torch.optim.Adam(
            mappers.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self.epochs = 0

    def run_epoch(self) -> list[float]:
        """Visit every image once, in an order that depends on seed and epoch only.

        Returns:
            The mean cosine of each model while the epoch ran.
        """
        moves = self.epochs >= self.settings.warmup_epochs
        seed = torch.Generator().manual_seed(self.settings.random_state * 1_000_003 + self.epochs)
        total = torch.zeros(len(self.targets.widths), dtype=torch.float64)
        order = torch.randperm(len(self.targets), generator=seed)
        for index in torch.split(order, self.settings.batch_size):
            total += self.step(index, moves).sum(1)
        self.epochs += 1
        return (total / len(self.targets)).tolist()

    def step(self, index: Tensor, moves: bool) -> Tensor:
        """Take one step.

        Args:
            index: Images of the batch, (b).
            moves: Whether ψ learns too.

        Returns:
            The cosine of each model for each image, before the step, (m, b).
        """
        psi = self.bank.read(index).requires_grad_(moves)
        loss, cosines = self._loss(psi, self.targets.read(index))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        if moves:
            assert psi.grad is not None  # noqa: S101 - psi requires it
            self.bank.step(index, psi.detach(), psi.grad)
        return cosines

    def state(self) -> dict[str, Tensor]:
        """Return all that a later run needs to go on, by name."""
        bank, adam = self.bank, self.optimizer.state_dict()["state"]
        counts = {"epochs": torch.tensor(self.epochs), "bank.steps": torch.tensor(bank.steps)}
        rows = {name: getattr(bank, name) for name in _ROWS}
        return (
            counts
            | {f"bank.{name}": value for name, value in rows.items()}
            | {f"mappers.{name}": value for name, value in self.mappers.state_dict().items()}
            | {f"adam.{i}.{name}": value for i in adam for name, value in adam[i].items()}
        )

    def restore(self, state: Mapping[str, Tensor]) -> None:
        """Go on from :meth:`state`."""
        self.epochs, self.bank.steps = int(state["epochs"]), int(state["bank.steps"])
        for name in _ROWS:
            getattr(self.bank, name).copy_(state[f"bank.{name}"])
        self.mappers.load_state_dict(_below("mappers.", state))
        adam: dict[int, dict[str, Tensor]] = {}
        for name, value in _below("adam.", state).items():
            number, _, part = name.partition(".")
            adam.setdefault(int(number), {})[part] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": adam, "param_groups": groups})

    def _loss(self, psi: Tensor, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        with self.settings.computing():
            mapped = self.mappers(psi)
        cosines = recovery(mapped, targets)
        loss = (1 - cosines).mean()
        if self.settings.l1:
            loss = loss + self.settings.l1 * psi.abs().sum(1).mean()
        return loss, cosines.detach()


def search(
    targets: Targets,
    start: Tensor,
    mappers: Mappers,
    settings: Settings,
    idle: int,
    progress: Callable[[int], None] | None = None,
) -> list[float]:
    """Find ψ of images with φ frozen, each by itself.

    A row is optimised for all epochs while its batch is in the cache, so what it becomes does not
    depend on the other rows. Where Adam is dense, ``idle`` steps without a gradient lie between its
    steps, as many as between two visits in training.

    Args:
        targets: z.
        start: ψ0, (n, w); becomes ψ.
        mappers: φ.
        settings: Constants.
        idle: Steps between two visits of a row.
        progress: Is told how many rows were found.

    Returns:
        The mean cosine of each model at the end.

    Cost: n·epochs times a forward pass and the gradient of ψ; memory O(batch).
    """
    total = torch.zeros(len(targets.widths), dtype=torch.float64)
    scale = len(targets.widths) * settings.batch_size
    for index in torch.split(torch.arange(len(targets)), settings.batch_size):
        rows, wanted, every = start[index], targets.read(index), torch.arange(len(index))
        bank = settings.adam(rows)
        bank.skip(idle // 2)
        for _ in range(settings.epochs):
            psi = bank.read(every).requires_grad_()
            with settings.computing():
                mapped = mappers(psi)
            loss = (1 - recovery(mapped, wanted)).sum() / scale
            if settings.l1:
                loss = loss + settings.l1 * psi.abs().sum() / settings.batch_size
            (gradient,) = torch.autograd.grad(loss, psi)
            bank.step(every, psi.detach(), gradient)
            bank.skip(idle)
        bank.flush()
        with torch.no_grad(), settings.computing():
            total += recovery(mappers(rows), wanted).sum(1)
        start[index] = rows
        if progress is not None:
            progress(len(index))
    return (total / len(targets)).tolist()


def _below(prefix: str, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {n.removeprefix(prefix): value for n, value in state.items() if n.startswith(prefix)}
