"""Power cuts, which undo what is not synced, and clocks that jump."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.faults import contents, on_change, pause
from benchmarks.jobs import Row
from benchmarks.reliability_cases import WRITING, extraction, row_of
from benchmarks.system_calls import Call, has_strace, traced

if TYPE_CHECKING:
    from benchmarks.reliability import Sweep

_PATHS = re.compile(r'"([^"]+)"')
_DESCRIPTOR = re.compile(r"\(\d+<([^>]+)>")


def power_cuts(sweep: Sweep) -> list[Row]:
    """Look at the order of the system calls that a power cut must not undo."""
    if not has_strace():
        return [row_of("power cut", "not tried: there is no strace", 0, "—", None)]
    renames, wrong = 0, 0
    names = (*WRITING, "ensemble-transform", "knn", "dissect", "export .h5", "export .npz")
    for name in names:
        case = sweep.cases[name]
        command = sweep.begin(case)
        run, calls = traced(command, sweep.log)
        if run.wait():
            raise SystemExit(run.said)
        count, found = unsafe(calls, str(sweep.place))
        renames += count
        wrong += len(found)
        for line in found:
            sweep.note(f"{name}: power cut", line)
    how = f"order of write, fsync, rename, unlink and mkdir in {len(names)} commands"
    outcome = f"{renames - wrong} of {renames} files were on the disk before they had their names, "
    outcome += "and the names before anything was deleted and before the command ended"
    return [row_of("power cut", how, renames, outcome, not wrong)]


def unsafe(calls: Sequence[Call], place: str) -> tuple[int, list[str]]:
    """Return how many files appear by rename, and what a power cut could undo.

    Bytes must be synced before the rename that gives them their name; the folder that has the
    name, before something is deleted, and before the end.
    """
    written: set[str] = set()
    unsynced: dict[str, str] = {}
    count, wrong = 0, []
    for call in calls:
        if place not in call.line or call.line.endswith(
            ("ENOENT", "EEXIST", "directory)", "exists)")
        ):
            continue
        descriptor, paths = _DESCRIPTOR.search(call.line), _PATHS.findall(call.line)
        if call.name in ("write", "pwrite64", "ftruncate") and descriptor:
            written.add(descriptor[1])
        elif call.name in ("fsync", "fdatasync") and descriptor:
            written.discard(descriptor[1])
            unsynced.pop(descriptor[1], None)
        elif call.name.startswith("mkdir") and paths and not paths[-1].endswith(".tmp.d"):
            unsynced[str(Path(paths[-1]).parent)] = call.line
        elif call.name.startswith("rename") and len(paths) > 1:
            source, target = paths[-2:]
            if target.endswith((".tmp", ".dropped")):
                continue
            count += 1
            if source in written:
                wrong.append(f"not synced before {call.line}")
            unsynced[str(Path(target).parent)] = call.line
        elif call.name.startswith(("unlink", "rmdir")) and unsynced:
            wrong += [f"not synced before a deletion: {line}" for line in unsynced.values()]
            unsynced = {}
    return count, wrong + [f"never synced: {line}" for line in unsynced.values()]


CLOCKS = ("-3650d", "+3650d")


def clock(sweep: Sweep) -> list[Row]:
    """Set the clock between and within runs, in processes that libfaketime tells the time."""
    library = [str(path) for path in Path("/usr/lib").glob("*/faketime/libfaketime.so.1")]
    if not library:
        return [row_of("clock jumps", "not tried: there is no libfaketime", 0, "—", None)]
    now = sweep.own / "clock"
    if "FAKETIME_TIMESTAMP_FILE" not in os.environ:
        now.write_text("+0")
        result = sweep.own / "clock.json"
        faked = {
            "LD_PRELOAD": library[0], "FAKETIME_TIMESTAMP_FILE": str(now),
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        code = (
            "import json, sys; from pathlib import Path\n"
            "from benchmarks.faults import preload; from benchmarks.reliability import Sweep\n"
            "from benchmarks.reliability_order import clock\n"
            "preload(); sweep = Sweep(Path(sys.argv[1]), sys.argv[2] == 'True', int(sys.argv[4]))\n"
            "rows = clock(sweep)\n"
            "Path(sys.argv[3]).write_text(json.dumps([rows, sweep.notes]))\n"
        )
        given = [str(sweep.work), str(sweep.quick), str(result), str(sweep.share)]
        subprocess.run([sys.executable, "-c", code, *given], env=os.environ | faked, check=True)
        rows, notes = json.loads(result.read_text())
        sweep.notes += notes
        return list(rows)
    return [_jumps(sweep, now), _edits(sweep, now)]


def _jumps(sweep: Sweep, now: Path) -> Row:
    trials, equal = 0, 0
    for name in ("extract", "ensemble-fit", "train simclr"):
        case = sweep.cases[name]
        wanted, seconds = sweep.reference(case)
        for first, second in (CLOCKS, CLOCKS[::-1]):
            now.write_text(first)
            run = sweep.start(sweep.begin(case))
            pause(0.5 * seconds)
            run.send(signal.SIGKILL)
            run.wait()
            now.write_text(second)
            trials += 1
            wrong = sweep.sound(case, wanted)
            outcome = wrong[0] if wrong else sweep.ends(case, wanted)
            equal += sweep.note(f"{name}, clock {first} then {second}", outcome)
        for number in (3, 10):
            now.write_text(CLOCKS[1])
            command = sweep.begin(case)
            before = on_change(sweep.place, number, lambda: _set(now, CLOCKS[0]))
            sweep.start(command, before=before).wait()
            trials += 1
            found = contents(*case.results(sweep.place))
            outcome = "equal" if found == wanted else "differs"
            equal += sweep.note(f"{name}, clock set back at change {number}", outcome)
    now.write_text("+0")
    how = "ten years forward or back: between a kill and the next run, and within a run"
    return row_of(
        "clock jumps", how, trials, f"{equal} of {trials} end with the same bytes", equal == trials
    )


def _set(now: Path, value: str) -> None:
    with now.open("w") as file:
        file.write(value)


def _edits(sweep: Sweep, now: Path) -> Row:
    """Change an image so that its size and its time of modification stay, under any clock."""
    place, trials, seen = sweep.place, 0, 0
    case = sweep.cases["extract"]
    for clocks in (("+0", "+0"), CLOCKS, CLOCKS[::-1]):
        for is_at_once in (True, False):
            sweep.begin(case)
            shutil.copytree(sweep.prepared / "few", place / "few")
            photo = place / "few" / "lying" / "003.png"
            if not is_at_once:
                pause(2.5)  # beyond what counts as just written
            now.write_text(clocks[0])
            command = extraction(place / "few", place / "store")
            sweep.start(command).wait()
            before, content = photo.stat(), bytearray(photo.read_bytes())
            now.write_text(clocks[1])
            content[-20] ^= 1
            photo.write_bytes(content)
            os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))
            run = sweep.start(command)
            trials += 1
            is_seen = run.wait() == 1 and "the content of lying/003.png has changed" in run.last
            what = f"an image changed, clock {clocks}"
            seen += sweep.note(what, "equal" if is_seen else f"exit {run.wait()}: {run.last}")
    now.write_text("+0")
    how = "an image changed, its size and time of modification as before, under clocks that jump"
    return row_of(
        "image edited unseen", how, trials, f"{seen} of {trials} are found out", seen == trials
    )
