"""Fit an ensemble on a store, judge it, and write ψ back; or find ψ of another store."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from featkit.analyses.base import Result, describe_run, result_folder, short_names
from featkit.analyses.ensemble.kept_state import STATE_FILE, OtherRunError
from featkit.analyses.ensemble.representation import EnsembleRepresentation
from featkit.analyses.ensemble.stored import (
    MEMBERS_FILE,
    Member,
    Side,
    StoredEnsemble,
    choose_tables,
)
from featkit.analyses.ensemble.study import Images, StudyConfig, study
from featkit.analyses.sides import Split, pair_tables, split_samples
from featkit.errors import UsageError
from featkit.ops.neighbors import Floats
from featkit.ops.row_sources import RowSource
from featkit.parallel.group import all_of, first, first_holds
from featkit.store.reader import Store
from featkit.store.schema import SAMPLES_FILE
from featkit.store.writer import remains, sweep, writing

_STATE = ".unfinished"
_WRITTEN = ("knn", "recovery", "stages", "linear", "singular_values", "maximum_similarity")
"""Stems of the tables and figures of a result."""


def fit_ensemble(
    train: Store,
    folder: str | Path,
    ensemble: EnsembleRepresentation,
    test: Store | None = None,
    features: Sequence[str] = (),
    name: str | None = None,
    config: StudyConfig | None = None,
    overwrite: bool = False,
    draw: Callable[[Result, Path], object] | None = None,
) -> Result:
    """Learn ψ of a store's images, find it for those of another, and judge both.

    ψ is written into both stores as backbone ``ensemble-NAME``. A run that was stopped goes on
    where it was when the same is called again.

    Args:
        train: Store of the bank.
        folder: For model and result.
        ensemble: Not fitted; becomes so, with its checkpoint in the folder.
        test: Store of other images, extracted with the same backbones.
        features: Tables of ``train``, as selectors name them; none for all.
        name: Letters, digits, ``.``, ``_``, ``-``; None for the folder's.
        config: What is judged.
        overwrite: Whether to replace a model, an unfinished run, and tables of this name.
        draw: Draws the figures of the result into the folder, before the run counts as finished.

    Returns:
        As :func:`featkit.analyses.ensemble.study.study`; the folder has it too.

    Raises:
        UsageError: Tables or settings cannot be used, or the folder holds an ensemble or a result
            of another analysis.
        ConflictError: A store has another table of this name.
        StoreError: A store or the folder cannot be written to.
    """
    folder, config = Path(folder), config or StudyConfig()
    ensemble.settings()
    tables = choose_tables(train, features)
    stored = StoredEnsemble(
        name if name is not None else folder.resolve().name,
        [Member.of(table) for table in tables],
        [table.key for table in tables],
        ensemble,
    )
    bank = Side(train, tables)
    queries = stored.side(test) if test is not None else None
    split = _labels(bank, queries)
    config.check(int(bank.readable.sum()) - (queries is None), split is not None)
    first(lambda: _check_stores(stored, bank, queries, overwrite))
    _check_place(folder)
    with first_holds(lambda: result_folder(folder, "ensemble-fit")):
        first(lambda: _check_folder(folder, overwrite))
        models = bank.features()
        images = Images(models, _fit(ensemble, models, folder, overwrite))
        asked = None
        if queries is not None:
            others = queries.features()
            asked = Images(others, ensemble.transform(others))

        def conclude() -> Result:
            result = study(ensemble, short_names(tables), images, asked, split, config)
            _describe(result, stored, bank, queries, split, config)
            stored.save(folder)
            stored.write(bank, images.psi, "fit")
            if queries is not None and asked is not None:
                stored.write(queries, asked.psi, "transform")
            result.save(folder)
            if draw is not None:
                draw(result, folder)
            _discard_state(folder)
            return result

        return first(conclude)


def _check_stores(
    stored: StoredEnsemble, bank: Side, queries: Side | None, overwrite: bool
) -> None:
    """Refuse, before hours of work, stores that could not be written to afterwards."""
    if queries is not None and bank.store.samples.manifest == queries.store.samples.manifest:
        raise UsageError(
            "TRAIN and --test are the same images: leave --test out, and each is asked of the rest"
        )
    if not overwrite:
        stored.check_place(bank, "fit")
        if queries is not None:
            stored.check_place(queries, "transform")
    for side in (bank, queries):
        if side is not None:
            _check_writing(side.store)


def _check_writing(store: Store) -> None:
    """Refuse, before the work, a store that cannot be written to afterwards."""
    with writing(store.path):
        pass


def _sweep(store: Store) -> None:
    """Delete what a process has left that was killed when its table was there."""
    if remains(store.path):
        with writing(store.path):
            sweep(store.path, ())


def _check_place(folder: Path) -> None:
    """Refuse a folder within a store."""
    for parent in (folder.resolve(), *folder.resolve().parents):
        if (parent / SAMPLES_FILE).exists():
            raise UsageError(f"{folder} lies in the store {parent}: choose a folder outside of it")


def _check_folder(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that is not free."""
    is_unfinished = (folder / _STATE / STATE_FILE).exists()
    if (folder / MEMBERS_FILE).exists() and not is_unfinished and not overwrite:
        raise UsageError(f"{folder} holds a finished ensemble; choose another, or --overwrite it")
    if overwrite and not is_unfinished:
        for stem in _WRITTEN:
            (folder / f"{stem}.csv").unlink(missing_ok=True)
            (folder / f"{stem}.png").unlink(missing_ok=True)


