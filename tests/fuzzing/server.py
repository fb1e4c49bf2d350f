"""A process that reads fuzzed inputs in children, and tells what became of each.

A child has the memory of a whole featkit from the start, a limit on what it may take more, and an
audit hook that tells of everything done outside the folder of the input. It reads one input after
another until one ends it.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import select
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

SECONDS = 60
"""After which an input counts as one that hangs, on a machine that has much else to do."""

SLOW = 10
"""Seconds of a processor that an input may take."""

_MORE_MEMORY = 4 << 30
_WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
_READS = {"os.listdir", "os.scandir", "os.chdir", "glob.glob", "glob.glob/2", "os.walk"}
_CHANGES = {
    "os.remove", "os.rename", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.chmod",
    "os.chown", "os.truncate", "os.utime", "shutil.rmtree", "shutil.move", "shutil.copyfile",
    "shutil.copytree", "shutil.unpack_archive", "tempfile.mkstemp", "tempfile.mkdtemp",
}  # fmt: skip
_NEVER = (
    "os.system", "os.exec", "os.fork", "os.posix_spawn", "os.spawn", "os.putenv", "os.kill",
    "subprocess.", "pty.", "socket.", "ftplib.", "http.", "urllib.", "smtplib.", "webbrowser.",
    "ctypes.dlopen", "ctypes.cdata", "pickle.find_class", "code.__new__", "marshal.", "sqlite3.",
)  # fmt: skip


class Watch:
    """Tells what is done outside the folders that an input may touch."""

    def __init__(self) -> None:
        self.found: list[str] | None = None
        self.is_users = False
        self.reads: tuple[str, ...] = ()
        self.writes: tuple[str, ...] = ()
        self.libraries = tuple({os.path.realpath(p) for p in (*sys.path, sys.prefix) if p})
        self.libraries += (os.path.realpath(sys.base_prefix), "/proc/", "/sys/", "/dev/null")
        sys.addaudithook(self)

    def __call__(self, event: str, args: tuple[Any, ...]) -> None:
        if self.found is None:
            return
        found, self.found = self.found, None  # what is looked up here is not the input's doing
        try:
            if not self._is_harmless(event, args):
                found.append(f"{event} {args!r}"[:300])
        finally:
            self.found = found

    def _is_harmless(self, event: str, args: tuple[Any, ...]) -> bool:
        if event.startswith(_NEVER):
            return _importing() or (event == "ctypes.dlopen" and args == (None,))  # itself
        if event in ("exec", "compile"):
            return _importing() or _made_by_libraries()
        if self.is_users:  # may name any file
            return True
        if event == "open":
            if not isinstance(args[0], str | bytes | os.PathLike):
                return True
            writes = bool((args[2] or 0) & _WRITES)
            return self._is_inside(args[0], writes) or (not writes and _importing())
        if event in _CHANGES:
            names = [a for a in args if isinstance(a, str | bytes | os.PathLike)]
            return all(self._is_inside(name, writes=True) for name in names)
        if event in _READS:
            return (
                not args
                or args[0] is None
                or isinstance(args[0], int)
                or (self._is_inside(args[0], writes=False) or _importing())
            )
        return True

    def _is_inside(self, name: Any, writes: bool) -> bool:
        path = Path(os.path.abspath(os.fsdecode(name)))  # noqa: PTH100 - the name may be a link
        place = os.path.join(os.path.realpath(path.parent), path.name)  # noqa: PTH118
        folders = self.writes if writes else (*self.reads, *self.writes, *self.libraries)
        return any(place == f or place.startswith(f.rstrip("/") + "/") for f in folders)


def _frames() -> Iterator[FrameType]:
    frame = sys._getframe(1)
    while frame is not None:
        yield frame
        frame = frame.f_back  # type: ignore[assignment]


def _importing() -> bool:
    return any(f.f_code.co_filename.startswith("<frozen importlib") for f in _frames())


def _made_by_libraries() -> bool:
    """Whether dataclasses, named tuples or the like make functions of source of their own."""
    makers = (
        "dataclasses.py", "collections/__init__.py", "typing.py", "ast.py", "functools.py",
        "jinja2/environment.py",
    )  # fmt: skip
    return any(f.f_code.co_filename.endswith(makers) for f in _frames())


class Lines:
    """The lines of some modules that were run."""

    def __init__(self, files: list[str]) -> None:
        self.files = set(files)
        self.hit: set[tuple[str, int]] = set()

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        return self._line if frame.f_code.co_filename in self.files else None

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event == "line":
            self.hit.add((frame.f_code.co_filename, frame.f_lineno))
        return self._line


def serve() -> None:
    """Answer each line of JSON with one."""
    import torch

    from tests.fuzzing.flips import READERS
    from tests.fuzzing.targets import TARGETS
    from tests.fuzzing.traps import TRAPS

    targets = {**TARGETS, **READERS, "traps": TRAPS}
    torch.set_num_threads(1)
    for name in sys.argv[1:]:
        targets[name].warm()
    watch = Watch()
    child: tuple[int, int, int] | None = None
    print(json.dumps("ready"), flush=True)
    for line in sys.stdin:
        if child is None:
            child = _fork(watch, targets)
        pid, send, receive = child
        os.write(send, line.encode())
        seconds = json.loads(line)["seconds"]
        answer = _answer(receive, seconds)
        if answer is None:
            child = None
            os.close(send)
            os.close(receive)
            answer = _ended(pid, seconds)
        print(answer, flush=True)
    if child is not None:
        os.close(child[1])
        os.waitpid(child[0], 0)


def _answer(receive: int, seconds: float) -> str | None:
    """Return a child's answer; None if it hangs or has ended."""
    answer, end = b"", time.monotonic() + seconds
    while select.select([receive], [], [], max(0, end - time.monotonic()))[0]:
        part = os.read(receive, 1 << 20)
        if not part:
            return None
        answer += part
        if answer.endswith(b"\n"):
            return answer.decode().rstrip("\n")
    return None


