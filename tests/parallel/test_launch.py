"""How processes start and end, and how what ends them is told."""

from __future__ import annotations

import logging
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

import featkit
from featkit.errors import UsageError
from featkit.parallel.launch import RankError, run_on_ranks, starts_others
from featkit.parallel.place import ALONE, Place, given_place
from tests.parallel import tasks
from tests.parallel.conftest import free_port

TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
SRUN = {
    "SLURM_PROCID": "5",
    "SLURM_STEP_NUM_TASKS": "6",
    "SLURM_LOCALID": "1",
    "SLURM_NODEID": "1",
    "SLURM_STEP_TASKS_PER_NODE": "4,2",
    "SLURM_STEP_NODELIST": "gpu[07-08]",
    "SLURM_JOB_ID": "123456",
}


def test_one_task_of_slurm_is_alone():
    assert given_place({"SLURM_STEP_NUM_TASKS": "1", "SLURM_PROCID": "0"}) == ALONE


def test_a_batch_script_of_slurm_is_alone():
    """Variables of the job, and none of a step: nobody has started the other tasks."""
    assert given_place({"SLURM_NTASKS": "8", "SLURM_PROCID": "0", "SLURM_JOB_ID": "1"}) == ALONE


def test_srun_tells_torch_where_to_meet():
    environment = dict(SRUN)
    assert given_place(environment) == Place(5, 6, 1, 2, 2)
    assert (environment["MASTER_ADDR"], environment["MASTER_PORT"]) == ("gpu07", "23456")


def test_two_steps_of_a_job_do_not_meet():
    steps = [SRUN | {"SLURM_STEP_ID": str(number)} for number in range(3)]
    ports = [given_place(step) and step["MASTER_PORT"] for step in steps]
    assert len(set(ports)) == 3


@pytest.mark.parametrize("missing", TORCHRUN)
def test_a_variable_that_is_missing_is_named(missing):
    environment = {name: value for name, value in TORCHRUN.items() if name != missing}
    if missing == "WORLD_SIZE":
        assert given_place(environment) == ALONE
        return
    with pytest.raises(UsageError, match=missing):
        given_place(environment)


@pytest.mark.parametrize(
    "given",
    [
        TORCHRUN | {"RANK": "one"},
        TORCHRUN | {"LOCAL_WORLD_SIZE": "0"},
        SRUN | {"SLURM_NODEID": "7"},
    ],
)
def test_variables_that_mean_nothing_are_refused(given):
    with pytest.raises(UsageError, match="not understood"):
        given_place(dict(given))


@pytest.mark.parametrize(("devices", "nodes"), [(4, None), (None, 1), (2, 3)])
def test_other_processes_than_were_started_are_refused(monkeypatch, devices, nodes):
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UsageError, match=r"4 processes were started, 2 on this of 2 node\(s\)"):
        starts_others(devices, nodes)


def test_no_process_is_refused():
    with pytest.raises(UsageError, match="devices is 0"):
        featkit.extract("digits", tasks.NETWORK, "never", devices=0)


def test_nodes_that_do_not_know_where_to_meet_are_told(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "here")
    monkeypatch.delenv("MASTER_PORT", raising=False)
    with pytest.raises(UsageError, match="set MASTER_PORT, NODE_RANK"):
        run_on_ranks(tasks.extract, {"store": "never"}, 1, 2)


@pytest.mark.parametrize(
    ("name", "value", "most"),
    [("NODE_RANK", "first", 1), ("NODE_RANK", "2", 1), ("MASTER_PORT", "-1", 65_535)],
)
def test_a_place_of_a_node_that_means_nothing_is_refused(monkeypatch, name, value, most):
    given = {"MASTER_ADDR": "localhost", "MASTER_PORT": "29500", "NODE_RANK": "0", name: value}
    for variable, text in given.items():
        monkeypatch.setenv(variable, text)
    with pytest.raises(
        UsageError, match=f"{name} is '{value}': set a whole number from 0 to {most}"
    ):
        run_on_ranks(tasks.extract, {"device": "cpu"}, 1, 2)


def test_a_port_that_is_taken_is_told(monkeypatch):
    with socket.create_server(("", 0)) as taken:
        port = taken.getsockname()[1]
        given = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(port), "NODE_RANK": "0"}
        for variable, text in given.items():
            monkeypatch.setenv(variable, text)
        levels = {name: logging.getLogger(name).level for name in logging.root.manager.loggerDict}
        with pytest.raises(RankError, match=f"have not met at localhost:{port} .* port is free"):
            run_on_ranks(tasks.extract, {"device": "cpu"}, 1, 2)
    assert all(logging.getLogger(name).level == level for name, level in levels.items())


def test_more_gpus_than_there_are_are_refused():
    with pytest.raises(UsageError, match=r"GPU\(s\)"):
        run_on_ranks(tasks.extract, {"device": "cuda"}, 64)


def test_what_cannot_be_sent_is_refused(tmp_path):
    backbone = featkit.load_backbone(tasks.NETWORK)
    backbone.module.extra = lambda x: x
    with pytest.raises(UsageError, match="give sources and backbones as text"):
        featkit.extract("digits", backbone, tmp_path / "store", devices=2, device="cpu")
    assert not list(tmp_path.iterdir())


