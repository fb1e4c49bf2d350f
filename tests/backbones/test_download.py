"""Downloads from a server on this machine that breaks in every way servers break."""

import contextlib
import errno
import hashlib
import http.server
import json
import re
import signal
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import dataclass, field

import numpy as np
import pytest

import featkit.backbones.download as module
from featkit.backbones.download import download
from featkit.errors import DownloadError, UsageError

BODY = np.random.default_rng(0).bytes(300_000)
OTHER = np.random.default_rng(1).bytes(300_000)
SHA256 = hashlib.sha256(BODY).hexdigest()
HALF = len(BODY) // 2


@dataclass
class Answer:
    """What the server does with one request."""

    body: bytes = BODY
    status: int = 200
    ranges: bool = True
    if_range: bool = True
    cut: int | None = None
    wait: threading.Event | None = None
    announce: int | None = None
    chunked: bool = False
    headers: dict[str, str | None] = field(default_factory=dict)

    def __call__(self, handler):
        etag = self.headers.get("ETag", '"v1"')
        asked = re.fullmatch(r"bytes=(\d+)-", handler.headers.get("Range", ""))
        same = handler.headers.get("If-Range") == etag or not self.if_range
        start = int(asked[1]) if asked and same and self.ranges and self.status == 200 else 0
        rest = self.body[start:] if self.cut is None else self.body[start : max(start, self.cut)]
        status, headers = self.status, {"ETag": etag, "Content-Type": "application/octet-stream"}
        if start >= len(self.body) > 0:
            status, headers["Content-Range"] = 416, f"bytes */{len(self.body)}"
        elif start:
            status = 206
            headers["Content-Range"] = f"bytes {start}-{len(self.body) - 1}/{len(self.body)}"
        if self.chunked:
            headers["Transfer-Encoding"] = "chunked"
        else:
            headers["Content-Length"] = str(self.announce or len(self.body) - start)
        handler.send_response(status)
        for name, value in (headers | self.headers).items():
            if value is not None:
                handler.send_header(name, value)
        handler.end_headers()
        if self.chunked:
            handler.wfile.write(b"%x\r\n%b\r\n" % (len(rest), rest))
            handler.wfile.write(b"0\r\n\r\n" if self.cut is None else b"")
        else:
            handler.wfile.write(rest)
        if self.wait:
            self.wait.wait(20)
        handler.close_connection = True


class Server:
    """Gives its answers one after the other, the last one again and again."""

    def __init__(self):
        self.answers, self.seen = [Answer()], []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.seen.append(dict(self.headers))
                answer = outer.answers[0] if len(outer.answers) == 1 else outer.answers.pop(0)
                with contextlib.suppress(ConnectionError):
                    answer(self)

            def log_message(self, *_):
                pass

        self.http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/net.pth"
        self.thread = threading.Thread(target=self.http.serve_forever, args=(0.02,))
        self.thread.start()

    @property
    def ranges(self):
        """The ranges that were asked for; None where all was."""
        return [headers.get("Range") for headers in self.seen]

    def stop(self):
        if self.thread.is_alive():
            self.http.shutdown()
            self.thread.join()
            self.http.server_close()


