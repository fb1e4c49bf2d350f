"""An ensemble between stores: which tables it reads, and ψ as a table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, Self, TypeAlias

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import check_requirements
from featkit.analyses.ensemble.representation import EnsembleRepresentation
from featkit.errors import DamagedError, UsageError
from featkit.ops.neighbors import Floats
from featkit.store.derived import is_made, write_derived
from featkit.store.fingerprint import differences, fingerprint
from featkit.store.reader import FeatureTable, Store
from featkit.store.schema import check_slug
from featkit.store.writer import TableSpec

FoundBy: TypeAlias = Literal["fit", "transform"]

PREFIX = "ensemble-"
"""Beginning of the backbone's name under which ψ is stored."""

_TAP = "psi"
_IDENTITY = ("backbone", "tap", "pooling", "preprocessing")


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
        return cls(table.name, {name: table.provenance[name] for name in _IDENTITY})

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
        names: ``BACKBONE``, ``BACKBONE/TAP`` or ``BACKBONE/TAP.POOLING``; none for all tables that
            are no ensembles.

    Raises:
        UsageError: A name means no table, or one whose rows are no vectors.
    """
    if names:
        tables = [table for name in names for table in store.select(name)]
    else:
        tables = [t for t in store.select(None) if not t.backbone.startswith(PREFIX)]
    if not tables:
        raise UsageError(f"{store.path}: has ensembles only; name tables with --features")
    twice = sorted({t.name for t in tables if sum(t.name == other.name for other in tables) > 1})
    if twice:
        raise UsageError(f"{', '.join(twice)}: named twice in --features")
    check_requirements(frozenset({"vectors"}), {"features": tables})
    return tables


def unreadable(tables: Sequence[FeatureTable]) -> dict[int, str]:
    """Return why an image lacks features of some model, by row."""
    return {row: f"{t.name}: {why}" for t in tables for row, why in t.failures.items()}


class StoredEnsemble:
    """An ensemble with its name and its models, in a folder.

    Args:
        name: ψ is stored as backbone ``ensemble-NAME``.
        members: The models, in the order of ``fit``.
        fitted_on: Key of each model's table that ``fit`` read.
        ensemble: Fitted before it is saved or writes.

    Attributes:
        table: Name of ψ's table, ``backbone/tap.pooling``.
    """

    def __init__(
        self,
        name: str,
        members: Sequence[Member],
        fitted_on: Sequence[str],
        ensemble: EnsembleRepresentation,
    ) -> None:
        self.backbone = check_slug(PREFIX + name, "name of an ensemble")
        self.name, self.members, self.fitted_on = name, list(members), list(fitted_on)
        self.ensemble = ensemble
        self.table = f"{self.backbone}/{_TAP}.none"

    def save(self, folder: Path) -> None:
        """Write the model and ``members.json``.

        Raises:
            UsageError: The folder cannot be written to.
        """
        about = {
            "name": self.name,
            "members": [asdict(member) for member in self.members],
            "fitted_on": self.fitted_on,
        }
        try:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "members.json").write_text(json.dumps(about, indent=1) + "\n", "utf-8")
        except OSError as error:
            raise UsageError(f"cannot write the model to {folder} ({error.strerror})") from error
        self.ensemble.save(folder)

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read what :meth:`save` has written.

        Raises:
            UsageError: There is no model.
            DamagedError: It is damaged.
        """
        ensemble = EnsembleRepresentation.load(folder)
        try:
            about = json.loads((folder / "members.json").read_text("utf-8"))
            members = [Member(**member) for member in about["members"]]
            return cls(about["name"], members, about["fitted_on"], ensemble)
        except FileNotFoundError as error:
            raise UsageError(
                f"{folder} does not say which tables its ensemble reads (no members.json): "
                f"featkit ensemble-fit writes it"
            ) from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DamagedError(f"{folder}: a damaged ensemble ({error})") from error

    def tables(self, store: Store) -> list[FeatureTable]:
        """Return the tables of the models in a store.

        Raises:
            UsageError: One is missing, or of another model.
        """
        return [member.find(store) for member in self.members]

    def is_in(self, store: Store, found_by: FoundBy) -> bool:
        """Say whether ψ is in a store.

        Raises:
            ConflictError: Something else is, under its name.
        """
        return is_made(store, self.table, fingerprint(self._provenance(store, found_by)))

    def write(self, store: Store, psi: Floats, found_by: FoundBy, overwrite: bool = False) -> None:
        """Write ψ into a store; images that some model lacks are NaN there.

        Args:
            store: Of the images.
            psi: Of the others, in row order.
            found_by: How ψ was found.
            overwrite: Whether to replace a table of this name.

        Raises:
            ConflictError: There is one, made from something else.
            StoreError: The store cannot be written to.
        """
        failures = unreadable(self.tables(store))
        rows: NDArray[np.float32] = psi
        if failures:
            rows = np.full((len(store), psi.shape[1]), np.nan, np.float32)
            rows[[row for row in range(len(store)) if row not in failures]] = psi
        spec = TableSpec(
            backbone=self.backbone,
            tap=_TAP,
            pooling="none",
            spec=f"ensemble of {len(self.members)}",
            provenance=self._provenance(store, found_by),
            rows=len(store),
            row_shape=rows.shape[1:],
            dtype="float32",
        )
        write_derived(store, spec, rows, failures, overwrite)

    def _provenance(self, store: Store, found_by: FoundBy) -> dict[str, Any]:
        settings = asdict(self.ensemble.settings())
        return {
            "backbone": {
                "settings": settings,
                "members": [asdict(member) for member in self.members],
                "fitted_on": self.fitted_on,
            },
            "tap": _TAP,
            "pooling": "none",
            "preprocessing": None,
            "samples": store.samples.manifest,
            "features": [table.key for table in self.tables(store)],
            "found_by": found_by,
            "precision": settings["precision"],
            "dtype": "float32",
        }