def _ended(pid: int, seconds: float) -> str:
    finished, status = os.waitpid(pid, os.WNOHANG)
    for _ in range(50):
        if finished:
            break
        time.sleep(0.02)
        finished, status = os.waitpid(pid, os.WNOHANG)
    if not finished:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        return json.dumps({"outcome": "hangs", "seconds": seconds})
    how = os.waitstatus_to_exitcode(status)
    what = signal.Signals(-how).name if how < 0 else f"exit {how}"
    return json.dumps({"outcome": "crashes", "message": what})


def _fork(watch: Watch, targets: dict[str, Any]) -> tuple[int, int, int]:
    read_order, send = os.pipe()
    receive, answer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(send)
        os.close(receive)
        with contextlib.suppress(BaseException):
            _work(watch, targets, read_order, answer)
        os._exit(0)
    os.close(read_order)
    os.close(answer)
    return pid, send, receive


def _work(watch: Watch, targets: dict[str, Any], orders: int, answers: int) -> None:
    """Read inputs until there are no more."""
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + _MORE_MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with os.fdopen(orders) as lines:
        for line in lines:
            order = json.loads(line)
            report = _attempt(watch, targets[order["target"]], order)
            os.write(answers, json.dumps(report).encode() + b"\n")


def _attempt(watch: Watch, target: Any, order: dict[str, Any]) -> dict[str, Any]:
    folder = Path(order["folder"])
    words = tuple(order["words"])
    os.chdir(folder)
    starts = False
    if order["starts"]:
        with contextlib.suppress(BaseException):
            starts = target.starts(folder, words) is not False
    lines = Lines(order["lines"])
    before = _memory(reset=True)
    cache = os.environ.get("FEATKIT_CACHE", os.devnull)
    watch.reads = (str(folder),)
    watch.writes = (cache, os.environ["TMPDIR"], *(str(folder / place) for place in target.output))
    events: list[str] = []
    begun = time.process_time()
    watch.found = events
    watch.is_users = target.kind == "command line"
    if order["lines"]:
        sys.settrace(lines)
    report = _outcome(target, folder, words)
    sys.settrace(None)
    watch.found = None
    return report | {
        "seconds": time.process_time() - begun,
        "megabytes": (_memory() - before) / 1024,
        "events": events,
        "starts": starts,
        "lines": sorted(lines.hit),
    }


def _outcome(target: Any, folder: Path, words: tuple[str, ...]) -> dict[str, Any]:
    from featkit.errors import FeatkitError

    try:
        answer = target.read(folder, words)
    except FeatkitError as error:
        message = str(error)
        is_line = message.isprintable() and 0 < len(message) < 2500
        place = {} if is_line else {"place": _place(error)}
        return {"outcome": "refused" if is_line else "unreadable", "message": message} | place
    except BaseException as error:  # noqa: BLE001 - it is what is looked for
        message = f"{type(error).__name__}: {error}"[:300]
        return {"outcome": "raises", "message": message, "place": _place(error)}
    return {"outcome": "accepted", "answer": json.dumps(answer, default=str)}


