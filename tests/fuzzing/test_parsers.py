"""Some of the inputs of ``benchmarks/fuzz.py``: no parser breaks, and most come past its start."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, given, settings

from tests.fuzzing.flips import SUBJECTS, cases
from tests.fuzzing.server import Server, is_finding
from tests.fuzzing.target import Case, Target
from tests.fuzzing.targets import TARGETS
from tests.fuzzing.traps import SEEN, SEEN_BY_TIMES

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the server forks")

INPUTS = 40
FLIPS = 12
SUBJECT = {subject.name: subject for subject in SUBJECTS}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server([*TARGETS])
    yield server
    server.close()


def check(server: Server, target: Target) -> Counter[str]:
    """Read some inputs; what the smallest does that is wrong fails the test."""
    outcomes: Counter[str] = Counter()

    @settings(
        max_examples=INPUTS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(target.cases(server.folder(target.name)))
    def read(case: Case) -> None:
        report = server.read(target.name, case, starts=True)
        outcomes[report["outcome"]] += 1
        outcomes["starts"] += bool(report.get("starts"))
        found = is_finding(report, target.megabytes)
        assert not found, f"{target.name}: {found}: {report.get('message')}"

    read()
    return outcomes


def test_no_parser_breaks(server: Server) -> None:
    """One test, so that one process of a run in parallel starts the server."""
    for target in TARGETS.values():
        outcomes = check(server, target)
        assert outcomes["starts"] >= INPUTS // 4, (target.name, outcomes)
        assert outcomes["accepted"] + outcomes["refused"] >= INPUTS - 10, (target.name, outcomes)


def test_a_lost_bit_is_said_or_changes_nothing(server: Server) -> None:
    for name in (
        "store: samples.h5", "store: plan.json", "run: run.json", "run: weights",
        "run: state.safetensors", "ensemble: model.json", "ensemble: model.safetensors",
        "ensemble: members.json", "ensemble: state.safetensors",
    ):  # fmt: skip
        subject = SUBJECT[name]
        folder = server.folder(subject.reader.name)
        file = subject.file(folder)
        whole = (folder / file).read_bytes()
        sound = server.read(subject.reader.name, Case({file: whole}, subject.words))
        assert sound["outcome"] == "accepted"
        for case in cases(whole, file, subject, FLIPS, 0):
            report = server.read(subject.reader.name, case)
            assert report["outcome"] in ("accepted", "refused"), (name, report)
            assert report["outcome"] == "refused" or report["answer"] == sound["answer"], name


def test_the_watch_sees_what_it_is_there_for(server: Server) -> None:
    for trap, said in SEEN.items():
        report = server.read("traps", Case(words=(trap,)))
        assert is_finding(report, 500).startswith(said)
        assert not is_finding(server.read("traps", Case()), 500)


def test_the_watch_sees_what_is_slow_or_hangs(server: Server) -> None:
    report = server.read("traps", Case(words=("slow",)))
    assert is_finding(report, 500, slow=0.4).startswith("slow: 0.")
    assert not is_finding(report, 500)
    assert is_finding(server.read("traps", Case(words=("hang",)), seconds=1), 500) == "hangs"
    assert not is_finding(server.read("traps", Case()), 500)


def test_the_watch_sees_what_hdf5_reads(server: Server) -> None:
    place = server.folder("traps").parent / "outside" / "raw"
    os.utime(place, (1, 2))
    place.read_bytes()
    if place.stat().st_atime == 1:
        pytest.skip(f"{place}: this disk keeps no time of reading, so nothing watches HDF5 here")
    for trap, said in SEEN_BY_TIMES.items():
        assert is_finding(server.read("traps", Case(words=(trap,))), 500) == said
        assert not is_finding(server.read("traps", Case()), 500)
