"""Real faults: killed processes, a full disk, a stopped run."""

from __future__ import annotations

import contextlib
import glob
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from featkit.store.verify import verify_store
from tests.conftest import MAIN, NET, run_featkit
from tests.processes import Forked, can_mount, run_forked

TABLES = ("cifar_resnet20/layer1.none.h5", "cifar_resnet20/avgpool.avg.h5")
KILLS = 20


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A flat folder of 600 images, three of them broken."""
    root = tmp_path_factory.mktemp("images")
    rng = np.random.default_rng(0)
    for i in range(600):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(root / f"{i:03d}.png")
    for i in (17, 300, 599):
        (root / f"{i:03d}.png").write_bytes(b"\x89PNG\r\n\x1a\n broken")
    return root


def command(images: Path, store: Path) -> list[str]:
    run = ["extract", str(images), "-b", NET, "-o", str(store)]
    options = ["--tap", "layer1:none", "--tap", "avgpool", "--batch-size", "8", "--quiet"]
    return [*run, *options, "--precision", "fp32", "--workers", "1"]


@pytest.fixture(scope="module")
def undisturbed(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store of a run that nothing disturbed."""
    store = tmp_path_factory.mktemp("undisturbed") / "store"
    installed = [sys.executable, "-m", "featkit_cli", *command(images, store)]
    subprocess.run(installed, check=True, capture_output=True)
    return store


def extract(images: Path, store: Path, *options: str) -> str:
    """Run the command to its end, and return what it says on stderr."""
    done = run_featkit(*command(images, store), *options)
    assert done.returncode == 0, done.stderr
    return done.stderr


def assert_same_tables(store: Path, other: Path) -> None:
    for name in TABLES:
        assert (store / name).read_bytes() == (other / name).read_bytes(), name
    assert not list((store / ".partial").glob("*"))
    assert all(not check.problems for check in verify_store(store))


@pytest.mark.skipif(os.name != "posix", reason="needs fork and kill -9")
def test_killed_at_any_time_it_goes_on_to_the_same_bytes(
    images: Path, undisturbed: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    own_group = f"import os; os.setsid(); {MAIN}"
    rng = random.Random(0)
    kills = 0
    while kills < KILLS:
        written = len(progress(store)) + rng.randrange(5)
        process = Forked(own_group, *command(images, store))
        deadline = time.monotonic() + 60
        while len(progress(store)) < written and not finished(store):
            assert time.monotonic() < deadline
            time.sleep(0.001)
        time.sleep(rng.random() * (0.5 if written == 0 else 0.05))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        for name in TABLES:
            if (store / name).exists():
                assert (store / name).read_bytes() == (undisturbed / name).read_bytes()
        kills += process.returncode == -signal.SIGKILL
        if finished(store):
            extract(images, store)
            assert_same_tables(store, undisturbed)
            shutil.rmtree(store)
    extract(images, store)
    assert_same_tables(store, undisturbed)


def listed(store: Path, pattern: str) -> list[Path]:
    """Files of a store at work; unlike Path.glob, not disturbed by folders that vanish."""
    names = glob.glob(pattern, root_dir=store, include_hidden=True)  # noqa: PTH207
    return [store / name for name in names]


def progress(store: Path) -> list[Path]:
    """What has appeared so far: parts, a table being joined, tables."""
    return [*listed(store, ".partial/*/*.h5*"), *listed(store, "*/*.h5")]


def finished(store: Path) -> bool:
    return all((store / name).exists() for name in TABLES)


def test_the_next_run_takes_up_the_parts_and_their_batch_size(
    images: Path, undisturbed: Path, tmp_path: Path
) -> None:
    store = tmp_path / "store"
    process = Forked(MAIN, *command(images, store))
    deadline = time.monotonic() + 120
    while len(listed(store, ".partial/*/part-*.h5")) < 6:
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.002)
    process.kill()
    process.communicate()
    parts = listed(store, ".partial/*/part-*.h5")
    made = {part: part.stat().st_mtime_ns for part in parts}
    shown = run_featkit("ls", store)
    assert "unfinished" in shown.stdout
    again = ("--batch-size", "16", "--precision", "auto")
    said = extract(images, store, *again, "--dry-run")
    assert "rows were done; going on from there with precision fp32, batch size 8" in said
    assert {part: part.stat().st_mtime_ns for part in parts} == made
    extract(images, store, *again)
    assert_same_tables(store, undisturbed)


