"""Commands whose stderr is a terminal, as a user's is."""

from __future__ import annotations

import os
import pty
import subprocess
import termios
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any


class OnTerminal(subprocess.Popen[bytes]):
    """A process; what it has written to its terminal is in ``said``."""

    def __init__(self, command: Sequence[str], own_stdin: bool = False, **options: Any) -> None:
        self._ours, theirs = pty.openpty()
        if own_stdin:  # typed by write()
            options["stdin"] = theirs
        termios.tcsetwinsize(theirs, (24, 100))
        self.said = b""
        super().__init__(command, stderr=theirs, **options)
        os.close(theirs)

    def write(self, text: str) -> None:
        """Type something."""
        os.write(self._ours, text.encode())

    def read(self) -> bool:
        """Read what comes next; False where the process has closed its terminal."""
        try:
            came = os.read(self._ours, 4096)
        except OSError:  # how Linux says that nobody holds the other end
            came = b""
        self.said += came
        return bool(came)

    def read_until(self, text: bytes) -> None:
        """Read until this was said.

        Raises:
            AssertionError: The process ended before.
        """
        while text not in self.said:
            assert self.read(), self.said

    def read_to_end(self) -> str:
        """Read all that is said, and wait for the end."""
        while self.read():
            pass
        self.wait()
        return self.said.decode()

    def close(self) -> None:
        """Let go of the terminal."""
        os.close(self._ours)


@contextmanager
def on_terminal(command: Sequence[str], **options: Any) -> Iterator[OnTerminal]:
    """Start a command; it is killed if the block fails."""
    process = OnTerminal(command, **options)
    try:
        yield process
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        process.close()
