"""Stores whose HDF5 says what it should not, under a right seal."""

from __future__ import annotations

import contextlib
import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from featkit.store.fingerprint import fingerprint
from featkit.store.plans import PartPlan
from featkit.store.samples import Samples, write_samples
from featkit.store.schema import INDEX_FORMAT
from featkit.store.writer import PartialTable, TableSpec
from tests.fuzzing.mutate import any_json, changed, changes
from tests.fuzzing.target import Case, Target

ROWS = 12
TABLE = "net/fc.none.h5"
FAR = "../outside/far.h5"
INDEXED = ("ivf", "hnsw")

SEARCHED = 3
"""Neighbours that the indexes are searched for."""


def _spec(manifest: str, tap: str) -> TableSpec:
    provenance = {
        "backbone": {"architecture": "none", "weights": "0" * 64}, "tap": tap, "pooling": "none",
        "preprocessing": {"size": [1, 1]}, "samples": manifest, "dtype": "float32",
        "precision": "fp32",
    }  # fmt: skip
    return TableSpec("net", tap, "none", "a net", provenance, ROWS, (5,), "float32")


def _fill(table: PartialTable, parts: int) -> None:
    table.begin()
    _write_parts(table, range(parts))


def _write_parts(table: PartialTable, parts: Iterable[int]) -> None:
    for part in parts:
        rows = table.rows_of(part)
        valid = np.array([row != 7 for row in rows])
        rng = np.random.default_rng(part)
        features = rng.standard_normal((len(rows), 5)).astype(np.float32)
        features[~valid] = np.nan
        table.write(part, features, valid, {7: "not an image"} if 7 in rows else {})


def make_store(store: Path) -> None:
    """Write a store of twelve samples with a finished and an unfinished table."""
    samples = Samples(
        paths=[f"a/{i:02d}.png" for i in range(ROWS)],
        digests=np.frombuffer(
            b"".join(hashlib.sha256(bytes([i])).digest() for i in range(ROWS)), np.uint8
        ).reshape(-1, 32),
        labels=np.arange(ROWS, dtype=np.int64) % 3,
        classes=("ant", "bee", "cow"),
        source="photos",
        stamps=np.ones((ROWS, 2), np.int64),
    )
    write_samples(store, samples)
    whole = PartialTable(store, _spec(samples.manifest, "fc"), PartPlan(4, 4, compiled=False))
    _fill(whole, 3)
    whole.finish()
    begun = PartialTable(store, _spec(samples.manifest, "conv"), PartPlan(4, 4, compiled=False))
    _fill(begun, 2)
    (store / "runs.jsonl").write_text(
        json.dumps({"event": "started", "tables": ["net/fc.none", "net/conv.none"]}) + "\n"
    )


def search(folder: Path, words: tuple[str, ...]) -> list[Any]:
    """Find neighbours in the finished table by an index, which is kept or made, as ``knn`` does."""
    from featkit.analyses.kept_index import StoredRows, open_index
    from featkit.ops.approximate import ApproximateNeighbors
    from featkit.store.reader import open_store

    table = open_store(folder)["net/fc"]
    index = ApproximateNeighbors(SEARCHED, words[0], device="cpu")  # type: ignore[arg-type]
    open_index(StoredRows([table], table.valid), index)
    return [summary(array) for array in index.kneighbors()]


def make_indexes(folder: Path) -> None:
    """Write a store with an index of each kind."""
    lay_out(folder)
    for kind in INDEXED:
        search(folder, (kind,))


def index_file(folder: Path, kind: str) -> str:
    """Return the index of a kind."""
    from featkit.store.indexes import index_files, read_index

    files = {read_index(path)[0]["kind"]: path for path in index_files(folder)}
    return files[kind].relative_to(folder).as_posix()


def part_file(store: Path) -> str:
    """Return the first part of the unfinished table."""
    return next(store.glob(".partial/*/part-000001.h5")).relative_to(store).as_posix()


def sealed(data: bytes, kind: str) -> bytes:
    """Return the bytes with the first line that belongs to them."""
    line = f"{kind} sha256:{hashlib.sha256(data[512:]).hexdigest()}\n".encode()
    return line.ljust(512, b"\0") + data[512:]


def lay_out(folder: Path) -> None:
    make_store(folder)
    far = folder.parent / "outside" / "far.h5"
    if far.parent.is_dir():
        with h5py.File(far, "w") as file:
            for name, data in _alike().items():
                file[name] = data
        (far.parent / "raw").write_bytes(bytes(4096))


