"""What the processes of one task tell each other; a process alone keeps what it has.

All of them call the same functions in the same order. The first process is that of rank 0.
"""

from __future__ import annotations

import atexit
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar

from featkit.errors import FeatkitError, one_line
from featkit.parallel.place import ALONE, Place, given_place

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")

_MEETING = timedelta(minutes=15)
"""For the others to start."""

_PATIENCE = timedelta(days=30)
"""For others to come as far as this process. Not a watch: who started them sees one that dies."""

_place: Place = ALONE
_board: Any = None
_seen: dict[str, int] = {}


class RankError(FeatkitError):
    """One of several processes has ended before its work was done."""


@contextmanager
def all_there() -> Iterator[None]:
    """Say of an error of the network what it means.

    Raises:
        RankError: Another process has ended, or cannot be reached.
    """
    try:
        yield
    except RuntimeError as error:  # of gloo, NCCL and the store where processes meet
        raise RankError(
            f"another process of this task has ended, or cannot be reached "
            f"({one_line(error, 200)}): what was kept is safe; run the same command again"
        ) from error


def here() -> Place:
    """Return which process of the task this one is."""
    return _place


def is_first() -> bool:
    """Whether this process is the one that speaks, and writes what is written once."""
    return _place.rank == 0


def join() -> Place:
    """Meet the other processes, where the environment tells of some.

    Gloo carries what lies in memory, NCCL what lies on GPUs.

    Raises:
        UsageError: The environment cannot be understood.
        RankError: Another process has not come within 15 minutes.
    """
    global _place, _board
    place = given_place()
    if place == ALONE or _place != ALONE:
        return _place
    import torch
    import torch.distributed as dist
    import torch.distributed.nn.functional  # holds for good what group there is when it is imported
    from torch.distributed import PrefixStore  # type: ignore[attr-defined]
    from torch.distributed.rendezvous import rendezvous

    try:
        store, rank, count = next(rendezvous("env://", timeout=_MEETING))
    except RuntimeError as error:
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        raise RankError(
            f"process {place.rank} of {place.count} has not met the others at {where} "
            f"({one_line(error, 200)}): see whether they have started, and whether the port "
            f"is free"
        ) from error
    store.set_timeout(_PATIENCE)
    backends = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    step = "-".join(os.environ.get(name, "") for name in ("SLURM_JOB_ID", "SLURM_STEP_ID"))
    own = PrefixStore(f"featkit-{step}", store)  # two steps may have come to one port
    with all_there():
        dist.init_process_group(backends, store=own, rank=rank, world_size=count, timeout=_PATIENCE)
    _place, _board = place, own
    atexit.register(_part)
    return place


def leave() -> None:
    """Part from the others, once all have come as far."""
    if _place == ALONE:
        return
    import torch.distributed as dist

    with all_there():
        dist.barrier()
    _part()


def _part() -> None:
    """End the threads of the group: one that holds a tensor survives no end of Python."""
    global _place, _board
    if _place == ALONE:
        return
    import torch.distributed as dist

    dist.destroy_process_group()
    _place, _board = ALONE, None


def first(work: Callable[[], T]) -> T:
    """Let the first process work as if it were alone, and tell all what it returns, or raises.

    Args:
        work: What it returns, and its errors, can be pickled.

    Raises:
        Exception: What ``work`` has raised.
    """
    global _place  # noqa: PLW0603
    if _place == ALONE:
        return work()
    import torch.distributed as dist

    told: list[Any] = [None, None]
    if is_first():
        place, _place = _place, ALONE
        try:
            told[0] = work()
        except Exception as error:  # noqa: BLE001 - all raise it
            told[1] = error
        finally:
            _place = place
    with all_there():
        dist.broadcast_object_list(told, src=0)
    if told[1] is not None:
        raise told[1]
    found: T = told[0]
    return found


@contextmanager
def first_holds(make: Callable[[], AbstractContextManager[T]]) -> Iterator[T]:
    """Let the first process hold something, and tell all what it is; see :func:`first`."""
    with ExitStack() as held:
        yield first(lambda: held.enter_context(make()))


def all_of(value: T) -> list[T]:
    """Return what every process gives, by rank."""
    if _place == ALONE:
        return [value]
    import torch.distributed as dist

    found: list[T] = [value] * _place.count
    with all_there():
        dist.all_gather_object(found, value)
    return found


def added_by_all(name: str, more: int) -> int:
    """Add to a number that all share, and return by how much it has grown since; nobody waits."""
    if _board is None:
        return more
    with all_there():
        total = int(_board.add(name, more))
    grown, _seen[name] = total - _seen.get(name, 0), total
    return grown


def add_up(tensor: Tensor) -> Tensor:
    """Replace a tensor by its sum over all processes, the same bits in each, and return it."""
    if _place != ALONE:
        import torch.distributed as dist

        with all_there():
            dist.all_reduce(tensor)
    return tensor


def mean_of_all(tensor: Tensor) -> Tensor:
    """Return the mean over all processes, the same bits in each; the tensor is used up."""
    return tensor if _place == ALONE else add_up(tensor).div_(_place.count)


def rows_of_all(rows: Tensor) -> Tensor:
    """Return the rows of all processes, by rank, of which each has as many.

    What is differentiated is the sum over processes of what each makes of them.

    Args:
        rows: (b, …).

    Returns:
        (b · processes, …).
    """
    if _place == ALONE:
        return rows
    from featkit.parallel.gathering import GatherRows

    found: Tensor = GatherRows.apply(rows)
    return found


def on_first(rows: Tensor, place: slice) -> Tensor:
    """Return the rows of all processes in the first one, in memory; in others their own.

    Args:
        rows: (b, …) of this process.
        place: Where they belong among all.
    """
    if _place == ALONE:
        return rows
    count = max(there.stop for there in all_of(place))
    out = rows.new_empty((count, *rows.shape[1:])) if is_first() else None
    rows_to_first(rows, out, place)
    return rows if out is None else out


def rows_to_first(rows: Tensor, out: Tensor | None, place: slice) -> None:
    """Write the rows of all processes into a tensor of the first one.

    Args:
        rows: (b, …) of this process, in memory.
        out: (n, …) of the first process; None in the others.
        place: Where these rows belong.
    """
    import torch
    import torch.distributed as dist

    places = all_of(place)
    if not is_first():
        if len(rows):
            with all_there():
                dist.send(rows.contiguous(), dst=0)
        return
    assert out is not None  # noqa: S101 - as said above
    if len(rows):
        out[place] = rows
    for rank, there in enumerate(places[1:], 1):
        if there.start < there.stop:
            part = torch.empty((there.stop - there.start, *out.shape[1:]), dtype=out.dtype)
            with all_there():
                dist.recv(part, src=rank)
            out[there] = part