def test_a_process_that_is_killed_ends_the_run_which_then_goes_on(tmp_path, found_by_ranks):
    """Killed while the other waits for it; one process then does the rest."""
    with pytest.raises(RankError, match=r"process 1 of 2 was ended by SIGKILL \(out of memory\?\)"):
        run_on_ranks(tasks.die, {"folder": str(tmp_path), "how": "kill"}, 2)
    tasks.extract(tmp_path / "store")
    assert len(featkit.open_store(tmp_path / "store").tables()) == 2


SCRIPT = """
from featkit.parallel.launch import run_on_ranks
from tests.parallel import tasks
class Mine: pass
if __name__ == "__main__":
    run_on_ranks(tasks.extract, {"store": Mine()}, 2)
"""


def test_what_processes_cannot_import_is_told(environment):
    ended = subprocess.run(
        [sys.executable, "-c", SCRIPT], env=environment, capture_output=True, text=True, check=False
    )
    assert "UsageError: several processes need what they can import" in ended.stderr
    assert "Can't get attribute 'Mine'" in ended.stderr


def test_what_is_started_by_nohup_outlives_the_terminal(tmp_path, found_by_ranks):
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        run_on_ranks(tasks.hang_up, {"folder": str(tmp_path)}, 2)
        assert signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)
    assert (tmp_path / "done").exists()


NODE = """
import sys
from featkit.parallel.launch import RankError, run_on_ranks
from tests.parallel import tasks
try:
    run_on_ranks(tasks.die, {"folder": sys.argv[1], "how": "kill"}, 1, 2)
except RankError as error:
    print(error)
"""


def test_both_nodes_tell_of_a_process_that_is_killed(tmp_path, environment):
    given = {"MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
    nodes = [
        subprocess.Popen(
            [sys.executable, "-c", NODE, str(tmp_path)],
            env={**environment, **given, "NODE_RANK": str(node)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for node in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in nodes]
    assert said[0].startswith("another process of this task has ended, or cannot be reached")
    assert said[1].startswith("process 1 of 2 was ended by SIGKILL (out of memory?)")


def test_its_own_error_ends_the_run(tmp_path, found_by_ranks, capfd):
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(UsageError, match="this process has had enough"):
        run_on_ranks(tasks.die, {"folder": str(tmp_path), "how": "raise"}, 2)
    assert capfd.readouterr() == ("", "")
    assert signal.getsignal(signal.SIGINT) is before


def command(store):
    options = ["--workers", "0", "--batch-size", "16", "--precision", "fp32", "--quiet"]
    return [
        *(sys.executable, "-m", "featkit_cli", "extract", "digits", "-b", tasks.NETWORK),
        *("-b", f"other={tasks.NETWORK}&seed=1", "-o", str(store), *options),
    ]


def test_srun_starts_the_processes_of_a_command(tmp_path, together, environment):
    """SLURM itself is not here: its variables are, as its manual has them."""
    given = {"SLURM_STEP_NUM_TASKS": "2", "SLURM_STEP_TASKS_PER_NODE": "2", "SLURM_NODEID": "0"}
    given |= {"SLURM_STEP_NODELIST": "localhost", "SLURM_JOB_ID": "1"}
    given |= {"MASTER_PORT": free_port()}
    ranks = [{"SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(2)]
    check_both(tmp_path / "store", together, [{**environment, **given, **own} for own in ranks])


def test_two_nodes_fill_one_store(tmp_path, together, environment):
    given = {"MASTER_ADDR": "localhost", "MASTER_PORT": free_port()}
    nodes = [{**environment, **given, "NODE_RANK": str(node)} for node in range(2)]
    check_both(tmp_path / "store", together, nodes, "--num-nodes", "2", "--devices", "1")


def check_both(store, together, environments, *options):
    started = [
        subprocess.Popen(
            [*command(store), *options], env=own, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        for own in environments
    ]
    said = [process.communicate(timeout=120) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert [b"next: featkit knn" in out for out, _ in said] == [True, False]
    for file in ("cifar_resnet8/avgpool.avg.h5", "other/avgpool.avg.h5"):
        assert (store / file).read_bytes() == (together / "store" / file).read_bytes()


@pytest.fixture
def heard_interrupts():
    """Let new processes hear of Ctrl-C, also where the tests run in a shell's background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


def runs_on(process, store):
    try:
        return str(store).encode() in (process / "cmdline").read_bytes()
    except OSError:
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are read from /proc")
@pytest.mark.usefixtures("heard_interrupts")
def test_ctrl_c_stops_all_processes(tmp_path, environment):
    store = tmp_path / "store"
    process = subprocess.Popen(
        [*command(store), "--devices", "2"], env=environment, stderr=subprocess.PIPE, text=True
    )
    while not list(store.glob(".partial/*/part-*")):
        time.sleep(0.05)
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    _, error = process.communicate(timeout=60)
    assert error == "\nfeatkit: stopped; the same command goes on from here\n"
    assert process.returncode == 130
    assert not [process for process in Path("/proc").iterdir() if runs_on(process, store)]