def _alike() -> dict[str, Any]:
    return {
        "features": np.zeros((ROWS, 5), np.float32), "valid": np.ones(ROWS, bool),
        "path": [f"secret {i}" for i in range(ROWS)], "digest": np.zeros((ROWS, 32), np.uint8),
        "label": np.zeros(ROWS, np.int64), "classes": ["a", "b", "c"],
        "failed_row": np.zeros(0, np.int64), "failed_reason": np.array([], h5py.string_dtype()),
        "stamp": np.zeros((ROWS, 2), np.int64),
    }  # fmt: skip


Change = Callable[[h5py.File, str], None]


def _remove(file: h5py.File, name: str) -> None:
    if file.id.links.exists(name.encode()):
        del file[name]


def _likeness(file: h5py.File, name: str) -> tuple[tuple[int, ...], Any]:
    """Return shape and type of a dataset, or of one that stands for what is none."""
    link = file.get(name, getlink=True)
    old = file.get(name) if isinstance(link, h5py.HardLink) else None
    is_one = isinstance(old, h5py.Dataset) and old.shape is not None
    return (old.shape, old.dtype) if is_one else ((ROWS,), "f4")


def _put(**how: Any) -> Change:
    """Make a dataset in place of the one that is there."""

    def change(file: h5py.File, name: str) -> None:
        given = dict(how)
        shape, dtype = given.pop("shape", "same"), given.pop("dtype", "same")
        old_shape, old_dtype = _likeness(file, name)
        shape = old_shape if shape == "same" else shape(old_shape) if callable(shape) else shape
        _remove(file, name)
        dtype = old_dtype if isinstance(dtype, str) and dtype == "same" else dtype
        file.create_dataset(name, shape, dtype, **given)

    return change


def _data(data: Any, **how: Any) -> Change:
    def change(file: h5py.File, name: str) -> None:
        _remove(file, name)
        file.create_dataset(name, data=data, **how)

    return change


def _link(link: Callable[[str], Any]) -> Change:
    def change(file: h5py.File, name: str) -> None:
        _remove(file, name)
        file[name] = link(name)

    return change


def _virtual(file: h5py.File, name: str) -> None:
    shape, dtype = _likeness(file, name)
    _remove(file, name)
    layout = h5py.VirtualLayout(shape, dtype)
    if shape and 0 not in shape:
        layout[...] = h5py.VirtualSource(FAR, name, shape)
    file.create_virtual_dataset(name, layout)


def _bomb(file: h5py.File, name: str) -> None:
    """A dataset of 64 GB that takes a few kB packed."""
    _remove(file, name)
    made = file.create_dataset(name, (2**33,), "f8", chunks=(2**17,), compression="gzip")
    made[: 2**18] = 0


def _strings(file: h5py.File, name: str) -> None:
    """As many strings as there are rows, all of them one long one."""
    count = max((4, *_likeness(file, name)[0][:1]))
    _remove(file, name)
    file.create_dataset(name, data=["x" * 200_000] * count, dtype=h5py.string_dtype())


STRUCTURE: tuple[Change, ...] = (
    _remove,
    _link(lambda name: h5py.ExternalLink(FAR, name)),
    _link(lambda _: h5py.ExternalLink("/etc/passwd", "x")),
    _link(lambda name: h5py.SoftLink(f"/{name}")),
    _link(lambda _: h5py.SoftLink("/label")),
    _link(lambda _: h5py.SoftLink("/nowhere")),
    _virtual,
    _bomb,
    _strings,
    _put(external=[("../outside/raw", 0, 4096)]),
    _put(external=[("/etc/passwd", 0, 100)]),
    _put(shape=lambda shape: (2**40, *shape[1:])),
    _put(shape=lambda shape: (2**40, *shape[1:]), chunks=True),
    _put(shape=lambda shape: (*shape[:1], 2**30)),
    _put(shape=lambda shape: (*shape, 1)),
    _put(shape=lambda shape: shape[1:]),
    _put(shape=lambda shape: (shape[0] + 1, *shape[1:]) if shape else (1,)),
    _put(shape=lambda shape: (shape[0] - 1, *shape[1:]) if shape else (1,)),
    _put(shape=lambda shape: (0, *shape[1:])),
    _put(shape=()),
    _put(chunks=True, compression="gzip"),
    *(_put(dtype=dtype) for dtype in (
        "i1", "u8", ">f8", "f2", "?", "S3", "c8", h5py.string_dtype(),
        h5py.string_dtype("ascii", 4),
        h5py.ref_dtype, h5py.vlen_dtype("i4"), [("a", "i4")], h5py.enum_dtype({"A": 1}), "V4",
        ("f4", (3,)),
    )),
    _data(h5py.Empty("f4")),
    _data([b"\xff\xfe"] * ROWS, dtype=h5py.string_dtype()),
    _data(["a\x1b[2J\nb"] * ROWS, dtype=h5py.string_dtype()),
    _data(["x"] * ROWS, dtype=h5py.string_dtype()),
    _data(np.full(ROWS, 99, np.int64)), _data(np.full(ROWS, -1, np.int64)),
    _data(np.full((ROWS, 3), 7, np.uint8)), _data(np.full(ROWS, 2**62)),
    lambda file, name: (_remove(file, name), file.create_group(name)),
    lambda file, name: (_remove(file, name), file.__setitem__(name, np.dtype("f4"))),
)  # fmt: skip

