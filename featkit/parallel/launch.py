"""Start the processes of a task on this machine, and watch over them.

torchrun's agent does it, called as a library: it finds a port, starts the processes, and ends all
when one fails.
"""

from __future__ import annotations

import logging
import os
import pickle
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from featkit.errors import FeatkitError, UsageError, one_line
from featkit.parallel.group import RankError, join
from featkit.parallel.place import ALONE, given_place

TASK_FILE = "task.pickle"
ERROR_FILE = "error-{rank}.pickle"

_TASK = "featkit"
_AGENT = "torch.distributed"
_SIGNALS = tuple(
    signal.Signals[name]
    for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGQUIT")
    if name in signal.Signals.__members__
)
_NODE = ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK")


def starts_others(devices: int | None, num_nodes: int | None) -> bool:
    """Whether this process has to start those of a task; if it is one of them, it meets the others.

    Args:
        devices: Processes on this machine; None for as many as there are.
        num_nodes: Machines; None for as many as there are.

    Raises:
        UsageError: Others were started than are asked for, or a number is below 1.
    """
    for name, value in (("devices", devices), ("num_nodes", num_nodes)):
        if value is not None and value < 1:
            raise UsageError(f"{name} is {value}: give a whole number, at least 1")
    place = given_place()
    if place == ALONE:
        return (devices or 1) * (num_nodes or 1) > 1
    if devices not in (None, place.local_count) or num_nodes not in (None, place.nodes):
        asked = f"{devices or place.local_count} on each of {num_nodes or place.nodes} node(s)"
        raise UsageError(
            f"{asked} are asked for, and {place.count} processes were started, {place.local_count} "
            f"on this of {place.nodes} node(s): leave --devices and --num-nodes out, or give these"
        )
    join()
    return False


def run_on_ranks(
    work: Callable[..., object],
    arguments: Mapping[str, Any],
    devices: int | None,
    num_nodes: int | None = None,
) -> None:
    """Run a function in several new processes, and wait for all.

    Args:
        work: A function of a module. Each process calls it once the processes have met.
        arguments: Of the function; they can be pickled.
        devices: Processes on this machine.
        num_nodes: Machines, on each of which the same is called. The environment says where they
            meet: ``MASTER_ADDR``, ``MASTER_PORT``, and ``NODE_RANK`` from 0.

    Raises:
        UsageError: The environment does not say where machines meet, or an argument cannot be
            pickled.
        RankError: A process was killed, or others cannot be reached.
        Exception: What the first process that failed has raised; the others are ended.
    """
    count, nodes = devices or 1, num_nodes or 1
    _check_gpus(arguments.get("device"), count)
    with tempfile.TemporaryDirectory(prefix="featkit-ranks-") as folder:
        try:
            task = pickle.dumps((work, dict(arguments)))
        except (pickle.PicklingError, AttributeError, TypeError) as error:
            raise UsageError(
                f"several processes need what can be sent to them, and this cannot ({error}): "
                f"give sources and backbones as text"
            ) from error
        (Path(folder) / TASK_FILE).write_bytes(task)
        _run_agent(Path(folder), count, nodes)


def _check_gpus(device: object, count: int) -> None:
    import torch

    is_gpu = str(device or "auto").startswith("cuda") or (
        device in (None, "auto") and torch.cuda.is_available()
    )
    if is_gpu and count > torch.cuda.device_count():
        raise UsageError(
            f"{count} processes on {torch.cuda.device_count()} GPU(s): give as many --devices as "
            f"there are, or --device cpu"
        )


def _run_agent(folder: Path, count: int, nodes: int) -> None:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.elastic.rendezvous import RendezvousError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    meeting = _rendezvous(nodes)
    config = LaunchConfig(
        min_nodes=nodes,
        max_nodes=nodes,
        nproc_per_node=count,
        run_id=_TASK,
        max_restarts=0,
        logs_specs=DefaultLogsSpecs(str(folder / "logs")),
        **meeting,
    )
    if hasattr(config, "signals_to_handle"):  # since torch 2.9
        config.signals_to_handle = ",".join(_heard())
    try:
        with _silent_agent(), _sharing_cores(count), _signals_as_before():
            elastic_launch(config, sys.executable)("-P", "-m", "featkit.parallel.rank", str(folder))
    except ChildFailedError as error:
        raise _cause(folder, count, nodes, error.failures) from None
    except SignalException as error:
        signal.raise_signal(error.sigval)  # to whom it was sent before the agent took it
        raise KeyboardInterrupt from None
    except (RuntimeError, RendezvousError, TimeoutError) as error:
        raise RankError(
            f"the processes have not met at {meeting['rdzv_endpoint']} ({one_line(error, 200)}): "
            f"see whether all {nodes} node(s) run the same command, and whether the port is free"
        ) from error