@pytest.fixture
def server(monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(module, "PAUSES", (0, 0))
    server = Server()
    yield server
    server.stop()


@pytest.fixture
def target(tmp_path):
    return tmp_path / "cache" / "net.pth"


def part_of(target):
    return target.with_name("net.pth.part")


def leftovers(target):
    """What lies beside the target, the lock aside."""
    names = {path.name for path in target.parent.iterdir()} - {target.name, ".net.pth.lock"}
    return sorted(names)


def fails(server, target, pattern, *arguments, **options):
    """Download, expect one line that begins with the address, and nothing at the target."""
    with pytest.raises(DownloadError) as caught:
        download(server.url, target, *arguments, **options)
    message = str(caught.value)
    assert message.startswith(f"{server.url}: ")
    assert "\n" not in message
    assert re.search(pattern, message), message
    assert not target.exists()


def test_a_file_comes_whole_and_once(server, target):
    for _ in range(2):
        assert download(server.url, target, SHA256.upper(), timeout=5) == target
        assert target.read_bytes() == BODY
    assert server.ranges == [None]
    assert server.seen[0]["User-Agent"] == "featkit"
    assert leftovers(target) == []


@pytest.mark.parametrize("sha256", [SHA256[:8], SHA256[:20], SHA256])
def test_a_published_checksum_may_be_short(server, target, sha256):
    assert download(server.url, target, sha256).read_bytes() == BODY


@pytest.mark.parametrize("sha256", ["", "abcdef1", "xyzxyzxyz", SHA256 + "0"])
def test_what_is_no_checksum_is_refused(server, target, sha256):
    with pytest.raises(UsageError, match="give 8 to 64 hexadecimal digits"):
        download(server.url, target, sha256)
    assert server.seen == []


def test_another_file_is_deleted(server, target):
    server.answers = [Answer(OTHER)]
    wrong = hashlib.sha256(OTHER).hexdigest()[:10]
    pattern = f"begins with {wrong}, not with {SHA256[:10]}.*deleted; run again"
    fails(server, target, pattern, SHA256[:10])
    assert leftovers(target) == []


@pytest.mark.parametrize("headers", [{}, {"ETag": None, "Last-Modified": "Mon, 01 Jan 2024"}])
@pytest.mark.parametrize("chunked", [False, True])
def test_a_broken_connection_is_taken_up_again(server, target, headers, chunked):
    server.answers = [
        Answer(cut=HALF, headers=headers, chunked=chunked),
        Answer(headers=headers, if_range=False),
    ]
    assert download(server.url, target).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"]
    assert server.seen[1]["If-Range"] == headers.get("Last-Modified", '"v1"')
    assert leftovers(target) == []


def test_a_later_call_goes_on_where_the_tries_ended(server, target):
    server.answers = [Answer(cut=100_000), Answer(cut=HALF), Answer(cut=HALF)]
    fails(server, target, r"stopped after 150,000 of 300,000 bytes; run again .* 150\.0 kB, or")
    assert server.ranges == [None, "bytes=100000-", "bytes=150000-"]
    assert part_of(target).read_bytes() == BODY[:HALF]
    server.answers = [Answer()]
    assert download(server.url, target, SHA256).read_bytes() == BODY
    assert server.ranges[3:] == [f"bytes={HALF}-"]
    assert leftovers(target) == []


def test_a_server_that_stalls_is_asked_again(server, target):
    freed = threading.Event()
    server.answers = [Answer(cut=HALF, wait=freed), Answer()]
    started = time.monotonic()
    assert download(server.url, target, timeout=0.3).read_bytes() == BODY
    assert 0.3 <= time.monotonic() - started < 5
    assert server.ranges == [None, f"bytes={HALF}-"]
    server.answers = [Answer(cut=HALF, wait=freed)]
    fails(server, target.with_name("b.pth"), "the connection broke .timed out.*", timeout=0.1)
    freed.set()


def test_a_server_that_never_answers(server, target):
    freed = threading.Event()
    server.answers = [lambda _: freed.wait(20)]
    fails(server, target, "no answer .timed out.; run again, or give a checkp", timeout=0.1)
    freed.set()
    assert len(server.seen) == 3
    assert leftovers(target) == []


@pytest.mark.parametrize(
    "second",
    [
        pytest.param(Answer(OTHER, headers={"ETag": '"v2"'}), id="as RFC 9110 says"),
        pytest.param(Answer(OTHER, headers={"ETag": '"v2"'}, if_range=False), id="heedless"),
        pytest.param(Answer(OTHER[:-1], headers={"ETag": None}, if_range=False), id="length"),
        pytest.param(Answer(OTHER[:HALF], headers={"ETag": '"v2"'}, if_range=False), id="short"),
        pytest.param(Answer(OTHER, ranges=False), id="no ranges"),
    ],
)
def test_a_file_that_changed_meanwhile_is_fetched_anew(server, target, second):
    server.answers = [Answer(cut=HALF), second]
    assert download(server.url, target).read_bytes() == second.body
    assert server.ranges[:2] == [None, f"bytes={HALF}-"]
    assert server.ranges[2:] in ([], [None])
    assert leftovers(target) == []


def test_a_range_from_elsewhere_is_not_appended(server, target):
    shifted = {"Content-Range": f"bytes {HALF - 9}-{len(BODY) - 10}/{len(BODY)}"}
    server.answers = [Answer(cut=HALF), Answer(headers=shifted), Answer()]
    assert download(server.url, target).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-", None]


@pytest.mark.parametrize("etag", [None, 'W/"v1"'])
def test_without_a_name_of_its_version_nothing_is_resumed(server, target, etag):
    server.answers = [Answer(cut=HALF, headers={"ETag": etag})]
    fails(server, target, "stopped after 150,000 of 300,000 bytes; run again, or give a")
    assert server.ranges == [None, None, None]
    assert leftovers(target) == []


@pytest.mark.parametrize("facts", ["", "[]", "{}", '{"url": "http://elsewhere/net.pth"}'])
def test_a_part_of_unknown_origin_is_not_used(server, target, facts):
    target.parent.mkdir()
    part_of(target).write_bytes(OTHER[:HALF])
    if facts:
        known = {"validator": '"v1"', "total": len(BODY)}
        facts = json.dumps(known | json.loads(facts)) if "url" in facts else facts
        target.with_name("net.pth.part.json").write_text(facts)
    assert download(server.url, target).read_bytes() == BODY
    assert server.ranges == [None]


def test_a_part_that_was_whole_already(server, target):
    server.answers = [Answer(cut=HALF)]
    fails(server, target, "run again")
    part_of(target).write_bytes(BODY)
    before = len(server.seen)
    assert download(server.url, target, SHA256).read_bytes() == BODY
    assert len(server.seen) == before


def test_a_part_that_is_too_long(server, target):
    server.answers = [Answer(cut=HALF)]
    fails(server, target, "run again")
    part_of(target).write_bytes(BODY + b"more")
    server.answers = [Answer()]
    assert download(server.url, target).read_bytes() == BODY
    assert server.ranges[3:] == [f"bytes={len(BODY) + 4}-", None]


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_refusal_is_not_asked_again(server, target, status):
    server.answers = [Answer(status=status)]
    reason = http.HTTPStatus(status).phrase
    fails(server, target, rf": the server answered {status} {reason}; give a checkpoint file inst")
    assert len(server.seen) == 1
    assert leftovers(target) == []


@pytest.mark.parametrize("status", [429, 500, 503])
def test_a_server_in_trouble_is_asked_again(server, target, status):
    server.answers = [Answer(status=status), Answer()]
    assert download(server.url, target).read_bytes() == BODY
    server.answers = [Answer(status=status)]
    fails(server, target.with_name("b.pth"), f"the server answered {status} .*; run again, or")
    assert len(server.seen) == 2 + 3


def test_a_refusal_keeps_what_has_come(server, target):
    server.answers = [Answer(cut=HALF), Answer(status=404)]
    fails(server, target, "404 Not Found; give a checkpoint file instead")
    assert part_of(target).read_bytes() == BODY[:HALF]


def test_more_announced_than_sent(server, target):
    server.answers = [Answer(announce=len(BODY) + 50)]
    fails(server, target, "stopped after 300,000 of 300,050 bytes")


def test_less_announced_than_sent(server, target):
    server.answers = [Answer(announce=HALF)]
    fails(server, target, "not the file that was published", SHA256)
    assert leftovers(target) == []


def test_more_sent_than_the_file_has(server, target):
    too_much = Answer(headers={"Content-Length": str(len(BODY))}, if_range=False)
    too_much.body = BODY + BODY
    too_much.headers["Content-Range"] = f"bytes {HALF}-{len(BODY) - 1}/{len(BODY)}"
    server.answers = [Answer(cut=HALF), too_much]
    fails(server, target, "sent more than 300,000 bytes")
    assert leftovers(target) == []


def test_bytes_without_end(server, target, monkeypatch):
    def endless(handler):
        handler.send_response(200)
        handler.send_header("ETag", "v1")
        handler.send_header("Transfer-Encoding", "chunked")
        handler.end_headers()
        while True:
            handler.wfile.write(b"4\r\nmore\r\n")

    monkeypatch.setattr(module, "LIMIT", 100_000)
    server.answers = [endless]
    fails(server, target, "sent more than 100,000 bytes")
    assert leftovers(target) == []


def test_an_end_that_cannot_be_told_from_a_break(server, target):
    server.answers = [Answer(headers={"Content-Length": None})]
    fails(server, target, "does not say how long the file is")
    assert download(server.url, target, SHA256).read_bytes() == BODY


@pytest.mark.parametrize(
    ("headers", "status", "reason"),
    [
        ({"Content-Type": "text/html; charset=utf-8"}, 200, "a web page, not with a file"),
        ({"Content-Range": "bytes 5-9/10"}, 206, "206 to a request for all"),
        ({}, 203, "203 to a request for all"),
        ({"Location": "file:///etc/passwd"}, 302, "file:///etc/passwd' is not allowed"),
        ({"Location": "ftp://127.0.0.1/net.pth"}, 301, "unknown url type: ftp"),
        ({"Location": "/net.pth"}, 302, "infinite loop"),
    ],
)
def test_answers_that_are_no_file(server, target, monkeypatch, headers, status, reason):
    monkeypatch.setenv("ftp_proxy", server.url)
    server.answers = [Answer(status=status, headers=headers)]
    fails(server, target, f"{reason}.*; give a checkpoint file instead")
    assert leftovers(target) == []


def test_a_redirect_is_followed(server, target):
    server.answers = [Answer(b"", 302, headers={"Location": "/elsewhere"}), Answer(cut=HALF)]
    server.answers += [Answer(b"", 302, headers={"Location": "/elsewhere"}), Answer()]
    assert download(server.url, target).read_bytes() == BODY
    assert server.ranges == [None, None, f"bytes={HALF}-", f"bytes={HALF}-"]


@pytest.mark.parametrize(
    "url", ["net.pth", "file:///etc/passwd", "http://", "http://h:x/", "http://[", "http://ü/ü"]
)
def test_what_is_no_address(url, target):
    with pytest.raises(DownloadError, match="; give a checkpoint file instead") as caught:
        download(url, target)
    assert str(caught.value).startswith(f"{url}: ")
    assert leftovers(target) == []


def test_no_server(server, target, monkeypatch):
    server.stop()
    waits = []
    monkeypatch.setattr(time, "sleep", waits.append)
    fails(server, target, r"no connection \(Connection refused\); run again, or give")
    assert waits == []


def test_a_lost_network_keeps_what_has_come(server, target, monkeypatch):
    server.answers = [Answer(cut=HALF)]
    waits = []
    monkeypatch.setattr(module, "PAUSES", (1, 2))
    monkeypatch.setattr(time, "sleep", lambda pause: (waits.append(pause), server.stop()))
    fails(server, target, r"no connection .*; run again to go on from 150\.0 kB, or give")
    assert waits == [1, 2]
    assert part_of(target).read_bytes() == BODY[:HALF]


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (errno.ENOSPC, "disk full .* free at .*; free some space and run again, it goes on"),
        (errno.EDQUOT, "disk full"),
        (errno.EROFS, "cannot write .*net.pth .Read-only file system.; choose a folder that"),
    ],
)
def test_a_disk_that_takes_no_more(server, target, monkeypatch, code, words):
    class Full:
        def update(self, _):
            raise OSError(code, "Read-only file system")

        def __enter__(self):
            return self

        def __exit__(self, *_):
            pass

    monkeypatch.setattr(module, "progress_bar", lambda *_, **__: Full())
    fails(server, target, words)
    assert part_of(target).stat().st_size > 0
    monkeypatch.undo()
    assert download(server.url, target).read_bytes() == BODY
    assert server.ranges[1].startswith("bytes=")


