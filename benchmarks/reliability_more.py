"""Faults beside kills and full disks: writers, clocks, signals, deaths, power cuts."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks.faults import (
    Call,
    contents,
    has_strace,
    on_change,
    pause,
    small_disk,
    start,
    traced,
)
from benchmarks.jobs import Row
from benchmarks.reliability_cases import NET, Case, extraction

if TYPE_CHECKING:
    from benchmarks.reliability import Sweep

WRITING = ("extract", "ensemble-fit", "train simclr", "train treenet", "train deepcluster")
"""Commands that go on where they were."""


def _row(what: str, how: str, count: int, outcome: str, met: bool | None) -> Row:
    return {"what": what, "how": how, "count": count, "outcome": outcome, "met": met}


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
            return [_row("read-only store", "not tried: no disk can be mounted", 0, "—", None)]
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
    return _row("read-only store", how, len(reads) + len(writes), outcome, met)


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
    return _row(
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
    return [_row("lock of a killed writer", how, trials, outcome, free == trials and not left)]


_STOPPED = "featkit: stopped; the same command "


def signals(sweep: Sweep) -> list[Row]:
    """Stop every long command by Ctrl-C, which reaches its processes too, and by SIGTERM."""
    rows = []
    names = [name for name in sweep.cases if name != "export .npz"]
    for number, status, moments in (
        (signal.SIGINT, 130, (0.05, 0.4, 0.9)),
        (signal.SIGTERM, 143, (0.5,)),
    ):
        stopped, clean, equal = 0, 0, 0
        for name in names:
            case = sweep.cases[name]
            wanted, seconds = sweep.reference(case)
            for moment in moments[:1] if sweep.quick else moments:
                run = sweep.start(sweep.begin(case))
                pause(moment * seconds)
                if not run.send(number, everyone=number == signal.SIGINT) or run.wait() == 0:
                    continue
                stopped += 1
                found = run.wait()
                line = _STOPPED + ("goes on from here" if case.goes_on else "begins again")
                is_clean = found == status and run.last == line and "Traceback" not in run.said
                clean += is_clean
                what = f"{name} {number.name} at {moment:g}"
                if not is_clean:
                    sweep.note(what, f"exit {found}: {run.said[-600:]}")
                equal += sweep.note(what, sweep.ends(case, wanted))
        left = sweep.orphans()
        to = "to all of its processes" if number == signal.SIGINT else "to the main process"
        outcome = f"{clean} of {stopped} exit {status} with one line that says whether the same "
        outcome += f"command goes on, which then leaves the same bytes ({equal} of {stopped}); "
        outcome += f"{left} processes are left"
        met = clean == equal == stopped and not left
        how = f"{to}, while {len(names)} commands begin, work and finish"
        rows.append(_row(f"{number.name}", how, stopped, outcome, met))
    return [*rows, _while_importing(sweep)]


def _while_importing(sweep: Sweep) -> Row:
    """Press Ctrl-C from the first moment of a process on."""
    case = sweep.cases["extract"]
    command = [sys.executable, "-m", "featkit_cli", *map(str, sweep.begin(case))]
    started = time.monotonic()
    subprocess.run(command, capture_output=True)
    seconds = 0.7 * (time.monotonic() - started)
    stopped, clean, early = 0, 0, 0
    trials = 4 if sweep.quick else 16
    for i in range(trials):
        sweep.begin(case)
        run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        pause(seconds * ((i + 0.5) / trials) ** 2)
        run.send_signal(signal.SIGINT)
        said, _ = run.communicate(timeout=300)
        stopped += run.returncode != 0
        is_clean = run.returncode == 130 and said.strip().split(";")[0] == "featkit: stopped"
        clean += is_clean
        if not is_clean and run.returncode:
            early += "featkit_cli" not in said
            sweep.notes.append(f"Ctrl-C while importing: exit {run.returncode}: {said[-300:]}")
    outcome = f"{clean} of {stopped} exit 130 with one line"
    if early:
        outcome += f"; in {early} Python itself was still starting and says so in its own way"
    how = "a new process of extract, most often in its first tenths of a second"
    return _row("SIGINT while importing", how, stopped, outcome, clean + early == stopped)


def deaths(sweep: Sweep) -> list[Row]:
    """Kill a decoding process."""
    told, went_on, equal, trials = 0, 0, 0, 0
    moments = (0.2,) if sweep.quick else (0.0, 0.1, 0.3, 0.6)
    names = ("extract", "train simclr", "dissect", "saliency")
    for name in names:
        case = sweep.cases[name]
        wanted, seconds = sweep.reference(case)
        for moment in moments:
            command = [*sweep.begin(case), "--workers", 2]
            run = sweep.start(command)
            while not run.children and not run.over:
                pause(0.001)
            pause(moment * 0.5 * seconds)
            children = run.children
            if not children:
                run.wait()
                continue
            os.kill(children[0], signal.SIGKILL)
            trials += 1
            try:
                status = run.wait()
            except TimeoutError as error:
                sweep.note(f"{name}: a decoding process killed", str(error))
                continue
            is_told = status == 1 and "featkit: a decoding process was killed" in run.last
            told += is_told
            went_on += status == 0
            if status and not is_told:
                sweep.note(f"{name}: decoding killed", f"exit {status}: {run.said[-600:]}")
            equal += sweep.note(f"{name}: after a decoding process", sweep.ends(case, wanted))
    how = f"kill −9 of one of two decoding processes of {', '.join(names)}"
    outcome = f"{told} end and say so, {went_on} had all images already, none hangs; the same "
    outcome += f"command then leaves the same bytes ({equal} of {trials})"
    met = told + went_on == equal == trials
    return [_row("decoding process killed", how, trials, outcome, met)]


def several(sweep: Sweep) -> list[Row]:
    """Kill one of two processes that share an extraction."""
    case = sweep.cases["extract"]
    wanted, seconds = sweep.reference(case)
    told = equal = trials = 0
    for moment in (0.1,) if sweep.quick else (0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8):
        run = sweep.start([*sweep.begin(case), "--devices", 2])
        found = Path(f"/proc/{run.pid}/task/{run.pid}/children")
        while not run.over and len(list((sweep.place / "store").glob(".partial/*/plan.json"))) < 2:
            pause(0.005)
        pause(moment * seconds)
        ranks = [int(pid) for pid in found.read_text().split()] if not run.over else []
        if len(ranks) < 2:
            run.wait()
            continue
        os.kill(ranks[trials % 2], signal.SIGKILL)
        trials += 1
        status = run.wait()
        is_told = status == 1 and "of 2 was ended by SIGKILL" in run.last
        told += is_told
        if not is_told:
            sweep.note("several: one killed", f"exit {status}: {run.said[-600:]}")
        equal += sweep.note("several: after one was killed", sweep.ends(case, wanted))
    how = "kill −9 of one of two processes of extract --devices 2, the first and the second in turn"
    outcome = f"{told} end and say so; one process goes on to the same bytes ({equal} of {trials})"
    return [_row("one of several processes killed", how, trials, outcome, told == equal == trials)]


_PATHS = re.compile(r'"([^"]+)"')
_DESCRIPTOR = re.compile(r"\(\d+<([^>]+)>")


def power_cuts(sweep: Sweep) -> list[Row]:
    """Look at the order of the system calls that a power cut must not undo."""
    if not has_strace():
        return [_row("power cut", "not tried: there is no strace", 0, "—", None)]
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
    return [_row("power cut", how, renames, outcome, not wrong)]


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
        return [_row("clock jumps", "not tried: there is no libfaketime", 0, "—", None)]
    told = sweep.own / "clock"
    if "FAKETIME_TIMESTAMP_FILE" not in os.environ:
        told.write_text("+0")
        result = sweep.own / "clock.json"
        faked = {
            "LD_PRELOAD": library[0], "FAKETIME_TIMESTAMP_FILE": str(told),
            "FAKETIME_NO_CACHE": "1",
            "NO_FAKE_STAT": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1", "DONT_FAKE_MONOTONIC": "1",
        }  # fmt: skip
        code = (
            "import json, sys; from pathlib import Path\n"
            "from benchmarks.faults import preload; from benchmarks.reliability import Sweep\n"
            "from benchmarks.reliability_more import clock\n"
            "preload(); sweep = Sweep(Path(sys.argv[1]), sys.argv[2] == 'True', int(sys.argv[4]))\n"
            "rows = clock(sweep)\n"
            "Path(sys.argv[3]).write_text(json.dumps([rows, sweep.notes]))\n"
        )
        given = [str(sweep.work), str(sweep.quick), str(result), str(sweep.share)]
        subprocess.run([sys.executable, "-c", code, *given], env=os.environ | faked, check=True)
        rows, notes = json.loads(result.read_text())
        sweep.notes += notes
        return list(rows)
    return [_jumps(sweep, told), _edits(sweep, told)]


def _jumps(sweep: Sweep, told: Path) -> Row:
    trials, equal = 0, 0
    for name in ("extract", "ensemble-fit", "train simclr"):
        case = sweep.cases[name]
        wanted, seconds = sweep.reference(case)
        for first, second in (CLOCKS, CLOCKS[::-1]):
            told.write_text(first)
            run = sweep.start(sweep.begin(case))
            pause(0.5 * seconds)
            run.send(signal.SIGKILL)
            run.wait()
            told.write_text(second)
            trials += 1
            wrong = sweep.sound(case, wanted)
            outcome = wrong[0] if wrong else sweep.ends(case, wanted)
            equal += sweep.note(f"{name}, clock {first} then {second}", outcome)
        for number in (3, 10):
            told.write_text(CLOCKS[1])
            command = sweep.begin(case)
            before = on_change(sweep.place, number, lambda: _set(told, CLOCKS[0]))
            sweep.start(command, before=before).wait()
            trials += 1
            found = contents(*case.results(sweep.place))
            outcome = "equal" if found == wanted else "differs"
            equal += sweep.note(f"{name}, clock set back at change {number}", outcome)
    told.write_text("+0")
    how = "ten years forward or back: between a kill and the next run, and within a run"
    return _row(
        "clock jumps", how, trials, f"{equal} of {trials} end with the same bytes", equal == trials
    )


def _set(told: Path, value: str) -> None:
    with told.open("w") as file:
        file.write(value)


def _edits(sweep: Sweep, told: Path) -> Row:
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
            told.write_text(clocks[0])
            command = extraction(place / "few", place / "store")
            sweep.start(command).wait()
            before, content = photo.stat(), bytearray(photo.read_bytes())
            told.write_text(clocks[1])
            content[-20] ^= 1
            photo.write_bytes(content)
            os.utime(photo, ns=(before.st_atime_ns, before.st_mtime_ns))
            run = sweep.start(command)
            trials += 1
            is_seen = run.wait() == 1 and "the content of lying/003.png has changed" in run.last
            what = f"an image changed, clock {clocks}"
            seen += sweep.note(what, "equal" if is_seen else f"exit {run.wait()}: {run.last}")
    told.write_text("+0")
    how = "an image changed, its size and time of modification as before, under clocks that jump"
    return _row(
        "image edited unseen", how, trials, f"{seen} of {trials} are found out", seen == trials
    )


STEPS: dict[str, Callable[[Any], list[Row]]] = {
    "read-only": read_only,
    "writers": writers,
    "killed writer": killed_writer,
    "clock": clock,
    "signals": signals,
    "deaths": deaths,
    "several": several,
    "power": power_cuts,
}