def _place(error: BaseException) -> str:
    """Name the last line of featkit that an error came through."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/featkit" in f.filename and "/tests/" not in f.filename]
    last = (own or list(frames))[-1]
    return f"{'/'.join(Path(last.filename).parts[-3:])}:{last.lineno} {last.name}"


def _memory(reset: bool = False) -> int:
    """Return the largest memory so far, in kB, after setting it back to what is used now."""
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    text = Path("/proc/self/status").read_text()
    return int(next(x for x in text.splitlines() if x.startswith("VmHWM")).split()[1])


class Server:
    """The process, from outside.

    Args:
        names: The targets that it will be asked about.
        lines: Whether it tells which lines were run.
    """

    def __init__(self, names: list[str], lines: bool = False) -> None:
        from tests.fuzzing.flips import READERS
        from tests.fuzzing.targets import TARGETS
        from tests.fuzzing.traps import TRAPS

        self.targets = {**TARGETS, **READERS, "traps": TRAPS}
        self.lines = lines
        self.root = tempfile.TemporaryDirectory(prefix="fuzz-")
        (Path(self.root.name) / "tmp").mkdir()
        root, before = str(Path(__file__).parents[2]), filter(None, [os.environ.get("PYTHONPATH")])
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzzing.server", *names],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={
                **os.environ, "OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore",
                "HF_HUB_OFFLINE": "1", "TMPDIR": f"{self.root.name}/tmp",
                "PYTHONPATH": os.pathsep.join([root, f"{root}/cli", *before]),
                "FEATKIT_CACHE": f"{self.root.name}/cache",
            },
        )  # fmt: skip
        self._line()

    def _line(self) -> Any:
        assert self.process.stdout is not None
        return json.loads(self.process.stdout.readline())

    def folder(self, name: str) -> Path:
        """Return the folder of a target, laid out."""
        folder = Path(self.root.name).resolve() / name.replace(" ", "-") / "in"
        if not folder.exists():
            folder.mkdir(parents=True)
            (folder.parent / "outside").mkdir()
            self.targets[name].lay_out(folder)
            if self.targets[name].is_fresh:
                shutil.copytree(folder, folder.with_name("sound"))
        return folder

    def read(
        self, name: str, case: Any, starts: bool = False, seconds: float = SECONDS
    ) -> dict[str, Any]:
        """Read one input; the folder is as it was before, afterwards."""
        target, folder = self.targets[name], self.folder(name)
        before = {
            file: path.read_bytes() if (path := folder / file).is_file() else None
            for file in case.files
        }
        case.write(folder)
        order = {
            "target": name, "folder": str(folder), "words": list(case.words), "starts": starts,
            "lines": target.files() if self.lines else [], "seconds": seconds,
        }  # fmt: skip
        outside = sorted((folder.parent / "outside").iterdir())
        for path in outside:
            os.utime(path, (1, 2))  # so that the next time it is read is noted
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order) + "\n")
        self.process.stdin.flush()
        report: dict[str, Any] = self._line()
        touched = [f"reads {path.name}" for path in outside if path.stat().st_atime != 1]
        words = map(os.path.expanduser, case.words)
        asked = [Path(word) for word in words if word.startswith("/")]
        named = [repr(str(place)) for path in asked for place in (path, path.parent)]
        events = [e for e in report.get("events", []) if not any(word in e for word in named)]
        report["events"] = events + touched
        for link in case.links:
            (folder / link).unlink(missing_ok=True)
        if target.is_fresh:
            shutil.rmtree(folder)
            shutil.copytree(folder.with_name("sound"), folder)
        else:
            replace(case, files=before, links={}).write(folder)
        return report

    def close(self) -> None:
        """End the process and delete its files."""
        self.process.communicate(timeout=30)
        self.root.cleanup()


def is_finding(report: dict[str, Any], megabytes: int, slow: float = SLOW) -> str:
    """Return what is wrong with an outcome; empty for one that is as it should be."""
    outcome = report["outcome"]
    if outcome in ("crashes", "hangs"):
        return f"{outcome} {report.get('message', '')}".strip()
    if outcome in ("raises", "unreadable"):
        return f"{report['message'].partition(':')[0]} at {report.get('place', '')}"
    if report["events"]:
        return f"touches what it may not: {report['events'][0]}"
    if report["seconds"] > slow:
        return f"slow: {report['seconds']:.1f} s"
    if report["megabytes"] > megabytes:
        return f"memory: {report['megabytes']:.0f} MB"
    return ""


if __name__ == "__main__":
    serve()
