"""An ensemble between stores: which tables it reads, and ψ as a table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import numpy as np

from featkit.analyses.base import RESULT_FILE, check_requirements
from featkit.analyses.ensemble.kept_state import write_signed
from featkit.analyses.ensemble.representation import (
    MODEL_FILE,
    WEIGHTS_FILE,
    EnsembleRepresentation,
)
from featkit.analyses.sides import IDENTITY
from featkit.backbones.checkpoints.digest import file_sha256
from featkit.documents import parse_json
from featkit.errors import ConflictError, DamagedError, FeatkitError, UsageError, one_line
from featkit.ops.neighbors import Floats
from featkit.ops.row_sources import RowSource, SelectedRows
from featkit.store.derived import find_table, write_derived
from featkit.store.fingerprint import check_digest, differences, fingerprint
from featkit.store.reader import FeatureTable, Store
from featkit.store.schema import is_slug
from featkit.store.verify import Check
from featkit.store.writer import TableSpec

FoundBy: TypeAlias = Literal["fit", "transform"]

MEMBERS_FILE = "members.json"

PREFIX = "ensemble-"
"""Beginning of the backbone's name under which ψ is stored."""

_TAP = "psi"


@dataclass(frozen=True)
class Member:
    """A model as an ensemble knows it.

    Attributes:
        table: ``backbone/tap.pooling``.
        made_by: What made its features, from the provenance of its table.
    """

    table: str
    made_by: dict[str, Any]

    @classmethod
    def of(cls, table: FeatureTable) -> Self:
        """Describe the model of a table."""
        return cls(table.name, {name: table.provenance[name] for name in IDENTITY})

    def find(self, store: Store) -> FeatureTable:
        """Return the table of this model in a store.

        Raises:
            UsageError: There is none, or another model made it.
        """
        table = store[self.table]
        differ = differences(self.made_by, Member.of(table).made_by)
        if differ:
            raise UsageError(
                f"{table.path} is of another model than the ensemble was fitted on "
                f"({'; '.join(differ)}); extract these images with the same backbone"
            )
        return table


def choose_tables(store: Store, names: Sequence[str]) -> list[FeatureTable]:
    """Return the tables that an ensemble reads, in the order given.

    Args:
        store: Where.
        names: ``BACKBONE``, ``BACKBONE/TAP`` or ``BACKBONE/TAP.POOLING``; none for all tables of
            vectors that are no ensembles.

    Raises:
        UsageError: A name means no table, or one whose rows are no vectors.
    """
    if names:
        tables = [table for name in names for table in store.select(name)]
    else:
        tables = [
            table
            for table in store.select(None)
            if len(table.shape) == 2 and not table.backbone.startswith(PREFIX)
        ]
    if not tables:
        raise UsageError(f"{store.path}: has no vectors of a network; extract some first")
    twice = sorted({t.name for t in tables if sum(t.name == other.name for other in tables) > 1})
    if twice:
        raise UsageError(f"{', '.join(twice)}: named twice in --features")
    check_requirements(frozenset({"vectors"}), {"features": tables})
    return tables


class Side:
    """The images of a store, as the models of an ensemble see them.

    Args:
        store: Of the images.
        tables: One a model.

    Attributes:
        failures: Why an image lacks features of some model, by row.
        readable: Whether it has them of all, (n) bool.

    Raises:
        UsageError: No image has.
    """

    def __init__(self, store: Store, tables: Sequence[FeatureTable]) -> None:
        self.store, self.tables = store, list(tables)
        self.failures = {row: f"{t.name}: {why}" for t in tables for row, why in t.failures.items()}
        self.readable = np.ones(len(store), bool)
        self.readable[list(self.failures)] = False
        if not self.readable.any():
            raise UsageError(f"{store.path}: no image could be read for every model")

    def features(self) -> list[RowSource]:
        """Return the rows of the readable images, a matrix a model, read when asked for."""
        if self.readable.all():
            return [table.numpy() for table in self.tables]
        return [SelectedRows(table.numpy(), self.readable) for table in self.tables]


