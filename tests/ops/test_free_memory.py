"""What is free is asked of real limits, in processes that have them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from featkit.ops.free_memory import free_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits are Linux'")

ASK = "from featkit.ops.free_memory import free_memory; print(free_memory())"
GROUPS = Path("/sys/fs/cgroup")


def asked(*before: str) -> int:
    """Return what a process finds free after some lines of shell."""
    line = "; ".join([*before, f"exec {sys.executable} -c '{ASK}'"])
    told = subprocess.run(["bash", "-ec", line], capture_output=True, text=True, check=True)
    return int(told.stdout)


@pytest.fixture
def group() -> Iterator[Path]:
    """A control group of our own, where this user may make one."""
    root = GROUPS / "memory" if (GROUPS / "memory").is_dir() else GROUPS
    folder = root / f"featkit-test-{os.getpid()}"
    try:
        folder.mkdir()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    names = ("memory.max", "memory.limit_in_bytes")
    try:
        limits = [folder / name for name in names if (folder / name).exists()]
        if not limits:
            pytest.skip("the control group has no limit on memory")
        yield limits[0]
    finally:
        folder.rmdir()


def test_without_a_limit_it_is_what_the_machine_has() -> None:
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    assert 0 < free_memory() <= total


@pytest.mark.parametrize("option", ["-d", "-v"])
def test_a_limit_of_the_process_leaves_less(option: str) -> None:
    few, more = (asked(f"ulimit {option} {kb}") for kb in (3_000_000, 4_000_000))
    assert 0 < few < 3_000_000 * 1024
    assert more - few == pytest.approx(1_000_000 * 1024, abs=2**26)


def test_a_limit_of_the_control_group_leaves_less(group: Path) -> None:
    group.write_text(str(2**30))
    found = asked(f"echo $$ > {group.parent / 'cgroup.procs'}")
    assert 0.7 * 2**30 < found <= 2**30


def test_pages_of_files_do_not_count_however_often_they_are_read(
    group: Path, tmp_path: Path
) -> None:
    if "tmpfs" in subprocess.run(["df", "-T", tmp_path], capture_output=True, text=True).stdout:
        pytest.skip("pages of tmpfs cannot be dropped")
    file = tmp_path / "rows"
    group.write_text(str(2**29))
    found = asked(
        f"echo $$ > {group.parent / 'cgroup.procs'}",
        f"head -c 350M /dev/zero > {file}; sync {file}",
        *[f"cat {file} > /dev/null"] * 3,
    )
    file.unlink()
    assert 0.7 * 2**29 < found <= 2**29


CLUSTER = """
import sys, numpy as np
from featkit.errors import UsageError
from featkit.ops.inverted_file import InvertedFile
bank = np.random.default_rng(0).standard_normal((40_000, 256), np.float32)
InvertedFile.build(bank, device="cpu")
import resource
from featkit.ops.free_memory import free_memory
from pathlib import Path
held = int(Path("/proc/self/status").read_text().split("VmData:")[1].split()[0]) * 1024
resource.setrlimit(resource.RLIMIT_DATA, (held + int(sys.argv[1]),) * 2)
try:
    print(len(InvertedFile.build(bank, device="cpu").centroids))
except UsageError as error:
    print(error)
"""


@pytest.mark.parametrize(
    ("free", "said"), [(5 * 10**8, "800"), (8 * 10**7, "GB of memory, and 0.1 GB are free")]
)
def test_lists_are_refused_where_faiss_would_end_the_process(free: int, said: str) -> None:
    told = subprocess.run(
        [sys.executable, "-c", CLUSTER, str(free)], capture_output=True, text=True, check=True
    )
    assert said in told.stdout
