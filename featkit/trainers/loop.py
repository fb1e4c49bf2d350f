"""The loop that every method is trained by.

What is random in a step is drawn from a seed of its own, made of the training's seed and the step's
number, and the order of an epoch from one made of the epoch's number. So the state of no generator
has to be kept, and a training that goes on from any step is the one that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featkit.backbones.precision import exact_products
from featkit.errors import FeatkitError, UsageError
from featkit.ops.read_ahead import ReadAhead, announced, exceed_memory
from featkit.parallel.group import all_of, first, here, is_first, mean_of_all
from featkit.parallel.place import ALONE
from featkit.progress import progress_bar
from featkit.trainers.base import Learner, Moment, NotFiniteError
from featkit.trainers.held_out import HeldOutNeighbors
from featkit.trainers.images import TrainingImages
from featkit.trainers.memory import kept_memory
from featkit.trainers.optimization import (
    clip_gradients,
    learning_rate,
    make_optimizer,
    optimizer_tensors,
    restore_optimizer,
    weight_decay,
)
from featkit.trainers.run_folder import RunFolder
from featkit.trainers.settings import Training
from featkit.trainers.statistics import shared_statistics

STATE_SECONDS = 300.0
"""How old the state may become within an epoch; it is written after each epoch anyhow."""

_CHECKED = 50
"""Steps after which losses are looked at on a GPU, where each look waits for the device."""


class DivergedError(FeatkitError):
    """A loss or weight that is no finite number."""


@dataclass
class Progress:
    """How far a training has come.

    Attributes:
        epoch: Whole epochs done.
        step: Steps done of the next one.
        loss: Sum of their losses.
        rows: A row for each epoch done, and for epoch 0: ``epoch``, ``loss`` (mean over its steps),
            ``lr`` (of its last step), ``knn_top1`` (where judged), ``seconds`` (of training), and
            those of the method.
        best: The best judgement so far.
        best_epoch: Its epoch.
        waited: Judgements since then.
        seconds: Of training, of the epoch under way.
    """

    epoch: int = 0
    step: int = 0
    loss: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    best: float = -1.0
    best_epoch: int = 0
    waited: int = 0
    seconds: float = 0.0


class Loop:
    """One training, from wherever its folder stands to its end.

    Args:
        learner: What is trained.
        images: What it learns from.
        training: How, with the precision that was decided on.
        folder: What is kept.
        device: Where.
        said: Called with the progress after every epoch.

    Raises:
        UsageError: There are fewer images than a batch takes, or none to be patient by; or several
            processes cannot have equal shares of a batch.
    """

    def __init__(
        self,
        learner: Learner,
        images: TrainingImages,
        training: Training,
        folder: RunFolder,
        device: torch.device,
        said: Callable[[Progress], None],
    ) -> None:
        self.learner, self.images, self.training = learner, images, training
        self.folder, self.device, self.said = folder, device, said
        self.steps = len(images.learned) // training.batch_size
        if not self.steps:
            raise UsageError(
                f"{len(images.learned):,} images to learn from, and a batch takes "
                f"{training.batch_size:,}: give a smaller --batch-size or more images"
            )
        if training.batch_size % here().count:
            raise UsageError(
                f"a batch of {training.batch_size:,} images for {here().count} processes: give a "
                f"--batch-size that is a multiple of {here().count}"
            )
        if training.patience is not None and not len(images.judged):
            raise UsageError(
                "patience needs judgements, and no image is held out (without labels, with several "
                "an image, or with a small --held-out): leave it out"
            )
        self.neighbors = (
            HeldOutNeighbors(learner.network, images, training.seed) if len(images.judged) else None
        )
        learner.attach(images, training, device)
        learner.module.to(device).to(memory_format=torch.channels_last).train()
        self.optimizers = self._optimizers()
        self.progress = Progress()

    def _optimizers(self) -> dict[str, torch.optim.Optimizer]:
        """Return the loop's own optimiser, and those of the method, by the names in the state."""
        others = self.learner.optimizers(self.training)
        groups = (group for optimizer in others.values() for group in optimizer.param_groups)
        moved = {parameter for group in groups for parameter in group["params"]}
        rest = [p for p in self.learner.module.parameters() if p not in moved]
        return {"optimizer": make_optimizer(rest, self.training), **others}

    def run(self, show: bool = False) -> Progress:
        """Train to the end.

        Args:
            show: Whether to draw a progress bar on stderr.

        Raises:
            DivergedError: A loss or weight is no finite number; what was kept before stays.

        Cost: in memory, pixels, weights, their gradients and the optimiser's state, and the
        activations of a batch.
        """
        training, name = self.training, self.folder.record.method
        first(self.folder.begin)
        with (
            kept_memory(),
            exact_products(),
            progress_bar(training.epochs * self.steps, name, "step", show=show) as bar,
        ):
            self._restore()
            if not self.progress.rows:
                with self._told_as_diverged():
                    self.learner.start()
                self._finish_epoch(None)
            bar.update(self.progress.epoch * self.steps + self.progress.step)
            while self.progress.epoch < training.epochs and not self._is_over():
                self._epoch(bar)
        first(lambda: self.said(self.progress))
        return self.progress

    def finish(self) -> None:
        """Let the run count as finished; what was needed to go on is deleted."""
        progress, patience = self.progress, self.training.patience
        chosen = progress.epoch if patience is None else progress.best_epoch
        self.folder.finish(chosen)
        self.folder.drop_weights(self._wanted() | {chosen})

    def _is_over(self) -> bool:
        patience = self.training.patience
        return patience is not None and self.progress.waited >= patience

    def _epoch(self, bar: Any) -> None:
        progress = self.progress
        kept = time.perf_counter()
        with self._told_as_diverged():
            self.learner.begin_epoch(progress.epoch)
        order = self._order()
        started = time.perf_counter() - progress.seconds
        unseen: list[Tensor] = []
        for step, rows in enumerate(self._batches(order), progress.step):
            unseen.append(self._step(progress.epoch * self.steps + step, rows))
            is_last = step + 1 == self.steps
            progress.seconds = time.perf_counter() - started
            is_due = is_first() and started + progress.seconds - kept > STATE_SECONDS
            if self.device.type == "cpu" or is_last or is_due or len(unseen) == _CHECKED:
                progress.loss += self._checked(unseen, step)
                progress.step = step + 1
                bar.set_postfix(loss=f"{progress.loss / progress.step:.3f}", refresh=False)
                unseen = []
            if is_due and not is_last:
                self._keep_state()
                kept = time.perf_counter()
            bar.update()
        progress.seconds = time.perf_counter() - started
        self._finish_epoch(progress.loss / self.steps)

    def _order(self) -> Tensor:
        rng = np.random.default_rng([self.training.seed, 1, self.progress.epoch])
        return torch.from_numpy(self.learner.order(rng))

    def _batches(self, order: Tensor) -> Iterator[Tensor]:
        """Give the rows of each batch that is left, while those of the next one are read."""
        batches = torch.split(order, self.training.batch_size)[self.progress.step : self.steps]
        held = [self.images.held]
        with ReadAhead(held if exceed_memory(held) else ()) as ahead:
            yield from announced(batches, lambda rows: ahead.announce(rows.sort().values.numpy()))

    def _step(self, number: int, rows: Tensor) -> Tensor:
        seeds = np.random.SeedSequence([self.training.seed, 2, number])
        torch.manual_seed(int(seeds.generate_state(1, np.uint64)[0] >> np.uint64(1)))
        moment = Moment(number, self.steps, self.training.epochs)
        for group in (g for o in self.optimizers.values() for g in o.param_groups):
            group["lr"] = learning_rate(number, self.steps, self.training)
            if group["decays"]:
                group["weight_decay"] = weight_decay(moment.share, self.training)
        pixels = self.images.pixels[rows].to(self.device)
        is_short = self.training.precision == "bf16"
        autocast = torch.autocast(self.device.type, torch.bfloat16, enabled=is_short)
        with shared_statistics(), autocast:
            loss = self.learner.loss(pixels, rows, moment)
        for optimizer in self.optimizers.values():
            optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        loss = self._agreed(loss.detach())
        if self.training.clip is not None:
            clip_gradients(self.learner.module, self.training.clip)
        for optimizer in self.optimizers.values():
            optimizer.step()
        self.learner.after_step(moment)
        return loss

    def _agreed(self, loss: Tensor) -> Tensor:
        """Replace gradients and loss by their means over processes."""
        if here() == ALONE:
            return loss
        gradients = [p.grad for p in self.learner.module.parameters() if p.grad is not None]
        together = torch.cat([loss.view(1), *(g.flatten() for g in gradients)])
        sizes = [1, *(gradient.numel() for gradient in gradients)]
        mean, *parts = torch.split(mean_of_all(together), sizes)
        for gradient, part in zip(gradients, parts, strict=True):
            gradient.copy_(part.view(gradient.shape))
        return mean.squeeze(0)

    def _checked(self, losses: list[Tensor], step: int) -> float:
        """Return the sum of the latest losses, the last of which is that of ``step``."""
        values = torch.stack(losses).cpu().double().tolist()
        for number, value in enumerate(values, step + 1 - len(values)):
            if not math.isfinite(value):
                place = f"step {number + 1} of {self.steps} of epoch {self.progress.epoch + 1}"
                raise self._diverged(f"the loss is {value} at {place}")
        return math.fsum(values)

    @contextmanager
    def _told_as_diverged(self) -> Iterator[None]:
        try:
            yield
        except NotFiniteError as error:
            raise self._diverged(str(error)) from error

    def _diverged(self, what: str) -> DivergedError:
        kept = max(self.folder.record.weights, default=None)
        keeps = "no network" if kept is None else f"the network of epoch {kept} (?epoch={kept})"
        return DivergedError(
            f"{what}: training stopped; {self.folder.path} keeps {keeps}; start again in another "
            f"folder with a lower --lr (it was {self.training.lr:g})"
        )

    def _finish_epoch(self, loss: float | None) -> None:
        progress, training = self.progress, self.training
        if not all(bool(value.isfinite().all()) for value in self._weights()):
            raise self._diverged(f"a weight is not finite after epoch {progress.epoch + 1}")
        if loss is not None:
            progress.epoch, progress.step, progress.loss = progress.epoch + 1, 0, 0.0
        top1 = self._judge()
        last = progress.epoch * self.steps - 1
        progress.rows.append(
            {
                "epoch": progress.epoch,
                "loss": loss,
                "lr": learning_rate(last, self.steps, training) if loss is not None else None,
                "knn_top1": top1,
                "seconds": round(progress.seconds, 3),
                **(self.learner.epoch_columns() if loss is not None else {}),
            }
        )
        progress.seconds = 0.0
        if top1 is not None and top1 > progress.best:
            progress.best, progress.best_epoch, progress.waited = top1, progress.epoch, 0
        elif top1 is not None:
            progress.waited += 1
        first(self._keep_epoch)

    def _keep_epoch(self) -> None:
        self.folder.keep_weights(self.progress.epoch, self.learner.network)
        self._keep_state()
        self.folder.drop_weights(self._wanted())
        self.said(self.progress)

    def _judge(self) -> float | None:
        epoch, training = self.progress.epoch, self.training
        if self.neighbors is None or (epoch % training.knn_every and epoch != training.epochs):
            return None
        top1 = self.neighbors(training.precision, self.device)
        if math.isnan(top1):
            raise self._diverged(f"a feature is not finite after epoch {epoch}")
        return top1

    def _weights(self) -> Iterator[Tensor]:
        return (t for t in self.learner.module.state_dict().values() if t.is_floating_point())

    def _wanted(self) -> set[int]:
        """Return the epochs whose weights stay: the last, the best, and those asked for."""
        epoch, every = self.progress.epoch, self.training.keep_every
        asked = set(range(0, epoch + 1, every)) if every else set()
        best = {self.progress.best_epoch} if self.progress.best >= 0 else set()
        return (asked | best | {epoch}) & self.folder.record.weights.keys()

    def _keep_state(self) -> None:
        tensors = {f"module.{n}": t.detach() for n, t in self.learner.module.state_dict().items()}
        for part, optimizer in self.optimizers.items():
            for name, tensor in optimizer_tensors(optimizer):
                tensors[f"{part}.{name}"] = tensor
        tensors = {name: tensor.cpu() for name, tensor in tensors.items()}
        self.folder.write_state(tensors, asdict(self.progress))

    def _restore(self) -> None:
        all_of(None)  # before the first of several processes writes another
        found = self.folder.read_state()
        all_of(None)
        if found is None:
            return
        tensors, about = found
        parts: dict[str, dict[str, Tensor]] = {name: {} for name in ("module", *self.optimizers)}
        with self.folder.reading_state():
            self.progress = read_progress(about)
            for name, tensor in tensors.items():
                part, _, rest = name.partition(".")
                parts[part][rest] = tensor
            own = {n: tensor.shape for n, tensor in self.learner.module.state_dict().items()}
            if {n: tensor.shape for n, tensor in parts["module"].items()} != own:
                raise ValueError("its tensors are of another network")
            self.learner.module.load_state_dict(parts["module"])
            for name, optimizer in self.optimizers.items():
                restore_optimizer(optimizer, parts[name])


def read_progress(about: Mapping[str, Any]) -> Progress:
    """Return the progress that ``asdict`` has described.

    Raises:
        TypeError: It is none.
    """
    progress = Progress(**about)
    for name, usual in asdict(Progress()).items():
        value = getattr(progress, name)
        kinds = (int, float) if isinstance(usual, float) else type(usual)
        if isinstance(value, bool) or not isinstance(value, kinds):
            raise TypeError(f"its {name} is {type(value).__name__}")
    if not all(isinstance(row, dict) for row in progress.rows):
        raise TypeError("its rows are none")
    return progress