class StoredEnsemble:
    """An ensemble with its name and its models, in a folder.

    Args:
        name: ψ is stored as backbone ``ensemble-NAME``.
        members: The models, in the order of ``fit``.
        fitted_on: Key of each model's table that ``fit`` read.
        ensemble: Fitted before it is saved or writes.

    Attributes:
        table: Name of ψ's table, ``backbone/tap.pooling``.

    Raises:
        UsageError: The name cannot be part of a file name.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[Member],
        fitted_on: Sequence[str],
        ensemble: EnsembleRepresentation,
    ) -> None:
        if not is_slug(name):
            raise UsageError(f"name {name!r}: use letters, digits, '.', '_' and '-'")
        self.name, self.members, self.fitted_on = name, list(members), list(fitted_on)
        self.ensemble = ensemble
        self.table = f"{PREFIX}{name}/{_TAP}.none"

    def save(self, folder: Path) -> None:
        """Write the model, and last ``members.json``, which names it by its hash.

        Raises:
            UsageError: The folder cannot be written to.
        """
        self.ensemble.save(folder)
        about = {
            "name": self.name,
            "members": [asdict(member) for member in self.members],
            "fitted_on": self.fitted_on,
            "weights": self.ensemble.digest(),
        }
        write_signed(folder / MEMBERS_FILE, about)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` has written.

        Raises:
            UsageError: There is no model.
            DamagedError: It is damaged, or was not written whole.
        """
        ensemble = EnsembleRepresentation.load(folder)
        try:
            about = check_digest(parse_json((folder / MEMBERS_FILE).read_bytes()))
            members = [Member(**member) for member in about["members"]]
            fitted_on = list(about["fitted_on"])
            _check_kinds(members, fitted_on)
            found = cls(about["name"], members, fitted_on, ensemble)
            is_whole = about["weights"] == ensemble.digest()
        except FileNotFoundError as error:
            raise UsageError(
                f"{folder} does not say which tables its ensemble reads (no members.json): "
                f"featkit ensemble-fit writes it"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DamagedError(
                f"{folder}: a damaged ensemble ({one_line(error)}); run featkit ensemble-fit "
                f"again, with --overwrite"
            ) from error
        if not is_whole or len(members) != len(ensemble.widths_):
            raise DamagedError(
                f"{folder}: members.json is of another model than model.safetensors; the run that "
                f"wrote them was stopped: run featkit ensemble-fit again, with --overwrite"
            )
        return found

    def side(self, store: Store) -> Side:
        """Return the images of a store, as the models see them.

        Raises:
            UsageError: A table is missing, or of another model.
        """
        return Side(store, [member.find(store) for member in self.members])

    def check_place(self, side: Side, found_by: FoundBy) -> None:
        """Refuse a store that has something else under the name of ψ.

        ψ of the same settings and features may be replaced: that is a run that goes on.

        Raises:
            ConflictError: It has.
        """
        there = find_table(side.store, self.table)
        if there is None:
            return
        wanted, found = self._provenance(side, found_by, weights=None), there.provenance
        if {**found, "backbone": {**found["backbone"], "weights": None}} != wanted:
            raise _conflict(there)

    def is_in(self, side: Side, found_by: FoundBy) -> bool:
        """Say whether this very ψ is in a store.

        Raises:
            ConflictError: Something else is, under its name.
        """
        there = find_table(side.store, self.table)
        if there is None:
            return False
        provenance = self._provenance(side, found_by, self.ensemble.digest())
        if there.key != fingerprint(provenance):
            raise _conflict(there)
        return True

    def write(self, side: Side, psi: Floats, found_by: FoundBy) -> None:
        """Write ψ into a store; images that some model lacks are NaN there.

        Args:
            side: The images.
            psi: Of the readable ones, in row order.
            found_by: How ψ was found.

        Raises:
            StoreError: The store cannot be written to.
        """
        spec = TableSpec(
            backbone=PREFIX + self.name,
            tap=_TAP,
            pooling="none",
            spec=f"ensemble of {len(self.members)}",
            provenance=self._provenance(side, found_by, self.ensemble.digest()),
            rows=len(side.store),
            row_shape=psi.shape[1:],
            dtype="float32",
        )
        write_derived(side.store, spec, psi, side.failures)

    def _provenance(self, side: Side, found_by: FoundBy, weights: str | None) -> dict[str, Any]:
        settings = asdict(self.ensemble.settings())
        return {
            "backbone": {
                "settings": settings,
                "members": [asdict(member) for member in self.members],
                "fitted_on": self.fitted_on,
                "weights": weights,
            },
            "tap": _TAP,
            "pooling": "none",
            "preprocessing": None,
            "samples": side.store.samples.manifest,
            "features": [table.key for table in side.tables],
            "found_by": found_by,
            "precision": settings["precision"],
            "dtype": "float32",
        }


def _check_kinds(members: Sequence[Member], fitted_on: Sequence[Any]) -> None:
    """Refuse members of other kinds than every ensemble has.

    Raises:
        TypeError: One is.
    """
    is_whole = all(isinstance(m.table, str) and isinstance(m.made_by, dict) for m in members)
    if not is_whole or not all(isinstance(key, str) for key in fitted_on):
        raise TypeError(f"{MEMBERS_FILE} does not say what an ensemble has")


def is_ensemble(folder: Path) -> bool:
    """Return whether a folder holds an ensemble, or part of one."""
    return any((folder / name).is_file() for name in (MODEL_FILE, WEIGHTS_FILE, MEMBERS_FILE))


def verify_ensemble(folder: Path) -> Iterator[Check]:
    """Compare an ensemble with what was written.

    Yields:
        One check a file: ``model.json``, ``model.safetensors``, and ``members.json``, which an
        estimator that was saved by itself has not.

    Cost: a few reads of every file.
    """
    again = "run featkit ensemble-fit again, with --overwrite"
    is_alone = not any((folder / name).is_file() for name in (MEMBERS_FILE, RESULT_FILE))
    try:
        about = check_digest(parse_json((folder / MODEL_FILE).read_bytes()))
    except (OSError, ValueError, AttributeError):
        yield Check(MODEL_FILE, (f"it does not say what was written; {again}",))
        return
    yield Check(MODEL_FILE)
    try:
        is_same = about.get("weights") in (None, file_sha256(folder / WEIGHTS_FILE, anew=True))
    except OSError as error:
        yield Check(WEIGHTS_FILE, (f"cannot be read ({error.strerror})",))
        return
    if not is_same:
        wrong = f"its bytes are not the ones that were written; {again}"
        yield Check(WEIGHTS_FILE, (wrong,))
        return
    yield Check(WEIGHTS_FILE)
    try:
        _ = EnsembleRepresentation.load(folder) if is_alone else StoredEnsemble.load(folder)
    except FeatkitError as error:
        yield Check(MODEL_FILE if is_alone else MEMBERS_FILE, (str(error),))
        return
    if not is_alone:
        yield Check(MEMBERS_FILE)


def _conflict(there: FeatureTable) -> ConflictError:
    return ConflictError(
        f"{there.path} is there, made from something else: choose another --name, or replace it "
        f"with --overwrite"
    )
