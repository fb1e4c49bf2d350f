"""Fit an ensemble on a store, judge it, and write ψ back; or find ψ of another store."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.base import Result, describe_run, short_names
from featkit.analyses.ensemble.representation import EnsembleRepresentation
from featkit.analyses.ensemble.stored import Member, StoredEnsemble, choose_tables, unreadable
from featkit.analyses.ensemble.study import Images, StudyConfig, study
from featkit.analyses.sides import Split, kept_rows, pair_tables, split_samples
from featkit.errors import UsageError
from featkit.store.reader import FeatureTable, Store

_STATE = "unfinished"


def fit_ensemble(
    train: Store,
    folder: str | Path,
    ensemble: EnsembleRepresentation,
    test: Store | None = None,
    features: Sequence[str] = (),
    name: str | None = None,
    config: StudyConfig | None = None,
    overwrite: bool = False,
) -> Result:
    """Learn ψ of a store's images, find it for those of another, and judge both.

    ψ is written into both stores as backbone ``ensemble-NAME``. A run that was stopped goes on
    where it was; :func:`discard_state` ends it.

    Args:
        train: Store of the bank.
        folder: Where the model goes.
        ensemble: Not fitted; becomes so.
        test: Store of other images, extracted with the same backbones.
        features: Tables of ``train``, as selectors name them; none for all.
        name: Letters, digits, ``.``, ``_``, ``-``; None for the folder's.
        config: What is judged.
        overwrite: Whether to replace a model, and tables of this name.

    Returns:
        As :func:`featkit.analyses.ensemble.study.study`.

    Raises:
        UsageError: Tables or settings cannot be used, or the folder holds an ensemble.
        ConflictError: A store has another table of this name.
        StoreError: A store or the folder cannot be written to.
    """
    folder, config = Path(folder), config or StudyConfig()
    if (folder / "model.json").exists() and not (folder / _STATE).exists() and not overwrite:
        raise UsageError(f"{folder} holds a finished ensemble; choose another, or --overwrite it")
    tables = choose_tables(train, features)
    members = [Member.of(table) for table in tables]
    keys = [table.key for table in tables]
    stored = StoredEnsemble(name or folder.resolve().name, members, keys, ensemble)
    asked = stored.tables(test) if test is not None else None
    if not overwrite:
        stored.is_in(train, "fit")
        if test is not None:
            stored.is_in(test, "transform")
    bank_rows, query_rows = _readable(tables), _readable(asked or tables)
    split = _labels(tables, asked)
    ensemble.set_params(checkpoint=folder / _STATE)
    models = [kept_rows(table, bank_rows) for table in tables]
    bank = Images(models, ensemble.fit_transform(models))
    queries = None
    if asked is not None:
        others = [kept_rows(table, query_rows) for table in asked]
        queries = Images(others, ensemble.transform(others))
    result = study(ensemble, short_names(tables), bank, queries, split, config)
    inputs = {"train": tables} | ({} if asked is None else {"test": asked})
    settings, result.provenance = describe_run(
        ensemble.settings(), inputs, ("torch", "scikit-learn", "faiss-cpu")
    )
    result.config = settings | asdict(config)
    result.provenance |= {"seed": ensemble.random_state, "table": stored.table}
    stored.save(folder)
    stored.write(train, bank.psi, "fit", overwrite)
    if test is not None and queries is not None:
        stored.write(test, queries.psi, "transform", overwrite)
    return result


def discard_state(folder: str | Path) -> None:
    """Delete what a stopped run of :func:`fit_ensemble` would go on from."""
    shutil.rmtree(Path(folder) / _STATE, ignore_errors=True)


def transform_store(
    folder: str | Path,
    store: Store,
    name: str | None = None,
    verbose: bool = False,
    overwrite: bool = False,
) -> str:
    """Find ψ of a store's images, and write it as backbone ``ensemble-NAME``.

    Args:
        folder: That :func:`fit_ensemble` filled.
        store: Of the images, extracted with the same backbones.
        name: None for the ensemble's.
        verbose: Whether to draw a bar on stderr.
        overwrite: Whether to replace a table of this name.

    Returns:
        Name of the table.

    Raises:
        UsageError: There is no model, or a table is missing or of another model.
        ConflictError: The store has another table of this name.
        StoreError: It cannot be written to.
    """
    stored = StoredEnsemble.load(Path(folder))
    if name is not None:
        stored = StoredEnsemble(name, stored.members, stored.fitted_on, stored.ensemble)
    tables = stored.tables(store)
    if overwrite or not stored.is_in(store, "transform"):
        readable = _readable(tables)
        stored.ensemble.set_params(verbose=verbose)
        psi = stored.ensemble.transform([kept_rows(table, readable) for table in tables])
        stored.write(store, psi, "transform", overwrite)
    return stored.table


def _readable(tables: Sequence[FeatureTable]) -> NDArray[np.bool_]:
    rows = np.ones(len(tables[0]), bool)
    rows[list(unreadable(tables))] = False
    if not rows.any():
        raise UsageError(
            f"{tables[0].path.parent.parent}: no image has features of every model that could be "
            f"read"
        )
    return rows


def _labels(train: Sequence[FeatureTable], test: Sequence[FeatureTable] | None) -> Split | None:
    sides = [train, test or train]
    if any(side[0].labels is None or side[0].labels.ndim > 1 for side in sides):
        return None
    return split_samples(pair_tables(*sides))
