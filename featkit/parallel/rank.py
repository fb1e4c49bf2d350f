"""One of the processes that :mod:`featkit.parallel.launch` starts."""

from __future__ import annotations

import os
import pickle
import signal
import sys
import threading
import time
import traceback
from pathlib import Path
from typing import Any

from featkit.errors import FeatkitError, UsageError, one_line
from featkit.parallel.group import RankError, here, join, leave
from featkit.parallel.launch import ERROR_FILE, TASK_FILE

_LINGER = 3.0
"""Seconds for whoever watches to see the process that has died before those that miss it."""


def main(folder: Path) -> None:
    """Do the task that lies in a folder, and leave the error there if one is raised."""
    threading.Thread(target=_end_with_parent, args=(os.getppid(),), daemon=True).start()
    try:
        work, arguments = _task(folder)
        join()
        work(**arguments)
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)
    except Exception as error:  # noqa: BLE001 - the parent raises it
        _leave_error(folder, error)
        if isinstance(error, RankError) or not isinstance(error, FeatkitError):
            time.sleep(_LINGER)
        sys.stdout.flush()
        os._exit(1)  # what waits for the others would wait here
    leave()


def _task(folder: Path) -> Any:
    try:
        return pickle.loads((folder / TASK_FILE).read_bytes())  # noqa: S301 - the parent wrote it
    except (AttributeError, ImportError) as error:
        raise UsageError(
            f"several processes need what they can import, and this they cannot ({error}): give "
            f"sources and backbones as text, or as what a module of its own defines"
        ) from error


def _leave_error(folder: Path, error: Exception) -> None:
    error.add_note("".join(traceback.format_exception(error)))
    vars(error)["rank"] = here().rank
    try:
        content = pickle.dumps(error)
        pickle.loads(content)  # noqa: S301
    except Exception:  # noqa: BLE001 - any class may fail to be pickled
        plain = RuntimeError(one_line(f"{type(error).__name__}: {error}"))
        vars(plain)["rank"] = here().rank
        content = pickle.dumps(plain)
    path = folder / ERROR_FILE.format(rank=here().rank)
    temporary = path.with_suffix(".tmp")
    temporary.write_bytes(content)
    temporary.replace(path)


def _end_with_parent(parent: int) -> None:
    """End when the process that watches has been killed."""
    while os.getppid() == parent:
        time.sleep(1)
    os._exit(1)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