@contextmanager
def _silent_agent() -> Iterator[None]:
    """Let torch's agent write nothing: what it has to say is said by errors."""
    names = [name for name in logging.root.manager.loggerDict if name.startswith(_AGENT)]
    loggers = [logging.getLogger(name) for name in names]  # each has set a level of its own
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def _sharing_cores(count: int) -> Iterator[None]:
    """Give each process its share of the cores, unless the environment says how many threads."""
    if "OMP_NUM_THREADS" in os.environ:
        yield
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    os.environ["OMP_NUM_THREADS"] = str(max(1, (cores or 1) // count))
    try:
        yield
    finally:
        del os.environ["OMP_NUM_THREADS"]


def _heard() -> list[str]:
    """Return the names of the signals that whoever started this process has not switched off."""
    return [number.name for number in _SIGNALS if signal.getsignal(number) != signal.SIG_IGN]


@contextmanager
def _signals_as_before() -> Iterator[None]:
    """Put back the handlers of signals that the agent leaves behind."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _rendezvous(nodes: int) -> dict[str, Any]:
    if nodes == 1:
        return {"rdzv_backend": "c10d", "rdzv_endpoint": "localhost:0"}
    missing = [name for name in _NODE if name not in os.environ]
    if missing:
        raise UsageError(
            f"{nodes} nodes need to know where they meet: set {', '.join(missing)} (host and port "
            f"of the first node, and this node's number from 0), or start them by torchrun or srun"
        )
    host, port, node = (os.environ[name] for name in _NODE)
    for name, value, most in (("MASTER_PORT", port, 65_535), ("NODE_RANK", node, nodes - 1)):
        if not (value.isascii() and value.isdigit() and int(value) <= most):
            raise UsageError(f"{name} is {value!r}: set a whole number from 0 to {most}")
    return {
        "rdzv_backend": "static",
        "rdzv_endpoint": f"{host}:{port}",
        "rdzv_configs": {"rank": int(node), "timeout": 900},
    }


def _cause(folder: Path, count: int, nodes: int, failures: Mapping[int, Any]) -> BaseException:
    """Return the error of the process that failed first, and not of those that it took along."""
    node = int(os.environ["NODE_RANK"]) if nodes > 1 else 0
    in_order = sorted(failures.values(), key=lambda failure: failure.timestamp)
    ended = [failure for failure in in_order if failure.exitcode < 0]
    killed = [failure for failure in ended if failure.exitcode != -signal.SIGTERM]
    files = sorted(folder.glob(ERROR_FILE.format(rank="*")), key=lambda file: file.stat().st_mtime)
    errors: list[BaseException] = [pickle.loads(file.read_bytes()) for file in files]  # noqa: S301 - our processes wrote them
    own = [error for error in errors if not isinstance(error, RankError)]
    told = [error for error in own if isinstance(error, FeatkitError)] or own
    if told and not killed:
        alike = [error for error in told if type(error) is type(told[0])]
        return min(alike, key=lambda error: vars(error)["rank"])
    if killed or (ended and ended[0] is in_order[0]):
        first = (killed or ended)[0]
        name = signal.Signals(-first.exitcode).name
        memory = " (out of memory?)" * (name == "SIGKILL")
        return RankError(
            f"process {node * count + first.local_rank} of {count * nodes} was ended by {name}"
            f"{memory}: what was kept is safe; run the same command again, with as many --devices "
            f"or others"
        )
    if errors:
        return errors[0]
    return RankError(
        f"process {node * count + in_order[0].local_rank} ended with exit status "
        f"{in_order[0].exitcode} before its work was done: run the same command again"
    )
