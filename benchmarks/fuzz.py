"""How every parser takes inputs that were valid, and how files take a disk that loses a bit.

    python -m benchmarks.fuzz [--inputs 1000] [--flips 300] [--seed 0] [--processes 2] [--only NAME]

Inputs are made by hypothesis from valid ones (tests/fuzzing) and read in child processes, with an
audit hook, a limit of memory and a limit of time. Lines are those in the bodies of the functions of
the modules that a parser is made of.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing.util import Finalize
from typing import Any

import h5py
import hypothesis
from hypothesis import HealthCheck, Phase, given, settings

from benchmarks.harness import command_line, save
from tests.fuzzing.flips import READERS, SUBJECTS, Subject, cases
from tests.fuzzing.lines import share
from tests.fuzzing.server import SLOW, Server, is_finding
from tests.fuzzing.target import Case
from tests.fuzzing.targets import TARGETS


def fuzz(server: Server, name: str, inputs: int, seed: int) -> dict[str, Any]:
    """Give a parser its inputs, and return what became of them."""
    target = TARGETS[name]
    outcomes: Counter[str] = Counter()
    findings: dict[str, Any] = {}
    seconds, megabytes, lines = [0.0], [0.0], set[tuple[str, int]]()

    @hypothesis.seed(seed)
    @settings(
        max_examples=inputs,
        deadline=None,
        database=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases(server.folder(target.name)))
    def read(case: Any) -> None:
        report = server.read(target.name, case, starts=True)
        outcomes[report["outcome"]] += 1
        outcomes["past the first check"] += bool(report.get("starts"))
        seconds.append(report.get("seconds", 0.0))
        megabytes.append(report.get("megabytes", 0.0))
        lines.update((file, line) for file, line in report.get("lines", ()))
        if found := is_finding(report, target.megabytes):
            shown = case.shown()
            if found not in findings or len(json.dumps(shown)) < len(json.dumps(findings[found])):
                findings[found] = shown

    begun = time.monotonic()
    read()
    hit, there = share(target, lines)
    count = sum(n for name, n in outcomes.items() if name != "past the first check")
    row = {
        "what": target.name,
        "how": f"{target.kind}: valid ones changed, in a child with an audit hook",
        "count": count,
        "outcome": f"{len(findings)} findings",
        "past_first_check": outcomes["past the first check"] / count,
        "accepted": outcomes["accepted"],
        "refused": outcomes["refused"],
        "findings": len(findings),
        "lines": hit,
        "of_lines": there,
        "slowest_seconds": max(seconds),
        "most_megabytes": max(megabytes),
        "limit_megabytes": target.megabytes,
        "examples": findings,
    }
    print(f"{target.name}: {row} in {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
    return row


def flip(server: Server, name: str, each: int, seed: int) -> dict[str, Any]:
    """Damage a file in many ways, and return what reading and verifying it say."""
    subject = next(subject for subject in SUBJECTS if subject.name == name)
    folder = server.folder(subject.reader.name)
    file = subject.file(folder)
    whole = (folder / file).read_bytes()
    sound = server.read(subject.reader.name, _whole(subject, file, whole))
    assert sound["outcome"] == "accepted", sound
    outcomes: Counter[str] = Counter()
    for case in cases(whole, file, subject, each, seed):
        report = server.read(subject.reader.name, case)
        outcome = report["outcome"]
        if outcome == "accepted":
            outcome = "harmless" if report["answer"] == sound["answer"] else "silent"
        outcomes[outcome] += 1
        if subject.verifier is not None:
            server.folder(subject.verifier.name)
            said = server.read(subject.verifier.name, case)
            problems = said["outcome"] == "refused" or any(p for _, p in json.loads(said["answer"]))
            outcomes["verified"] += problems
            outcomes["verifier fails"] += said["outcome"] not in ("accepted", "refused")
            outcomes["silent, not verified"] += outcome == "silent" and not problems
    bad = sum(outcomes[name] for name in ("crashes", "hangs", "raises", "unreadable"))
    count = sum(outcomes[name] for name in ("refused", "harmless", "silent")) + bad
    told = f"{outcomes['refused']} refused, {outcomes['harmless']} harmless"
    told += f", {outcomes['silent']} other answers" + f", {bad} crashes" * bool(bad)
    if subject.verifier is not None:
        told += f"; verify finds {outcomes['verified']}"
    row = {
        "what": subject.name,
        "how": f"{each} bits, {each // 3} bytes flipped, {each // 6} files cut; times as before",
        "count": count,
        "outcome": told,
        "refused": outcomes["refused"],
        "harmless": outcomes["harmless"],
        "silent": outcomes["silent"],
        "crashes": bad,
        "verified": outcomes["verified"] if subject.verifier is not None else None,
        "silent_not_verified": outcomes["silent, not verified"] if subject.verifier else None,
        "verifier_fails": outcomes["verifier fails"],
    }
    print(f"{subject.name}: {told}", file=sys.stderr, flush=True)
    return row


def _whole(subject: Subject, file: str, data: bytes) -> Case:
    return Case({file: data}, subject.words)


_servers: list[Server] = []


def _start() -> None:
    """Start the server of one of the processes, which ends with it."""
    _servers.append(Server([*TARGETS, *READERS], lines=True))
    Finalize(None, _servers[0].close, exitpriority=1)  # such processes run no atexit


def _do(job: tuple[Callable[..., dict[str, Any]], str, int, int]) -> dict[str, Any]:
    what, *rest = job
    return what(_servers[0], *rest)


def _claims(parsers: list[dict[str, Any]], flips: list[dict[str, Any]]) -> list[dict[str, Any]]:
    claims = [
        {
            "what": f"{row['what']}: inputs that were valid and were changed",
            "measured": f"{row['findings']} findings; {row['accepted']} accepted, "
            f"{row['refused']} refused; {row['past_first_check']:.0%} past the first check; "
            f"{row['lines']} of {row['of_lines']} lines; at most {row['slowest_seconds']:.1f} s, "
            f"{row['most_megabytes']:.0f} MB",
            "target": f"no finding, half past the first check, {SLOW} s, "
            f"{row['limit_megabytes']} MB",
            "met": not row["findings"] and row["past_first_check"] >= 0.5,
            "sized": f"{row['count']} inputs",
        }
        for row in parsers
    ]
    for row in flips:
        asks = row["verified"] is not None
        unsaid = row["silent_not_verified"] if asks else row["silent"]
        claims.append(
            {
                "what": f"{row['what']}: bits, bytes and ends lost",
                "measured": row["outcome"],
                "target": "no crash, no other answer that "
                + ("verify misses" if asks else "stays unsaid"),
                "met": not row["crashes"] and not unsaid and not row["verifier_fails"],
                "sized": f"{row['count']} damaged files",
            }
        )
    return claims


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="of each parser")
    parser.add_argument("--flips", type=int, default=300, help="of single bits in each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2, help="that read at once")
    parser.add_argument("--only", action="append", help="parser or file; nothing is saved")
    arguments = parser.parse_args()
    only = arguments.only
    targets = [target for target in TARGETS.values() if not only or target.name in only]
    subjects = [subject for subject in SUBJECTS if not only or subject.name in only]
    begun = time.monotonic()
    jobs = [(fuzz, target.name, arguments.inputs, arguments.seed) for target in targets]
    jobs += [(flip, subject.name, arguments.flips, arguments.seed) for subject in subjects]
    with ProcessPoolExecutor(arguments.processes, initializer=_start) as pool:
        rows = list(pool.map(_do, jobs))
    parsers, flips = rows[: len(targets)], rows[len(targets) :]
    claims = _claims(parsers, flips)
    if only:
        print(json.dumps(claims, indent=1))
        return
    libraries = ("hypothesis", "pillow", "safetensors", "click", "scipy")
    save(
        "fuzz",
        command_line(parser, arguments),
        claims,
        rows=rows,
        hdf5=h5py.version.hdf5_version,
        libraries={name: importlib.metadata.version(name) for name in libraries},
        seed=arguments.seed,
        minutes=(time.monotonic() - begun) / 60,
    )


if __name__ == "__main__":
    main()
