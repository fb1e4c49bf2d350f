"""Real faults in the middle of a training: kills, a full disk, a second process."""

from __future__ import annotations

import json
import random
import resource
import signal
import time
from pathlib import Path

import pytest
from safetensors import SafetensorError, safe_open

from featkit.errors import DamagedError, StoreError
from tests.processes import Forked, can_mount, run_forked
from tests.trainers.conftest import train, training_process

KILLS = 3
EPOCHS = {"epochs": 8, "keep_every": 3}

EVERY_STEP = """
import time
import featkit.trainers.loop as loop

loop.STATE_SECONDS = 0.0  # the state is written after each step, as after minutes in a long epoch
step = loop.Loop._step

def slow(self, *given):
    time.sleep(0.05)
    return step(self, *given)

loop.Loop._step = slow
"""


def finish(process: Forked) -> str:
    _, said = process.communicate(timeout=300)
    assert process.returncode == 0, said
    return said


def files(run: Path) -> dict[str, bytes]:
    """Everything that has no time in it."""
    found = {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name != ".lock" and path.suffix not in (".json", ".csv")
    }
    rows = json.loads((run / "result.json").read_text())["tables"]["epochs"]
    timeless = [{name: value for name, value in row.items() if name != "seconds"} for row in rows]
    return found | {"rows": json.dumps(timeless).encode(), "run": (run / "run.json").read_bytes()}


@pytest.fixture(scope="module")
def undisturbed(stripes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    finish(training_process(stripes, run, **EPOCHS))
    return files(run)


CYCLES = {"method": "deepcluster", "cycle_epochs": 3, "epochs": 3, "lr": 0.05}


def test_killed_within_a_cycle_it_goes_on_with_its_labels(stripes: Path, tmp_path: Path) -> None:
    """And does not cluster again: what was told of the clustering is not told twice."""
    finish(training_process(stripes, tmp_path / "whole", **CYCLES))
    run = tmp_path / "parts"
    process = training_process(stripes, run, EVERY_STEP, **CYCLES)
    wait_for(run, process, (4, 0))  # beyond the first epoch of the second cycle
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert place(run)[0] == 4
    with safe_open(run / "state.safetensors", framework="numpy") as file:
        assert int(file.get_tensor("module.cycle")) == 2
        assert file.get_tensor("module.facts")[-2:].tolist() == [0, 0]
    finish(training_process(stripes, run, **CYCLES))
    assert files(run) == files(tmp_path / "whole")


def place(run: Path) -> tuple[int, int]:
    """Return the epoch and step of the state that is kept; before all where there is none."""
    try:
        with safe_open(run / "state.safetensors", framework="numpy") as file:
            about = json.loads(file.metadata()["about"])
    except (OSError, SafetensorError):
        return -1, 0
    return about["epoch"], about["step"]


def wait_for(run: Path, process: Forked, beyond: tuple[int, int] = (-1, 0)) -> None:
    """Wait until a training has come beyond a place."""
    while place(run) <= beyond:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.01)


def test_killed_in_any_step_it_goes_on_to_the_same_bytes(
    stripes: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    run = tmp_path / "run"
    rng = random.Random(0)
    places = []
    for _ in range(KILLS):
        before = place(run)
        process = training_process(stripes, run, EVERY_STEP, **EPOCHS)
        wait_for(run, process, before)
        time.sleep(rng.uniform(0.0, 0.3))
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
        places.append(place(run))
    assert len(set(places)) == KILLS
    assert any(step > 0 for _, step in places)  # in the middle of an epoch too
    finish(training_process(stripes, run, **EPOCHS))
    assert files(run) == undisturbed


def test_a_full_disk_is_said_and_nothing_is_lost(
    stripes: Path, tmp_path: Path, undisturbed: dict[str, bytes]
) -> None:
    """The system refuses files larger than some of what is to be written, at every size."""
    run = tmp_path / "run"
    state = 4 * len(undisturbed["weights/epoch-0008.safetensors"])
    for most in (10_000, state // 2):
        limited = (
            f"import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
            f"resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {resource.RLIM_INFINITY}))"
        )
        process = training_process(stripes, run, limited, **EPOCHS)
        _, said = process.communicate(timeout=300)
        assert process.returncode == 1
        assert "Error" in said.splitlines()[-1]
        assert not list(run.rglob("*.tmp"))
    finish(training_process(stripes, run, **EPOCHS))
    assert files(run) == undisturbed


def test_where_not_even_the_record_can_be_written_nothing_is_left(
    stripes: Path, tmp_path: Path
) -> None:
    limited = (
        f"import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
        f"resource.setrlimit(resource.RLIMIT_FSIZE, (10, {resource.RLIM_INFINITY}))"
    )
    process = training_process(stripes, tmp_path / "run", limited, **EPOCHS)
    _, said = process.communicate(timeout=300)
    assert "File too large" in said.splitlines()[-1]
    assert not (tmp_path / "run").exists()


ON_A_SMALL_DISK = """
import os, sys
import featkit.trainers.images as images
from featkit_cli.main import main
from tests.processes import mount_small_disk
disk, source, mapped = sys.argv[1:]
mount_small_disk(disk, "300k")
if mapped == "yes":
    images._IN_MEMORY = 0.0
options = "--preset tiny --size 64 --batch-size 16 --device cpu --workers 0 --quiet".split()
try:
    main(["train", "simclr", source, "-o", disk + "/run", *options])
except SystemExit as ended:
    print(ended.code, sorted(os.listdir(disk)))
"""


@pytest.mark.parametrize(("mapped", "left"), [("yes", []), ("no", ["run"])])
def test_a_disk_that_is_too_small_for_pixels_or_weights(
    stripes: Path, tmp_path: Path, mapped: str, left: list[str]
) -> None:
    """Sixty images of 64 pixels are 700 kB, the weights and the state of a network 1 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if not can_mount(disk):
        pytest.skip("cannot mount a small disk here")
    done = run_forked(ON_A_SMALL_DISK, disk, stripes, mapped)
    assert done.stdout.strip() == f"1 {left}", done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("featkit: disk full while writing")
    assert "free some space and run the same command again" in said
    assert "Traceback" not in done.stderr


def test_while_a_process_trains_another_is_refused(stripes: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    long = EPOCHS | {"epochs": 200}
    first = training_process(stripes, run, EVERY_STEP, **long)
    try:
        wait_for(run, first)
        with pytest.raises(StoreError, match="another process is training here"):
            train(stripes, run, **long)
    finally:
        first.kill()
        first.communicate()
    content = (run / "state.safetensors").read_bytes()
    (run / "state.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(DamagedError, match="start again in another folder, or with --overwrite"):
        train(stripes, run, **long)