def test_a_folder_that_cannot_be(server, tmp_path):
    (tmp_path / "file").write_text("")
    fails(server, tmp_path / "file" / "net.pth", "cannot write .*; choose a folder")


def test_an_interrupt_leaves_the_part_and_lets_go_of_the_lock(server, target, monkeypatch):
    def interrupt(_):
        raise KeyboardInterrupt

    server.answers = [Answer(cut=HALF)]
    with monkeypatch.context() as patch:
        patch.setattr(time, "sleep", interrupt)
        with pytest.raises(KeyboardInterrupt):
            download(server.url, target)
    assert part_of(target).read_bytes() == BODY[:HALF]
    assert not target.exists()
    server.answers = [Answer()]
    assert download(server.url, target).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_progress_is_told_on_stderr_alone(server, target, capsys, monkeypatch):
    monkeypatch.setattr("featkit.progress.INTERVAL", 0)
    download(server.url, target)
    assert capsys.readouterr() == ("", "")
    download(server.url, target.with_name("b.pth"), progress=True)
    out, err = capsys.readouterr()
    assert out == ""
    assert re.match(r"b\.pth: .*B \(100%\), .*B/s, in 00:00$", err.splitlines()[-1])


def test_memory_is_bounded(server, target):
    import tracemalloc

    server.answers = [Answer(bytes(20_000_000))]
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        download(server.url, target, hashlib.sha256(server.answers[0].body).hexdigest())
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak - before < 4_000_000


