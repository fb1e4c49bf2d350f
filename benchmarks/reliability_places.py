"""Places that cannot be written to, and places that two commands write to."""

from __future__ import annotations

import ctypes
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.faults import contents, pause, small_disk, start
from benchmarks.jobs import Row
from benchmarks.reliability_cases import NET, WRITING, Case, extraction, row_of

if TYPE_CHECKING:
    from benchmarks.reliability import Sweep


def _without_rights() -> None:
    """Give up root's right to write where nobody may."""
    header = (ctypes.c_uint32 * 2)(0x20080522, 0)  # version 3 of the call, this process
    if ctypes.CDLL(None, use_errno=True).capset(header, (ctypes.c_uint32 * 6)()):
        raise OSError(ctypes.get_errno(), "capset")


def read_only(sweep: Sweep) -> list[Row]:
    """Read from stores that cannot be written to, and try to write."""
    rows = []
    with small_disk(sweep.own / "disk", 64_000_000) as disk:
        if disk is None:
            return [row_of("read-only store", "not tried: no disk can be mounted", 0, "—", None)]
        place = disk.folder / "place"
        for name in ("train", "test", "new", "four", "tree"):
            shutil.copytree(sweep.prepared / name, place / name)
        disk.lock()
        rows.append(_asked(sweep, place, "a disk mounted read-only", None))
        disk.free()
        for path in sorted(place.rglob("*"), reverse=True):
            path.chmod(0o555 if path.is_dir() else 0o444)
        place.chmod(0o555)
        how = "folders without write permission, and a process without root's rights"
        rows.append(_asked(sweep, place, how, _without_rights))
    return rows


def _asked(sweep: Sweep, place: Path, how: str, before: Callable[[], None] | None) -> Row:
    """Ask everything of stores that cannot be written to."""
    train, test, answer = place / "train", place / "test", sweep.own / "answer"
    images = sweep.prepared / "images"
    reads: list[Sequence[object]] = [
        ["ls", train],
        ["verify", train],
        ["knn", train, test, "-o", answer / "knn"],
        ["probe", train, test, "-o", answer / "probe"],
        ["spectrum", train],
        ["similarity", train],
        ["diversity", test, "--over", "samples"],
        ["export", train, "-o", answer / "out.npz"],
        [*extraction(images, train), "--dry-run"],
        extraction(images, train),
        ["extract", sweep.prepared / "few", "-b", place / "tree" / "run", "-o", answer / "store"],
    ]
    writes: list[Sequence[object]] = [
        [*extraction(images, train), "--tap", "layer2"],
        ["ensemble-fit", train, "-o", answer / "five", "--epochs", 2, "--quiet"],
        ["ensemble-transform", place / "four", place / "new", "--quiet"],
        ["knn", train, test, "-o", place / "answer"],
        ["export", train, "-o", place / "out.h5"],
        ["train", "simclr", sweep.prepared / "few", "-o", place / "run", "--preset", "tiny"],
        [*sweep.cases["train treenet"].arguments(place / "tree"), "--overwrite"],
    ]
    shutil.rmtree(answer, ignore_errors=True)
    answer.mkdir(mode=0o777)
    there, worked, refused = _everything(place), 0, 0
    for command in reads:
        run = sweep.start(command, before=before)
        worked += sweep.note(f"{how}: {command[0]}", "equal" if run.wait() == 0 else run.last)
    for command in writes:
        run = sweep.start(command, before=before)
        status = run.wait()
        is_told = status in (1, 2) and run.last.startswith("featkit: ")
        is_told &= "Traceback" not in run.said and "bug in featkit" not in run.said
        refused += sweep.note(
            f"{how}: {command[0]}", "equal" if is_told else f"exit {status}: {run.said[-300:]}"
        )
    same = _everything(place) == there
    outcome = f"{worked} of {len(reads)} commands that read work; {refused} of {len(writes)} that "
    outcome += f"write are refused in one line; {'nothing' if same else 'SOMETHING'} has changed"
    met = worked == len(reads) and refused == len(writes) and same
    return row_of("read-only store", how, len(reads) + len(writes), outcome, met)


def _everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path): (path.stat().st_mtime_ns, path.read_bytes()) for path in paths}


