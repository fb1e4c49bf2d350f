"""Progress in processes of its own: on a terminal, in a log, and silent."""

from __future__ import annotations

import re
import subprocess
import sys
import time

from tests.terminal import on_terminal

LINE = r"hash: (\d+)/400 img \((\d+)%\), +[\d.]+img/s, (?:\d\d:\d\d left|in \d\d:\d\d)(, loss=0.5)?"


def work(body: str, interval: float = 0.2, given: str = "400, 'hash', 'img'") -> list[str]:
    """Return a command that does something with a bar; a log has a line every few tenths."""
    code = (
        "import sys, time\n"
        "from featkit import progress\n"
        f"progress.INTERVAL = {interval}\n"
        f"with progress.progress_bar({given}) as bar:\n    {body}\n"
        "print('done')"
    )
    return [sys.executable, "-c", code]


SLOW = "for _ in range(40): time.sleep(0.02); bar.set_postfix(loss=0.5); bar.update(10)"


def log_of(command: list[str]) -> list[str]:
    done = subprocess.run(command, capture_output=True, check=True)
    assert done.stdout == b"done\n"
    said = done.stderr.decode()
    assert all(c.isprintable() or c == "\n" for c in said), said
    return said.splitlines()


def test_a_log_has_a_line_now_and_then_and_one_at_the_end() -> None:
    started = time.perf_counter()
    lines = log_of(work(SLOW))
    most = (time.perf_counter() - started) / 0.2 + 1
    found = [re.fullmatch(LINE, line) for line in lines]
    assert all(found), lines
    assert 3 <= len(lines) <= most  # of 40 updates and 40 postfixes in 0.8 s or more
    counts = [int(match[1]) for match in found if match]
    assert counts == sorted(set(counts[:-1])) + counts[-1:]
    assert [int(match[2]) for match in found if match] == [round(count / 4) for count in counts]
    assert counts[-1] == 400
    assert " left" in lines[0]
    assert " in 00:0" in lines[-1]


def test_what_is_quick_says_nothing() -> None:
    assert log_of(work("bar.update(400)", interval=30)) == []


def test_one_long_step_is_told_at_its_end() -> None:
    (line,) = log_of(work("time.sleep(0.3); bar.n = 400"))
    assert re.fullmatch(LINE, line)


def test_others_can_count() -> None:
    lines = log_of(work("bar.n = 200; time.sleep(0.3); bar.refresh(); bar.n = bar.total"))
    assert [re.match(LINE, line)[2] for line in lines] == ["50", "100"]  # type: ignore[index]


def test_a_failure_ends_with_how_far_it_came() -> None:
    command = work("time.sleep(0.3); bar.update(100); raise SystemExit('no')")
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.stderr.splitlines()[-2:][0].startswith("hash: 100/400 img (25%)")
    assert done.stderr.endswith("\nno\n")


def test_bytes_a_total_that_is_not_known_and_a_hostile_name() -> None:
    lines = log_of(
        work("time.sleep(0.3); bar.update(2_500_000)", given=r"None, 'a\r\x1b[2Jb', 'B'")
    )
    assert re.fullmatch(r"a \[2Jb: 2\.50M B, +[\d.]+MB/s, in 00:0\d", lines[-1]), lines
    lines = log_of(work("time.sleep(0.3); bar.update(2_000)", given="4_000, 'net.pth', 'B'"))
    assert lines[-1].startswith("net.pth: 2.00k/4.00k B (50%), ")


def test_silent() -> None:
    assert log_of(work(SLOW, given="400, 'hash', 'img', show=False")) == []


def test_a_terminal_has_a_bar() -> None:
    with on_terminal(work(SLOW), stdout=subprocess.DEVNULL) as process:
        said = process.read_to_end()
    frames = said.split("\r")
    assert len(frames) > 5
    assert re.search(r"hash: 100%\|█+\| 400/400 \[00:0\d<00:00, .*img/s, loss=0\.5\]", frames[-2])


def clocked(body: str, interval: float, patience: float) -> list[str]:
    """Return a command that does something beside a clock."""
    code = (
        "import sys, time\n"
        "from featkit import progress\n"
        f"progress.INTERVAL, progress.PATIENCE = {interval}, {patience}\n"
        f"with progress.clock('knn\\x1b[2J'):\n    {body}\n"
        "print('done')"
    )
    return [sys.executable, "-c", code]


def test_what_nobody_counts_has_a_line_now_and_then() -> None:
    lines = log_of(clocked("time.sleep(1)", 0.3, 9))
    assert len(lines) >= 2
    assert all(re.fullmatch(r"knn \[2J: at work for 00:0\d", line) for line in lines), lines
    assert log_of(clocked("time.sleep(0.3)", 9, 0.1)) == []


def test_a_terminal_has_a_clock_that_goes_away() -> None:
    with on_terminal(clocked("time.sleep(1)", 9, 0.3), stdout=subprocess.DEVNULL) as process:
        said = process.read_to_end()
    assert re.fullmatch(r"(\rknn \[2J: at work for 00:0\d\x1b\[K){2,}\r\x1b\[K", said), said
    with on_terminal(clocked("pass", 9, 9), stdout=subprocess.DEVNULL) as process:
        assert process.read_to_end() == ""


def test_an_error_comes_after_the_clock() -> None:
    command = clocked("time.sleep(0.5); raise SystemExit('no')", 9, 0.2)
    with on_terminal(command, stdout=subprocess.DEVNULL) as process:
        assert process.read_to_end().endswith("\r\x1b[Kno\r\n")
