"""Which of several processes this one is, as whoever started it says in the environment."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass

from featkit.errors import UsageError

_PORTS = range(20_000, 30_000)
"""Where the processes of a step of SLURM meet: nobody tells them, so its number does."""

_STEPS = 1009
"""Ports between those of two steps of a job."""


@dataclass(frozen=True)
class Place:
    """One process among those of a task.

    Attributes:
        rank: Its number, from 0; the first one speaks, and writes what is written once.
        count: How many there are.
        local_rank: Its number on its machine.
        local_count: How many there are on its machine.
        nodes: Machines.
    """

    rank: int = 0
    count: int = 1
    local_rank: int = 0
    local_count: int = 1
    nodes: int = 1

    def share(self, length: int) -> slice:
        """Return which of ``length`` things in a row are this process's own.

        Example:
            >>> [Place(rank, 3).share(8) for rank in range(3)]
            [slice(0, 2, None), slice(2, 5, None), slice(5, 8, None)]
        """
        return slice(self.rank * length // self.count, (self.rank + 1) * length // self.count)


ALONE = Place()

EVERY = slice(None)
"""The share of a process alone."""


def given_place(environment: MutableMapping[str, str] = os.environ) -> Place:
    """Read what torchrun, or srun for several tasks, has told this process.

    SLURM's variables are written down as torchrun's too, by which torch finds the other processes.

    Returns:
        :data:`ALONE` where nobody has.

    Raises:
        UsageError: A variable is missing, or means nothing.

    Example:
        >>> step = {"RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2"}
        >>> given_place(step)
        Place(rank=3, count=4, local_rank=1, local_count=2, nodes=2)
    """
    try:
        if "WORLD_SIZE" not in environment and environment.get("SLURM_STEP_NUM_TASKS", "1") != "1":
            environment.update(_from_slurm(environment))
        if environment.get("WORLD_SIZE", "1") == "1":
            return ALONE
        names = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
        rank, count, local_rank, local_count = (int(environment[name]) for name in names)
        nodes = int(environment.get("GROUP_WORLD_SIZE", -(-count // local_count)))
        return Place(rank, count, local_rank, local_count, nodes)
    except KeyError as error:
        raise UsageError(
            f"this is one of several processes, and the environment does not say {error.args[0]}: "
            f"start them by torchrun, by srun, or by --devices"
        ) from error
    except (ValueError, IndexError, ZeroDivisionError) as error:
        raise UsageError(
            f"what the environment says of this process among others is not understood ({error}): "
            f"start them by torchrun, by srun, or by --devices"
        ) from error


def _from_slurm(step: Mapping[str, str]) -> dict[str, str]:
    tasks = _tasks_of_nodes(step["SLURM_STEP_TASKS_PER_NODE"])
    number = int(step["SLURM_JOB_ID"]) + _STEPS * int(step.get("SLURM_STEP_ID", "0"))
    port = _PORTS[number % len(_PORTS)]
    return {
        "RANK": step["SLURM_PROCID"],
        "WORLD_SIZE": step["SLURM_STEP_NUM_TASKS"],
        "LOCAL_RANK": step["SLURM_LOCALID"],
        "LOCAL_WORLD_SIZE": str(tasks[int(step["SLURM_NODEID"])]),
        "GROUP_WORLD_SIZE": str(len(tasks)),
        "MASTER_ADDR": step.get("MASTER_ADDR", _first_node(step["SLURM_STEP_NODELIST"])),
        "MASTER_PORT": step.get("MASTER_PORT", str(port)),
    }


def _tasks_of_nodes(text: str) -> list[int]:
    """Read how SLURM writes the number of tasks on each node.

    Example:
        >>> _tasks_of_nodes("4(x2),1")
        [4, 4, 1]
    """
    found = re.findall(r"(\d+)(?:\(x(\d+)\))?", text)
    return [int(count) for count, times in found for _ in range(int(times or 1))]


def _first_node(nodes: str) -> str:
    """Return the first of the nodes that SLURM writes as a list.

    Example:
        >>> _first_node("gpu[07-09,12]-a,cpu1"), _first_node("cpu1,cpu2")
        ('gpu07-a', 'cpu1')
    """
    return re.sub(r"\[(\w+)[^]]*\]", r"\1", re.split(r",(?![^\[]*\])", nodes)[0])