KEYBOARD = """
import os, pathlib, signal, threading, time

def press():
    while not list(pathlib.Path({store!r}).glob(".partial/*/part-*.h5")):
        time.sleep(0.001)
    os.kill(os.getpid(), signal.SIGINT)

# what a shell starts in the background is deaf to the keyboard, so that it has to be said
signal.signal(signal.SIGINT, signal.default_int_handler)
threading.Thread(target=press, daemon=True).start()
from featkit_cli.main import main
main({arguments!r})
"""


def test_stopped_by_the_keyboard(images: Path, undisturbed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    stopped = run_forked(KEYBOARD.format(store=str(store), arguments=command(images, store)))
    assert stopped.returncode == 130
    assert "stopped; the same command goes on" in stopped.stderr
    assert "Traceback" not in stopped.stderr
    extract(images, store)
    assert_same_tables(store, undisturbed)


TAKEN_OVER = """
import os, signal, time
from multiprocessing import resource_sharer

def stopped(connect, *arguments):
    connect(*arguments).close()
    time.sleep(0.3)
    raise KeyboardInterrupt

sharer, connect = resource_sharer._ResourceSharer, resource_sharer._ResourceSharer.get_connection
sharer.get_connection = staticmethod(lambda *arguments: stopped(connect, *arguments))
from featkit_cli.main import main
main({arguments!r})
"""


def test_stopped_while_an_image_is_taken_over_from_a_decoding_process(
    images: Path, tmp_path: Path
) -> None:
    """The process at the other end of the connection has nothing to say about it."""
    stopped = run_forked(TAKEN_OVER.format(arguments=command(images, tmp_path / "store")))
    assert stopped.returncode == 130
    assert "stopped; the same command goes on" in stopped.stderr
    assert "Traceback" not in stopped.stderr


FULL_DISK = """
import os, pathlib, shutil, sys, time
from featkit_cli.main import main
from tests.processes import mount_small_disk
disk, command = pathlib.Path(sys.argv[1]), sys.argv[2:]
mount_small_disk(str(disk), "180m")
store, filler, said = disk / "store", disk / "filler", disk.parent / "said"

def start(arguments):
    child = os.fork()
    if child == 0:
        sys.stdout = sys.stderr = said.open("w")
        main(arguments)
    return child

def finish(child):
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])

run = start(command)
while not list(store.glob(".partial/*/part-*.h5")):
    assert os.waitpid(run, os.WNOHANG) == (0, 0), said.read_text()
    time.sleep(0.001)
with filler.open("wb") as file:
    try:
        while True:
            file.write(bytes(1 << 16))
            file.flush()
    except OSError as error:
        pass
print(finish(run), "|", said.read_text().strip().splitlines()[-1])
print(finish(start(["ls", str(store)])), "|", "rows done" in said.read_text())
filler.unlink()
print(finish(start(command)))
shutil.copytree(store, disk.parent / "saved")
"""


def test_a_full_disk_ends_with_a_clear_error_and_a_store_that_goes_on(
    images: Path, undisturbed: Path, tmp_path: Path
) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("cannot mount a small disk here")
    done = run_forked(FULL_DISK, disk, *command(images, disk / "store"))
    assert done.returncode == 0, done.stderr
    full, listed, resumed = done.stdout.strip().splitlines()
    assert full.startswith("1 | featkit: disk full while writing rows of cifar_resnet20/")
    assert "free some space and run the same command again" in full
    assert listed == "0 | True"
    assert resumed == "0"
    assert_same_tables(tmp_path / "saved", undisturbed)


def test_two_writers_at_once(images: Path, undisturbed: Path, tmp_path: Path) -> None:
    store = tmp_path / "store"
    processes = [Forked(MAIN, *command(images, store)) for _ in range(2)]
    messages = [process.communicate()[1] for process in processes]
    codes = sorted(process.returncode for process in processes)
    # the second is refused, or came when the first had finished
    assert codes in ([0, 1], [0, 0])
    if codes == [0, 1]:
        assert any("another process is writing to this store" in text for text in messages)
    assert_same_tables(store, undisturbed)
