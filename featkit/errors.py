"""The errors that featkit raises on purpose.

Each message is one line: what was given, what was wanted, what to do. The command line prints it
and ends with the error's ``exit_status``.
"""

from __future__ import annotations

_LONGEST = 2400
"""Characters of a message."""


class FeatkitError(Exception):
    """Base of every error that featkit raises on purpose.

    Args:
        message: What was given, what was wanted, what to do. Names in it may come from anywhere:
            what cannot be printed on one line becomes spaces; what is too long loses its middle.
    """

    exit_status = 1

    def __init__(self, message: str) -> None:
        if len(message) > _LONGEST:
            message = f"{message[: _LONGEST // 2]} … {message[-_LONGEST // 2 :]}"
        super().__init__(printable(message))


class UsageError(FeatkitError, ValueError):
    """A value, name or combination that cannot be used as given."""

    exit_status = 2


class SourceError(UsageError):
    """An image source that does not exist or cannot be understood."""


class BackboneError(UsageError):
    """A backbone, tap or checkpoint that does not exist or cannot be used."""


class CheckpointError(BackboneError):
    """A checkpoint file that is damaged, unknown, or does not fill the network."""


class DownloadError(FeatkitError):
    """Weights that could not be fetched."""


class SelectorError(UsageError):
    """A store or table selector that matches nothing, or too much."""


class MissingExtraError(FeatkitError):
    """An optional package is needed and not installed."""


class DecodeError(FeatkitError):
    """One image that could not be read."""


class StoreError(FeatkitError):
    """A store or table that cannot be read or written."""


class ConflictError(StoreError):
    """A table of this name exists and was made from something else."""


class DamagedError(StoreError):
    """A file whose bytes are not the ones that were written."""


class DiskFullError(StoreError):
    """The disk is full, or too small for what was asked."""


def printable(text: str) -> str:
    """Return a text with spaces for what would break a line or steer a terminal.

    Example:
        >>> printable(chr(27) + "[2Jname" + chr(10))
        ' [2Jname '
    """
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


def one_line(text: object, most: int = 600) -> str:
    """Return what came from a file as it may be printed.

    Args:
        text: An error, or a name that anyone may have chosen.
        most: Characters that are kept.

    Returns:
        Printable characters on one line; an error without a message gives its class.

    Example:
        >>> one_line("a name" + chr(10) + "of two lines")
        'a name of two lines'
        >>> one_line("x" * 100, most=5)
        'xxxx…'
    """
    plain = " ".join(printable(str(text)[: 10 * most]).split()) or type(text).__name__
    return plain if len(plain) <= most else f"{plain[: most - 1]}…"
