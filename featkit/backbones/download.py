"""One file from the web: whole or absent, and a broken download goes on where it ended."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from email.message import Message
from http.client import HTTPException, HTTPResponse, InvalidURL
from pathlib import Path
from urllib.error import HTTPError, URLError

import filelock

from featkit.errors import DownloadError, UsageError
from featkit.progress import progress_bar
from featkit.store.files import free_bytes, size_text, sync_folder

TIMEOUT = 30.0
"""Seconds without a byte after which a server has stalled."""

PAUSES = (1.0, 2.0, 4.0)
"""Seconds to wait before each further try."""

BLOCK = 2**20
"""Bytes held in memory."""

LIMIT = 20 * 10**9
"""Bytes after which a file whose length was not announced counts as endless."""

_PASSING = {408, 425, 429}
"""Refusals that may be granted a little later, like those from 500 on."""

_WEB = {"http", "https"}

_RANGE = re.compile(r"bytes (\d+)-\d+/(\d+|\*)")


def download(
    url: str,
    target: Path,
    sha256: str | None = None,
    progress: bool = False,
    *,
    timeout: float = TIMEOUT,
) -> Path:
    """Fetch a file unless it is there.

    What has come lies in ``TARGET.part`` until the file is whole; a later call goes on from there
    if the server still has the same file. Of several processes that want the same file one
    fetches it, and the others wait.

    Args:
        url: Its address, http or https; so are those that it may be redirected to.
        target: The file that appears, by atomic rename.
        sha256: The published checksum, or the first 8 or more of its hexadecimal digits.
        progress: Whether to draw a bar on stderr.
        timeout: Seconds without a byte after which the server has stalled.

    Returns:
        ``target``.

    Raises:
        DownloadError: It could not be fetched or written, or is not the file that was published.
        UsageError: ``sha256`` is not one.
    """
    if sha256 is not None and not re.fullmatch("[0-9a-fA-F]{8,64}", sha256):
        raise UsageError(f"sha256 {sha256!r}: give 8 to 64 hexadecimal digits")
    with _explain_disk_errors(url, target):
        if target.is_file():
            return target
        target.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(target.with_name(f".{target.name}.lock")):
            if not target.is_file():
                part = _Part(url, target)
                _fetch(part, timeout, progress, checked=sha256 is not None)
                if sha256 is not None:
                    _check(part, sha256.lower())
                part.finish()
    return target


@contextmanager
def _explain_disk_errors(url: str, target: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DownloadError(
                f"{url}: disk full ({size_text(free_bytes(target.parent))} free at "
                f"{target.parent}); free some space and run again, it goes on from there"
            ) from error
        raise DownloadError(
            f"{url}: cannot write {target} ({error.strerror or error}); choose a folder that you "
            f"may write to"
        ) from error


@dataclass(frozen=True)
class _Facts:
    """What the server said when a download began.

    Attributes:
        url: What it was asked for.
        validator: Names this version of the file; None if the server does not name versions.
        total: Bytes of the file; None if it was not said.
    """

    url: str
    validator: str | None
    total: int | None


class _Part:
    """A file that is not whole yet, and what was said of it."""

    def __init__(self, url: str, target: Path) -> None:
        self.target = target
        self.path = target.with_name(f"{target.name}.part")
        self._facts_file = target.with_name(f"{target.name}.part.json")
        try:
            facts = _Facts(**json.loads(self._facts_file.read_bytes()))
        except (FileNotFoundError, ValueError, TypeError):
            facts = None
        self.facts = facts if facts and facts.url == url else _Facts(url, None, None)

    @property
    def size(self) -> int:
        """Bytes to go on from: none unless the server can be asked for the same version."""
        return self.path.stat().st_size if self.facts.validator and self.path.exists() else 0

    @property
    def whole(self) -> bool:
        """Whether all that was announced has come."""
        return 0 < self.size == self.facts.total

    def begin(self, validator: str | None, total: int | None) -> None:
        """Start with nothing."""
        self.drop()
        self.facts = _Facts(self.facts.url, validator, total)
        self._facts_file.write_text(json.dumps(asdict(self.facts)))

    def drop(self) -> None:
        """Forget what has come."""
        self.path.unlink(missing_ok=True)
        self._facts_file.unlink(missing_ok=True)

    def finish(self) -> None:
        """Let the target appear."""
        with self.path.open("r+b") as file:
            os.fsync(file.fileno())
        self.path.replace(self.target)
        self._facts_file.unlink(missing_ok=True)
        sync_folder(self.target.parent)


class _BrokenError(Exception):
    """A try that failed; ``again`` says whether another one is worth a wait."""

    def __init__(self, reason: str, again: bool = True) -> None:
        super().__init__(" ".join(reason.split()))
        self.again = again


class _RefusedError(_BrokenError):
    """A try that will always fail."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, again=False)


def _fetch(part: _Part, timeout: float, progress: bool, checked: bool) -> None:
    for pause in (*PAUSES, None):
        if part.whole:
            return
        try:
            with _answer(part, timeout) as response:
                total = _place(part, response, checked)
                _receive(part, response, total, progress)
        except _BrokenError as error:
            if error.again and pause is not None:
                time.sleep(pause)
                continue
            raise DownloadError(f"{part.facts.url}: {error}; {_advice(part, error)}") from error
        return


