"""Processes of their own without the seconds in which each would import torch and its kin."""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(
    [
        "torchvision.transforms.v2",
        "featkit.extraction.pipeline",
        "featkit.report.figures",
        "featkit.trainers.training",
        "featkit_cli.extract",
    ]
)

_OWN_MOUNTS, _OWN_USERS = 0x20000, 0x10000000  # CLONE_NEWNS and CLONE_NEWUSER of Linux


class Forked:
    """``python -c code argument …``, forked from a process that has imported most of featkit.

    What can be done with it can be done with ``subprocess.Popen`` that has pipes for stdout and
    stderr. The environment is that of the test, and the process is its own. Where the start of
    Python or what is imported is the point, a test takes ``subprocess`` itself.
    """

    def __init__(
        self,
        code: str,
        *arguments: object,
        cwd: Path | None = None,
        env: dict[str, str] | None = None,
    ) -> None:
        (out, own_out), (err, own_err) = (CONTEXT.Pipe(duplex=False) for _ in range(2))
        words, environ = ["-c", *map(str, arguments)], dict(env or os.environ)
        self.process = CONTEXT.Process(
            target=_run, args=(code, words, environ, cwd or Path.cwd(), own_out, own_err)
        )
        self.process.start()
        atexit.register(self.process.kill)  # what a failed test leaves; a finished one is not hit
        own_out.close()
        own_err.close()
        self.stdout, self.stderr = _opened(out), _opened(err)

    @property
    def returncode(self) -> int | None:
        return self.process.exitcode

    def poll(self) -> int | None:
        return self.process.exitcode

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def send_signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        self.process.kill()

    def communicate(self, timeout: float = 300) -> tuple[str, str]:
        """Wait for the end, and return what was written and not read yet."""
        with ThreadPoolExecutor(2) as pool, self.stdout, self.stderr:
            said = [pool.submit(stream.read) for stream in (self.stdout, self.stderr)]
            self.process.join(timeout)
            if self.process.exitcode is None:
                self.kill()
                raise subprocess.TimeoutExpired("a forked process", timeout)
            out, err = (text.result().decode() for text in said)
        return out, err


def run_forked(
    code: str, *arguments: object, cwd: Path | None = None, env: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run code to its end, and capture what it says."""
    process = Forked(code, *arguments, cwd=cwd, env=env)
    out, err = process.communicate()
    assert process.returncode is not None
    return subprocess.CompletedProcess(list(map(str, arguments)), process.returncode, out, err)


def mount_small_disk(folder: str, size: str) -> None:
    """Give this process, and those that it forks, a disk of their own in a folder.

    Raises:
        OSError: The system does not allow it.
    """
    system = ctypes.CDLL(None, use_errno=True)
    users = [(kind, os.getuid() if kind == "uid" else os.getgid()) for kind in ("uid", "gid")]
    if system.unshare(_OWN_MOUNTS | _OWN_USERS):
        raise OSError(ctypes.get_errno(), "unshare")
    Path("/proc/self/setgroups").write_text("deny")
    for kind, number in users:
        Path(f"/proc/self/{kind}_map").write_text(f"0 {number} 1")
    if system.mount(b"tmpfs", folder.encode(), b"tmpfs", 0, f"size={size}".encode()):
        raise OSError(ctypes.get_errno(), "mount")


def can_mount(folder: Path) -> bool:
    code = "import sys; from tests.processes import mount_small_disk as m; m(sys.argv[1], '1m')"
    return sys.platform == "linux" and not run_forked(code, folder).returncode


def _opened(end: Connection) -> Any:
    """Return the bytes of a pipe, unbuffered."""
    stream = os.fdopen(os.dup(end.fileno()), "rb", buffering=0)
    end.close()
    return stream


def _run(
    code: str,
    words: list[str],
    environ: dict[str, str],
    folder: Path,
    out: Connection,
    err: Connection,
) -> None:
    for place, end in enumerate((out, err), start=1):
        os.dup2(end.fileno(), place)
        end.close()
    os.environ.clear()
    os.environ.update(environ)
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # that of the system, not ours
    sys.argv = words
    exec(code, {"__name__": "__main__"})