def _fit(
    ensemble: EnsembleRepresentation,
    features: Sequence[RowSource],
    folder: Path,
    overwrite: bool,
) -> Floats:
    ensemble.set_params(checkpoint=folder / _STATE)
    try:
        return ensemble.fit_transform(list(features))
    except OtherRunError:
        if not overwrite:
            raise
        all_of(None)  # each has seen it
        first(lambda: _discard_state(folder))
        return ensemble.fit_transform(list(features))


def _discard_state(folder: Path) -> None:
    """Delete the state, last, and what kills have left beside it; files of others stay."""
    for left in sorted((folder / _STATE).glob(f"{STATE_FILE}*"), reverse=True):
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    with contextlib.suppress(OSError):
        (folder / _STATE).rmdir()


def _labels(bank: Side, queries: Side | None) -> Split | None:
    sides = [bank.tables, (queries or bank).tables]
    if any(side[0].labels is None or side[0].labels.ndim > 1 for side in sides):
        return None
    return split_samples(pair_tables(*sides))


def _describe(
    result: Result,
    stored: StoredEnsemble,
    bank: Side,
    queries: Side | None,
    split: Split | None,
    config: StudyConfig,
) -> None:
    """Say what was read, and which of the settings' choices ran."""
    ensemble = stored.ensemble
    inputs = {"train": bank.tables} | ({} if queries is None else {"test": queries.tables})
    settings, result.provenance = describe_run(
        ensemble.settings(), inputs, ("torch", "scikit-learn", "scipy", "faiss-cpu")
    )
    result.config = settings | asdict(config)
    result.provenance |= {"seed": ensemble.random_state, "table": stored.table}
    asked = queries or bank
    counts: dict[str, float | int | str] = {
        "bank": int(bank.readable.sum()),
        "queries": int(asked.readable.sum()),
        "unreadable": len(bank.failures) + (len(queries.failures) if queries is not None else 0),
        "start": ensemble.init_,
        "width": ensemble.mappers_.width,
    }
    if split is not None:
        counts["in_both"] = split.in_both
        known = set(bank.tables[0].classes or ())
        strange = [name for name in asked.tables[0].classes or () if name not in known]
        if strange:
            result.notes.append(f"TRAIN has no class {', '.join(strange[:5])}: always wrong there")
    result.scalars = counts | result.scalars
    for row, relu in zip(result.tables["recovery"], ensemble.relus_, strict=True):
        row["last_layer"] = "relu" if relu else "linear"


def transform_store(
    folder: str | Path,
    store: Store,
    name: str | None = None,
    verbose: bool = False,
    overwrite: bool = False,
) -> tuple[str, bool]:
    """Find ψ of a store's images, and write it as backbone ``ensemble-NAME``.

    Args:
        folder: That :func:`fit_ensemble` filled.
        store: Of the images, extracted with the same backbones.
        name: None for the ensemble's.
        verbose: Whether to draw a bar on stderr.
        overwrite: Whether to replace a table of this name.

    Returns:
        Name of the table, and whether it had been there.

    Raises:
        UsageError: There is no model, or a table is missing or of another model.
        ConflictError: The store has another table of this name.
        StoreError: It cannot be written to.
    """
    stored = StoredEnsemble.load(Path(folder))
    if name is not None:
        stored = StoredEnsemble(name, stored.members, stored.fitted_on, stored.ensemble)
    side = stored.side(store)
    was_there = first(lambda: not overwrite and stored.is_in(side, "transform"))
    if not was_there:
        first(lambda: _check_writing(store))
        stored.ensemble.set_params(verbose=verbose)
        psi = stored.ensemble.transform(side.features())
        first(lambda: stored.write(side, psi, "transform"))
    else:
        first(lambda: _sweep(store))
    return stored.table, was_there
