"""Learning φ and ψ: the training loop, and the search for ψ of new images."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from featkit.analyses.ensemble.settings import Settings
from featkit.analyses.ensemble.space import Space
from featkit.analyses.ensemble.targets import Targets
from featkit.errors import UsageError
from featkit.ops.mappers import Mappers
from featkit.ops.read_ahead import ReadAhead, announced, exceed_memory
from featkit.ops.recovery_gradients import RecoveryGradients
from featkit.parallel.group import add_up, here, on_first

_ROWS = ("rows", "first", "second", "last")


class Learner:
    """φ and the bank of ψ while they are learned.

    ``min Σ_i Σ_j 1 - cos(φ_j(ψ_i), z_i^j)`` over φ in the first epochs, then over φ and ψ. Each of
    several processes has φ, and rows of ψ of its own (``targets.own``); what these say of φ is
    added up in every step.

    Args:
        targets: z.
        start: ψ0 of its own rows, (n of them, w), float32; becomes ψ.
        mappers: φ.
        settings: Constants.
        space: Makes the moments of ψ's optimizer; ``start`` may be of it too.

    Attributes:
        epochs: How many have run.
    """

    def __init__(
        self,
        targets: Targets,
        start: Tensor,
        mappers: Mappers,
        settings: Settings,
        space: Space,
    ) -> None:
        self.targets, self.mappers, self.settings = targets, mappers, settings
        self.space, self.bank = space, settings.adam(start, space.zeros)
        self.optimizer = torch.optim.Adam(
            mappers.parameters(), settings.lr, weight_decay=settings.weight_decay, fused=True
        )
        self._gradients = RecoveryGradients(mappers, settings.dtype, learns=True)
        self.epochs = 0

    def run_epoch(self) -> list[float]:
        """Visit every image once, in an order that depends on seed and epoch only.

        Returns:
            The mean cosine of each model while the epoch ran.

        Raises:
            UsageError: It diverged.
        """
        moves = self.epochs >= self.settings.warmup_epochs
        seed = torch.Generator().manual_seed(self.settings.random_state * 1_000_003 + self.epochs)
        total = torch.zeros(len(self.targets.widths), dtype=torch.float64)
        order = torch.randperm(len(self.targets), generator=seed)
        with self._read_ahead(moves) as announce:
            for index in announced(torch.split(order, self.settings.batch_size), announce):
                total += self.step(index, moves).sum(1)
        self.epochs += 1
        return _mean(add_up(total), self.targets, self.settings)

    @contextmanager
    def _read_ahead(self, moves: bool) -> Iterator[Callable[[Tensor], None]]:
        """Give what announces the images of a batch, where files do not fit into memory."""
        features, bank = self.targets.sources, self.space.mapped
        tight = exceed_memory([*features, *bank * here().local_count])
        if not moves:  # moments are not read
            bank = [array for array in bank if array.ctypes.data == self.bank.rows.data_ptr()]
        with ReadAhead(features if tight else ()) as ahead, ReadAhead(bank if tight else ()) as own:

            def announce(index: Tensor) -> None:
                images = self._own(index).sort().values.numpy()
                ahead.announce(images)
                own.announce(images - self.targets.own.start)

            yield announce

    def measure(self) -> list[float]:
        """Return the mean cosine of each model over all images as they are now."""
        total = torch.zeros(len(self.targets.widths), dtype=torch.float64)
        self._gradients.refresh()
        own = self.targets.own
        for index in torch.split(torch.arange(own.start, own.stop), self.settings.batch_size):
            psi = self.bank.read(index - own.start)
            total += self._gradients.cosines(psi, self.targets.read(index)).sum(1)
        return _mean(add_up(total), self.targets, self.settings)

    def step(self, index: Tensor, moves: bool) -> Tensor:
        """Take one step.

        Args:
            index: Images of the batch, (b).
            moves: Whether ψ learns too.

        Returns:
            The cosine of each model for each image of its own, before the step, (m, b of these).
        """
        own, settings, count = self.targets.own, self.settings, len(index)
        index = self._own(index)
        rows = index - own.start
        psi, targets = self.bank.read(rows), self.targets.read(index)
        self._gradients.refresh()
        cosines, gradient = self._gradients(psi, targets, 1 / (len(targets) * count), moves)
        for parameter in self.mappers.parameters():
            assert parameter.grad is not None  # noqa: S101 - made with the mappers
            add_up(parameter.grad)
        self.optimizer.step()
        if gradient is not None:
            gradient.add_(psi.sign(), alpha=settings.l1 / count)
            self.bank.step(rows, psi, gradient)
        return cosines

    def _own(self, index: Tensor) -> Tensor:
        """Return the images among some that are this process's."""
        own = self.targets.own
        return index[(index >= own.start) & (index < own.stop)]

    def state(self) -> dict[str, Tensor]:
        """Return all that a later run needs to go on, by name, in the first of several processes.

        Cost: in that one, memory for 12·n·w bytes where there are others.
        """
        bank, adam = self.bank, self.optimizer.state_dict()["state"]
        counts = {"epochs": torch.tensor(self.epochs), "bank.steps": torch.tensor(bank.steps)}
        kept = _ROWS if bank.steps else ()  # still ψ0
        rows = {name: on_first(getattr(bank, name), self.targets.own) for name in kept}
        return (
            counts
            | {f"bank.{name}": value for name, value in rows.items()}
            | {f"mappers.{name}": value for name, value in self.mappers.state_dict().items()}
            | {f"adam.{i}.{name}": value for i in adam for name, value in adam[i].items()}
        )

    def restore(self, read: Callable[[str], Tensor]) -> None:
        """Go on from :meth:`state`.

        Args:
            read: Gives a tensor by its name.

        Raises:
            ValueError: One has another shape.
        """

        def shaped(name: str, *shape: int) -> Tensor:
            tensor = read(name)
            if tensor.shape != shape:
                raise ValueError(f"{name} is {list(tensor.shape)}, and not {list(shape)}")
            return tensor

        self.epochs = int(shaped("epochs"))
        self.bank.steps = int(shaped("bank.steps"))
        for name in _ROWS if self.bank.steps else ():
            own = getattr(self.bank, name)
            own.copy_(shaped(f"bank.{name}", len(self.targets), *own.shape[1:])[self.targets.own])
        mappers = self.mappers.state_dict()
        self.mappers.load_state_dict(
            {n: shaped(f"mappers.{n}", *mappers[n].shape) for n in mappers}
        )
        adam = {
            i: {
                "step": shaped(f"adam.{i}.step"),
                "exp_avg": shaped(f"adam.{i}.exp_avg", *parameter.shape),
                "exp_avg_sq": shaped(f"adam.{i}.exp_avg_sq", *parameter.shape),
            }
            for i, parameter in enumerate(self.mappers.parameters())
        }
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": adam, "param_groups": groups})


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
        start: ψ0 of ``targets.own``, (n of them, w); becomes ψ.
        mappers: φ.
        settings: Constants.
        idle: Steps between two visits of a row.
        progress: Is told how many rows were found.

    Returns:
        The mean cosine of each model at the end.

    Raises:
        UsageError: It diverged.

    Cost: n·epochs times a forward pass and the gradient of ψ; memory O(batch).
    """
    total = torch.zeros(len(targets.widths), dtype=torch.float64)
    scale = 1 / (len(targets.widths) * settings.batch_size)
    gradients = RecoveryGradients(mappers, settings.dtype, learns=False)
    own = targets.own
    for index in torch.split(torch.arange(own.start, own.stop), settings.batch_size):
        place = index - own.start
        rows, wanted, every = start[place], targets.read(index), torch.arange(len(index))
        bank = settings.adam(rows)
        bank.skip(idle // 2)
        for _ in range(settings.epochs):
            psi = bank.read(every)
            _, gradient = gradients(psi, wanted, scale, moves=True)
            assert gradient is not None  # noqa: S101 - ψ moves
            gradient.add_(psi.sign(), alpha=settings.l1 / settings.batch_size)
            bank.step(every, psi, gradient)
            bank.skip(idle)
        bank.flush()
        total += gradients.cosines(rows, wanted).sum(1)
        start[place] = rows
        if progress is not None:
            progress(len(index))
    return _mean(add_up(total), targets, settings)


def _mean(total: Tensor, targets: Targets, settings: Settings) -> list[float]:
    if not bool(torch.isfinite(total).all()):
        raise UsageError(
            f"the ensemble diverged: its numbers are no longer finite; lower lr ({settings.lr:g}) "
            f"or representation_lr"
        )
    mean: list[float] = (total / len(targets)).tolist()
    return mean
