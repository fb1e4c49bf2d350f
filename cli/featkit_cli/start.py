"""Where the ``featkit`` command begins: with how it is stopped while it is being read."""

from __future__ import annotations

import os
import signal


def _leave(number: int, _frame: object) -> None:
    os.write(2, b"featkit: stopped\n")
    os._exit(128 + number)


for _number in (signal.SIGINT, signal.SIGTERM):
    if signal.getsignal(_number) is not signal.SIG_IGN:
        signal.signal(_number, _leave)

from featkit_cli.main import main  # noqa: E402 - this is what takes its time

__all__ = ["main"]