def _advice(part: _Part, error: _BrokenError) -> str:
    instead = "give a checkpoint file instead"
    if not part.size:
        part.drop()
    if isinstance(error, _RefusedError):
        return instead
    return f"run again{f' to go on from {size_text(part.size)}' * bool(part.size)}, or {instead}"


def _answer(part: _Part, timeout: float) -> HTTPResponse:
    """Ask for what is missing, or for all of it if the server now has something else."""
    response = _ask(part, timeout)
    if response.status != 200 and part.size and not _continues(part, response):
        response.close()
        part.drop()
        response = _ask(part, timeout)
    refused = ""
    if response.status not in (200, 206) or (response.status == 206 and not part.size):
        refused = f"the server answered {response.status} to a request for all of the file"
    elif response.headers.get_content_type() == "text/html":
        refused = "the server answered with a web page, not with a file"
    if refused:
        response.close()
        raise _RefusedError(refused)
    return response


def _ask(part: _Part, timeout: float) -> HTTPResponse:
    have = part.size
    headers = {"User-Agent": "featkit"}
    if have:
        headers |= {"Range": f"bytes={have}-", "If-Range": part.facts.validator or ""}
    try:
        request = urllib.request.Request(part.facts.url, headers=headers)  # noqa: S310
        response: HTTPResponse = _web_only().open(request, timeout=timeout)
    except HTTPError as error:
        error.close()
        if error.code == 416 and have:
            part.drop()
            return _ask(part, timeout)
        reason = f"the server answered {error.code} {error.reason}"
        if error.code >= 500 or error.code in _PASSING:
            raise _BrokenError(reason) from error
        raise _RefusedError(reason) from error
    except URLError as error:
        if isinstance(error.reason, str):
            raise _RefusedError(error.reason) from error
        raise _BrokenError(f"no connection ({_said(error.reason)})", again=have > 0) from error
    except (InvalidURL, ValueError) as error:
        raise _RefusedError(f"not a web address ({error})") from error
    except (HTTPException, OSError) as error:
        raise _BrokenError(f"no answer ({_said(error)})") from error
    return response


def _web_only() -> urllib.request.OpenerDirector:
    """Build an opener that knows neither files nor FTP, not even when a server leads there."""
    proxies = urllib.request.getproxies()
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler({kind: proxies[kind] for kind in proxies.keys() & _WEB}),
        urllib.request.UnknownHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPRedirectHandler(),
        urllib.request.HTTPErrorProcessor(),
    ):
        opener.add_handler(handler)
    return opener


def _said(error: object) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _validator(headers: Message) -> str | None:
    """Return what names a version to the byte; weak tags do not."""
    tag = headers["ETag"]
    if tag and not tag.startswith("W/"):
        return str(tag)
    return headers["Last-Modified"]


def _continues(part: _Part, response: HTTPResponse) -> bool:
    """Whether an answer holds the bytes that follow the part's, of the same version."""
    found = _RANGE.fullmatch(response.headers["Content-Range"] or "")
    if response.status != 206 or found is None:
        return False
    start, total = found.groups()
    return (
        int(start) == part.size
        and (total == "*" or part.facts.total in (None, int(total)))
        and _validator(response.headers) in (None, part.facts.validator)
    )


def _place(part: _Part, response: HTTPResponse, checked: bool) -> int | None:
    """Begin the part, or go on with it; return the bytes of the whole file, if known."""
    if response.status == 206:
        total = response.headers["Content-Range"].rpartition("/")[2]
        return part.facts.total if total == "*" else int(total)
    length: int | None = response.length
    if length is None and not checked and "Transfer-Encoding" not in response.headers:
        raise _RefusedError("the server does not say how long the file is")
    part.begin(_validator(response.headers), length)
    return length


def _receive(part: _Part, response: HTTPResponse, total: int | None, progress: bool) -> None:
    limit = LIMIT if total is None else total
    with (
        part.path.open("ab") as file,
        progress_bar(total, part.target.name, "B", show=progress, initial=file.tell()) as bar,
    ):
        while file.tell() <= limit and (block := _read(response)):
            file.write(block)
            bar.update(len(block))
        came = file.tell()
    if came > limit:
        part.drop()
        raise _RefusedError(f"the server sent more than {limit:,} bytes, the most there should be")
    if total is not None and came < total:
        raise _BrokenError(f"the server stopped after {came:,} of {total:,} bytes")


def _read(response: HTTPResponse) -> bytes:
    try:
        return response.read1(BLOCK)
    except (HTTPException, OSError) as error:
        raise _BrokenError(f"the connection broke ({_said(error)})") from error


def _check(part: _Part, sha256: str) -> None:
    with part.path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(sha256):
        part.drop()
        raise DownloadError(
            f"{part.facts.url}: not the file that was published (its sha256 begins with "
            f"{digest[: len(sha256)]}, not with {sha256}), so it was deleted; run again, or give "
            f"a checkpoint file instead"
        )