def writers(sweep: Sweep) -> list[Row]:
    """Let two commands write to one place at once."""
    images, place = sweep.prepared / "images", sweep.place
    whole = sweep.cases["extract"]
    one = [*extraction(images, place / "store", taps=("layer3",))]
    two = [*extraction(images, place / "store", taps=("avgpool",))]
    other = ["extract", images, "-b", f"other={NET}&seed=1", "-o", place / "train", "--quiet"]
    fit = sweep.cases["ensemble-fit"]
    fit_one = ["ensemble-fit", place / "train:cifar_resnet20", *fit.arguments(place)[2:]]
    answer = sweep.cases["knn"].arguments(place)
    same = [(n, sweep.cases[n]) for n in (*WRITING[:3], "ensemble-transform")]
    pairs: list[tuple[str, Case, list[object], list[object]]] = [
        *((f"{n} twice", c, c.arguments(place), c.arguments(place)) for n, c in same),
        ("extract of two tables", whole, one, two),
        ("extract beside ensemble-fit", fit, other, fit_one),
        (
            "knn of two k in one folder",
            sweep.cases["knn"],
            [*answer, "--k", 5],
            [*answer, "--k", 9],
        ),
    ]
    return [_pair(sweep, *pair) for pair in pairs]


def _pair(sweep: Sweep, name: str, case: Case, one: list[object], two: list[object]) -> Row:
    """Start two commands at once, or one a little later; run those again that were refused."""
    wanted = []
    for commands in ([one, two], [two, one]):
        sweep.begin(case)
        started = time.monotonic()
        for command in commands if one != two else commands[:1]:
            sweep.start(command).wait()
        seconds = time.monotonic() - started
        wanted.append(contents(*case.results(sweep.place)))
    offsets = (0.0, 0.4) if sweep.quick else (0.0, 0.02, 0.1, 0.2, 0.4, 0.6)
    refused, equal = 0, 0
    for offset in offsets:
        sweep.begin(case)
        runs = [start(one, sweep.own / "log0")]
        pause(offset * seconds)
        runs.append(start(two, sweep.own / "log1"))
        sweep.groups |= {run.pid for run in runs}
        wrong = ""
        for command, run in zip((one, two), runs, strict=True):
            if run.wait() and not any(text in run.last for text in (_BUSY, _FINISHED)):
                wrong = f"exit {run.wait()}: {run.last}"
            elif run.wait() and _BUSY in run.last:
                runs[1 - runs.index(run)].wait()
                refused += 1
                again = sweep.start(command)
                if again.wait() and _FINISHED not in again.last:
                    wrong = f"exit {again.wait()}: {again.last}"
        if not wrong and contents(*case.results(sweep.place)) not in wanted:
            wrong = "differs from one after the other"
        equal += sweep.note(f"{name}, {offset:g} later", wrong or "equal")
    return row_of(
        f"two writers: {name}",
        "started at once, or one up to 0.6 of its time later",
        len(offsets),
        f"{refused} times one was refused and run again, else it came later; {equal} of "
        f"{len(offsets)} times all is as if one had run after the other",
        equal == len(offsets),
    )


_BUSY = "another process is"
_FINISHED = "holds a finished ensemble"


def killed_writer(sweep: Sweep) -> list[Row]:
    """Kill a writer with its decoding processes alive, and start the next at once."""
    case, free = sweep.cases["extract"], 0
    trials = 2 if sweep.quick else 6
    wanted, seconds = sweep.reference(case)
    for i in range(trials):
        command = [*sweep.begin(case), "--workers", 2]
        run = sweep.start(command)
        while not run.children and not run.over:
            pause(0.001)
        pause(i / trials * 0.3 * seconds)
        run.send(signal.SIGKILL)
        run.wait()
        free += sweep.note("the lock of a killed writer", sweep.ends(case, wanted))
    left = sweep.orphans()
    how = "kill −9 of extract --workers 2, its decoding processes alive; the same command at once"
    outcome = f"{free} of {trials} are not kept waiting and end with the same bytes; "
    outcome += f"{left} processes are left after 15 s"
    return [row_of("lock of a killed writer", how, trials, outcome, free == trials and not left)]