SCRIPT = textwrap.dedent("""
    import signal, sys
    from pathlib import Path
    from featkit.backbones.download import download
    signal.signal(signal.SIGINT, signal.default_int_handler)  # background jobs ignore it
    print("ready", flush=True)
    download(sys.argv[1], Path(sys.argv[2]))
    print("done", flush=True)
""")


@contextlib.contextmanager
def another_process(server, target):
    """A process that is about to download."""
    command = [sys.executable, "-W", "error", "-c", SCRIPT, server.url, str(target)]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout.readline() == "ready\n"
            yield process
        finally:
            process.kill()


def until(condition):
    for _ in range(1000):
        if condition():
            return
        time.sleep(0.01)
    pytest.fail("it never came")


@pytest.mark.parametrize("by", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_process_is_taken_up_again(server, target, by):
    freed = threading.Event()
    server.answers = [Answer(cut=HALF, wait=freed), Answer()]
    part = part_of(target)
    with another_process(server, target) as process:
        until(lambda: part.exists() and part.stat().st_size >= HALF - 10_000)
        process.send_signal(by)
        process.wait(10)
    freed.set()
    assert not target.exists()
    came = part.stat().st_size
    assert HALF - 10_000 <= came <= HALF
    assert download(server.url, target, SHA256).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={came}-"]
    assert leftovers(target) == []


def test_two_processes_fetch_a_file_once(server, target):
    freed = threading.Event()

    def slowly(handler):
        freed.wait(20)
        Answer()(handler)

    server.answers = [slowly]
    with another_process(server, target) as first, another_process(server, target) as second:
        until(lambda: server.seen)
        time.sleep(0.3)
        assert first.poll() is second.poll() is None
        freed.set()
        for process in (first, second):
            assert process.communicate(timeout=10) == ("done\n", "")
    assert len(server.seen) == 1
    assert target.read_bytes() == BODY