VALUES: tuple[Any, ...] = (
    0, 1, 2, -1, 2**62, 1.5, True, "", "x", "../../x", "a\x1b[2J\nb", b"\xff\xfe", [1, 2], ["a"],
    np.zeros((3, 3)), h5py.Empty("f4"), "null", "[]", "{}", '{"samples": 1}', "[" * 9000,
    "é" * 9000,
    '{"backbone": 1, "precision": [1]}', '{"backbone": {"architecture": {}}, "precision": 1}',
    '{"epochs": "x"}', "featkit-samples", "featkit-table", np.zeros(3, [("a", "i4")]),
)  # fmt: skip


def _altered(data: bytes, kind: str, made: list[tuple[Any, ...]]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.h5"
        path.write_bytes(data)
        with h5py.File(path, "r+") as file:
            for place, what, value in made:
                datasets, attributes = sorted(file), sorted(file.attrs)
                if what == "dataset" and datasets:
                    name = datasets[place % len(datasets)]
                    with contextlib.suppress(ValueError, OverflowError):  # HDF5 makes no such file
                        STRUCTURE[value % len(STRUCTURE)](file, name)
                elif what == "without" and attributes:
                    del file.attrs[attributes[place % len(attributes)]]
                elif attributes:
                    file.attrs[attributes[place % len(attributes)]] = VALUES[value % len(VALUES)]
        return sealed(path.read_bytes(), kind)


def mutated(data: bytes, kind: str) -> SearchStrategy[bytes]:
    """A file with another structure, or other bytes, mostly under a right seal."""
    one = st.tuples(
        st.integers(0, 20),
        st.sampled_from(["dataset"] * 5 + ["attribute", "attribute", "without"]),
        st.integers(0, 200),
    )  # fmt: skip
    structure = st.lists(one, min_size=1, max_size=2).map(lambda made: _altered(data, kind, made))

    def bytes_changed(made: tuple[list[tuple[str, int, int]], bool, int]) -> bytes:
        new = changed(data, made[0], (b"TREE", b"HEAP", b"OHDR", b"GCOL", b"\xff" * 8), made[2])
        return sealed(new, kind) if made[1] else new

    starts = st.sampled_from([512, 600, 512 + (len(data) - 512) // 2])
    return st.one_of(
        structure, structure,
        st.tuples(changes(3), st.sampled_from([True] * 3 + [False]), starts).map(bytes_changed),
    )  # fmt: skip


@cache
def _whole() -> dict[str, bytes]:
    with tempfile.TemporaryDirectory() as place:
        store = Path(place) / "store"
        make_store(store)
        names = ("samples.h5", TABLE, part_file(store))
        return {name: (store / name).read_bytes() for name in names}


def _is_sealed(file: Path, kind: str) -> object:
    data = file.read_bytes()
    return sealed(data, kind) == data


def summary(values: Any) -> str:
    """Return what two arrays are compared by."""
    array = np.ascontiguousarray(values)
    head = f"{array.dtype}{array.shape}".encode()
    return hashlib.sha256(head + array.tobytes()).hexdigest()[:16]


def read_store(folder: Path, words: tuple[str, ...]) -> object:
    """Open a store, and look at all that analyses look at."""
    from featkit.store.reader import open_store

    store = open_store(folder)
    samples = store.samples
    found: list[Any] = [list(samples.paths), samples.manifest, samples.source, samples.classes]
    found += [None if x is None else summary(x) for x in (samples.labels, samples.stamps)]
    if samples.labels is not None and samples.labels.ndim == 1 and samples.classes:
        found.append([samples.classes[label] for label in samples.labels])
    for table in store.tables():
        x = table.numpy()
        found += [
            table.name,
            table.spec,
            table.key,
            table.shape,
            table.checkpoint,
            table.provenance,
        ]
        found += [summary(x[table.valid]), summary(table.valid), table.failures]
        found += [[summary(block) for _, block in table.blocks()]]
        found += [[table.paths[row] for row in table.failures]]
    return found


def verify(folder: Path, words: tuple[str, ...]) -> object:
    """Return what ``featkit verify`` says of each file."""
    from featkit.store.verify import verify_store

    checks = list(verify_store(folder))
    assert all(len(line) < 3000 for check in checks for line in check.problems)
    return [[check.name, check.problems] for check in checks]


def _both(folder: Path, words: tuple[str, ...]) -> object:
    from featkit.errors import FeatkitError

    try:
        read = read_store(folder, words)
    except FeatkitError:
        verify(folder, words)
        raise
    return [read, verify(folder, words)]


def finish(folder: Path, words: tuple[str, ...]) -> object:
    """Go on with the unfinished table from its plan, as ``extract`` does, and read the store."""
    from featkit.store.plans import unfinished_tables
    from featkit.store.reader import open_store
    from featkit.store.samples import read_samples
    from featkit.store.writer import remains, sweep, writing

    samples = read_samples(folder)
    spec = _spec(samples.manifest, "conv")
    with writing(folder):
        begun = [u for u in unfinished_tables(folder) if u.provenance == spec.provenance]
        sweep(folder, {spec.key})
        assert spec.key in {u.folder.name for u in begun} or not begun
        table = PartialTable(folder, spec, begun[0].plan if begun else PartPlan(4, 4, False))
        table.begin()
        _write_parts(table, table.missing())
        table.finish()
    found = open_store(folder)["net/conv"]
    return [summary(found.numpy()), summary(found.valid), found.failures, found.provenance,
            [str(path) for path in remains(folder)]]  # fmt: skip


def _search_and_verify(folder: Path, words: tuple[str, ...]) -> object:
    """Do all that reads indexes: ``verify``, what ``extract`` sweeps, and a search."""
    from featkit.store.writer import remains

    checks, left = verify(folder, words), [str(path) for path in remains(folder)]
    return [checks, left, search(folder, words)]


def _index_cases(folder: Path) -> SearchStrategy[Case]:
    def of(kind: str) -> SearchStrategy[Case]:
        name = index_file(folder, kind)
        data = (folder / name).read_bytes()
        with h5py.File(folder / name) as file:
            provenance = json.loads(file.attrs["provenance"])
        changed_file = mutated(data, INDEX_FORMAT).map(lambda new: Case({name: new}, (kind,)))
        told = any_json(provenance, ("ivf", "hnsw", ["ivf"], [[1]], [], {"a": 1}))
        return st.one_of(
            changed_file, changed_file, told.map(lambda text: _retold(data, name, kind, text))
        )

    return st.one_of(*map(of, INDEXED))


def _retold(data: bytes, name: str, kind: str, provenance: bytes) -> Case:
    """An index that says another provenance, under the key that belongs to it if there is one."""
    with contextlib.suppress(ValueError, RecursionError):
        name = f".index/{fingerprint(json.loads(provenance))}.h5"
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file.h5"
        path.write_bytes(data)
        with h5py.File(path, "r+") as file:
            file.attrs["provenance"] = np.array(
                provenance.replace(b"\0", b" "), h5py.string_dtype()
            )
        return Case({name: sealed(path.read_bytes(), INDEX_FORMAT)}, (kind,))


def _are_sealed(folder: Path, words: tuple[str, ...]) -> object:
    return all(_is_sealed(file, INDEX_FORMAT) for file in folder.glob(".index/*.h5"))


def _cases(name: str, kind: str) -> Callable[[Path], SearchStrategy[Case]]:
    def cases(_folder: Path) -> SearchStrategy[Case]:
        return mutated(_whole()[name], kind).map(lambda data: Case({name: data}))

    return cases


_MODULES = ("featkit.store.schema",)
INDEXES = Target(
    name="indexes", kind="HDF5", lay_out=make_indexes, read=_search_and_verify,
    modules=("featkit.store.indexes", "featkit.analyses.kept_index", *_MODULES),
    cases=_index_cases, starts=_are_sealed, valid=tuple((kind,) for kind in INDEXED),
    output=(".",), is_fresh=True,
)  # fmt: skip
SAMPLES = Target(
    name="samples.h5", kind="HDF5", lay_out=lay_out, read=_both,
    modules=("featkit.store.samples", *_MODULES),
    cases=_cases("samples.h5", "featkit-samples"),
    starts=lambda folder, _: _is_sealed(folder / "samples.h5", "featkit-samples"),
)  # fmt: skip
TABLES = Target(
    name="tables", kind="HDF5", lay_out=lay_out, read=_both,
    modules=("featkit.store.reader", "featkit.store.verify", *_MODULES),
    cases=_cases(TABLE, "featkit-table"),
    starts=lambda folder, _: _is_sealed(folder / TABLE, "featkit-table"),
)  # fmt: skip
PARTS = Target(
    name="parts", kind="HDF5", lay_out=lay_out, read=finish,
    modules=("featkit.store.writer", *_MODULES),
    cases=lambda folder: _cases(part_file(folder), "featkit-part")(folder),
    starts=lambda folder, _: _is_sealed(folder / part_file(folder), "featkit-part"),
    output=(".",), is_fresh=True,
)  # fmt: skip
