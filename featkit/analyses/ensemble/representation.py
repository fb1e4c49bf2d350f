"""The ensemble as an estimator."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted
from torch import Tensor

from featkit.analyses.ensemble.kept_state import KeptState, write_signed, write_tensors
from featkit.analyses.ensemble.learning import Learner, search
from featkit.analyses.ensemble.model_tensors import read_mappers, take_components
from featkit.analyses.ensemble.settings import Settings, is_number, is_whole
from featkit.analyses.ensemble.space import Space
from featkit.analyses.ensemble.targets import Targets
from featkit.backbones.checkpoints.digest import file_sha256
from featkit.documents import parse_json
from featkit.errors import DamagedError, UsageError, one_line
from featkit.ops.mappers import Mappers
from featkit.ops.neighbors import Floats
from featkit.parallel.group import added_by_all, here, on_first
from featkit.progress import progress_bar
from featkit.registry import did_you_mean
from featkit.store.fingerprint import check_digest

MODEL_FILE = "model.json"
WEIGHTS_FILE = "model.safetensors"

_DAMAGE = (
    OSError, LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError,
    SafetensorError,
)  # fmt: skip
_MOST_STEPS = 2**40
"""Between two visits of a row, a batch each; more were written by nobody."""

PRESETS: Mapping[str, Mapping[str, Any]] = {
    "paper": {"last_bias": "usual"},
    "paper-stable": {},
    "best": {"init": "pca"},
}
"""Settings by name: the paper's as they are; with the last bias at the mean of the features; and
from the principal components, which was best on held-out training images (ARCHITECTURE.md).
"""


class EnsembleRepresentation(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """One representation ψ an image, from which the features of each model can be recovered.

    ``min Σ_i Σ_j 1 - cos(φ_j(ψ_i), z_i^j)``, z_i^j the L2-normalised features of model j, φ_j a
    perceptron. ψ_i starts at the normalised average of z_i^j. For half of the epochs φ learns
    alone, then both. New images get a ψ by the same descent with φ frozen.

    Args:
        epochs: Visits of every image, in ``fit`` and in ``transform`` (sec. 3.1: 50; 20 for
            ImageNet).
        batch_size: Rows of a step (sec. 3.1: 256; 4,096 for ImageNet).
        lr: Of Adam (sec. 3.1).
        representation_lr: Of Adam on ψ, if another.
        warmup: Share of the epochs in which ψ stands still (sec. 3.1: "half").
        depth: Layers of each φ_j (sec. 3; fig. 10 varies it from 1 to 8).
        hidden: Dimensions between layers; None for those of the widest model (sec. 3, where ψ and
            all models have as many).
        width: Dimensions of ψ; None for those of the models, or the widest one's where they differ
            (for ``pca`` no more than there are images).
        init: ``average`` (sec. 3), ``pca`` of the concatenation, or ``auto``: the average where all
            models and ψ have one width.
        last_layer: ``relu`` (sec. 3), ``linear``, or ``auto``: a ReLU for the models whose features
            are non-negative.
        last_bias: ``mean`` starts the last bias at the mean of the features, ``usual`` as torch
            does. With the latter many ReLUs never fire, and recovery stalls.
        optimizer: ``dense`` is Adam over the whole bank (algorithm 1), ``row`` each row's own.
        weight_decay: On φ, as Adam adds it to the gradient (sec. 5.1: 1e-6).
        l1: Times ‖ψ‖_1, added to the loss of each image (sec. 6).
        non_negative: Keep ψ ≥ 0 (fig. 11).
        bank: ``trained`` keeps the ψ that φ was learned with; ``refit`` finds it anew with φ
            frozen, in as many epochs as a test image gets.
        precision: ``fp32``, or ``bf16`` for the matrix products.
        random_state: Seed of φ and of the order of images.
        checkpoint: Folder to keep the state of each epoch in; a run that was interrupted goes on
            from there to the same numbers. It stays when the run is done, and only the same run
            may use it again. None for none.
        max_memory: GB that ψ and the moments of its optimizer, 12·n·w bytes, may take; what is
            more lies in files that are mapped, in the checkpoint folder or the system's temporary
            one. Several processes of a machine share it; the first one holds all of ψ while a state
            is kept. None for no bound.
        verbose: Whether to draw a bar with loss and time left on stderr.

    Attributes:
        embedding_: ψ of the images of ``fit``, (n, w), float32.
        mappers_: φ.
        init_: ``average`` or ``pca``, whichever ran.
        relus_: Whether the last layer of each φ_j is a ReLU.
        recovery_: Mean cosine of φ_j(ψ_i) with z_i^j for each model over all images, after the
            warm-up, at the end of ``fit``, and at the end of the last search (``after_warmup``,
            ``final``, ``inference``). A row of zeros counts as 0.
        widths_: d_j.
        n_features_in_: Σ_j d_j.

    Cost: 6·b·m·(w·h + (depth - 2)·h² + h·d) operations a step over b rows; memory 12·n·w bytes
    beyond the features. ``transform`` streams.

    Source: Wallace, Arpit, Wang, Xiong, Learning rich nearest neighbor representations from
    self-supervised ensembles, 2021, arXiv:2110.10293. Section 3.1 says Adam, algorithm 1 SGD; this
    is Adam.

    Example:
        >>> import numpy as np
        >>> rng = np.random.default_rng(0)
        >>> a, b = rng.random((100, 8)), rng.random((100, 8))
        >>> ensemble = EnsembleRepresentation(epochs=4, batch_size=20)
        >>> ensemble.fit_transform([a, b]).shape, ensemble.init_
        ((100, 8), 'average')
        >>> ensemble.transform([a[:3], b[:3]]).shape
        (3, 8)
    """

    def __init__(  # noqa: PLR0913 - scikit-learn reads the names from here
        self,
        *,
        epochs: int = 50,
        batch_size: int = 256,
        lr: float = 3e-4,
        representation_lr: float | None = None,
        warmup: float = 0.5,
        depth: int = 2,
        hidden: int | None = None,
        width: int | None = None,
        init: str = "auto",
        last_layer: str = "auto",
        last_bias: str = "mean",
        optimizer: str = "dense",
        weight_decay: float = 0.0,
        l1: float = 0.0,
        non_negative: bool = False,
        bank: str = "trained",
        precision: str = "fp32",
        random_state: int = 0,
        checkpoint: str | Path | None = None,
        max_memory: float | None = None,
        verbose: bool = False,
    ) -> None:
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.representation_lr = representation_lr
        self.warmup = warmup
        self.depth = depth
        self.hidden = hidden
        self.width = width
        self.init = init
        self.last_layer = last_layer
        self.last_bias = last_bias
        self.optimizer = optimizer
        self.weight_decay = weight_decay
        self.l1 = l1
        self.non_negative = non_negative
        self.bank = bank
        self.precision = precision
        self.random_state = random_state
        self.checkpoint = checkpoint
        self.max_memory = max_memory
        self.verbose = verbose

    @classmethod
    def from_preset(cls, name: str, **changes: Any) -> Self:
        """Return an estimator with the settings of a preset.

        Args:
            name: ``paper``, ``paper-stable`` or ``best``.
            changes: Settings that differ.

        Raises:
            UsageError: There is no such preset.

        Example:
            >>> EnsembleRepresentation.from_preset("paper", epochs=20).last_bias
            'usual'
        """
        if name not in PRESETS:
            raise UsageError(f"no preset {name!r}: {did_you_mean(name, PRESETS)}")
        return cls(**{**PRESETS[name], **changes})

    def settings(self) -> Settings:
        """Return the settings, checked.

        Raises:
            UsageError: A value means nothing.
        """
        given = {field.name: getattr(self, field.name) for field in dataclasses.fields(Settings)}
        plain = {n: v.item() if isinstance(v, np.generic) else v for n, v in given.items()}
        return Settings(**plain)

    def fit(self, X: Any, y: Any = None) -> Self:  # noqa: ARG002, N803 - scikit-learn's signature
        """Learn φ, and ψ of these images.

        Args:
            X: m arrays or tables (n, d_j), finite; row i of each is image i.
            y: Not used.

        Returns:
            This estimator.

        Raises:
            UsageError: The features or settings cannot be used, the checkpoint is of another run,
                or the descent diverged.
        """
        settings, targets = self.settings(), Targets(X)
        self.widths_ = targets.widths
        self.n_features_in_ = sum(self.widths_)
        self.relus_ = _last_relus(settings, targets)
        self._choose_start(settings, targets)
        space = self._space()
        start = self._start(targets, space)
        mappers = self._make_mappers(settings, targets)
        learner = Learner(targets, start, mappers, settings, space)
        self.mappers_ = learner.mappers
        self._idle = math.ceil(len(targets) / settings.batch_size) - 1
        self.recovery_: dict[str, list[float]] = {}
        self._learn(learner)
        self.embedding_: Floats = on_first(learner.bank.rows, targets.own).numpy()
        if settings.bank == "refit":
            self.embedding_ = self._search(targets, self._start(targets, self._space()), settings)
        return self

    def fit_transform(self, X: Any, y: Any = None) -> Floats:  # noqa: N803
        """Learn φ and ψ, and return ψ, (n, w), float32; see :meth:`fit`."""
        return self.fit(X, y).embedding_

    def transform(self, X: Any) -> Floats:  # noqa: N803
        """Find ψ of images with φ frozen.

        Args:
            X: m arrays or tables (n, d_j), of the models of ``fit`` in the same order.

        Returns:
            ψ, (n, w), float32. A row does not depend on the others.

        Raises:
            UsageError: The features cannot be used, or the descent diverged.
            sklearn.exceptions.NotFittedError: ``fit`` has not run.
        """
        check_is_fitted(self, "mappers_")
        settings, targets = self.settings(), Targets(X, self.widths_)
        return self._search(targets, self._start(targets, self._space()), settings)

    def start(self, X: Any) -> Floats:  # noqa: N803
        """Return ψ0 of images, where the descent starts, (n, w), float32; see :meth:`transform`."""
        check_is_fitted(self, "mappers_")
        targets = Targets(X, self.widths_)
        found: Floats = on_first(self._start(targets, self._space()), targets.own).numpy()
        return found

    def _choose_start(self, settings: Settings, targets: Targets) -> None:
        width = settings.width or max(targets.widths)
        can_average = set(targets.widths) == {width}
        if settings.init == "average" and not can_average:
            raise UsageError(
                f"init average: the models have {list(targets.widths)} dimensions and ψ {width}; "
                f"use init pca"
            )
        self.init_ = "average" if can_average and settings.init != "pca" else "pca"
        self._pca: tuple[Tensor, ...] = ()
        if self.init_ == "pca":
            most = min(width, len(targets)) if settings.width is None else width
            self._pca = targets.principal_components(most)

    def _space(self) -> Space:
        if self.max_memory is None:
            return Space(None)
        if not is_number(self.max_memory) or self.max_memory <= 0:
            raise UsageError(f"max_memory is {self.max_memory!r}: give GB, a number above 0")
        return Space(self.max_memory * 1e9 / here().local_count, self.checkpoint)

    def _start(self, targets: Targets, space: Space) -> Tensor:
        count = targets.own.stop - targets.own.start
        start = space.zeros(count, len(self._pca[1]) if self._pca else targets.widths[0])
        if self._pca:
            targets.project(start, *self._pca)
        else:
            targets.average(start)
        return start.clamp_(min=0) if self.non_negative else start

    def _make_mappers(self, settings: Settings, targets: Targets) -> Mappers:
        width = len(self._pca[1]) if self._pca else targets.widths[0]
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.random_state)
            hidden = settings.hidden or max(targets.widths)
            mappers = Mappers(width, targets.widths, self.relus_, settings.depth, hidden)
        if settings.last_bias == "mean":
            mappers.set_last_bias(targets.means)
        return mappers

    def _learn(self, learner: Learner) -> None:
        settings = learner.settings
        kept = KeptState(self.checkpoint, learner) if self.checkpoint is not None else None
        if kept is not None:
            self.recovery_ |= kept.restore()
        with progress_bar(
            settings.epochs, "ensemble", "epoch", show=self.verbose, initial=learner.epochs
        ) as bar:
            while learner.epochs < settings.epochs:
                cosines = learner.run_epoch()
                if learner.epochs == settings.warmup_epochs:
                    self.recovery_["after_warmup"] = learner.measure()
                if kept is not None:
                    kept.write(self.recovery_)
                bar.set_postfix(loss=f"{1 - sum(cosines) / len(cosines):.4f}")
                bar.update()
        learner.bank.flush()
        self.recovery_["final"] = learner.measure()
        learner.mappers.requires_grad_(requires_grad=False)

    def _search(self, targets: Targets, start: Tensor, settings: Settings) -> Floats:
        with progress_bar(len(targets), "search", "row", show=self.verbose) as bar:

            def found(rows: int) -> None:
                bar.update(added_by_all("search", rows))

            cosines = search(targets, start, self.mappers_, settings, self._idle, found)
        self.recovery_["inference"] = cosines
        psi: Floats = on_first(start, targets.own).numpy()
        return psi

    def save(self, folder: str | Path) -> None:
        """Write ``model.safetensors`` and ``model.json``, all that ``transform`` needs.

        ``model.json`` has the sha256 of both.

        Args:
            folder: Made if it is not there; files of these names are replaced.

        Raises:
            UsageError: It cannot be written to.
            sklearn.exceptions.NotFittedError: ``fit`` has not run.
        """
        check_is_fitted(self, "mappers_")
        folder = Path(folder)
        tensors = {f"mappers.{name}": value for name, value in self.mappers_.state_dict().items()}
        tensors |= dict(zip(("pca.mean", "pca.components"), self._pca, strict=False))
        about = {
            "featkit": importlib.metadata.version("featkit"),
            "settings": dataclasses.asdict(self.settings()),
            "widths": self.widths_,
            "relus": self.relus_,
            "init": self.init_,
            "idle": self._idle,
            "recovery": self.recovery_,
        }
        write_tensors(folder / WEIGHTS_FILE, tensors)
        about["weights"] = file_sha256(folder / WEIGHTS_FILE, anew=True)
        write_signed(folder / MODEL_FILE, about)

    def digest(self) -> str:
        """Return the sha256 of all that ``transform`` depends on beyond the settings."""
        check_is_fitted(self, "mappers_")
        digest = hashlib.sha256(repr((self.widths_, self.relus_, self._idle)).encode())
        for tensor in (*self.mappers_.state_dict().values(), *self._pca):
            digest.update(tensor.numpy().data)
        return digest.hexdigest()

    @classmethod
    def load(cls, folder: str | Path) -> Self:
        """Read what :meth:`save` has written.

        Raises:
            UsageError: There is no model.
            DamagedError: It is damaged.

        Cost: two reads of the weights, one of them for their sha256.
        """
        folder = Path(folder)
        if not (folder / MODEL_FILE).is_file():
            raise UsageError(f"{folder} holds no ensemble (no {MODEL_FILE})")
        try:
            about = check_digest(parse_json((folder / MODEL_FILE).read_bytes()))
            if about.get("weights") not in (None, file_sha256(folder / WEIGHTS_FILE, anew=True)):
                raise ValueError(f"the bytes of {WEIGHTS_FILE} are not the ones that were written")
            tensors = load_file(folder / WEIGHTS_FILE)
            settings = Settings(**about["settings"])
            ensemble = cls(**dataclasses.asdict(settings))
            ensemble.widths_, ensemble.relus_ = tuple(about["widths"]), tuple(about["relus"])
            ensemble.n_features_in_ = sum(ensemble.widths_)
            ensemble.init_, ensemble._idle = about["init"], about["idle"]
            ensemble.recovery_ = dict(about["recovery"])
            ensemble._check_description()
            ensemble._pca = take_components(tensors, ensemble.init_, ensemble.n_features_in_)
            width = len(ensemble._pca[1]) if ensemble._pca else ensemble.widths_[0]
            mappers = read_mappers(tensors, width, ensemble.widths_, ensemble.relus_, settings)
        except _DAMAGE as error:
            raise DamagedError(
                f"{folder}: a damaged ensemble ({one_line(error)}); run featkit ensemble-fit "
                f"again, with --overwrite"
            ) from error
        ensemble.mappers_ = mappers
        return ensemble

    def _check_description(self) -> None:
        """Refuse what no :meth:`save` has written.

        Raises:
            ValueError: It is of another kind than every model has.
        """
        is_whole_model = (
            bool(self.widths_)
            and all(is_whole(width) and width > 0 for width in self.widths_)
            and len(self.relus_) == len(self.widths_)
            and all(isinstance(relu, bool) for relu in self.relus_)
            and self.init_ in ("average", "pca")
            and is_whole(self._idle)
            and 0 <= self._idle < _MOST_STEPS
        )
        if not is_whole_model:
            raise ValueError(f"{MODEL_FILE} does not say what a model has")


def _last_relus(settings: Settings, targets: Targets) -> tuple[bool, ...]:
    if settings.last_layer == "linear":
        return (False,) * len(targets.widths)
    if settings.last_layer == "relu" and not all(targets.non_negative):
        model = targets.non_negative.index(False)
        raise UsageError(
            f"last_layer relu: model {model} has negative features, which a ReLU cannot give; use "
            f"auto or linear"
        )
    return targets.non_negative
