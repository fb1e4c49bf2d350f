"""Every parser that is fuzzed, by name."""

from __future__ import annotations

from tests.fuzzing import checkpoints, commands, documents, ensembles, hdf5, images, states, tables
from tests.fuzzing.target import Target

TARGETS: dict[str, Target] = {
    target.name: target
    for target in (
        images.IMAGES, tables.CSV, tables.MODELS, tables.MASKS, documents.RESULTS, documents.RUNS,
        documents.PLANS, documents.LOGS, ensembles.MODELS, ensembles.MEMBERSHIP, ensembles.STATES,
        states.STATES, checkpoints.SHARDS, hdf5.SAMPLES, hdf5.TABLES, hdf5.PARTS, hdf5.INDEXES,
        checkpoints.CHECKPOINTS, commands.SELECTORS, commands.COMMAND_LINE,
    )
}  # fmt: skip
