"""What happens when something goes wrong: real faults on real runs of the real commands.

Every step is kept in WORK, so that a sweep that was stopped goes on where it was. A step for
another command is a :class:`benchmarks.reliability_cases.Case` more.
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import importlib
import json
import mmap
import os
import random
import signal
import struct
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import harness, reliability_order, reliability_places, reliability_stops
from benchmarks.faults import (
    Run,
    contents,
    finish,
    on_change,
    pause,
    preload,
    processes,
    small_disk,
    start,
)
from benchmarks.jobs import Row, keep, kept
from benchmarks.reliability_cases import Case, cases, prepare, row_of
from benchmarks.system_calls import chosen_calls, evenly, has_strace, killed_at, traced

KILLED = (
    "extract", "ensemble-fit", "ensemble-transform", "train simclr", "train treenet",
    "train deepcluster",
)  # fmt: skip
"""Commands that are killed."""

FILLED = (*KILLED, "knn", "dissect", "export .h5", "export .npz")
"""Commands whose disk is full."""

DISK_BYTES = 64_000_000

_OTHERS: dict[str, Callable[[Any], list[Row]]] = {
    "read-only": reliability_places.read_only,
    "writers": reliability_places.writers,
    "killed writer": reliability_places.killed_writer,
    "clock": reliability_order.clock,
    "signals": reliability_stops.signals,
    "deaths": reliability_stops.deaths,
    "several": reliability_stops.several,
    "power": reliability_order.power_cuts,
}
"""Steps that are not of one command."""


class Sweep:
    """Where a sweep works, and what it has noticed.

    Attributes:
        work: Folder of all.
        share: Which of the processes that sweep beside each other this is.
        own: Its folder.
        prepared: Folder of what commands read.
        place: Folder that commands work in.
        log: File of what a command says.
        cases: Commands by name.
        quick: Whether few moments are tried.
        groups: Process groups of all runs.
        notes: What went wrong, a line each.
    """

    def __init__(self, work: Path, quick: bool, share: int = 0) -> None:
        self.work, self.quick, self.share, self.own = work, quick, share, work / f"own-{share}"
        self.prepared, self.place, self.log = (
            work / "prepared",
            self.own / "place",
            self.own / "log",
        )
        self.own.mkdir(parents=True, exist_ok=True)
        self.cases = cases(self.prepared)
        self.groups: set[int] = set()
        self.notes: list[str] = []
        self._count = mmap.mmap(-1, 8)

    def begin(self, case: Case, place: Path | None = None) -> list[object]:
        """Put what a command reads into its folder, and return the command."""
        return case.begin(self.prepared, place or self.place)

    def start(self, arguments: Sequence[object], **options: Any) -> Run:
        """Start a command, and remember its processes."""
        run = start(arguments, self.log, **options)
        self.groups.add(run.pid)
        return run

    def reference(self, case: Case, place: Path | None = None) -> tuple[dict[str, str], float]:
        """Return what a command that nothing disturbs leaves, and its seconds."""
        command = self.begin(case, place)
        started = time.monotonic()
        run = self.start(command)
        if run.wait():
            raise SystemExit(f"{case.name}: {run.said}")
        return contents(*case.results(place or self.place)), time.monotonic() - started

    def counting(self, case: Case, then: Callable[[], None] | None = None) -> Callable[[], None]:
        """Return what makes a run count its work, which the next ones add to."""

        def before() -> None:
            if case.work is not None:
                module, name, _, size = case.work
                holder = importlib.import_module(module)
                owner, _, method = name.rpartition(".")
                kind = getattr(holder, owner)
                real = getattr(kind, method)

                @functools.wraps(real)
                def counted(*given: Any, **named: Any) -> Any:
                    self.done = self.done + size
                    return real(*given, **named)

                setattr(kind, method, counted)
            if then is not None:
                then()

        return before

    @property
    def done(self) -> int:
        """Units of work that runs have counted."""
        return int(struct.unpack("q", self._count[:8])[0])

    @done.setter
    def done(self, value: int) -> None:
        self._count[:8] = struct.pack("q", value)

    def sound(self, case: Case, wanted: dict[str, str], place: Path | None = None) -> list[str]:
        """Return what is wrong with what a disturbed command has left."""
        wrong = []
        for folder in case.results(place or self.place):
            if (folder / "samples.h5").exists():
                for command in ("ls", "verify"):
                    looked = finish([command, folder], self.log)
                    if looked.wait():
                        wrong.append(f"{command}: {looked.last}")
                tables = {
                    name: digest
                    for name, digest in contents(folder).items()
                    if name.endswith(".h5") and "/." not in name
                }
                wrong += [n for n, digest in tables.items() if wanted.get(n) != digest]
            if (folder / "run.json").exists():
                record = json.loads((folder / "run.json").read_text())
                for epoch, digest in record["weights"].items():
                    file = folder / "weights" / f"epoch-{int(epoch):04d}.safetensors"
                    if hashlib.sha256(file.read_bytes()).hexdigest() != digest:
                        wrong.append(f"{file} is not what run.json names")
        return wrong

    def ends(self, case: Case, wanted: dict[str, str], place: Path | None = None) -> str:
        """Run a command once more and say what came of it: ``equal``, or what is wrong."""
        run = self.start(case.arguments(place or self.place), before=self.counting(case))
        status = run.wait()
        found = contents(*case.results(place or self.place))
        had_finished = status == 2 and "holds a finished ensemble" in run.last
        if status and not had_finished:
            return f"exit {status}: {run.last}"
        if found != wanted:
            names = sorted(n for n in {*found, *wanted} if found.get(n) != wanted.get(n))
            return f"differs in {', '.join(names[:4])}"
        return "equal"

    def note(self, what: str, outcome: str) -> bool:
        """Say whether an outcome is as it should be; keep it otherwise."""
        if outcome != "equal":
            self.notes.append(f"{what}: {outcome}")
            print(f"  !! {what}: {outcome}", file=sys.stderr, flush=True)
        return outcome == "equal"

    def orphans(self) -> int:
        """Return how many processes are left of all runs, after the seconds that they may take."""
        deadline = time.monotonic() + 15
        while True:
            left = sum(group in self.groups and state != "Z" for _, group, state in processes())
            if not left or time.monotonic() > deadline:
                return left
            pause(0.1)


def kill(sweep: Sweep, name: str) -> list[Row]:
    """Kill a command at moments over all of its time, and at system calls."""
    case, rng = sweep.cases[name], random.Random(0)
    wanted, seconds = sweep.reference(case)
    sweep.done = 0
    sweep.begin(case)
    sweep.start(case.arguments(sweep.place), before=sweep.counting(case)).wait()
    whole, twice, kills, equal, again = sweep.done, 0, 0, 0, 0

    def judge(what: str, double: bool) -> None:
        nonlocal kills, equal, again, twice
        kills += 1
        if double:
            run = sweep.start(case.arguments(sweep.place), before=sweep.counting(case))
            pause(rng.random() * seconds)
            again += run.send(signal.SIGKILL)
            run.wait()
        wrong = sweep.sound(case, wanted)
        outcome = wrong[0] if wrong else sweep.ends(case, wanted)
        equal += sweep.note(f"{name} killed {what}", outcome)
        if not double:
            twice = max(twice, sweep.done - whole)

    moments = 2 if sweep.quick else 8
    for i in range(moments):
        command = sweep.begin(case)
        sweep.done = 0
        run = sweep.start(command, before=sweep.counting(case))
        pause((i + rng.random()) / moments * seconds)
        if run.send(signal.SIGKILL):
            run.wait()
            judge(f"at {i}/{moments} of its time", double=i % 4 == 3)
    by_time = kills
    if has_strace():
        sweep.begin(case)
        _, calls = traced(case.arguments(sweep.place), sweep.log)
        for i, call in enumerate(chosen_calls(calls, sweep.place, 1 if sweep.quick else 3)):
            command = sweep.begin(case)
            sweep.done = 0
            run = killed_at(command, sweep.log, call)
            sweep.groups.add(run.pid)
            if run.status == signal.SIGKILL:
                judge(f"at {call.line[:120]}", double=i % 5 == 4)
    repeated = "" if case.work is None else f"; at most {twice:,} of {whole:,} {case.work[2]} twice"
    how = f"{by_time} kill −9 over all of its time, {kills - by_time} at system calls"
    return [
        {
            "what": f"{name} killed",
            "how": f"{how} (write, fsync, rename, unlink, mkdir); {again} of them killed again",
            "count": kills + again,
            "outcome": f"{equal} of {kills}: the same command ends with the same bytes{repeated}",
            "met": equal == kills and not sweep.orphans(),
        }
    ]


def full_disk(sweep: Sweep, name: str) -> list[Row]:
    """Let the disk become full before the k-th change that a command makes on it."""
    case, tried, said, equal = sweep.cases[name], 0, 0, 0
    with small_disk(sweep.own / "disk", DISK_BYTES) as disk:
        if disk is None:
            return [row_of(f"{name}, disk full", "not tried: no disk can be mounted", 0, "—", None)]
        place = disk.folder / "place"
        wanted, _ = sweep.reference(case, place)
        total = _changes(sweep, case, place)
        moments = [0, 0, 0, *evenly(range(1, total + 1), 3 if sweep.quick else 6)]
        for i, number in enumerate(moments):
            command = sweep.begin(case, place)
            left = (0, 4096, 40_000)[i % 3]
            fill = functools.partial(disk.fill, left)
            if number:
                run = sweep.start(command, before=on_change(disk.folder, number, fill))
            else:
                fill()
                run = sweep.start(command)
            status = run.wait()
            disk.free()
            if not status:  # what was left to write had room
                continue
            tried += 1
            told = status == 1 and "free some space and run the same command again" in run.last
            told |= status == 1 and "choose another disk" in run.last
            said += told and run.last.startswith("featkit: ") and "Traceback" not in run.said
            if not told:
                sweep.note(f"{name} full at change {number}", f"exit {status}: {run.said[-300:]}")
            wrong = sweep.sound(case, wanted, place)
            outcome = wrong[0] if wrong else sweep.ends(case, wanted, place)
            equal += sweep.note(f"{name} full at change {number} of {total}, {left} left", outcome)
    return [
        {
            "what": f"{name}, disk full",
            "how": f"a disk in memory that is full, or becomes so before one of {total} changes",
            "count": tried,
            "outcome": f"{said} of {tried} say so and what to do, exit 1; with space again "
            f"{equal} of {tried} end with the same bytes",
            "met": said == equal == tried,
        }
    ]


def _changes(sweep: Sweep, case: Case, place: Path) -> int:
    """Count the changes that a command makes."""
    file = sweep.own / "changes"
    with file.open("wb") as out:
        descriptor = out.fileno()
        command = sweep.begin(case, place)

        def before() -> None:
            for number in range(1, 400):
                on_change(place.parent, number, lambda: os.write(descriptor, b"."))()

        sweep.start(command, before=before).wait()
    return file.stat().st_size


def steps(sweep: Sweep) -> dict[str, Callable[[], list[Row]]]:
    """Return all steps by name."""
    found: dict[str, Callable[[], list[Row]]] = {}
    for name in KILLED:
        found[f"kill {name}"] = functools.partial(kill, sweep, name)
    for name in FILLED:
        found[f"disk {name}"] = functools.partial(full_disk, sweep, name)
    for name, step in _OTHERS.items():
        found[name] = functools.partial(step, sweep)
    return found


def carry_out(sweep: Sweep, wanted: Sequence[str]) -> list[Row]:
    """Return what each step of these has told, of those that are not kept after running it."""
    every, told = steps(sweep), []
    for name in wanted:
        file = sweep.work / "steps" / f"{name.replace(' ', '-').replace('.', '')}.json"
        made_by = {"quick": sweep.quick}
        found = kept(file, made_by)
        if found is None:
            print(name, file=sys.stderr, flush=True)
            begun, sweep.notes = time.monotonic(), []
            rows = every[name]()
            found = {"rows": rows, "notes": sweep.notes, "seconds": time.monotonic() - begun}
            keep(file, made_by, found)
            for row in rows:
                cells = (str(row[part]) for part in ("what", "how", "count", "outcome"))
                print(" | ".join(cells), flush=True)
        told.append(found)
    return told


def _beside(work: Path, quick: bool, share: int, wanted: Sequence[str]) -> int:
    """Carry out steps in a process beside this one, and return its number."""
    sys.stdout.flush()
    process = os.fork()
    if not process:
        status = 1
        try:
            carry_out(Sweep(work, quick, share), wanted)
            status = 0
        except Exception:  # noqa: BLE001 - it is told, and this process ends
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(status)
    return process


def main() -> None:
    """Run the steps that are not kept yet, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, metavar="WORK", required=True, help="what is kept")
    parser.add_argument("--steps", default="", help="beginnings of their names, with commas; all")
    parser.add_argument("--quick", action="store_true", help="few moments each")
    parser.add_argument("--beside", type=int, default=2, help="processes that sweep")
    given = parser.parse_args()
    started = time.monotonic()
    work = given.work.resolve()
    (work / "steps").mkdir(parents=True, exist_ok=True)
    preload()
    prepare(work / "prepared")
    sweep = Sweep(work, given.quick)
    wanted = [name for name in steps(sweep) if name.startswith(tuple(given.steps.split(",")))]
    shares = [_beside(work, given.quick, n, wanted[n :: given.beside]) for n in range(given.beside)]
    if sum(os.waitpid(share, 0)[1] != 0 for share in shares):
        raise SystemExit("a step has failed: see above")
    told = carry_out(sweep, wanted)
    rows = [row for found in told for row in found["rows"]]
    seconds = sum(found["seconds"] for found in told)
    print(f"{seconds:.0f} s of steps, {time.monotonic() - started:.0f} s now", file=sys.stderr)
    if given.steps:
        return
    counts = Counter(row["met"] for row in rows)
    claim = {
        "what": "kinds of faults that end as they should",
        "measured": f"{counts[True]} of {counts[True] + counts[False]}",
        "target": "all",
        "met": not counts[False],
        "sized": f"{sum(row['count'] for row in rows):,} faults in {seconds / 60:.0f} minutes",
    }
    command_line = harness.command_line(parser, given)
    notes = [note for found in told for note in found["notes"]]
    harness.save("reliability", command_line, [claim], rows=rows, notes=notes)


if __name__ == "__main__":
    main()
